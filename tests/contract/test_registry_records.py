"""The queue of the model registry: the same rules in memory and in Postgres, as the app's own role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import psycopg
import pytest

from shared.adapters.postgres_registry_outbox import NoRunRecords, PostgresRunRecords
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role as Login
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.errors import Transient
from shared.domain.registry import read_record
from shared.ports.registry import RunRecords, WaitingRecords
from tests.conftest import MigratedDatabase
from tests.fakes.probes import FakeClock
from tests.fakes.registry import FakeRecords
from tests.unit.shared.test_registry_records import RUN

STATE = Pointer(Role.CHAMPION, RUN.bundle_digest, 3, 9, "ada", "better")
NOW_US = FakeClock().now_us()


class Queue(RunRecords, WaitingRecords, Protocol):
    """Both ends of it."""


@pytest.fixture(params=["fake", "postgres"])
def queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    if request.param == "fake":
        yield FakeRecords()
        return
    database: MigratedDatabase = request.getfixturevalue("migrated_database")
    with psycopg.connect(database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.registry_outbox")
    session = PostgresSession(database.role_connection(Login.RETRAIN), "test")
    yield PostgresRunRecords(session, FakeClock())
    session.close()


def test_records_come_out_as_they_went_in_the_oldest_first(queue: Queue) -> None:
    assert queue.enqueue(RUN)
    assert queue.enqueue(STATE)
    due = queue.due(NOW_US, 9)
    assert [read_record(waiting.document) for waiting in due] == [RUN, STATE]
    assert [waiting.attempts for waiting in due] == [0, 0]
    assert [waiting.number for waiting in queue.due(NOW_US, 1)] == [due[0].number]


def test_a_key_waits_once(queue: Queue) -> None:
    assert queue.enqueue(RUN)
    assert not queue.enqueue(replace(RUN, outcome="another"))
    assert queue.enqueue(replace(RUN, run_id="retrain/18"))
    assert queue.count() == 2


def test_a_settled_record_is_gone(queue: Queue) -> None:
    queue.enqueue(RUN)
    (waiting,) = queue.due(NOW_US, 9)
    queue.settle(waiting.number)
    queue.settle(waiting.number)
    assert (list(queue.due(NOW_US, 9)), queue.count()) == ([], 0)
    assert queue.enqueue(RUN)


def test_a_record_that_was_put_off_waits_for_its_time(queue: Queue) -> None:
    queue.enqueue(RUN)
    queue.enqueue(STATE)
    first, second = queue.due(NOW_US, 9)
    queue.put_off(first.number, NOW_US + 5, "no answer")
    assert [waiting.number for waiting in queue.due(NOW_US + 4, 9)] == [second.number]
    again = queue.due(NOW_US + 5, 9)
    assert [(waiting.number, waiting.attempts) for waiting in again] == [(first.number, 1), (second.number, 0)]
    assert queue.count() == 2


def test_why_a_record_waits_can_be_looked_up(migrated_database: MigratedDatabase) -> None:
    session = PostgresSession(migrated_database.role_connection(Login.RETRAIN), "test")
    records = PostgresRunRecords(session, FakeClock())
    records.enqueue(replace(RUN, run_id="retrain/99"))
    number = max(waiting.number for waiting in records.due(NOW_US, 9))
    records.put_off(number, NOW_US + 5, "the registry answered 503")
    with psycopg.connect(migrated_database.role_dsn(Login.READER)) as connection:
        rows = connection.execute("SELECT error FROM tollgate.registry_outbox WHERE run_id = 'retrain/99'").fetchall()
    session.close()
    assert rows == [("the registry answered 503",)]


def test_without_a_registry_nothing_waits() -> None:
    assert not NoRunRecords().enqueue(RUN)


def test_a_database_that_is_not_there_is_a_passing_fault(migrated_database: MigratedDatabase) -> None:
    session = PostgresSession(replace(migrated_database, port=1).connection, "test")
    with pytest.raises(Transient, match="queueing a record"):
        PostgresRunRecords(session, FakeClock()).enqueue(RUN)
