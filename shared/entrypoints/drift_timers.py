"""The timer that watches for drift, as a blueprint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import azure.functions as func

from shared.domain.instants import US_PER_HOUR
from shared.domain.pipeline import Evidence
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

PIPELINE: Final = "drift"


@dataclass(frozen=True, slots=True)
class DriftWatchParts:
    """What the timer needs: the use case, and where firings are noted."""

    check: Callable[[], Evidence]
    runs: TimedRuns


def drift_timers(parts: Callable[[], DriftWatchParts]) -> func.Blueprint:
    """`check_drift`, by `DRIFT_SCHEDULE`.

    Args:
        parts: Called at each firing, so that the app is built at its first use and not at import.
    """
    timers = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    @timers.function_name("check_drift")
    @timers.timer_trigger(arg_name="timer", schedule="%DRIFT_SCHEDULE%")
    def check_drift(timer: func.TimerRequest) -> None:
        check(timer, parts())

    return timers


def check(timer: func.TimerRequest, parts: DriftWatchParts) -> None:
    """Watch the hours that are over. A failure is raised: the host shows it, and the next firing makes up for it.

    Raises:
        Transient: A store cannot be reached now.
        BrokenInvariant: The champion's bundle, the schema or a right is broken.
    """
    found = parts.runs.run(PIPELINE, US_PER_HOUR, parts.check)
    _log.info(with_fields("drift checked", **found, past_due=timer.past_due))
