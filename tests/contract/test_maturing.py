"""Silence becomes a label: the same suite on the ledger in memory and on Postgres, as the ingest app's role."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Final

import psycopg
import pytest

from shared.adapters.postgres_ledger_pipelined import PipelinedLedger
from shared.adapters.postgres_maturing import PostgresSilentTransactions
from shared.adapters.postgres_pipelines import PostgresPipelineLog
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.decision import Outcome, Policy
from shared.domain.instants import US_PER_DAY, US_PER_MINUTE
from shared.domain.labels import MATURITY_US
from shared.domain.transaction import Transaction
from shared.ports.ledger import Ledger
from shared.ports.maturing import SilentTransactions
from shared.ports.pipelines import PipelineLog
from shared.services.labelling import Labelling, LabelOutcome
from shared.services.maturing import EVERY_US, PIPELINE, Maturing
from shared.services.scoring import Decided, Scoring
from shared.services.timed_runs import TimedRuns
from tests.conftest import MigratedDatabase
from tests.fakes.ledger import FakeLedger, Tables
from tests.fakes.maturing import FakeSilentTransactions
from tests.fakes.pipelines import FakePipelineLog
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers
from tests.unit.domain.worlds import BASE_US, label, transaction
from tests.unit.shared.test_scoring import KEYS

ROOT: Final = Path(__file__).resolve().parents[2]
APPROVING: Final = Policy(0.999, 1.0)
MATURE_US: Final = BASE_US + US_PER_DAY + MATURITY_US + US_PER_DAY


@dataclass
class Bench:
    """Stores of one kind, and a clock."""

    make_ledger: Callable[[], Ledger]
    make_silent: Callable[[], SilentTransactions]
    make_log: Callable[[], PipelineLog]
    clock: FakeClock

    def decide(self, transactions: list[Transaction], policy: Policy = APPROVING) -> list[Outcome]:
        """Decide each at its event time."""
        scoring = Scoring(self.make_ledger(), FixedScorers(), policy=policy, keys=KEYS, clock=self.clock)
        outcomes = []
        for item in transactions:
            self.clock.time_us = item.event_time_us
            (verdict,) = scoring.decide([item])
            assert isinstance(verdict, Decided)
            outcomes.append(verdict.record.decision.outcome)
        self.clock.time_us = MATURE_US
        return outcomes

    def labelling(self) -> Labelling:
        return Labelling(self.make_ledger(), KEYS, self.clock)

    def maturing(self) -> Maturing:
        return Maturing(self.make_silent(), self.labelling(), self.make_log(), self.clock)

    def rows(self) -> object:
        """How many labels a firing of the timer recorded."""
        runs = TimedRuns(self.make_log(), self.clock, "test")
        return runs.run(PIPELINE, EVERY_US, self.maturing().mature)["rows"]


@pytest.fixture(params=["fake", "postgres"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    clock = FakeClock(MATURE_US)
    if request.param == "fake":
        tables, log = Tables(), FakePipelineLog()
        yield Bench(lambda: FakeLedger(tables), lambda: FakeSilentTransactions(tables), lambda: log, clock)
        return
    database: MigratedDatabase = request.getfixturevalue("migrated_database")
    database.make_partitions(BASE_US - US_PER_DAY, BASE_US + 2 * US_PER_DAY)
    emptied(database)
    where = database.role_connection(Role.INGEST)
    with ExitStack() as stack:

        def session() -> PostgresSession:
            return stack.enter_context(closing(PostgresSession(where, "test")))

        yield Bench(
            lambda: stack.enter_context(closing(PipelinedLedger(where, "test"))),
            lambda: PostgresSilentTransactions(session()),
            lambda: PostgresPipelineLog(session()),
            clock,
        )


def emptied(database: MigratedDatabase) -> None:
    with psycopg.connect(database.dsn) as connection:
        for table in (
            "feedback_labels",
            "outbox",
            "predictions",
            "transactions",
            "transaction_ids",
            "entity_tiles",
            "customer_features",
            "merchant_features",
            "task_metrics",
            "pipeline_execution_log",
        ):
            connection.execute(f"DELETE FROM tollgate.{table}".encode())


def payments(count: int) -> list[Transaction]:
    return [transaction(number, number * US_PER_MINUTE, customer=f"c{number % 3}") for number in range(count)]


def test_approved_transactions_without_a_label_are_genuine_once_mature(bench: Bench) -> None:
    items = payments(6)
    assert set(bench.decide(items)) == {Outcome.APPROVE}
    said = [label(items[1], fraud=True), label(items[2], fraud=False)]
    assert {verdict.outcome for verdict in bench.labelling().record(said)} == {LabelOutcome.RECORDED}
    bench.clock.time_us = items[3].event_time_us + MATURITY_US + 5 * US_PER_MINUTE + 1
    assert bench.rows() == 2  # the first and the fourth; a moment earlier it would be the first alone
    bench.clock.time_us = MATURE_US
    assert bench.rows() == 2
    bench.clock.time_us += US_PER_DAY
    assert bench.rows() == 0


def test_what_was_not_approved_gets_no_label(bench: Bench) -> None:
    assert bench.decide(payments(2), Policy(1e-6, 1e-6))[0] is Outcome.DECLINE
    assert bench.decide([transaction(7, 7 * US_PER_MINUTE)], Policy(1e-6, 1.0)) == [Outcome.REVIEW]
    assert bench.rows() == 0


def test_a_firing_that_comes_twice_or_after_the_log_was_lost_records_nothing_more(bench: Bench) -> None:
    bench.decide(payments(5))
    assert bench.rows() == 5
    assert bench.rows() == 0
    assert bench.maturing().mature()["rows"] == 0


def test_a_label_of_silence_is_the_same_whoever_makes_it(bench: Bench) -> None:
    bench.decide(payments(4))
    silent = bench.make_silent()
    first = silent.first_us()
    assert first is not None
    (found, again) = (silent.recorded(first, MATURE_US, 3), bench.make_silent().recorded(first, MATURE_US, 100))
    assert (len(found), len(again)) == (3, 4)
    assert list(found) == list(again)[:3]
    assert list(silent.recorded(again[1].event_time_us, again[3].event_time_us, 100)) == list(again)[1:3]


def labels_of(database: MigratedDatabase) -> dict[str, int]:
    """Labels for each transaction."""
    with psycopg.connect(database.dsn) as connection:
        rows = connection.execute("SELECT transaction_id, count(*) FROM tollgate.feedback_labels GROUP BY 1")
        return {str(name): int(count) for name, count in rows}


def ended(database: MigratedDatabase, application: str) -> None:
    """Wait until the server has done with the sessions of a process that is gone: it may still commit what it had."""
    stop_s = time.monotonic() + 60
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        while connection.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s", [application]
        ).fetchall():
            assert time.monotonic() < stop_s, "its sessions last"
            time.sleep(0.005)


@pytest.mark.parametrize("bench", ["postgres"], indirect=True)
def test_two_at_once_record_each_label_once(bench: Bench, migrated_database: MigratedDatabase) -> None:
    bench.decide(payments(60))
    found: list[object] = []
    both = [bench.maturing() for _ in range(2)]
    threads = [Thread(target=lambda one=one: found.append(one.mature()["rows"])) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(int(str(rows)) for rows in found) == 60
    assert labels_of(migrated_database) == {item.transaction_id: 1 for item in payments(60)}


@pytest.mark.parametrize("bench", ["postgres"], indirect=True)
def test_a_run_that_is_killed_leaves_whole_labels_and_the_next_one_the_rest(
    bench: Bench, migrated_database: MigratedDatabase
) -> None:
    items = payments(400)
    clock = FakeClock(BASE_US + US_PER_DAY)
    scoring = Scoring(bench.make_ledger(), FixedScorers(), policy=APPROVING, keys=KEYS, clock=clock)
    for start in range(0, len(items), 100):
        scoring.decide(items[start : start + 100])
    command = [sys.executable, "-m", "tests.contract.maturing_run", migrated_database.role_dsn(Role.INGEST)]
    with subprocess.Popen([*command, str(MATURE_US)], cwd=ROOT) as process:
        stop_s = time.monotonic() + 60
        while not labels_of(migrated_database) and time.monotonic() < stop_s:
            time.sleep(0.005)
        process.kill()
    ended(migrated_database, "killed")
    between = labels_of(migrated_database)
    assert 0 < len(between) < len(items)
    with psycopg.connect(migrated_database.dsn) as connection:
        versions = connection.execute(
            "SELECT count(*) FROM tollgate.feedback_labels WHERE customer_version IS NULL"
        ).fetchone()
    assert versions == (0,)
    assert bench.rows() == len(items) - len(between)
    assert labels_of(migrated_database) == {item.transaction_id: 1 for item in items}
