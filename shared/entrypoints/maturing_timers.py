"""The timer that turns silence into labels, as a blueprint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import azure.functions as func

from shared.domain.pipeline import Evidence
from shared.services import maturing
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MaturingParts:
    """What the timer needs: the use case, and where its firings are noted."""

    mature: Callable[[], Evidence]
    runs: TimedRuns


def maturing_timers(parts: Callable[[], MaturingParts]) -> func.Blueprint:
    """`mature_labels`, hourly.

    Args:
        parts: Called at each firing, so that the app is built at its first use and not at import.
    """
    timers = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    @timers.function_name("mature_labels")
    @timers.timer_trigger(arg_name="timer", schedule="0 7 * * * *")
    def mature_labels(timer: func.TimerRequest) -> None:
        mature(timer, parts())

    return timers


def mature(timer: func.TimerRequest, parts: MaturingParts) -> None:
    """Record labels for silence. A failure is raised: the host shows it, and the next hour makes up for it.

    Raises:
        Transient: The database cannot be reached now.
        BrokenInvariant: The schema or a right is missing.
    """
    found = parts.runs.run(maturing.PIPELINE, maturing.EVERY_US, parts.mature)
    _log.info(with_fields("silence became labels", **found, past_due=timer.past_due))
