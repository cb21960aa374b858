"""The timers that check what arrives and what decisions were worth, as a blueprint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import azure.functions as func

from shared.domain.pipeline import Evidence
from shared.services import performance_check, quality_check
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QualityParts:
    """What the timers need: the use cases, and where firings are noted."""

    check: Callable[[], Evidence]
    measure: Callable[[], Evidence]
    runs: TimedRuns


def quality_timers(parts: Callable[[], QualityParts]) -> func.Blueprint:
    """`check_quality`, hourly, and `measure_performance`, daily.

    Args:
        parts: Called at each firing, so that the app is built at its first use and not at import.
    """
    timers = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    # A few minutes into the hour, so that the hour before has settled, and before drift is looked for.
    @timers.function_name("check_quality")
    @timers.timer_trigger(arg_name="timer", schedule="0 4 * * * *")
    def check_quality(timer: func.TimerRequest) -> None:
        check(timer, parts())

    @timers.function_name("measure_performance")
    @timers.timer_trigger(arg_name="timer", schedule="0 23 3 * * *")
    def measure_performance(timer: func.TimerRequest) -> None:
        measure(timer, parts())

    return timers


def check(timer: func.TimerRequest, parts: QualityParts) -> None:
    """Check the windows that are over. A failure is raised: the host shows it, and the next hour makes up for it.

    Raises:
        Transient: The database cannot be reached now.
        BrokenInvariant: The schema or a right is missing.
    """
    found = parts.runs.run(quality_check.PIPELINE, quality_check.EVERY_US, parts.check)
    _log.info(with_fields("data quality checked", **found, past_due=timer.past_due))


def measure(timer: func.TimerRequest, parts: QualityParts) -> None:
    """Measure the windows that are mature. A failure is raised: the host shows it, and the next day makes up for it.

    Raises:
        Transient: The database cannot be reached now.
        BrokenInvariant: The schema or a right is missing.
    """
    found = parts.runs.run(performance_check.PIPELINE, performance_check.EVERY_US, parts.measure)
    _log.info(with_fields("performance measured", **found, past_due=timer.past_due))
