"""What arrived and what checks said of it: in Postgres as the drift app's role, the log also in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest

from shared.adapters.postgres_dead_letters import PostgresDeadLetters
from shared.adapters.postgres_ledger_pipelined import PipelinedLedger
from shared.adapters.postgres_notices import PostgresNotices
from shared.adapters.postgres_quality import PostgresFeedWindows, PostgresQualityLog
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.bootstrap.drift_quality import PostgresFeedHealth
from shared.domain.data_quality import WINDOW_US, FeedFacts, LetterKind, RuleCheck
from shared.domain.event import DeadLetter, StreamEvent
from shared.domain.instants import US_PER_DAY, US_PER_MINUTE
from shared.domain.labels import LabelSource
from shared.domain.quality_rules import AMOUNT_UNIT, RULES, VOLUME
from shared.ports.quality import QualityLog
from shared.services.importing import Importing
from shared.services.labelling import Labelling
from shared.services.quality_check import SETTLING_US, QualityCheck
from shared.services.scoring import Scoring
from tests.conftest import MigratedDatabase
from tests.fakes.probes import FakeClock
from tests.fakes.quality import FakeQualityLog
from tests.fakes.scorers import FixedScorers
from tests.unit.domain.worlds import BASE_US, label, transaction
from tests.unit.shared.test_scoring import KEYS, POLICY

HOUR_US = BASE_US + 10 * WINDOW_US


@pytest.fixture
def session(migrated_database: MigratedDatabase) -> Iterator[PostgresSession]:
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.data_quality_log")
    with closing(PostgresSession(migrated_database.role_connection(Role.DRIFT), "test")) as opened:
        yield opened


@pytest.fixture(params=["fake", "postgres"])
def log(request: pytest.FixtureRequest) -> QualityLog:
    return FakeQualityLog() if request.param == "fake" else PostgresQualityLog(request.getfixturevalue("session"))


def result(start_us: int, *, observed: float | None = 5.0, passed: bool = True, breaks: bool = False) -> RuleCheck:
    details = {"norm": 2.5, "weeks": 4}
    return RuleCheck(
        "transactions", "volume", passed, observed, start_us, start_us + WINDOW_US, breaks, "words", details
    )


def test_a_result_is_kept_once_for_its_rule_and_window(log: QualityLog) -> None:
    assert log.last_end_us(VOLUME, HOUR_US) is None
    assert log.record([result(0), result(WINDOW_US, observed=None)], 1) == 2
    assert log.record([result(0, observed=9.0), result(2 * WINDOW_US, observed=7.0)], 2) == 1
    assert log.observed([VOLUME, AMOUNT_UNIT], 0, 3 * WINDOW_US) == {
        VOLUME.name: {0: 5.0, 2 * WINDOW_US: 7.0},
        AMOUNT_UNIT.name: {},
    }
    assert log.observed([VOLUME], WINDOW_US, 2 * WINDOW_US) == {VOLUME.name: {}}
    assert log.last_end_us(VOLUME, 3 * WINDOW_US) == 3 * WINDOW_US
    assert log.last_end_us(VOLUME, 3 * WINDOW_US - 1) == 2 * WINDOW_US
    assert log.last_end_us(AMOUNT_UNIT, 3 * WINDOW_US) is None


def test_failures_are_read_as_they_were_kept(log: QualityLog) -> None:
    failed = [result(WINDOW_US, passed=False), result(3 * WINDOW_US, passed=False, breaks=True)]
    log.record([result(0), *failed, result(2 * WINDOW_US)], 1)
    assert list(log.failures(0, 9 * WINDOW_US)) == failed
    assert list(log.failures(WINDOW_US + 1, 2 * WINDOW_US)) == failed[:1]
    assert list(log.failures(2 * WINDOW_US, 3 * WINDOW_US)) == []


@pytest.fixture(scope="module")
def fed(migrated_database: MigratedDatabase) -> MigratedDatabase:
    """A database in which an hour of all kinds of events arrived, and something before and after it."""
    migrated_database.make_partitions(BASE_US - 30 * US_PER_DAY, BASE_US + 2 * US_PER_DAY)
    where, clock = migrated_database.role_connection(Role.INGEST), FakeClock()
    with closing(PipelinedLedger(where, "test")) as ledger, closing(PostgresSession(where, "test")) as session:
        scoring = Scoring(ledger, FixedScorers(), policy=POLICY, keys=KEYS, clock=clock)
        labelling = Labelling(ledger, KEYS, clock)
        letters = PostgresDeadLetters(session)
        clock.time_us = HOUR_US + 30 * US_PER_MINUTE
        Importing(ledger, KEYS, clock).take(
            [
                transaction(500 + number, -number * US_PER_MINUTE, customer="past", terminal="past")
                for number in range(9)
            ]
        )
        minute = US_PER_MINUTE
        base = HOUR_US - BASE_US
        clock.time_us = HOUR_US - 1
        scoring.decide([transaction(1, base - minute, customer="a")])
        clock.time_us = HOUR_US
        first = [
            transaction(2, base - 61 * minute, customer="a", amount=300),  # late
            transaction(3, base + minute, customer="b", amount=300),  # ahead, new customer
            transaction(4, base + minute, customer="b", amount=300),  # a copy of it
            transaction(5, base - minute, customer="c", terminal="n", amount=2_000_000),  # new both, large
        ]
        scoring.decide(first)
        scoring.decide(first)  # repeats leave no trace
        clock.time_us = HOUR_US + WINDOW_US - 1
        scoring.decide([transaction(6, base + 50 * minute, customer="past", amount=100)])
        labelling.record(
            [
                replace(label(first[0], fraud=True), source=LabelSource.ANALYST, known_at_us=HOUR_US),
                replace(
                    label(first[1], fraud=True), source=LabelSource.CHARGEBACK, known_at_us=HOUR_US - 8 * US_PER_DAY
                ),
                replace(label(first[2], fraud=False), source=LabelSource.MATURITY),
                replace(label(first[3], fraud=False), source=LabelSource.IMPORT),
            ]
        )
        for place, (field, rule) in enumerate(
            [("amount_minor", "is missing"), ("currency", "must be EUR"), ("", "must be JSON"), ("", "must be JSON")]
        ):
            event = StreamEvent("transactions", "0", place, str(place), HOUR_US, b"x")
            letters.put(DeadLetter(event, field, rule, HOUR_US + place))
        late = StreamEvent("transactions", "0", 9, "9", HOUR_US, b"x")
        letters.put(DeadLetter(late, "", "must be JSON", HOUR_US + WINDOW_US))
        clock.time_us = HOUR_US + WINDOW_US
        scoring.decide([transaction(7, base + 61 * minute, customer="z")])
    return migrated_database


def test_an_hour_is_counted_by_when_it_was_recorded(fed: MigratedDatabase, session: PostgresSession) -> None:
    facts = PostgresFeedWindows(session).facts(HOUR_US, HOUR_US + WINDOW_US)
    assert facts == FeedFacts(
        start_us=HOUR_US,
        end_us=HOUR_US + WINDOW_US,
        transactions=5,
        median_amount_minor=300.0,
        most_frequent_amount=3,
        large_amounts=1,
        copies=1,
        late=1,
        ahead=2,
        new_customers=2,
        new_terminals=1,
        letters={LetterKind.MISSING: 1, LetterKind.CATEGORY: 1, LetterKind.INVALID: 2},
        labels=2,
        old_labels=1,
    )
    empty = PostgresFeedWindows(session).facts(HOUR_US - US_PER_DAY, HOUR_US - US_PER_DAY + WINDOW_US)
    assert empty == FeedFacts(HOUR_US - US_PER_DAY, HOUR_US - US_PER_DAY + WINDOW_US)


def test_an_announced_change_is_of_its_subject_or_of_everything(
    migrated_database: MigratedDatabase, session: PostgresSession
) -> None:
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.announced_changes")
        for subject, start_us, end_us in (("volume", 10, 20), ("*", 30, 40), ("amount", 50, 60)):
            connection.execute(
                "INSERT INTO tollgate.announced_changes (subject, start_us, end_us, author, reason, recorded_at_us)"
                " VALUES (%s, %s, %s, 'test', 'test', 0)",
                [subject, start_us, end_us],
            )
    feed = PostgresFeedWindows(session)
    spans = [(0, 10), (0, 11), (19, 25), (20, 30), (35, 36), (50, 60)]
    assert [feed.announced("volume", *span) for span in spans] == [False, True, True, False, True, False]


def test_checks_of_the_drift_app_are_kept_and_told(fed: MigratedDatabase, session: PostgresSession) -> None:
    clock = FakeClock(HOUR_US + WINDOW_US + SETTLING_US)
    check = QualityCheck(PostgresFeedWindows(session), PostgresQualityLog(session), PostgresNotices(session), clock)
    assert check.check_due() == {"windows": 1, "failed": 0, "rows": 11}
    assert check.check_due()["windows"] == 0
    clock.time_us += WINDOW_US
    assert PostgresFeedHealth(fed.role_connection(Role.DRIFT), clock).broken(HOUR_US, HOUR_US + WINDOW_US) == ""
    with psycopg.connect(fed.dsn) as connection:
        rows = connection.execute("SELECT count(*), count(*) FILTER (WHERE passed) FROM tollgate.data_quality_log")
        assert rows.fetchone() == (2 * len(RULES), 2 * len(RULES))


def test_an_hour_is_found_without_reading_the_week(fed: MigratedDatabase) -> None:
    """Every partition has the index of when its rows were recorded, and so have the labels."""
    with psycopg.connect(fed.dsn) as connection:
        rows = connection.execute(
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x"
            " ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'tollgate' AND a.amname = 'brin' AND i.indisvalid AND c.relkind = 'r'"
        ).fetchall()
        partitions = connection.execute(
            "SELECT count(*) FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhparent"
            " WHERE c.relname IN ('transactions', 'predictions') AND c.relkind = 'p'"
        ).fetchone()
    names = {str(row[0]) for row in rows}
    assert partitions is not None
    assert sum(name.startswith(("transactions_p", "predictions_p")) for name in names) == partitions[0] > 8
    assert "feedback_labels" in names
