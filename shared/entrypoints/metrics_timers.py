"""The timer that tells metrics, and adds up the counts of processes that are gone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import azure.functions as func

from shared.domain.pipeline import Evidence
from shared.services.readings import Watching
from shared.services.telling import Telling
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

PIPELINE: Final = "metrics"


@dataclass(frozen=True, slots=True)
class MetricsParts:
    """What metrics are told with.

    Attributes:
        watching: Reads them.
        telling: Tells a service of them; None where none is configured.
        runs: Notes the timer's firings.
    """

    watching: Watching
    telling: Telling | None
    runs: TimedRuns


def metrics_timers(parts: Callable[[], MetricsParts]) -> func.Blueprint:
    """`tell_metrics`, every minute.

    Args:
        parts: Called by each firing, so that the app is built at its first use and not at import.
    """
    timers = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    @timers.function_name("tell_metrics")
    @timers.timer_trigger(arg_name="timer", schedule="15 * * * * *")
    def tell_metrics(timer: func.TimerRequest) -> None:
        tell(timer, parts())

    return timers


def tell(timer: func.TimerRequest, parts: MetricsParts) -> None:
    """Tell what is new. A failure is raised: the host shows it, and the next minute tells the rest.

    Raises:
        Transient: The database or the service cannot be reached now.
    """

    def work() -> Evidence:
        folded = parts.watching.fold()
        counters, readings = parts.telling.tell() if parts.telling is not None else (0, 0)
        if folded:
            _log.info(with_fields("counts added up", writers=folded, past_due=timer.past_due))
        return {"folded": folded, "counters": counters, "readings": readings}

    parts.runs.sample(PIPELINE, work)
