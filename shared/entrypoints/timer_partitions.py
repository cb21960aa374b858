"""The timer that makes time partitions ahead of the event times that need them."""

from __future__ import annotations

import logging

import azure.functions as func

from shared.ports.clock import Clock
from shared.ports.ledger import Partitions
from shared.services import partitioning
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)


def make(timer: func.TimerRequest, partitions: Partitions, clock: Clock) -> None:
    """Make what is missing. A failure is raised: the host shows it, and the next day makes up for it.

    Raises:
        Transient: The database cannot do it now.
        BrokenInvariant: The schema or a right is missing.
    """
    made = partitioning.keep_ahead(partitions, clock)
    _log.info(with_fields("partitions made", made=made, past_due=timer.past_due))
