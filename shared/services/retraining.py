"""When to retrain: once a day and when something says so, never twice at a time, and not too often.

Every reason to retrain is a trigger: drift opens them, people do, and so does the daily timer. A poll answers the most
urgent one. One process at a time does so, under a lease that it renews; a process that dies leaves a lease that runs
out, and whoever takes it then marks the dead run as failed, gives its trigger back and answers it. A training looks at
everything that is known, so it answers all triggers that were open when it began.

What was not done is noted with its reason: a day on which no timer fired, a wait for the cooldown or for new
transactions (record 0023), a day on which a training ran already. Each reason is noted once, however often it is met.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from shared.domain.errors import Conflict, InvalidInput, NotFound
from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, format_instant
from shared.domain.labels import MATURITY_US
from shared.domain.pipeline import (
    Cause,
    Evidence,
    Notice,
    OpenTrigger,
    Priority,
    Run,
    RunStatus,
    Severity,
    Trigger,
    error_words,
    slot_of,
)
from shared.ports.clock import Clock
from shared.ports.pipelines import Leases, Notices, PipelineLog, Triggers
from shared.ports.training_data import TrainingData
from shared.services.retraining_lease import HeldLease, held

_log = logging.getLogger(__name__)

PIPELINE: Final = "retrain"
DAILY: Final = "retrain daily"
"""The pipeline of the timer's days; each day is one of its runs, whatever came of it."""

LEASE: Final = "retrain"
TRAINED_UNTIL: Final = "trained_until_us"
"""Detail of a run that is done: the end of its data, microseconds since 1970 UTC."""

MAX_FAILURES: Final = 3
"""Runs that may fail for one trigger: what kills a process three times would kill the fourth too."""

RETRY_US: Final = 10 * US_PER_MINUTE
"""How long a failed run is not repeated, times the number of failures."""

MAX_MISSED_DAYS: Final = 31

_REMEMBERED_RUNS: Final = 50


@dataclass(frozen=True, slots=True)
class RetrainingRules:
    """When a training may begin.

    Attributes:
        cooldown_us: After the last finished training, microseconds (record 0023: 48 hours).
        min_new: Transactions that must have matured since its data (record 0023: 10,000).
        maturity_us: How old a transaction must be to be learnt from, microseconds.
        lease_us: How long a process that died blocks others, microseconds.
    """

    cooldown_us: int = 48 * US_PER_HOUR
    min_new: int = 10_000
    maturity_us: int = MATURITY_US
    lease_us: int = 2 * US_PER_MINUTE


@dataclass(frozen=True, slots=True)
class RetrainingOutcome:
    """What came of a training.

    Attributes:
        summary: For people, such as `refused: recall floor`.
        trained_until_us: The end of the data that it used, microseconds since 1970 UTC.
        details: For the run log.
    """

    summary: str
    trained_until_us: int
    details: Evidence


class _Wait(NamedTuple):
    """Why nothing is done yet.

    Attributes:
        key: The same for the same reason, whatever the figures.
        why: For people.
    """

    key: str
    why: str


type Work = Callable[[str, int, HeldLease], RetrainingOutcome]
"""Trains, judges and hands over: told the run's id, now, and the lease to check between steps."""


@dataclass(frozen=True, slots=True)
class RetrainingStores:
    """What a retraining keeps, each for one thread at a time.

    Attributes:
        log: Runs.
        triggers: Reasons.
        leases: Used by the thread that renews, and by no other while a training runs.
        notices: What people are told.
        data: History.
    """

    log: PipelineLog
    triggers: Triggers
    leases: Leases
    notices: Notices
    data: TrainingData


