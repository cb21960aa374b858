"""When to retrain: triggers and days, waits with their reasons, one at a time, and what dies is taken over."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest

from shared.domain.errors import InvalidInput, NotFound, TollgateError, Transient
from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE
from shared.domain.pipeline import Cause, Priority, Run, RunStatus, Trigger, slot_of
from shared.services.retraining import (
    DAILY,
    LEASE,
    MAX_FAILURES,
    PIPELINE,
    RETRY_US,
    TRAINED_UNTIL,
    Retraining,
    RetrainingOutcome,
    RetrainingRules,
    RetrainingStores,
)
from shared.services.retraining_lease import HeldLease
from tests.fakes.bundles import history
from tests.fakes.notices import FakeNotices
from tests.fakes.pipelines import FakeLeases, FakePipelineLog, FakeTriggers
from tests.fakes.probes import FakeClock
from tests.fakes.training_data import FakeTrainingData

RULES = RetrainingRules(min_new=1_000, maturity_us=7 * US_PER_DAY)
HIGH = Trigger(Cause.FEATURE_DRIFT, "amount", Priority.HIGH, {}, 5)
IMMEDIATE = Trigger(Cause.CONCEPT_DRIFT, "", Priority.IMMEDIATE, {}, 6)


@dataclass
class World:
    """A retrain app with one process, whose training does nothing."""

    log: FakePipelineLog = field(default_factory=FakePipelineLog)
    triggers: FakeTriggers = field(default_factory=FakeTriggers)
    leases: FakeLeases = field(default_factory=FakeLeases)
    notices: FakeNotices = field(default_factory=FakeNotices)
    data: FakeTrainingData = field(default_factory=lambda: FakeTrainingData(*history(4_000)))
    clock: FakeClock = field(default_factory=FakeClock)
    trained: list[str] = field(default_factory=list)
    fault: BaseException | None = None

    def __post_init__(self) -> None:
        self.clock.time_us = int(self.data.transactions.event_time_us.max()) + 8 * US_PER_DAY

    def work(self, run_id: str, now_us: int, lease: HeldLease) -> RetrainingOutcome:
        lease.check()
        self.trained.append(run_id)
        if self.fault is not None:
            raise self.fault
        return RetrainingOutcome("refused: recall floor", now_us - RULES.maturity_us, {"rows_read": 7})

    def app(self, process: str = "one") -> Retraining:
        stores = RetrainingStores(self.log, self.triggers, self.leases, self.notices, self.data)
        return Retraining(stores, self.clock, RULES, process, self.work)

    def runs(self, pipeline: str = PIPELINE) -> list[Run]:
        return list(reversed(self.log.recent(pipeline, 1000)))

    def outcomes(self) -> list[tuple[RunStatus, str]]:
        return [(run.status, run.error) for run in self.runs()]


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_happens_without_a_reason(world: World) -> None:
    assert world.app().poll() == ""
    assert not world.runs()
    assert not world.leases.held


def test_a_trigger_is_answered_once(world: World) -> None:
    number = world.triggers.open(HIGH)
    began_us = world.clock.time_us
    assert world.app().poll() == "refused: recall floor"
    assert world.app().poll() == ""
    (run,) = world.runs()
    assert run.run_id == f"{slot_of(PIPELINE, began_us)}/one" == world.trained[0]
    assert (run.status, run.started_at_us, run.error) == (RunStatus.DONE, began_us, "")
    assert run.details["rows_read"] == 7
    assert (run.details["trigger"], run.details["cause"], run.details["priority"]) == (number, "feature drift", "high")
    assert number is not None
    done, outcome, _ = world.triggers.closed[number]
    assert done
    assert outcome == f"refused: recall floor ({run.run_id})"
    assert not world.leases.held


def test_a_training_answers_everything_that_was_open_when_it_began(world: World) -> None:
    world.triggers.open(HIGH)
    world.triggers.open(IMMEDIATE)
    work = world.work

    def busy(run_id: str, now_us: int, lease: HeldLease) -> RetrainingOutcome:
        world.triggers.open(Trigger(Cause.PERSON, "", Priority.LOW, {}, 9))
        return work(run_id, now_us, lease)

    world.work = busy  # type: ignore[method-assign]  # the world's own stand-in for training
    world.app().poll()
    assert [kept.trigger.cause for kept in world.triggers.unfinished()] == [Cause.PERSON]
    assert len(world.triggers.closed) == 2


def test_the_cooldown_holds_and_says_so_once(world: World) -> None:
    world.triggers.open(HIGH)
    world.app().poll()
    ended_us = world.clock.time_us
    world.triggers.open(HIGH)
    for minutes in (1, 60, 47 * 60, 48 * 60 - 1):
        world.clock.time_us = ended_us + minutes * US_PER_MINUTE
        assert world.app().poll().startswith("cooldown until ")
    skipped = [run for run in world.runs() if run.status is RunStatus.SKIPPED]
    assert len(skipped) == 1
    assert skipped[0].error.startswith("cooldown until 20")
    assert len(world.trained) == 1
    assert len(world.triggers.unfinished()) == 1


def test_after_the_cooldown_new_mature_transactions_are_awaited(world: World) -> None:
    world.triggers.open(HIGH)
    world.app().poll()
    last_us = world.clock.time_us
    world.triggers.open(HIGH)
    world.clock.time_us = last_us + 48 * US_PER_HOUR
    why = world.app().poll()
    assert why.startswith("0 of 1000 new mature transactions since 20")
    more = world.data.transactions.event_time_us + 82 * US_PER_DAY
    world.data.transactions = type(world.data.transactions)(
        np.arange(4_000), more, *(world.data.transactions.amount_minor,) * 3
    )
    # From the end of the last training's data on a thousand must have matured.
    world.clock.time_us = int(np.sort(more)[998]) + RULES.maturity_us
    assert world.app().poll().startswith("999 of 1000")
    world.clock.time_us = int(np.sort(more)[999]) + RULES.maturity_us
    assert world.app().poll() == "refused: recall floor"


def test_an_immediate_trigger_waits_for_nothing(world: World) -> None:
    world.triggers.open(HIGH)
    world.app().poll()
    world.clock.time_us += 1
    world.triggers.open(HIGH)
    world.triggers.open(IMMEDIATE)
    assert world.app().poll() == "refused: recall floor"
    assert len(world.trained) == 2
    assert not world.triggers.unfinished()


def test_an_immediate_trigger_of_the_watch_is_answered_once_for_each_day_that_matures(world: World) -> None:
    world.triggers.open(IMMEDIATE)
    assert world.app().poll() == "refused: recall floor"
    until_us = world.runs()[0].details[TRAINED_UNTIL]
    assert isinstance(until_us, int)
    world.clock.time_us = (until_us // US_PER_DAY + 1) * US_PER_DAY + RULES.maturity_us - 1
    world.triggers.open(IMMEDIATE)
    for _ in range(2):
        assert world.app().poll().endswith("no day has matured since")
    assert len(world.trained) == 1
    world.clock.time_us += 1
    assert world.app().poll() == "refused: recall floor"
    assert len(world.trained) == 2


def test_a_person_may_ask_at_once_again(world: World) -> None:
    for number in (1, 2):
        world.triggers.open(Trigger(Cause.PERSON, "", Priority.IMMEDIATE, {}, 9))
        assert world.app().poll() == "refused: recall floor"
        assert len(world.trained) == number
        world.clock.time_us += 1


def test_the_day_opens_a_trigger_and_answers_it_once(world: World) -> None:
    assert world.app().daily() == "refused: recall floor"
    world.clock.time_us += 1
    assert world.app().daily() == ""
    assert len(world.trained) == 1
    (day,) = world.runs(DAILY)
    assert (day.status, day.run_id) == (
        RunStatus.DONE,
        slot_of(DAILY, world.clock.time_us // US_PER_DAY * US_PER_DAY),
    )
    assert [run.details["cause"] for run in world.runs()] == ["schedule"]


def test_a_day_that_waits_is_noted_with_its_reason_and_opens_nothing(world: World) -> None:
    world.app().daily()
    world.clock.time_us += US_PER_DAY
    assert world.app().daily().startswith("cooldown until")
    assert not world.triggers.unfinished()
    world.clock.time_us += US_PER_DAY
    assert world.app().daily().startswith("0 of 1000 new mature transactions")
    assert [run.status for run in world.runs(DAILY)] == [RunStatus.DONE, RunStatus.SKIPPED, RunStatus.SKIPPED]
    assert len(world.trained) == 1


def test_days_without_a_firing_are_noted_as_missed(world: World) -> None:
    world.app().daily()
    world.clock.time_us += 4 * US_PER_DAY
    world.app().daily()
    missed = [run for run in world.runs(DAILY) if run.error.startswith("missed")]
    assert len(missed) == 3
    assert len(world.runs(DAILY)) == 5
    world.clock.time_us += 400 * US_PER_DAY
    world.app().daily()
    assert len(world.runs(DAILY)) == 5 + 31 + 1


def test_a_day_on_which_a_training_runs_already_is_noted_as_overlapping(world: World) -> None:
    world.leases.acquire(LEASE, "retrain/5/other", world.clock.time_us, US_PER_HOUR)
    world.log.begin(Run("retrain/5/other", PIPELINE, RunStatus.RUNNING, world.clock.time_us))
    assert world.app().daily() == "overlaps with retrain/5/other"
    assert [run.error for run in world.runs(DAILY)] == ["overlaps with retrain/5/other"]
    assert not world.triggers.unfinished()


def test_a_day_is_not_lost_to_a_poll_that_only_looks(world: World) -> None:
    world.leases.acquire(LEASE, "retrain/5/other", world.clock.time_us, US_PER_HOUR)
    assert world.app().daily() == "a training runs"
    assert [run.status for run in world.runs(DAILY)] == [RunStatus.DONE]
    world.leases.release(LEASE, "retrain/5/other")
    assert world.app().poll() == "refused: recall floor"


def test_one_training_at_a_time(world: World) -> None:
    world.triggers.open(HIGH)
    world.leases.acquire(LEASE, "retrain/5/other", world.clock.time_us, US_PER_HOUR)
    assert world.app().poll() == "a training runs"
    assert not world.trained
    world.clock.time_us += US_PER_HOUR
    assert world.app().poll() == "refused: recall floor"


def test_what_died_is_marked_and_its_trigger_answered_by_the_next(world: World) -> None:
    number = world.triggers.open(HIGH)
    dead = f"{slot_of(PIPELINE, world.clock.time_us)}/dead"
    world.leases.acquire(LEASE, dead, world.clock.time_us, RULES.lease_us)
    world.triggers.claim(dead, world.clock.time_us)
    world.log.begin(Run(dead, PIPELINE, RunStatus.RUNNING, world.clock.time_us, details={"trigger": number or 0}))
    world.clock.time_us += RULES.lease_us - 1
    assert world.app("two").poll() == "a training runs"
    world.clock.time_us += 1
    assert world.app("two").poll().startswith("failed, tried again from")
    failed = world.log.find(dead)
    assert failed is not None
    assert (failed.status, failed.error) == (RunStatus.FAILED, "its process is gone, or has lost the lease")
    world.clock.time_us += RETRY_US
    assert world.app("two").poll() == "refused: recall floor"
    assert not world.triggers.unfinished()


def test_a_process_that_died_before_its_run_was_noted_leaves_no_claim_behind(world: World) -> None:
    world.triggers.open(HIGH)
    world.leases.acquire(LEASE, "retrain/5/dead", world.clock.time_us, RULES.lease_us)
    world.triggers.claim("retrain/5/dead", world.clock.time_us)
    world.clock.time_us += RULES.lease_us
    assert world.app().poll() == "refused: recall floor"


def test_what_fails_is_tried_again_later_and_given_up_in_the_end(world: World) -> None:
    number = world.triggers.open(IMMEDIATE)
    assert number is not None
    world.fault = Transient("the store cannot be reached")
    for attempt in range(1, MAX_FAILURES + 1):
        with pytest.raises(Transient):
            world.app().poll()
        assert len(world.trained) == attempt
        assert world.app().poll() == "" or attempt < MAX_FAILURES
        assert len(world.trained) == attempt, "not at once again"
        world.clock.time_us += attempt * RETRY_US
    assert world.triggers.closed[number] == (
        False,
        f"gave up after {MAX_FAILURES} failed runs: the store cannot be reached",
        world.clock.time_us - MAX_FAILURES * RETRY_US,
    )
    assert [notice.dedup_key for notice in world.notices.told] == [f"retrain/trigger/{number}"]
    assert world.app().poll() == ""


def test_a_process_that_is_killed_by_its_trigger_each_time_is_given_up(world: World) -> None:
    number = world.triggers.open(IMMEDIATE)
    assert number is not None
    for attempt in range(MAX_FAILURES):
        dead = f"retrain/{attempt}/dead"
        world.triggers.claim(dead, world.clock.time_us)
        world.log.begin(Run(dead, PIPELINE, RunStatus.RUNNING, world.clock.time_us, details={"trigger": number}))
        world.app().poll()
        world.clock.time_us += MAX_FAILURES * RETRY_US
    assert number in world.triggers.closed
    assert not world.trained


def test_a_trigger_is_given_up_only_once_people_are_told(world: World) -> None:
    number = world.triggers.open(IMMEDIATE)
    world.fault = InvalidInput("history", "must hold at least 10 frauds")
    world.notices.fault = Transient("the table of notices is away")
    with pytest.raises(Transient):
        world.app().poll()
    assert [kept.trigger_id for kept in world.triggers.unfinished()] == [number]
    world.app().poll()
    assert [notice.dedup_key for notice in world.notices.told] == [f"retrain/trigger/{number}"]
    assert number in world.triggers.closed


def test_too_little_history_is_a_reason_and_no_failure(world: World) -> None:
    number = world.triggers.open(IMMEDIATE)
    world.fault = InvalidInput("history", "must hold at least 10 frauds")
    assert world.app().poll() == "history must hold at least 10 frauds"
    assert world.outcomes() == [(RunStatus.SKIPPED, "history must hold at least 10 frauds")]
    assert number in world.triggers.closed
    assert world.app().poll() == ""


def test_a_champion_whose_bundle_is_gone_is_a_failure(world: World) -> None:
    world.triggers.open(HIGH)
    world.fault = NotFound("digest", "names no bundle")
    with pytest.raises(NotFound):
        world.app().poll()
    assert world.outcomes() == [(RunStatus.FAILED, "digest names no bundle")]
    assert len(world.triggers.unfinished()) == 1


def test_a_more_urgent_trigger_that_came_in_between_is_answered_too(world: World) -> None:
    world.triggers.open(HIGH)
    count = world.data.count

    def meanwhile(start_us: int, end_us: int, most: int) -> int:
        world.triggers.open(IMMEDIATE)
        return count(start_us, end_us, most)

    world.data.count = meanwhile  # type: ignore[method-assign]  # drift speaks while the wait is looked at
    world.app().poll()
    assert world.runs()[0].details["cause"] == "concept drift"
    assert not world.triggers.unfinished()
    assert len(world.trained) == 1


def test_of_an_error_that_nobody_classified_only_the_class_is_kept(world: World) -> None:
    world.triggers.open(HIGH)
    world.fault = KeyError("a customer's name")
    with pytest.raises(KeyError):
        world.app().poll()
    assert world.outcomes() == [(RunStatus.FAILED, "KeyError")]
    assert len(world.triggers.unfinished()) == 1


def test_who_loses_the_lease_while_training_changes_nothing_more(world: World) -> None:
    number = world.triggers.open(HIGH)

    def overtaken(run_id: str, now_us: int, lease: HeldLease) -> RetrainingOutcome:
        world.leases.held[LEASE] = "retrain/9/other", world.clock.time_us + US_PER_HOUR
        world.triggers.reopen(number or 0)
        world.triggers.claim("retrain/9/other", now_us)
        world.log.end(run_id, RunStatus.FAILED, now_us, "its process is gone, or has lost the lease", {})
        assert not lease.renew()
        return World.work(world, run_id, now_us, lease)

    world.work = overtaken  # type: ignore[method-assign]  # the world's own stand-in for training
    with pytest.raises(Transient, match="was lost"):
        world.app().poll()
    (kept,) = world.triggers.unfinished()
    assert kept.claimed_by == "retrain/9/other"
    assert world.outcomes() == [(RunStatus.FAILED, "its process is gone, or has lost the lease")]
    assert world.leases.holder(LEASE, world.clock.time_us) == "retrain/9/other"


@pytest.mark.parametrize("part", ["log", "triggers", "leases", "data"])
def test_a_store_that_fails_is_told(world: World, part: str) -> None:
    world.triggers.open(HIGH)
    getattr(world, part).fault = Transient("down")
    polled = partial(world.app().poll)
    with pytest.raises(TollgateError, match="down"):
        polled()
    assert not world.trained
