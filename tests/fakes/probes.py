"""Fakes of the ports around probes; they pass the same contract tests as the real adapters."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.domain.errors import TollgateError
from shared.domain.event import DeadLetter
from shared.domain.probe import ProbeReceipt


@dataclass
class FakeClock:
    """A clock that stands still until it is moved."""

    time_us: int = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self.time_us


@dataclass
class FakeProbeReceipts:
    """Receipts in memory; `fault` is raised instead of doing anything."""

    kept: dict[str, ProbeReceipt] = field(default_factory=dict)
    fault: TollgateError | None = None

    def record(self, receipt: ProbeReceipt) -> bool:
        self._fail()
        return self.kept.setdefault(receipt.probe.probe_id, receipt) is receipt

    def find(self, probe_id: str) -> ProbeReceipt | None:
        self._fail()
        return self.kept.get(probe_id)

    def expire(self, before_us: int) -> int:
        self._fail()
        old = [key for key, receipt in self.kept.items() if receipt.received_at_us < before_us]
        for key in old:
            del self.kept[key]
        return len(old)

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


@dataclass
class FakeDeadLetters:
    """Dead letters in memory, one per event."""

    kept: dict[tuple[str, str, int, int], DeadLetter] = field(default_factory=dict)
    fault: TollgateError | None = None

    def put(self, letter: DeadLetter) -> None:
        if self.fault is not None:
            raise self.fault
        event = letter.event
        self.kept[(event.hub, event.partition, event.enqueued_at_us, event.sequence_number)] = letter


@dataclass
class FakeDependency:
    """Something an app depends on; `fault` says what is wrong with it."""

    name: str = "something"
    fault: TollgateError | None = None

    def check(self) -> None:
        if self.fault is not None:
            raise self.fault
