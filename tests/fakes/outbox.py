"""Outbox and stream in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shared.domain.errors import TollgateError
from shared.domain.event import OutgoingEvent
from shared.domain.ledger import OutboxEntry


@dataclass
class FakeOutbox:
    """Entries in a list; `fault_at_removal` is raised once, after sending."""

    entries: list[OutboxEntry] = field(default_factory=list)
    fault_at_removal: TollgateError | None = None

    def drain(self, limit: int, send: Callable[[Sequence[OutboxEntry]], None]) -> int:
        oldest = self.entries[:limit]
        if not oldest:
            return 0
        send(oldest)
        if self.fault_at_removal is not None:
            fault, self.fault_at_removal = self.fault_at_removal, None
            raise fault
        del self.entries[: len(oldest)]
        return len(oldest)


@dataclass
class FakePublisher:
    """What was sent; `fault` is raised once, after half of the events were accepted."""

    sent: list[OutgoingEvent] = field(default_factory=list)
    fault: TollgateError | None = None

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        if self.fault is not None:
            fault, self.fault = self.fault, None
            self.sent += events[: len(events) // 2]
            raise fault
        self.sent += events
