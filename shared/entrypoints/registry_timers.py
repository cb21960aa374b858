"""The timer that brings records to the model registry, as a blueprint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import azure.functions as func

from shared.domain.pipeline import Evidence
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

PIPELINE: Final = "registry"


@dataclass(frozen=True, slots=True)
class RegistryTimerParts:
    """What the timer needs: the use case, and where its firings are noted."""

    write: Callable[[], Evidence]
    runs: TimedRuns


def registry_timers(parts: Callable[[], RegistryTimerParts | None]) -> func.Blueprint:
    """`write_registry`, every minute.

    Args:
        parts: Called at each firing, so that the app is built at its first use and not at import; None where there is
            no registry.
    """
    timers = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    # Apart from others that fire every minute.
    @timers.function_name("write_registry")
    @timers.timer_trigger(arg_name="timer", schedule="45 * * * * *")
    def write_registry(timer: func.TimerRequest) -> None:
        found = parts()
        if found is not None:
            write(timer, found)

    return timers


def write(timer: func.TimerRequest, parts: RegistryTimerParts) -> None:
    """Bring what waits. A registry that is down fails no firing: the records say why they wait.

    Raises:
        Transient: The database cannot be reached now.
        BrokenInvariant: The schema or a right is missing.
    """
    done = parts.runs.sample(PIPELINE, parts.write)
    if done["written"] or done["put_off"]:
        _log.info(with_fields("records brought to the registry", **done, past_due=timer.past_due))
