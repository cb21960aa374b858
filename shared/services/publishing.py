"""The use case that lets decisions out: from the outbox to a stream, at least once, in order per customer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from shared.domain.decision_record import DecisionRecord, read_decision
from shared.domain.event import OutgoingEvent
from shared.domain.ledger import OutboxEntry
from shared.ports.ledger import EventPublisher, Outbox

BATCH: Final = 500
"""Entries per drain: at about 1.5 KB each a batch stays below the 1 MB that one send may carry."""


def publish_decisions(
    outbox: Outbox,
    publisher: EventPublisher,
    render: Callable[[DecisionRecord], bytes],
    *,
    batch: int = BATCH,
    is_over: Callable[[], bool] = lambda: False,
) -> int:
    """Send what waits in the outbox, batch by batch, until it is empty.

    Events carry the customer's surrogate as their key, so a stream that keeps the order of a key keeps the customer's.

    Args:
        outbox: Where decisions wait.
        publisher: Where they go.
        render: The body of a decision's event.
        batch: Entries per drain.
        is_over: Asked after each batch whether to stop although more waits, so that one run ends even while decisions
            keep coming; the next one goes on from there.

    Returns:
        How many left.

    Raises:
        Transient: The outbox or the stream cannot be reached; what had not left waits on.
        BrokenInvariant: A stored decision cannot be read.
    """

    def send(entries: Sequence[OutboxEntry]) -> None:
        records = [read_decision(entry.record) for entry in entries]
        publisher.publish([OutgoingEvent(record.customer, render(record)) for record in records])

    sent = 0
    while True:
        drained = outbox.drain(batch, send)
        sent += drained
        if drained < batch or is_over():
            return sent
