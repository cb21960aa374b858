"""A session loses no work to a connection that was lost while nobody used it, and repeats none that had begun."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from shared.adapters.postgres_errors import translated
from shared.adapters.postgres_session import PostgresSession
from shared.domain.errors import Transient
from tests.conftest import MigratedDatabase


@pytest.fixture
def session(migrated_database: MigratedDatabase) -> Iterator[PostgresSession]:
    with closing(PostgresSession(migrated_database.connection, "test")) as opened:
        yield opened


def backend(session: PostgresSession) -> int:
    return int(session.rows("asking", "SELECT pg_backend_pid()")[0][0])


def end(database: MigratedDatabase, pid: int) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as admin:
        assert admin.execute("SELECT pg_terminate_backend(%s, 60000)", [pid]).fetchone() == (True,)


def test_a_transaction_begins_on_another_connection(
    session: PostgresSession, migrated_database: MigratedDatabase
) -> None:
    first = backend(session)
    end(migrated_database, first)
    second = backend(session)
    assert second != first
    assert backend(session) == second


def test_what_had_begun_is_told_and_not_repeated(session: PostgresSession, migrated_database: MigratedDatabase) -> None:
    entered = []

    def work() -> None:
        with translated("trying"), session.transaction() as connection:
            entered.append(connection.info.backend_pid)
            end(migrated_database, entered[-1])
            connection.execute("SELECT 1")

    backend(session)
    with pytest.raises(Transient):
        work()
    assert len(entered) == 1
    assert backend(session) != entered[0]


def test_a_server_that_refuses_is_asked_once(
    session: PostgresSession, migrated_database: MigratedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(migrated_database, backend(session))
    asked = []

    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise psycopg.OperationalError("no server")

    monkeypatch.setattr("shared.adapters.postgres_session.connect", refuse)
    for times in (1, 2):
        with pytest.raises(Transient):
            backend(session)
        assert len(asked) == times
