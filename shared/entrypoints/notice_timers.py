"""The timer that sends notices."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import azure.functions as func

from shared.domain.pipeline import Evidence
from shared.services.notifying import ChannelRound
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

PIPELINE: Final = "notifying"


@dataclass(frozen=True, slots=True)
class NoticeParts:
    """What the timer needs: a round, and where firings are noted."""

    send: Callable[[], Mapping[str, ChannelRound]]
    runs: TimedRuns


def notice_timers(parts: Callable[[], NoticeParts]) -> func.Blueprint:
    """`send_notices`, each minute.

    Args:
        parts: Called at each firing, so that the app is built at its first use and not at import.
    """
    timers = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    @timers.function_name("send_notices")
    @timers.timer_trigger(arg_name="timer", schedule="20 * * * * *")
    def send_notices(timer: func.TimerRequest) -> None:
        send(timer, parts())

    return timers


def send(timer: func.TimerRequest, parts: NoticeParts) -> None:
    """Send what waits. A failure is raised: the host shows it, and the next minute goes on from there.

    Raises:
        Transient: The database cannot be reached now.
        BrokenInvariant: The schema or a right is missing.
    """

    def work() -> Evidence:
        rounds = {name: done for name, done in parts.send().items() if any(asdict(done).values())}
        for name, done in rounds.items():
            _log.info(with_fields("notices", channel=name, **asdict(done), past_due=timer.past_due))
        return {kind: sum(getattr(done, kind) for done in rounds.values()) for kind in ("sent", "put_off", "failed")}

    parts.runs.sample(PIPELINE, work)
