"""The timers that train, as a blueprint: once a day, and when something says so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import azure.functions as func

from shared.domain.errors import TollgateError
from shared.services.retraining import Retraining
from shared.services.retraining_trial import Trial
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetrainParts:
    """What a firing needs; each opens connections of its own, because two timers may fire at once.

    Attributes:
        retraining: Decides whether to train.
        trial: Ends the trial of a challenger; None where challengers are not tried.
    """

    retraining: Callable[[], AbstractContextManager[Retraining]]
    trial: Callable[[], AbstractContextManager[Trial]] | None


def retrain_timers(parts: Callable[[], RetrainParts]) -> func.Blueprint:
    """`train_daily` and `answer_triggers`.

    Args:
        parts: Called at each firing, so that the app is built at its first use and not at import.
    """
    timers = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    @timers.function_name("train_daily")
    @timers.timer_trigger(arg_name="timer", schedule="%DAILY_TRAINING_SCHEDULE%")
    def train_daily(timer: func.TimerRequest) -> None:
        daily(timer, parts())

    @timers.function_name("answer_triggers")
    @timers.timer_trigger(arg_name="timer", schedule="%TRIGGER_POLL_SCHEDULE%")
    def answer_triggers(timer: func.TimerRequest) -> None:
        poll(timer, parts())

    return timers


def daily(timer: func.TimerRequest, parts: RetrainParts) -> None:
    """Train if the day is due. A failure is raised: the host shows it, and the trigger is answered by a later poll.

    Raises:
        Transient: A store cannot be reached now, or the run was taken over or took too long.
        BrokenInvariant: The schema or a right is missing, or the forms of the model differ.
    """
    with parts.retraining() as retraining:
        outcome = retraining.daily()
    _log.info(with_fields("day of training", outcome=outcome, past_due=timer.past_due))


def poll(timer: func.TimerRequest, parts: RetrainParts) -> None:
    """End the trial of a challenger if its time has come, then answer the most urgent trigger. Raises as `daily`.

    A trial that cannot be looked at is raised after triggers were: else one bad row would keep the app from training.
    """
    settled, fault = "", None
    if parts.trial is not None:
        try:
            with parts.trial() as trial:
                settled = trial.settle()
        except TollgateError as error:
            _log.warning("a trial cannot be looked at now", exc_info=True)
            fault = error
    with parts.retraining() as retraining:
        outcome = retraining.poll()
    if settled or outcome:
        _log.info(with_fields("triggers looked at", trial=settled, outcome=outcome, past_due=timer.past_due))
    if fault is not None:
        raise fault
