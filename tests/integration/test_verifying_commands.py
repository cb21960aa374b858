"""The commands on a real database and real storage: what they print, and their exit codes."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from azure.storage.blob import BlobServiceClient
from typer.testing import CliRunner, Result

from shared import telemetry
from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.blob_seals import SEALS_CONTAINER
from shared.adapters.postgres_erasure import PostgresErasure
from shared.adapters.postgres_ledger import PostgresLedger
from shared.adapters.schema.grants import Role
from shared.adapters.system_clock import SystemClock
from shared.domain.decision import Policy
from shared.domain.errors import Transient
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import Label
from shared.domain.surrogates import KeyRing, SurrogateKey
from shared.domain.transaction import Transaction
from shared.services.labelling import Labelling
from shared.services.scoring import Decided, Refused, Scoring
from tests.conftest import MigratedDatabase
from tests.fakes.bundles import golden_files, trained_scorer
from tests.unit.domain.worlds import BASE_US, label
from twin.cli import app
from twin.verifying import MODELS_CONTAINER

KEYS = KeyRing(SurrogateKey("k1", bytes(range(32))))
CUSTOMER, OTHER, TERMINAL = (
    CustomerId("customer-4711-secret"),
    CustomerId("customer-4712"),
    TerminalId("terminal-0815-x"),
)


class Champion:
    """The recorded bundle decides."""

    def current(self) -> Any:
        return trained_scorer()


@dataclass
class Bench:
    """A database with some decisions, and the storage beside it."""

    database: MigratedDatabase
    storage: str

    def run(self, *arguments: str, storage: bool = True, role: Role | None = None) -> Result:
        more = ["--database", self.database.dsn if role is None else self.database.role_dsn(role)]
        if storage:
            more += ["--storage", self.storage]
        return CliRunner().invoke(app, [*arguments, *more])

    def sql(self, statement: str, parameters: Sequence[object] = ()) -> int:
        with psycopg.connect(self.database.dsn, autocommit=True) as connection:
            return connection.execute(statement.encode(), parameters or None).rowcount


def payments() -> list[Transaction]:
    return [
        Transaction(
            TransactionId(f"pay-{number:03}"),
            CUSTOMER if number % 3 else OTHER,
            TERMINAL,
            123_457 + number,
            "EUR",
            BASE_US + number * US_PER_DAY // 4,
        )
        for number in range(24)
    ]


def ledger_of(database: MigratedDatabase) -> PostgresLedger:
    return PostgresLedger(database.connection, app="tests")


def scoring(ledger: PostgresLedger) -> Scoring:
    return Scoring(ledger, Champion(), policy=Policy(0.05, 0.4), keys=KEYS, clock=SystemClock())


TABLES = (
    "transaction_ids",
    "transactions",
    "predictions",
    "customer_features",
    "merchant_features",
    "entity_tiles",
    "feedback_labels",
    "log_blocks",
    "log_seals",
    "outbox",
    "dead_letters",
    "forgotten",
)
NUMBERED = {"outbox", "dead_letters"}


@pytest.fixture(scope="module")
def filled(migrated_database: MigratedDatabase, storage: str) -> Bench:
    migrated_database.make_partitions(BASE_US, BASE_US + 100 * US_PER_DAY)
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        names = {item.name for item in service.list_containers()}
        for name in (MODELS_CONTAINER, SEALS_CONTAINER):
            if name not in names:
                service.create_container(name)
        BlobBundles(service.get_container_client(MODELS_CONTAINER)).put(golden_files())
    ledger = ledger_of(migrated_database)
    decide = scoring(ledger)
    for start in range(0, 24, 4):
        assert all(isinstance(item, Decided) for item in decide.decide(payments()[start : start + 4]))
    sayings = [label(item, fraud=number % 2 == 0, known_after_us=US_PER_DAY) for number, item in enumerate(payments())]
    Labelling(ledger, KEYS, SystemClock()).record(sayings[:8])
    ledger.close()
    with psycopg.connect(migrated_database.dsn) as connection:
        for table in TABLES:
            connection.execute(f"CREATE TABLE kept_{table} AS SELECT * FROM tollgate.{table}".encode())
    return Bench(migrated_database, storage)


@pytest.fixture
def bench(filled: Bench) -> Bench:
    """The same decisions for each test, whatever the one before it did to them."""
    with psycopg.connect(filled.database.dsn) as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM tollgate.{table}".encode())
            overriding = "OVERRIDING SYSTEM VALUE" if table in NUMBERED else ""
            connection.execute(f"INSERT INTO tollgate.{table} {overriding} SELECT * FROM kept_{table}".encode())
    with BlobServiceClient.from_connection_string(filled.storage, retry_total=0) as service:
        seals = service.get_container_client(SEALS_CONTAINER)
        for blob in seals.list_blob_names():
            seals.delete_blob(blob)
    return filled


def test_replay_shows_a_decision_what_it_knew_and_that_it_is_equal(bench: Bench) -> None:
    found = bench.run("replay", "pay-010")
    assert found.exit_code == 0, found.output
    assert "replay     equal" in found.stdout
    assert "known up to version" in found.stdout
    assert "terminal_count_7d" in found.stdout
    assert CUSTOMER not in found.output
    assert TERMINAL not in found.output


def test_replay_says_what_it_cannot_check(bench: Bench, tmp_path: Any) -> None:
    unknown = bench.run("replay", "pay-999")
    assert (unknown.exit_code, "has no decision here" in unknown.stderr) == (2, True)
    no_bundle = bench.run("replay", "pay-010", "--bundles", str(tmp_path))
    assert (no_bundle.exit_code, "is not kept" in no_bundle.stdout) == (2, True)
    unreachable = CliRunner().invoke(app, ["replay", "pay-010", "--database", "host=127.0.0.1 port=9 user=x dbname=x"])
    assert unreachable.exit_code == 2
    assert "Traceback" not in unreachable.output


def test_an_untouched_ledger_verifies(bench: Bench) -> None:
    decisions = bench.run("verify", "decisions")
    assert decisions.exit_code == 0, decisions.output
    assert "24 decisions replayed, 600 feature values compared" in decisions.stdout
    assert bench.run("verify", "decisions", "--since", "2018-04-02", "--until", "2018-04-04").exit_code == 0
    assert bench.run("verify", "decisions", "--sample", "0.5", "--seed", "x").exit_code == 0
    skew = bench.run("verify", "skew", storage=False)
    assert skew.exit_code == 0, skew.output
    assert "24 decisions compared" in skew.stdout
    log = bench.run("verify", "log")
    assert log.exit_code == 0, log.output
    assert "the log is whole" in log.stdout


@pytest.mark.parametrize(
    "arguments", [["--since", "yesterday"], ["--sample", "0"], ["--since", "2018-04-04", "--until", "2018-04-02"]]
)
def test_options_that_mean_nothing_are_refused(bench: Bench, arguments: list[str]) -> None:
    found = bench.run("verify", "decisions", *arguments)
    assert found.exit_code == 2
    assert found.stderr.startswith("tollgate: ")


DAMAGE = {
    "vector": (
        "UPDATE tollgate.predictions SET record = set_byte(record, octet_length(record) - 60, 77)"
        " WHERE transaction_id = 'pay-010'",
        {"decisions": "pay-010", "log": "pay-010"},
    ),
    "amount": (
        "UPDATE tollgate.transactions SET amount_minor = amount_minor + 1 WHERE transaction_id = 'pay-010'",
        {"decisions": "body pay-010: the stored transaction is not the one that was claimed"},
    ),
    "label": (
        "UPDATE tollgate.feedback_labels SET verdict = 1 - verdict WHERE transaction_id = 'pay-003'",
        {"decisions": "label pay-003: the stored label is not the one that was recorded"},
    ),
    "version": (
        "UPDATE tollgate.transactions SET terminal_version = terminal_version - 1 WHERE transaction_id = 'pay-010'",
        {"decisions": "was given twice"},
    ),
    "outcome": (
        "UPDATE tollgate.predictions SET outcome = (outcome + 1) % 3 WHERE transaction_id = 'pay-010'",
        {"decisions": "column pay-010: the outcome is not what the record says"},
    ),
    "removed decision": (
        "DELETE FROM tollgate.predictions WHERE transaction_id = 'pay-010'",
        {"log": "missing: block 2"},
    ),
    "removed transaction": (
        "DELETE FROM tollgate.transactions WHERE transaction_id = 'pay-010'",
        {"decisions": "stray pay-010: a decision without its transaction"},
    ),
    "removed block": ("DELETE FROM tollgate.log_blocks WHERE sequence = 2", {"log": "/2: missing"}),
    "removed tail": ("DELETE FROM tollgate.log_blocks WHERE sequence = 5", {"log": "/5: missing"}),
    "changed block": (
        "UPDATE tollgate.log_blocks SET root = decode(repeat('ab', 32), 'hex') WHERE sequence = 2",
        {"log": "/2: changed"},
    ),
    "inserted block": (
        "INSERT INTO tollgate.log_blocks SELECT 'stranger', 0, previous, root, count, leaves, hash, recorded_at_us"
        " FROM tollgate.log_blocks WHERE sequence = 0",
        {"log": "block stranger/0: changed"},
    ),
    "reordered blocks": (
        "UPDATE tollgate.log_blocks held SET root = other.root, leaves = other.leaves, hash = other.hash,"
        " count = other.count FROM tollgate.log_blocks other"
        " WHERE (held.sequence, other.sequence) IN ((1, 2), (2, 1))",
        {"log": "/2: changed"},
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_right_command_names_the_damage(bench: Bench, damage: str) -> None:
    statement, expected = DAMAGE[damage]
    assert bench.sql(statement) > 0
    for command in ("decisions", "log"):
        found = bench.run("verify", command, "--show", "200")
        assert found.exit_code == (1 if command in expected else 0), found.output
        assert expected.get(command, "") in found.stdout


def test_a_tail_that_was_cut_with_its_decisions_shows_by_the_raw_rows_alone_without_a_seal(bench: Bench) -> None:
    bench.sql("DELETE FROM tollgate.log_blocks WHERE sequence = 5")
    bench.sql("DELETE FROM tollgate.predictions WHERE log_sequence = 5")
    log = bench.run("verify", "log")
    assert (log.exit_code, "no seal: nothing shows whether the end" in log.stdout) == (0, True)
    assert "4 transactions were imported and have no decision" in bench.run("verify", "decisions").stdout


def test_a_seal_shows_that_a_tail_with_its_decisions_was_cut(bench: Bench) -> None:
    first = bench.run("seal")
    assert (first.exit_code, first.stdout) == (0, "seal 0: 1 heads\n")
    assert bench.run("seal").stdout == "nothing new to seal\n"
    assert "proven up to the seal of" in bench.run("verify", "log").stdout
    bench.sql("DELETE FROM tollgate.log_blocks WHERE sequence = 5")
    bench.sql("DELETE FROM tollgate.predictions WHERE log_sequence = 5")
    found = bench.run("verify", "log")
    assert (found.exit_code, "/5: missing" in found.stdout) == (1, True)


def test_forgetting_asks_refuses_and_takes_letters_along(bench: Bench) -> None:
    bench.sql(
        "INSERT INTO tollgate.dead_letters (source, partition_id, event_offset, reason, body, received_at_us)"
        " VALUES ('hub', '0', '1', 'other', %s, 5), ('hub', '0', '2', 'other', %s, 5)",
        [json.dumps({"customer_id": CUSTOMER}).encode(), json.dumps({"customer_id": CUSTOMER + "9"}).encode()],
    )
    unasked = bench.run("forget", CUSTOMER, "--reason", "request 17", storage=False)
    assert (unasked.exit_code, "--yes is needed" in unasked.stderr) == (2, True)
    named = bench.run("forget", CUSTOMER, "--reason", f"asked by {CUSTOMER}", "--yes", storage=False)
    assert (named.exit_code, "must not name the customer" in named.stderr) == (2, True)
    done = bench.run("forget", CUSTOMER, "--reason", "request 17", "--yes", storage=False)
    assert done.exit_code == 0, done.output
    assert "16 transactions lost their customer, 5 labels their author, 1 dead letters their body" in done.stdout
    assert CUSTOMER not in done.output
    again = bench.run("forget", CUSTOMER, "--reason", "request 17", "--yes", storage=False)
    assert (again.exit_code, "never seen, or forgotten already" in again.stderr) == (2, True)
    with psycopg.connect(bench.database.dsn) as connection:
        dump = "".join(
            str(connection.execute(f"SELECT t::text FROM tollgate.{table} t".encode()).fetchall())
            for table in TABLES
            if table != "dead_letters"  # another customer's identifier begins with this one
        )
    assert CUSTOMER not in dump
    assert bench.run("verify", "decisions").exit_code == 0
    assert bench.run("verify", "log").exit_code == 0
    assert bench.run("replay", "pay-010").exit_code == 0


def test_each_command_needs_no_more_than_its_role(bench: Bench) -> None:
    for words in (["replay", "pay-010"], ["verify", "decisions"], ["verify", "log"]):
        found = bench.run(*words, role=Role.READER)
        assert found.exit_code == 0, found.output
    assert bench.run("seal", role=Role.DRIFT).exit_code == 0
    refused = bench.run("forget", CUSTOMER, "--reason", "request 17", "--yes", storage=False, role=Role.READER)
    assert (refused.exit_code, "lacks a right" in refused.stderr) == (2, True)
    done = bench.run("forget", CUSTOMER, "--reason", "request 17", "--yes", storage=False, role=Role.FORGET)
    assert done.exit_code == 0, done.output


def test_forgetting_while_deciding_loses_nothing(bench: Bench) -> None:
    """A customer pays while being forgotten again and again: no deadlock, and everything verifies.

    Forgetting gives way to payments that come in between, for ever if they never pause: so they pause now and then,
    until it had its turn.
    """
    who, erased = CustomerId("busy"), 0
    errors: list[object] = []
    stop, turns = threading.Event(), [threading.Event() for _ in range(2)]

    def pay(lane: int) -> None:
        ledger = ledger_of(bench.database)
        decide = scoring(ledger)
        for number in range(60):
            if number in (20, 40):
                turns[number // 20 - 1].wait(60)
            own = Transaction(
                TransactionId(f"busy-{lane}-{number:03}"),
                who,
                TERMINAL,
                100 + number,
                "EUR",
                BASE_US + 10 * US_PER_DAY + number * 1000 + lane,
            )
            for _ in range(50):
                try:
                    (verdict,) = decide.decide([own])
                except Transient:
                    continue
                if isinstance(verdict, Refused) and "was used before" not in str(verdict.error):
                    errors.append(verdict)
                break
            else:
                errors.append(own)
        ledger.close()

    threads = [threading.Thread(target=pay, args=(lane,)) for lane in range(2)]
    for thread in threads:
        thread.start()
    erasure = PostgresErasure(bench.database.connection, "tests")
    while any(thread.is_alive() for thread in threads) and not stop.wait(0.02):
        try:
            erased += erasure.erase(who, "request 18", 5) is not None
        except Transient:
            continue
        for turn in turns[:erased]:
            turn.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert erased >= len(turns)
    found = bench.run("verify", "decisions")
    assert found.exit_code == 0, found.output
    assert bench.run("verify", "log").exit_code == 0


def test_no_log_line_holds_card_data(bench: Bench, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """Decide, repeat, conflict, label, replay, verify, seal and forget with every logger at DEBUG."""
    telemetry.configure("DEBUG")
    who, where, amount = CustomerId("card-5105105105105100"), TerminalId("terminal-98765-z"), 987_654_321
    own = Transaction(TransactionId("quiet-1"), who, where, amount, "EUR", BASE_US + 20 * US_PER_DAY)
    sayings: list[Label] = [label(own, fraud=True)]
    with caplog.at_level(logging.DEBUG):
        ledger = ledger_of(bench.database)
        decide = scoring(ledger)
        decide.decide([own])
        decide.decide([own])
        (conflict,) = decide.decide([Transaction(own.transaction_id, who, where, amount + 1, "EUR", own.event_time_us)])
        assert isinstance(conflict, Refused)
        Labelling(ledger, KEYS, SystemClock()).record(sayings)
        bench.sql("UPDATE tollgate.transactions SET amount_minor = 5 WHERE transaction_id = 'quiet-1'")
        outputs = [bench.run("verify", "decisions", "--show", "500").output]
        bench.sql(f"UPDATE tollgate.transactions SET amount_minor = {amount} WHERE transaction_id = 'quiet-1'")
        commands = (["verify", "decisions"], ["verify", "log"], ["verify", "skew"], ["seal"])
        outputs += [bench.run(*words, storage=words != ["verify", "skew"]).output for words in commands]
        outputs.append(bench.run("forget", who, "--reason", "request 19", "--yes", storage=False).output)
        ledger.close()
    out, err = capfd.readouterr()
    lines = [record.getMessage() + str(record.__dict__) for record in caplog.records]
    assert len(outputs) == 6
    for text in (*lines, out, err):
        for secret in (who, where, str(amount)):
            assert secret not in text
    for text in outputs:  # what a person asked for names transactions and surrogates; vectors hold amounts
        assert who not in text
        assert where not in text
