"""The timer that lets decisions out to their hub."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from typing import Final

import azure.functions as func

from shared.domain.decision_record import DecisionRecord
from shared.domain.pipeline import Evidence
from shared.entrypoints.wire_decision import decision_body, encode
from shared.ports.ledger import EventPublisher, Outbox
from shared.services.publishing import publish_decisions
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

DECISION_TYPE = "tollgate.decision"
"""The `type` field of a decision on its hub."""

PIPELINE: Final = "publishing"

LONGEST_S: Final = 55.0
"""How long a firing goes on at most, seconds; the host ends it after 5 minutes, and who stops an app waits for it."""

_EVERY_SECONDS: Final = re.compile(r"\*/(\d{1,2})( \*){5}")


@dataclass(frozen=True, slots=True)
class OutboxParts:
    """What decisions leave through.

    Attributes:
        outbox: Where they wait.
        publisher: Where they go.
        longest_s: How long a firing goes on while more keeps coming, seconds.
    """

    outbox: Outbox
    publisher: EventPublisher
    longest_s: float = LONGEST_S


def longest_s(schedule: str) -> float:
    """How long a firing may go on, seconds: until half a second before the next one, `LONGEST_S` at most.

    A timer does not fire while it runs, so a firing that takes longer does no harm but to the schedule.

    >>> longest_s("*/5 * * * * *"), longest_s("0 * * * * *")
    (4.5, 55.0)
    """
    every = _EVERY_SECONDS.fullmatch(schedule.strip())
    return LONGEST_S if every is None else min(LONGEST_S, max(0.5, int(every[1]) - 0.5))


def publish(timer: func.TimerRequest, parts: OutboxParts, runs: TimedRuns) -> None:
    """Send what waits. A failure is raised: the host shows it, and the next run goes on from there.

    Raises:
        Transient: Outbox or hub cannot be reached now.
        BrokenInvariant: A stored decision cannot be read, or the hub refuses for good.
    """

    def work() -> Evidence:
        stop_s = time.monotonic() + parts.longest_s
        sent = publish_decisions(parts.outbox, parts.publisher, render, is_over=lambda: time.monotonic() >= stop_s)
        if sent:
            _log.info(with_fields("decisions published", sent=sent, past_due=timer.past_due))
        return {"rows": sent}

    runs.sample(PIPELINE, work)


def render(record: DecisionRecord) -> bytes:
    """A decision as an event: what a caller over HTTP is answered, with a type and the customer's surrogate."""
    head = encode({"type": DECISION_TYPE, "customer": record.customer})
    return head.removesuffix(b"}") + b"," + decision_body(record).removeprefix(b"{")
