"""One suite for the outbox in memory and in Postgres; what only a database can do is tested on it alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psycopg
import pytest

from shared.adapters.postgres_ledger_pipelined import PipelinedLedger
from shared.adapters.postgres_outbox import PostgresOutbox
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.decision_record import read_decision
from shared.domain.errors import Transient
from shared.domain.instants import US_PER_DAY
from shared.domain.ledger import OutboxEntry
from shared.domain.transaction import Transaction
from shared.ports.ledger import Outbox
from shared.services.scoring import Scoring
from tests.conftest import MigratedDatabase
from tests.fakes.ledger import FakeLedger
from tests.fakes.outbox import FakeOutbox
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers
from tests.unit.domain.worlds import BASE_US, transaction
from tests.unit.shared.test_scoring import KEYS, POLICY, scoring

DECIDED = [transaction(number, number, customer=f"c{number % 3}") for number in range(9)]


def decide(where: MigratedDatabase, transactions: Sequence[Transaction]) -> None:
    ledger = PipelinedLedger(where.role_connection(Role.INGEST), "test")
    try:
        Scoring(ledger, FixedScorers(), policy=POLICY, keys=KEYS, clock=FakeClock()).decide(transactions)
    finally:
        ledger.close()


@pytest.fixture
def waiting(migrated_database: MigratedDatabase) -> MigratedDatabase:
    """A database in which nine decisions wait."""
    migrated_database.make_partitions(BASE_US - US_PER_DAY, BASE_US + US_PER_DAY)
    with psycopg.connect(migrated_database.dsn) as connection:
        for table in ("outbox", "predictions", "transactions", "transaction_ids", "entity_tiles"):
            connection.execute(f"DELETE FROM tollgate.{table}".encode())
        connection.execute("DELETE FROM tollgate.customer_features")
        connection.execute("DELETE FROM tollgate.merchant_features")
    decide(migrated_database, DECIDED)
    return migrated_database


@pytest.fixture
def session(waiting: MigratedDatabase) -> Iterator[PostgresSession]:
    opened = PostgresSession(waiting.role_connection(Role.INGEST), "test")
    yield opened
    opened.close()


@pytest.fixture(params=["fake", "postgres"])
def outbox(request: pytest.FixtureRequest) -> Outbox:
    if request.param == "postgres":
        return PostgresOutbox(request.getfixturevalue("session"))
    ledger = FakeLedger()
    scoring(ledger).decide(DECIDED)
    rows = ledger.tables.decisions.values()
    return FakeOutbox([OutboxEntry(place, row.record) for place, row in enumerate(rows)])


def drained(outbox: Outbox, limit: int) -> list[str]:
    sent: list[OutboxEntry] = []
    count = outbox.drain(limit, sent.extend)
    assert count == len(sent)
    assert [entry.outbox_id for entry in sent] == sorted(entry.outbox_id for entry in sent)
    return [read_decision(entry.record).transaction_id for entry in sent]


def test_the_oldest_leave_first_and_once(outbox: Outbox) -> None:
    found = [drained(outbox, 4), drained(outbox, 4), drained(outbox, 4), drained(outbox, 4)]
    assert [len(part) for part in found] == [4, 4, 1, 0]
    assert [item for part in found for item in part] == [item.transaction_id for item in DECIDED]


def test_what_could_not_be_sent_stays(outbox: Outbox) -> None:
    def fail(_: Sequence[OutboxEntry]) -> None:
        raise Transient("the hub is down")

    with pytest.raises(Transient):
        outbox.drain(4, fail)
    assert len(drained(outbox, 100)) == len(DECIDED)


def test_only_one_drains_at_a_time(waiting: MigratedDatabase, session: PostgresSession) -> None:
    other = PostgresSession(waiting.role_connection(Role.INGEST), "test")
    seen: list[int] = []

    def send(_: Sequence[OutboxEntry]) -> None:
        seen.append(PostgresOutbox(other).drain(10, lambda _: pytest.fail("two drain at once")))

    assert PostgresOutbox(session).drain(4, send) == 4
    other.close()
    assert seen == [0]


def test_a_connection_that_is_lost_is_a_passing_fault_and_loses_nothing(session: PostgresSession) -> None:
    outbox = PostgresOutbox(session)
    with pytest.raises(Transient):
        outbox.drain(4, lambda _: session.connection.pgconn.finish())
    assert len(drained(outbox, 100)) == len(DECIDED)


def test_a_migration_need_not_wait_for_the_stream(waiting: MigratedDatabase, session: PostgresSession) -> None:
    def migrate(_: Sequence[OutboxEntry]) -> None:
        with psycopg.connect(waiting.dsn) as connection:
            connection.execute("SET LOCAL lock_timeout = '200ms'")
            for table in ("predictions", "outbox"):
                connection.execute(f"ALTER TABLE tollgate.{table} ADD COLUMN rehearsal text".encode())
            connection.rollback()

    assert PostgresOutbox(session).drain(4, migrate) == 4
