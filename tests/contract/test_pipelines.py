"""Runs, leases and triggers: the same rules in memory and in Postgres, as the roles of the apps that keep them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg
import pytest

from shared.adapters.postgres_pipelines import PostgresLeases, PostgresPipelineLog, PostgresTriggers
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.pipeline import Cause, OpenTrigger, Priority, Run, RunStatus, Trigger
from shared.ports.pipelines import Leases, PipelineLog, Triggers
from tests.conftest import MigratedDatabase
from tests.fakes.pipelines import FakeLeases, FakePipelineLog, FakeTriggers

RUN = Run("retrain/1", "retrain", RunStatus.RUNNING, 1_700_000_000_000_000, details={"view": "card-v1", "days": 60})
TRIGGER = Trigger(Cause.FEATURE_DRIFT, "amount", Priority.MEDIUM, {"psi": 0.31, "windows": [1, 2]}, 1_000)


@dataclass
class Kept:
    log: PipelineLog
    leases: Leases
    triggers: Triggers


@pytest.fixture(params=["fake", "postgres"])
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    if request.param == "fake":
        yield Kept(FakePipelineLog(), FakeLeases(), FakeTriggers())
        return
    database: MigratedDatabase = request.getfixturevalue("migrated_database")
    with psycopg.connect(database.dsn) as connection:
        for table in ("pipeline_execution_log", "task_metrics", "leases", "retraining_triggers"):
            connection.execute(f"DELETE FROM tollgate.{table}")
    session = PostgresSession(database.role_connection(Role.RETRAIN), "test")
    yield Kept(PostgresPipelineLog(session), PostgresLeases(session), PostgresTriggers(session))
    session.close()


def test_a_run_begins_once_and_is_found_as_it_was_noted(kept: Kept) -> None:
    assert kept.log.find(RUN.run_id) is None
    assert kept.log.begin(RUN)
    assert not kept.log.begin(replace(RUN, started_at_us=5, details={"view": "another"}))
    assert kept.log.find(RUN.run_id) == RUN


def test_the_first_end_of_a_run_stays_and_adds_to_its_details(kept: Kept) -> None:
    assert not kept.log.end(RUN.run_id, RunStatus.DONE, 9, "", {})
    kept.log.begin(RUN)
    assert kept.log.end(RUN.run_id, RunStatus.FAILED, 7, "the worker died", {"days": 30, "digest": "ab"})
    assert not kept.log.end(RUN.run_id, RunStatus.DONE, 9, "", {"digest": "cd"})
    assert kept.log.find(RUN.run_id) == replace(
        RUN,
        status=RunStatus.FAILED,
        ended_at_us=7,
        error="the worker died",
        details={"view": "card-v1", "days": 30, "digest": "ab"},
    )


def test_a_run_that_was_skipped_may_be_noted_as_ended_at_once(kept: Kept) -> None:
    skipped = replace(RUN, status=RunStatus.SKIPPED, ended_at_us=RUN.started_at_us, error="cooldown")
    assert kept.log.begin(skipped)
    assert kept.log.find(RUN.run_id) == skipped
    assert not kept.log.end(RUN.run_id, RunStatus.DONE, 9, "", {})


def test_a_run_that_has_ended_needs_an_end_and_one_that_runs_has_none(kept: Kept) -> None:
    with pytest.raises(BrokenInvariant):
        kept.log.begin(replace(RUN, status=RunStatus.DONE))
    kept.log.begin(RUN)
    with pytest.raises(BrokenInvariant):
        kept.log.end(RUN.run_id, RunStatus.RUNNING, 9, "", {})
    assert kept.log.find(RUN.run_id) == RUN


def test_recent_runs_come_newest_first_by_pipeline_and_status(kept: Kept) -> None:
    for number in range(1, 6):
        kept.log.begin(replace(RUN, run_id=f"retrain/{number}", started_at_us=number))
    kept.log.begin(replace(RUN, run_id="drift/9", pipeline="drift", started_at_us=9))
    for number in (2, 4):
        kept.log.end(f"retrain/{number}", RunStatus.DONE, 10, "", {})
    assert [run.started_at_us for run in kept.log.recent("retrain", 3)] == [5, 4, 3]
    assert [run.started_at_us for run in kept.log.recent("retrain", 9, RunStatus.DONE)] == [4, 2]
    assert [run.run_id for run in kept.log.recent("drift", 9)] == ["drift/9"]
    assert kept.log.recent("quality", 9) == []


def test_a_measure_may_be_noted_again(kept: Kept) -> None:
    kept.log.begin(RUN)
    kept.log.note(RUN.run_id, "features", {"seconds": 5.5, "rows": 1_504_628}, 8)
    kept.log.note(RUN.run_id, "features", {"seconds": 9.0, "columns": 25}, 9)
    kept.log.note(RUN.run_id, "nothing", {}, 9)


def test_of_a_measure_the_first_value_is_kept(migrated_database: MigratedDatabase) -> None:
    session = PostgresSession(migrated_database.role_connection(Role.DRIFT), "test")
    log = PostgresPipelineLog(session)
    log.note("drift/77", "features", {"seconds": 5.5, "rows": 1_504_628}, 8)
    log.note("drift/77", "features", {"seconds": 9.0, "columns": 25}, 9)
    with session.transaction() as connection:
        rows = connection.execute(
            "SELECT metric, value, recorded_at_us FROM tollgate.task_metrics WHERE run_id = 'drift/77' ORDER BY metric"
        ).fetchall()
    session.close()
    assert rows == [("columns", 25.0, 9), ("rows", 1_504_628.0, 8), ("seconds", 5.5, 8)]


def test_a_lease_is_held_by_one_until_it_expires(kept: Kept) -> None:
    assert kept.leases.holder("training", 0) is None
    assert kept.leases.acquire("training", "a", 100, 50)
    assert kept.leases.holder("training", 149) == "a"
    assert not kept.leases.acquire("training", "b", 149, 50)
    assert kept.leases.acquire("another", "b", 149, 50)
    assert kept.leases.holder("training", 150) is None
    assert kept.leases.acquire("training", "b", 150, 50)
    assert kept.leases.holder("training", 151) == "b"
    assert not kept.leases.acquire("training", "a", 151, 50)


def test_a_lease_is_renewed_by_its_holder_and_given_back_by_nobody_else(kept: Kept) -> None:
    assert kept.leases.acquire("training", "a", 100, 50)
    assert kept.leases.acquire("training", "a", 140, 50)
    assert kept.leases.holder("training", 189) == "a"
    assert kept.leases.acquire("training", "a", 300, 50), "it expired, but nobody has taken it"
    assert not kept.leases.release("training", "b")
    assert kept.leases.release("training", "a")
    assert not kept.leases.release("training", "a")
    assert kept.leases.acquire("training", "b", 301, 50)


def test_a_lease_has_a_length(kept: Kept) -> None:
    with pytest.raises(BrokenInvariant):
        kept.leases.acquire("training", "a", 100, 0)


def test_of_a_cause_and_subject_one_trigger_is_unfinished(kept: Kept) -> None:
    number = kept.triggers.open(TRIGGER)
    assert number is not None
    assert kept.triggers.open(replace(TRIGGER, priority=Priority.HIGH)) is None
    assert kept.triggers.open(replace(TRIGGER, subject="n_terminal_1d")) is not None
    assert kept.triggers.open(replace(TRIGGER, cause=Cause.PERSON)) is not None
    claimed = kept.triggers.claim("retrain/1", 5)
    assert claimed == OpenTrigger(number, TRIGGER, "retrain/1")
    assert kept.triggers.open(TRIGGER) is None, "it is claimed"
    assert kept.triggers.close(number, done=True, outcome="promoted", now_us=9)
    assert kept.triggers.open(TRIGGER) is not None


def test_the_most_urgent_is_claimed_first_then_the_oldest(kept: Kept) -> None:
    given = [(Priority.LOW, 1), (Priority.HIGH, 9), (Priority.IMMEDIATE, 9), (Priority.HIGH, 3)]
    for place, (priority, at) in enumerate(given):
        kept.triggers.open(replace(TRIGGER, subject=str(place), priority=priority, created_at_us=at))
    assert [entry.trigger.subject for entry in kept.triggers.unfinished()] == ["2", "3", "1", "0"]
    claimed = [kept.triggers.claim(f"retrain/{place}", 10) for place in range(5)]
    assert [entry and entry.trigger.subject for entry in claimed] == ["2", "3", "1", "0", None]
    assert [entry.claimed_by for entry in kept.triggers.unfinished()] == [f"retrain/{place}" for place in range(4)]


def test_a_claimed_trigger_is_given_back_and_claimed_again(kept: Kept) -> None:
    number = kept.triggers.open(TRIGGER)
    assert number is not None
    assert not kept.triggers.reopen(number), "nobody has claimed it"
    kept.triggers.claim("retrain/1", 5)
    assert kept.triggers.claim("retrain/2", 6) is None
    assert kept.triggers.reopen(number)
    assert kept.triggers.unfinished() == [OpenTrigger(number, TRIGGER)]
    again = kept.triggers.claim("retrain/2", 7)
    assert again == OpenTrigger(number, TRIGGER, "retrain/2")


def test_a_trigger_is_closed_once(kept: Kept) -> None:
    number = kept.triggers.open(TRIGGER)
    assert number is not None
    assert kept.triggers.close(number, done=False, outcome="announced", now_us=8)
    assert not kept.triggers.close(number, done=True, outcome="promoted", now_us=9)
    assert not kept.triggers.reopen(number)
    assert kept.triggers.unfinished() == []
    assert not kept.triggers.close(number + 1, done=True, outcome="", now_us=9)


def test_two_that_race_never_claim_the_same_trigger(migrated_database: MigratedDatabase) -> None:
    where = migrated_database.role_connection(Role.RETRAIN)
    opener = PostgresSession(where, "test")
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.retraining_triggers")
    for place in range(40):
        PostgresTriggers(opener).open(replace(TRIGGER, subject=str(place), created_at_us=place))
    opener.close()
    start = threading.Barrier(4)
    found: list[list[int]] = [[] for _ in range(4)]

    def take(worker: int) -> None:
        session = PostgresSession(where, "test")
        triggers = PostgresTriggers(session)
        start.wait()
        while (claimed := triggers.claim(f"retrain/{worker}", 5)) is not None:
            found[worker].append(claimed.trigger_id)
        session.close()

    threads = [threading.Thread(target=take, args=[worker]) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    everything = [number for numbers in found for number in numbers]
    assert len(everything) == len(set(everything)) == 40


def test_of_many_that_want_a_lease_one_gets_it(migrated_database: MigratedDatabase) -> None:
    where = migrated_database.role_connection(Role.RETRAIN)
    start = threading.Barrier(4)
    won: list[str] = []

    def take(name: str) -> None:
        session = PostgresSession(where, "test")
        start.wait()
        if PostgresLeases(session).acquire("raced", name, 100, 50):
            won.append(name)
        session.close()

    threads = [threading.Thread(target=take, args=[str(worker)]) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(won) == 1


def test_drift_may_open_triggers_and_not_claim_them(migrated_database: MigratedDatabase) -> None:
    session = PostgresSession(migrated_database.role_connection(Role.DRIFT), "test")
    triggers = PostgresTriggers(session)
    assert triggers.open(replace(TRIGGER, subject="by drift")) is not None
    assert triggers.open(replace(TRIGGER, subject="by drift")) is None
    with pytest.raises(BrokenInvariant, match="lacks a right"):
        triggers.claim("retrain/1", 5)
    session.close()


def test_a_database_that_is_not_there_is_a_passing_fault(migrated_database: MigratedDatabase) -> None:
    session = PostgresSession(replace(migrated_database, port=1).connection, "test")
    with pytest.raises(Transient, match="noting that a run starts"):
        PostgresPipelineLog(session).begin(RUN)
    with pytest.raises(Transient, match="taking a lease"):
        PostgresLeases(session).acquire("training", "a", 100, 50)
    with pytest.raises(Transient, match="claiming a trigger"):
        PostgresTriggers(session).claim("retrain/1", 5)
