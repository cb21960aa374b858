"""Dead letters to look at and to hand in again: the same rules in memory and in Postgres, as the ingest app's role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from shared.adapters.postgres_dead_letters import PostgresDeadLetters
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.dead_letter import KeptLetter, LetterId, LetterSelection
from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.event import DeadLetter, StreamEvent
from tests.conftest import MigratedDatabase
from tests.fakes.dead_letters import FakeKeptLetters

type Letters = FakeKeptLetters | PostgresDeadLetters

EVENT = StreamEvent("transactions", "3", 42, "900", 1_700_000_000_000_000, b"\x00\xff not JSON")
FIRST = LetterId(0)


@pytest.fixture(params=["fake", "postgres"])
def letters(request: pytest.FixtureRequest) -> Iterator[Letters]:
    if request.param == "fake":
        yield FakeKeptLetters()
        return
    database: MigratedDatabase = request.getfixturevalue("migrated_database")
    with psycopg.connect(database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.dead_letters")
    session = PostgresSession(database.role_connection(Role.INGEST), "test")
    yield PostgresDeadLetters(session)
    session.close()


def letter(place: int, **changed: Any) -> DeadLetter:
    """The letter of another event; changes are those of the event."""
    event = replace(EVENT, offset=str(place * 100), body=b"x" * place, **changed)
    return DeadLetter(event, "amount_minor", "must be greater than zero", 1_000 + place)


def test_a_letter_is_told_without_its_body_and_found_with_it(letters: Letters) -> None:
    letters.put(DeadLetter(EVENT, "", "must be JSON (character 1)", 5))
    (kept,) = letters.page(LetterSelection(), FIRST, 10)
    assert kept == KeptLetter(
        kept.letter_id,
        "transactions",
        "3",
        "900",
        EVENT.enqueued_at_us,
        "",
        "must be JSON (character 1)",
        len(EVENT.body),
        5,
        None,
    )
    assert kept.reason == "the input must be JSON (character 1)"
    assert letters.find(kept.letter_id) == (kept, EVENT.body)
    assert letters.find(LetterId(kept.letter_id + 1)) is None


def test_pages_follow_one_another_and_end(letters: Letters) -> None:
    for place in range(1, 8):
        letters.put(letter(place))
    found: list[int] = []
    after = FIRST
    while page := letters.page(LetterSelection(), after, 3):
        assert len(page) <= 3
        found += [kept.body_bytes for kept in page]
        after = page[-1].letter_id
    assert found == [1, 2, 3, 4, 5, 6, 7]


def test_letters_are_selected_by_reason_hub_and_time(letters: Letters) -> None:
    for place in range(1, 5):
        letters.put(letter(place, hub="labels" if place == 2 else "transactions"))
    letters.put(replace(letter(5), field="currency", rule="must be EUR, 100% of the time"))

    def sizes(**given: Any) -> list[int]:
        return [kept.body_bytes for kept in letters.page(LetterSelection(**given), FIRST, 100)]

    assert sizes() == [1, 2, 3, 4, 5]
    assert sizes(hub="labels") == [2]
    assert sizes(reason="currency must") == [5]
    assert sizes(reason="0% of") == [5]
    assert sizes(reason="amount%zero") == []
    assert sizes(since_us=1_003) == [3, 4, 5]
    assert sizes(until_us=1_003) == [1, 2]
    assert sizes(since_us=1_002, until_us=1_004, hub="transactions") == [3]


def test_a_letter_is_marked_once_and_waits_no_more(letters: Letters) -> None:
    letters.put(letter(1))
    letters.put(letter(2))
    first, second = letters.page(LetterSelection(), FIRST, 10)
    assert letters.mark_replayed(first.letter_id, 77)
    assert not letters.mark_replayed(first.letter_id, 78)
    assert not letters.mark_replayed(LetterId(second.letter_id + 9), 78)
    assert letters.page(LetterSelection(), FIRST, 10) == [second]
    marked = replace(first, replayed_at_us=77)
    assert letters.page(LetterSelection(waiting_only=False), FIRST, 10) == [marked, second]


def test_who_only_reads_may_not_mark(migrated_database: MigratedDatabase) -> None:
    session = PostgresSession(migrated_database.role_connection(Role.READER), "test")
    kept = PostgresDeadLetters(session)
    assert kept.find(LetterId(1 << 40)) is None
    with pytest.raises(BrokenInvariant, match="lacks a right"):
        kept.mark_replayed(LetterId(1), 5)
    session.close()


def test_a_database_that_is_not_there_is_a_passing_fault(migrated_database: MigratedDatabase) -> None:
    kept = PostgresDeadLetters(PostgresSession(replace(migrated_database, port=1).connection, "test"))
    with pytest.raises(Transient, match="listing dead letters"):
        kept.page(LetterSelection(), FIRST, 1)
    with pytest.raises(Transient, match="reading a dead letter"):
        kept.find(LetterId(1))
    with pytest.raises(Transient, match="marking a dead letter"):
        kept.mark_replayed(LetterId(1), 1)
