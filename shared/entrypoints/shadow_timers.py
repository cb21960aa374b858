"""The timer of models that are tried, as a blueprint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import azure.functions as func

from shared.domain.pipeline import Evidence
from shared.services import shadowing
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShadowParts:
    """What the timer needs.

    Attributes:
        reconcile: Finishes changes of roles that were left half-done; returns how many states were written.
        score: Lets tried models score what was decided.
        runs: Where firings are noted.
    """

    reconcile: Callable[[], int]
    score: Callable[[], Evidence]
    runs: TimedRuns


def shadow_timers(parts: Callable[[], ShadowParts]) -> func.Blueprint:
    """`score_shadows`, every minute.

    Args:
        parts: Called at each firing, so that the app is built at its first use and not at import.
    """
    timers = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    # Half a minute after others that fire every minute.
    @timers.function_name("score_shadows")
    @timers.timer_trigger(arg_name="timer", schedule="30 * * * * *")
    def score_shadows(timer: func.TimerRequest) -> None:
        score(timer, parts())

    return timers


def score(timer: func.TimerRequest, parts: ShadowParts) -> None:
    """Finish changes of roles, then score. A failure is raised: the host shows it, and the next minute goes on.

    Raises:
        Transient: The database or the store cannot be reached now.
        BrokenInvariant: The schema or a right is missing, or pointers contradict the account.
    """

    def work() -> Evidence:
        return {"reconciled": parts.reconcile(), **parts.score()}

    found = parts.runs.sample(shadowing.PIPELINE, work)
    _log.info(with_fields("tried models scored", **found, past_due=timer.past_due))
