"""The timer that replays a sample of what was decided, as a blueprint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import azure.functions as func

from shared.domain.instants import US_PER_HOUR
from shared.domain.pipeline import Evidence
from shared.services.replay_sampling import PIPELINE, ReplaySampling
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplayParts:
    """What the timer needs.

    Attributes:
        sampling: What one firing works with; it gives back what it holds at its end.
        runs: Where firings are noted.
    """

    sampling: Callable[[], AbstractContextManager[ReplaySampling]]
    runs: TimedRuns


def replay_timers(parts: Callable[[], ReplayParts]) -> func.Blueprint:
    """`replay_sample`, every hour.

    Args:
        parts: Called at each firing, so that the app is built at its first use and not at import.
    """
    timers = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    # Well after the hour: what was recorded in it is committed by then, so that every firing finds the same.
    @timers.function_name("replay_sample")
    @timers.timer_trigger(arg_name="timer", schedule="0 12 * * * *")
    def replay_sample(timer: func.TimerRequest) -> None:
        replay(timer, parts())

    return timers


def replay(timer: func.TimerRequest, parts: ReplayParts) -> None:
    """Replay the sample of the hour that ended last. A failure is raised: the host shows it.

    Raises:
        Transient: The database or the store cannot be reached now.
        BrokenInvariant: The schema or a right is missing.
    """

    def work() -> Evidence:
        with parts.sampling() as sampling:
            return sampling.check()

    found = parts.runs.run(PIPELINE, US_PER_HOUR, work)
    _log.info(with_fields("a sample was replayed", **found, past_due=timer.past_due))
