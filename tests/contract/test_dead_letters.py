"""Dead letters in Postgres: each event once, with its body as it came; Blob's are tested with the probe stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from shared.adapters.postgres_dead_letters import PostgresDeadLetters
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.errors import Transient
from shared.domain.event import DeadLetter, StreamEvent
from tests.conftest import MigratedDatabase

EVENT = StreamEvent("transactions", "3", 42, "900", 1_700_000_000_000_000, b"\x00\xff not JSON")
LETTER = DeadLetter(EVENT, "amount_minor", "must be greater than zero", 1_700_000_000_000_009)


@pytest.fixture
def letters(migrated_database: MigratedDatabase) -> Iterator[PostgresDeadLetters]:
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.dead_letters")
    session = PostgresSession(migrated_database.role_connection(Role.INGEST), "test")
    yield PostgresDeadLetters(session)
    session.close()


def stored(database: MigratedDatabase) -> list[tuple[object, ...]]:
    with psycopg.connect(database.dsn) as connection:
        return connection.execute(
            "SELECT source, partition_id, event_offset, reason, field, rule, body, received_at_us, replayed_at_us"
            " FROM tollgate.dead_letters ORDER BY dead_letter_id"
        ).fetchall()


def test_a_letter_is_kept_as_it_came(letters: PostgresDeadLetters, migrated_database: MigratedDatabase) -> None:
    letters.put(LETTER)
    reason = "amount_minor must be greater than zero"
    place = ("transactions", "3", "900@1700000000000000")
    rule = ("amount_minor", "must be greater than zero")
    assert stored(migrated_database) == [(*place, reason, *rule, EVENT.body, LETTER.recorded_at_us, None)]


def test_an_event_has_one_letter_however_often_it_comes(
    letters: PostgresDeadLetters, migrated_database: MigratedDatabase
) -> None:
    letters.put(LETTER)
    letters.put(replace(LETTER, recorded_at_us=LETTER.recorded_at_us + 5))
    assert [row[7] for row in stored(migrated_database)] == [LETTER.recorded_at_us]


def test_a_hub_that_was_made_anew_has_letters_of_its_own(
    letters: PostgresDeadLetters, migrated_database: MigratedDatabase
) -> None:
    letters.put(LETTER)
    letters.put(replace(LETTER, event=replace(EVENT, enqueued_at_us=EVENT.enqueued_at_us + 1)))
    assert len(stored(migrated_database)) == 2


def test_a_database_that_is_not_there_is_a_passing_fault(database: object, migrated_database: MigratedDatabase) -> None:
    where = replace(migrated_database, port=1)
    session = PostgresSession(where.connection, "test")
    with pytest.raises(Transient, match="writing a dead letter"):
        PostgresDeadLetters(session).put(LETTER)
