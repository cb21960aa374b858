"""The timer that makes time partitions ahead of the event times that need them."""

from __future__ import annotations

import logging
from typing import Final

import azure.functions as func

from shared.domain.instants import US_PER_DAY
from shared.domain.pipeline import Evidence
from shared.ports.clock import Clock
from shared.ports.ledger import Partitions
from shared.services import partitioning
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

PIPELINE: Final = "partitions"


def make(timer: func.TimerRequest, partitions: Partitions, clock: Clock, runs: TimedRuns) -> None:
    """Make what is missing. A failure is raised: the host shows it, and the next day makes up for it.

    Raises:
        Transient: The database cannot do it now.
        BrokenInvariant: The schema or a right is missing.
    """

    def work() -> Evidence:
        made = partitioning.keep_ahead(partitions, clock)
        _log.info(with_fields("partitions made", made=made, past_due=timer.past_due))
        return {"made": made}

    runs.run(PIPELINE, US_PER_DAY, work)
