"""The timer that deletes what has expired, as a blueprint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import azure.functions as func

from shared.domain.pipeline import Evidence
from shared.services import expiring
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExpiryParts:
    """What the timer needs: the use case, and where its firings are noted."""

    expire: Callable[[], Evidence]
    runs: TimedRuns


def expiry_timers(parts: Callable[[], ExpiryParts]) -> func.Blueprint:
    """`expire_rows`, hourly.

    Args:
        parts: Called at each firing, so that the app is built at its first use and not at import.
    """
    timers = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    # Between the other timers of the hour, which all fire in its first half.
    @timers.function_name("expire_rows")
    @timers.timer_trigger(arg_name="timer", schedule="0 47 * * * *")
    def expire_rows(timer: func.TimerRequest) -> None:
        expire(timer, parts())

    return timers


def expire(timer: func.TimerRequest, parts: ExpiryParts) -> None:
    """Delete what has expired. A failure is raised: the host shows it, and the next hour makes up for it.

    Raises:
        Transient: The database cannot be reached now.
        BrokenInvariant: The schema or a right is missing.
    """
    found = parts.runs.run(expiring.PIPELINE, expiring.EVERY_US, parts.expire)
    _log.info(with_fields("expired rows deleted", **found, past_due=timer.past_due))