class Retraining:
    """Decides whether to train, and keeps account of it."""

    def __init__(
        self, stores: RetrainingStores, clock: Clock, rules: RetrainingRules, process: str, work: Work
    ) -> None:
        """Prepare.

        Args:
            stores: What is kept.
            clock: Says what day it is.
            rules: When a training may begin.
            process: Tells this process from others.
            work: Does the training.
        """
        self._stores = stores
        self._clock = clock
        self._rules = rules
        self._process = process
        self._work = work

    def daily(self) -> str:
        """Open the day's trigger, unless it is too early, and answer what is open; idempotent within a day.

        Returns:
            What came of it, for the log.

        Raises:
            TollgateError: As `poll`.
        """
        now_us = self._clock.now_us()
        day_us = now_us // US_PER_DAY * US_PER_DAY
        log = self._stores.log
        self._note_missed(day_us)
        if log.find(slot_of(DAILY, day_us)) is not None:
            return self.poll()
        due = Trigger(Cause.SCHEDULE, "", Priority.LOW, {"day_us": day_us}, now_us)
        waits = self._overlaps(now_us) or self._waits(due, now_us)
        why = waits.why if waits else ""
        if not why:
            self._stores.triggers.open(due)
        status = RunStatus.SKIPPED if why else RunStatus.DONE
        log.begin(Run(slot_of(DAILY, day_us), DAILY, status, now_us, now_us, why))
        return why or self.poll()

    def poll(self) -> str:
        """Answer the most urgent trigger, if there is one and it may be answered now.

        Returns:
            What came of it, for the log; empty if there was nothing to do.

        Raises:
            TollgateError: Training failed; it is noted, and tried again until `MAX_FAILURES`.
        """
        stores, now_us = self._stores, self._clock.now_us()
        if not stores.triggers.unfinished() and not stores.log.recent(PIPELINE, 1, RunStatus.RUNNING):
            return ""
        run_id = f"{slot_of(PIPELINE, now_us)}/{self._process}"
        lease = held(stores.leases, LEASE, run_id, self._clock, self._rules.lease_us)
        if lease is None:
            return "a training runs"
        with lease:
            self._take_over(now_us)
            return self._answer(run_id, now_us, lease)

    def _answer(self, run_id: str, now_us: int, lease: HeldLease) -> str:
        """With the lease: claim the most urgent trigger and train."""
        stores = self._stores
        unfinished = stores.triggers.unfinished()
        if not unfinished:
            return ""
        first = unfinished[0]
        if waits := self._waits(first.trigger, now_us) or self._recovers(first, now_us):
            self._skip(first, waits, now_us)
            return waits.why
        claimed = stores.triggers.claim(run_id, now_us)
        if claimed is None:
            return ""
        run = Run(run_id, PIPELINE, RunStatus.RUNNING, now_us, details=_about(claimed))
        stores.log.begin(run)
        try:
            outcome = self._work(run_id, now_us, lease)
            lease.check()
        except Exception as error:
            if isinstance(error, InvalidInput) and not isinstance(error, Conflict | NotFound):
                return self._without_history(run, claimed, error)
            self._failed(run, claimed, error)
            raise
        ended_us = self._clock.now_us()
        details = {**outcome.details, TRAINED_UNTIL: outcome.trained_until_us, "outcome": outcome.summary}
        stores.log.end(run_id, RunStatus.DONE, ended_us, "", details)
        # A more urgent one may have been opened, and claimed, since they were looked at.
        for number in sorted({claimed.trigger_id, *(kept.trigger_id for kept in unfinished)}):
            stores.triggers.close(number, done=True, outcome=f"{outcome.summary} ({run_id})", now_us=ended_us)
        return outcome.summary

    def _take_over(self, now_us: int) -> None:
        """With the lease: what others left running is dead, for whoever runs holds the lease."""
        stores = self._stores
        for run in stores.log.recent(PIPELINE, _REMEMBERED_RUNS, RunStatus.RUNNING):
            stores.log.end(run.run_id, RunStatus.FAILED, now_us, "its process is gone, or has lost the lease", {})
            _log.warning("a training that died is marked as failed", extra={"run_id": run.run_id})
        for kept in stores.triggers.unfinished():
            if not kept.claimed_by:
                continue
            if self._failures(kept.trigger_id) >= MAX_FAILURES:
                self._dismiss(kept, f"gave up after {MAX_FAILURES} failed runs")
            else:
                stores.triggers.reopen(kept.trigger_id)

    def _overlaps(self, now_us: int) -> _Wait | None:
        """The training that runs now; a poll that only looks holds the lease too, for a moment."""
        holder = self._stores.leases.holder(LEASE, now_us)
        runs = {run.run_id for run in self._stores.log.recent(PIPELINE, _REMEMBERED_RUNS, RunStatus.RUNNING)}
        return _Wait(f"overlaps {holder}", f"overlaps with {holder}") if holder in runs else None

    def _waits(self, trigger: Trigger, now_us: int) -> _Wait | None:
        """Why a training may not begin yet; None if it may."""
        last = next(iter(self._stores.log.recent(PIPELINE, 1, RunStatus.DONE)), None)
        if trigger.priority is Priority.IMMEDIATE:
            return self._repeats(trigger, last, now_us)
        since_us = 0
        if last is not None:
            until_us = (last.ended_at_us or last.started_at_us) + self._rules.cooldown_us
            if now_us < until_us:
                return _Wait(f"cooldown {until_us}", f"cooldown until {format_instant(until_us)} after {last.run_id}")
            since_us = _whole(last.details.get(TRAINED_UNTIL), 0)
        found = self._stores.data.count(since_us, now_us - self._rules.maturity_us + 1, self._rules.min_new)
        if found < self._rules.min_new:
            since = f" since {format_instant(since_us)}" if since_us else ""
            return _Wait(
                f"new transactions {since_us}", f"{found} of {self._rules.min_new} new mature transactions{since}"
            )
        return None

    def _repeats(self, trigger: Trigger, last: Run | None, now_us: int) -> _Wait | None:
        """Why an immediate trigger waits all the same: its like was answered, and no day has matured since.

        The watch opens one each hour as long as recall is low. Training on the same days again would give the same
        model, and a verdict, a page and a notice of it each hour. A person may ask again whenever they like.
        """
        if last is None or trigger.cause is Cause.PERSON or last.details.get("cause") != trigger.cause.value:
            return None
        matured_us = (now_us - self._rules.maturity_us) // US_PER_DAY * US_PER_DAY
        if _whole(last.details.get(TRAINED_UNTIL), 0) < matured_us:
            return None
        return _Wait(f"answered {matured_us}", f"answered by {last.run_id}; no day has matured since")

    def _recovers(self, kept: OpenTrigger, now_us: int) -> _Wait | None:
        """Why a run that failed is not repeated yet; None if it may be."""
        failed = self._failed_runs(kept.trigger_id)
        until_us = (failed[0].ended_at_us or now_us) + RETRY_US * len(failed) if failed else now_us
        if now_us >= until_us:
            return None
        return _Wait(f"failed {until_us}", f"failed, tried again from {format_instant(until_us)} on")

    def _failed_runs(self, trigger_id: int) -> list[Run]:
        runs = self._stores.log.recent(PIPELINE, _REMEMBERED_RUNS, RunStatus.FAILED)
        return [run for run in runs if run.details.get("trigger") == trigger_id]

    def _failures(self, trigger_id: int) -> int:
        return len(self._failed_runs(trigger_id))

    def _failed(self, run: Run, claimed: OpenTrigger, error: Exception) -> None:
        """Note a failed run; its trigger waits for the next one, unless there were too many."""
        words = error_words(error)
        self._stores.log.end(run.run_id, RunStatus.FAILED, self._clock.now_us(), words, {})
        mine = any(
            kept.trigger_id == claimed.trigger_id and kept.claimed_by == run.run_id
            for kept in self._stores.triggers.unfinished()
        )
        if not mine:  # the lease was lost, and who has it now answers the trigger
            return
        if self._failures(claimed.trigger_id) >= MAX_FAILURES:
            self._dismiss(claimed, f"gave up after {MAX_FAILURES} failed runs: {words}")
        else:
            self._stores.triggers.reopen(claimed.trigger_id)

    def _without_history(self, run: Run, claimed: OpenTrigger, error: InvalidInput) -> str:
        """Note that history does not do: there is too little of it, and another try would find the same."""
        words = error_words(error)
        self._stores.log.end(run.run_id, RunStatus.SKIPPED, self._clock.now_us(), words, {})
        self._dismiss(claimed, f"no training: {words}")
        return words

    def _dismiss(self, kept: OpenTrigger, outcome: str) -> None:
        """Tell people of a trigger that leads to nothing, and close it: in this order, or who dies leaves it untold."""
        now_us = self._clock.now_us()
        self._stores.notices.put(
            Notice(
                f"retrain/trigger/{kept.trigger_id}",
                Severity.WARNING,
                f"No retraining for {kept.trigger.cause}",
                {"trigger": kept.trigger_id, "outcome": outcome},
                "",
                now_us,
            )
        )
        self._stores.triggers.close(kept.trigger_id, done=False, outcome=outcome, now_us=now_us)

    def _skip(self, kept: OpenTrigger, waits: _Wait, now_us: int) -> None:
        """Note why a trigger waits: once for each reason, so that a poll every minute does not fill the log."""
        run_id = f"{PIPELINE}/trigger {kept.trigger_id}/{waits.key}"
        self._stores.log.begin(Run(run_id, PIPELINE, RunStatus.SKIPPED, now_us, now_us, waits.why, _about(kept)))

    def _note_missed(self, day_us: int) -> None:
        """Note the days since the last one on which the timer did not fire."""
        last = next(iter(self._stores.log.recent(DAILY, 1)), None)
        if last is None:
            return
        first_us = max(last.started_at_us // US_PER_DAY + 1, day_us // US_PER_DAY - MAX_MISSED_DAYS) * US_PER_DAY
        for missed_us in range(first_us, day_us, US_PER_DAY):
            run_id = slot_of(DAILY, missed_us)
            self._stores.log.begin(
                Run(run_id, DAILY, RunStatus.SKIPPED, missed_us, missed_us, "missed: the timer did not fire that day")
            )


def _about(kept: OpenTrigger) -> Evidence:
    trigger = kept.trigger
    return {
        "trigger": kept.trigger_id,
        "cause": trigger.cause.value,
        "subject": trigger.subject,
        "priority": trigger.priority.name.lower(),
    }


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
