"""The timer that lets decisions out to their hub."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import azure.functions as func

from shared.domain.decision_record import DecisionRecord
from shared.entrypoints.wire_decision import decision_document, encode
from shared.ports.ledger import EventPublisher, Outbox
from shared.services.publishing import publish_decisions
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

DECISION_TYPE = "tollgate.decision"
"""The `type` field of a decision on its hub."""


@dataclass(frozen=True, slots=True)
class OutboxParts:
    """What decisions leave through."""

    outbox: Outbox
    publisher: EventPublisher


def publish(timer: func.TimerRequest, parts: OutboxParts) -> None:
    """Send what waits. A failure is raised: the host shows it, and the next run goes on from there.

    Raises:
        Transient: Outbox or hub cannot be reached now.
        BrokenInvariant: A stored decision cannot be read, or the hub refuses for good.
    """
    sent = publish_decisions(parts.outbox, parts.publisher, render)
    if sent:
        _log.info(with_fields("decisions published", sent=sent, past_due=timer.past_due))


def render(record: DecisionRecord) -> bytes:
    """A decision as an event: what a caller over HTTP is answered, with a type and the customer's surrogate."""
    return encode({"type": DECISION_TYPE, "customer": record.customer, **decision_document(record)})
