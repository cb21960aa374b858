"""What the real ledgers do when the database does not: lost connections, long locks, a commit whose answer is lost."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shared.adapters.postgres import PostgresConnection
from shared.adapters.postgres_errors import translated
from shared.adapters.postgres_ledger import PLANS, random_writer
from shared.adapters.postgres_ledger_statements import Kind, Statement
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.postgres_wire import PsycopgWire
from shared.adapters.postgres_wire_libpq import LibpqWire
from shared.adapters.schema.grants import Role
from shared.domain.canonical import Digest, transaction_digest
from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.feature_view import Entity
from shared.domain.instants import US_PER_DAY
from shared.domain.ledger import Claim, DecisionWrites, LabelClaim
from shared.domain.log_block import leaf_hash, next_block
from shared.domain.score import Scored
from shared.services.scoring import Decided, Refused
from tests.conftest import MigratedDatabase, free_ports
from tests.contract.ledger_stores import FIRST_US, LAST_US, REAL, PostgresStore, labelling, scoring, store_of
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.unit.domain.worlds import BASE_US, label, transaction
from tests.unit.shared.test_scoring import recomputed

BATCH = [transaction(number, number, customer=f"c{number % 3}", terminal="m") for number in range(7)]


@pytest.fixture(scope="module")
def dsn(migrated_database: MigratedDatabase) -> str:
    migrated_database.make_partitions(FIRST_US, LAST_US)
    return migrated_database.dsn


@pytest.fixture(params=REAL)
def store(request: pytest.FixtureRequest, dsn: str) -> Iterator[PostgresStore]:
    with store_of(request.param, dsn) as real:
        yield real


@dataclass(frozen=True)
class ActingScorer(LinearScorer):
    """Does something between claim and write."""

    act: Callable[[], object] = field(default=lambda: None)

    def score(self, vectors: NDArray[np.float32]) -> Scored:
        self.act()
        return super().score(vectors)


def ids(store: PostgresStore) -> set[str]:
    return set(store.tables().digests)


def decided(store: PostgresStore) -> int:
    """How many decisions are stored, after a look at all of them."""
    tables = store.tables()
    vectors = recomputed(tables)
    assert set(vectors) == set(tables.decisions) == set(tables.outbox)
    return len(vectors)


def kill(store: PostgresStore, pid: int) -> None:
    """End a backend and wait until it is gone."""
    assert store.admin.execute("SELECT pg_terminate_backend(%s, 60000)", [pid]).fetchone() == (True,)


def pid_of(ledger: object) -> int:
    found: int = ledger.wire.session.connection.info.backend_pid  # type: ignore[attr-defined]  # any real ledger
    return found


def test_a_backend_that_is_killed_before_a_claim_costs_one_try(store: PostgresStore) -> None:
    ledger = store.ledger()
    decide = scoring(ledger)
    decide.decide(BATCH[:2])
    kill(store, pid_of(ledger))
    with pytest.raises(Transient):
        decide.decide(BATCH)
    writer = ledger.writer
    verdicts = decide.decide(BATCH)
    assert [isinstance(item, Decided) and item.repeated for item in verdicts] == [True, True] + 5 * [False]
    assert (ledger.writer != writer, decided(store)) == (True, 7)


def test_a_backend_that_is_killed_before_a_write_leaves_no_trace(store: PostgresStore) -> None:
    ledger = store.ledger()
    scoring(ledger).decide(BATCH[:1])
    doomed = FixedScorers(ActingScorer(act=lambda: kill(store, pid_of(ledger))))
    with pytest.raises(Transient):
        scoring(ledger, doomed).decide(BATCH)
    assert ids(store) == {BATCH[0].transaction_id}
    assert all(isinstance(item, Decided) for item in scoring(ledger).decide(BATCH))
    assert decided(store) == 7


def test_a_backend_that_dies_at_commit_is_a_commit_in_doubt(store: PostgresStore) -> None:
    store.admin.execute(
        "CREATE FUNCTION pg_temp_die() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
    )
    store.admin.execute(
        "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON tollgate.log_blocks"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp_die()"
    )
    ledger = store.ledger()
    try:
        with pytest.raises(Transient):
            scoring(ledger).decide(BATCH)
    finally:
        store.admin.execute("DROP FUNCTION pg_temp_die CASCADE")
    assert ids(store) == set()
    assert ledger.head is None
    assert all(isinstance(item, Decided) for item in scoring(ledger).decide(BATCH))
    assert decided(store) == 7


class Cutting:
    """A proxy to Postgres that can swallow the server's next answer and hang up."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._target = (str(parts["host"]), int(str(parts["port"])))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(dsn, port=self._listener.getsockname()[1], host="127.0.0.1")
        self.is_armed = False
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for pair in ((client, server, False), (server, client, True)):
                    self._threads.append(threading.Thread(target=self._copy, args=pair))
                    self._threads[-1].start()

    def _copy(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if is_answer and self.is_armed:
                    self.is_armed = False
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for item in self._sockets:
            with suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
            item.close()
        for thread in self._threads:
            thread.join()


@contextmanager
def cutting(store: PostgresStore, dsn: str) -> Iterator[Cutting]:
    proxy = Cutting(dsn)
    store.where = PostgresConnection("DATABASE", dsn=proxy.dsn)
    try:
        yield proxy
    finally:
        proxy.close()


def test_a_commit_whose_answer_is_lost_is_found_by_claiming_again(store: PostgresStore, dsn: str) -> None:
    with cutting(store, dsn) as proxy:
        ledger = store.ledger()
        arm = FixedScorers(ActingScorer(act=lambda: setattr(proxy, "is_armed", True)))
        with pytest.raises(Transient, match="may or may not"):
            scoring(ledger, arm).decide(BATCH)
        assert ledger.head is None
        verdicts = scoring(ledger).decide(BATCH)
        assert all(isinstance(item, Decided) and item.repeated for item in verdicts)
        assert decided(store) == 7
        assert [block.count for block in store.tables().blocks] == [7]


@contextmanager
def locked(dsn: str, statement: str) -> Iterator[None]:
    """Another session that holds a lock."""
    with psycopg.connect(dsn) as other:
        other.execute(statement.encode())
        yield
        other.rollback()


LOCKS = (
    "SELECT FROM tollgate.merchant_features WHERE terminal_id = 'm' FOR UPDATE",
    "INSERT INTO tollgate.transaction_ids (transaction_id) VALUES ('t0005')",
    "INSERT INTO tollgate.customer_features (customer_id, salt) VALUES ('c2', sha256('')) ON CONFLICT DO NOTHING",
)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_long_lock_is_waited_for_only_so_long(store: PostgresStore, dsn: str, lock: str) -> None:
    ledger = store.ledger(settings={"lock_timeout": "150ms"})
    scoring(ledger).decide(BATCH[:2])
    pid = pid_of(ledger)
    with locked(dsn, lock), pytest.raises(Transient, match="55P03"):
        scoring(ledger).decide(BATCH)
    assert all(isinstance(item, Decided) for item in scoring(ledger).decide(BATCH))
    assert (pid_of(ledger), decided(store)) == (pid, 7)  # losing a lock costs no connection


def test_a_server_that_does_not_answer_is_given_up(dsn: str) -> None:
    session = PostgresSession(PostgresConnection("DATABASE", dsn=dsn), "test", PLANS)
    wire = LibpqWire(session, deadline_s=0.2)
    wire.open()
    slow = Statement("slow", "SELECT count(*) FROM tollgate.outbox", columns=(Kind.INT8,))
    lock = locked(dsn, "LOCK tollgate.outbox IN ACCESS EXCLUSIVE MODE")
    with lock, pytest.raises(Transient), translated("testing"):
        wire.run([(slow, ())])
    assert not session.is_open


VALUES: dict[Kind, list[object]] = {
    Kind.INT2: [0, 1, -1, 32_767, -32_768],
    Kind.INT4: [0, 1, -1, (1 << 31) - 1, -(1 << 31)],
    Kind.INT8: [0, 1, -1, (1 << 63) - 1, -(1 << 63)],
    Kind.TEXT: ["", "a", "\N{SNOWMAN}", "x" * 70_000, '{"a",NULL}'],
    Kind.BYTES: [b"", b"\x00", bytes(range(256)), b"y" * 70_000],
}


@pytest.mark.parametrize("wire_kind", [LibpqWire, PsycopgWire])
@pytest.mark.parametrize("kind", VALUES)
def test_values_arrive_as_they_are_sent(dsn: str, wire_kind: type[LibpqWire | PsycopgWire], kind: Kind) -> None:
    session = PostgresSession(PostgresConnection("DATABASE", dsn=dsn), "test", PLANS)
    wire = wire_kind(session)
    wire.open()
    sent = [[VALUES[kind][place % len(VALUES[kind])] for place in range(count)] for count in (0, 1, 2, 39, 40, 41, 90)]
    arrays = Statement(
        f"echo_{kind.value}", f"SELECT v FROM unnest($1::{kind.value}[]) AS given(v)", (kind,), columns=(kind,)
    )
    assert wire.run([(arrays, (values,)) for values in sent]) == [[(value,) for value in values] for values in sent]
    scalar = Statement(f"one_{kind.value}", f"SELECT $1::{kind.value}", scalars=(kind,), columns=(kind,))
    assert wire.run([(scalar, (value,)) for value in VALUES[kind]]) == [[(value,)] for value in VALUES[kind]]
    session.close()


def test_rounds_larger_than_all_buffers_do_not_stop_both_sides(dsn: str) -> None:
    session = PostgresSession(PostgresConnection("DATABASE", dsn=dsn), "test", PLANS)
    wire = LibpqWire(session)
    wire.open()
    echo = Statement("echo", "SELECT v FROM unnest($1::bytea[]) AS given(v)", (Kind.BYTES,), columns=(Kind.BYTES,))
    sent = [bytes([place]) * 400_000 for place in range(5)]
    found = wire.run([(echo, (sent,)) for _ in range(8)])
    assert found == [[(value,) for value in sent]] * 8
    session.close()


def test_what_the_database_refuses_is_a_broken_invariant_and_costs_no_connection(store: PostgresStore) -> None:
    ledger = store.ledger()
    decide = scoring(ledger)
    decide.decide(BATCH[:1])
    pid, head = pid_of(ledger), ledger.head
    beyond = transaction(900, LAST_US - BASE_US + 40 * US_PER_DAY)
    verdicts = decide.decide([BATCH[1], beyond, BATCH[2]])
    assert [isinstance(item, Decided) for item in verdicts] == [True, False, True]
    refused = verdicts[1]
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, BrokenInvariant)
    assert "tollgate db partitions" in str(refused.error)
    assert pid_of(ledger) == pid
    assert ledger.head is not None
    assert head is not None
    assert (ledger.writer, ledger.head.sequence) == (head.writer, head.sequence + 2)
    assert decided(store) == 3


def test_a_failed_check_is_not_taken_for_a_missing_partition(store: PostgresStore) -> None:
    ledger = store.ledger()
    own = replace(BATCH[0], amount_minor=0)  # no accepted transaction has it
    (verdict,) = scoring(ledger).decide([own])
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, BrokenInvariant)
    assert "23514" in str(verdict.error)
    assert "partition" not in str(verdict.error)
    assert ids(store) == set()


def test_a_value_that_does_not_fit_its_type_is_a_broken_invariant(store: PostgresStore) -> None:
    ledger = store.ledger()
    with ledger.deciding() as work:
        work.claim([Claim(BATCH[0], transaction_digest(BATCH[0]))])
        block = replace(next_block(work.writer, None, [b""]), count=1 << 40)
        with pytest.raises(BrokenInvariant):
            work.write(DecisionWrites((), (), (), (), block, 5))
    assert (ids(store), ledger.head) == (set(), None)
    assert isinstance(scoring(ledger).decide(BATCH[:1])[0], Decided)


def test_a_migration_that_makes_prepared_statements_stale_costs_one_try(store: PostgresStore) -> None:
    ledger = store.ledger()
    scoring(ledger).decide(BATCH[:2])
    retype = "ALTER TABLE tollgate.merchant_features ALTER COLUMN surrogate TYPE {}"
    try:
        store.admin.execute(retype.format("varchar(64)").encode())
        with pytest.raises(Transient, match="0A000"):
            scoring(ledger).decide(BATCH)
        assert all(isinstance(item, Decided) for item in scoring(ledger).decide(BATCH))
    finally:
        store.admin.execute(retype.format("text").encode())
    assert decided(store) == 7


def test_statements_that_a_pooler_lost_cost_one_try(store: PostgresStore) -> None:
    ledger = store.ledger()
    scoring(ledger).decide(BATCH[:2])
    if isinstance(ledger.wire, LibpqWire):
        ledger.wire.run([(Statement("forget_all", "DEALLOCATE ALL"), ())])
    else:  # past psycopg, which would take note
        ledger.wire.session.connection.pgconn.exec_(b"DEALLOCATE ALL")
    with pytest.raises(Transient, match="26000"):
        scoring(ledger).decide(BATCH)
    assert all(isinstance(item, Decided) for item in scoring(ledger).decide(BATCH))
    assert decided(store) == 7


def test_a_decision_names_its_place_in_the_log(store: PostgresStore) -> None:
    ledger = store.ledger()
    for part in (BATCH[:3], BATCH[3:]):
        scoring(ledger).decide(part)
    blocks = {(block.writer, block.sequence): block for block in store.tables().blocks}
    rows = store.admin.execute("SELECT record, log_writer, log_sequence, log_leaf FROM tollgate.predictions").fetchall()
    assert {blocks[writer, sequence].leaves[leaf] for _, writer, sequence, leaf in rows} == {
        leaf_hash(record) for record, *_ in rows
    }
    assert all(blocks[writer, sequence].leaves[leaf] == leaf_hash(record) for record, writer, sequence, leaf in rows)
    times = store.admin.execute(
        "SELECT recorded_at_us FROM tollgate.predictions UNION SELECT recorded_at_us FROM tollgate.transactions"
        " UNION SELECT recorded_at_us FROM tollgate.log_blocks UNION SELECT recorded_at_us FROM tollgate.outbox"
    ).fetchall()
    assert times == [(FakeClock().now_us(),)]


def test_an_id_is_marked_for_as_long_as_labels_wait_for_it(store: PostgresStore) -> None:
    ledger = store.ledger()
    marked = "SELECT transaction_id FROM tollgate.transaction_ids WHERE labelled"
    labelling(ledger).record([label(item, fraud=True) for item in BATCH[:2]])
    assert {row[0] for row in store.admin.execute(marked.encode())} == {"t0000", "t0001"}
    scoring(ledger).decide(BATCH[1:])
    labelling(ledger).record([label(BATCH[2], fraud=True)])
    assert {row[0] for row in store.admin.execute(marked.encode())} == {"t0000"}


def test_a_label_of_a_transaction_whose_entity_is_missing_is_a_broken_invariant(store: PostgresStore) -> None:
    scoring(store.ledger()).decide(BATCH)
    store.admin.execute("DELETE FROM tollgate.merchant_features")
    with pytest.raises(BrokenInvariant, match="row of a terminal"):
        labelling(store.ledger()).record([label(BATCH[0], fraud=True)])
    assert store.admin.execute("SELECT count(*) FROM tollgate.feedback_labels").fetchone() == (0,)


def test_states_of_other_entities_stay_cached_when_a_unit_fails(store: PostgresStore) -> None:
    ledger = store.ledger()
    scoring(ledger).decide(BATCH)
    with suppress(ZeroDivisionError), ledger.deciding() as work:
        other = transaction(50, 50, customer="c1", terminal="m2")
        work.claim([Claim(other, transaction_digest(other))])
        raise ZeroDivisionError
    kept = [ledger.cache.get(Entity.CUSTOMER, f"c{number}") is not None for number in range(3)]
    assert kept == [True, False, True]
    assert ledger.cache.get(Entity.TERMINAL, "m") is not None


def test_a_session_commits_rolls_back_and_comes_back(dsn: str) -> None:
    session = PostgresSession(PostgresConnection("DATABASE", dsn=dsn), "test")
    count = b"SELECT count(*) FROM tollgate.outbox"
    insert = b"INSERT INTO tollgate.outbox (transaction_id, event_time_us, recorded_at_us) VALUES ('x', 1, 1)"
    with suppress(ZeroDivisionError), session.transaction() as connection:
        connection.execute(insert)
        raise ZeroDivisionError
    with session.transaction() as connection:
        pid = connection.info.backend_pid
        assert connection.execute(count).fetchone() == (0,)
        connection.execute(insert)
    with suppress(psycopg.OperationalError), session.transaction() as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    assert not session.is_open
    with session.transaction() as connection:
        assert connection.execute(count).fetchone() == (1,)
        assert connection.execute("SHOW lock_timeout").fetchone() == ("5s",)
        connection.execute("DELETE FROM tollgate.outbox")
    session.close()


@pytest.mark.parametrize("entity", list(Entity))
def test_a_customer_who_was_forgotten_and_comes_back_is_another_one(store: PostgresStore, entity: Entity) -> None:
    ledger = store.ledger()
    decide = scoring(ledger)
    decide.decide(BATCH)
    # The other ledger lets the row begin anew, up to the very version that the first one has in its cache.
    table, key, name = {
        Entity.CUSTOMER: ("customer_features", "customer_id", "c0"),
        Entity.TERMINAL: ("merchant_features", "terminal_id", "m"),
    }[entity]
    store.admin.execute(f"DELETE FROM tollgate.{table} WHERE {key} = %s", [name])
    store.admin.execute("DELETE FROM tollgate.entity_tiles WHERE entity_key = %s", [name])
    later = [transaction(100 + number, 10 + number, customer="c0", terminal="m") for number in range(3)]
    if entity is Entity.CUSTOMER:
        scoring(store.ledger(new_salts=lambda keys: [bytes(16)] * len(keys))).decide(later)
        (verdict,) = decide.decide([transaction(200, 50, customer="c0", terminal="m")])
        assert isinstance(verdict, Decided)
        assert verdict.record.customer_version == 3
    else:
        with pytest.raises(Transient):  # seen in the cache, gone in the table
            decide.decide(later)
        (verdict, *_) = decide.decide(later)
        assert isinstance(verdict, Decided)
        assert verdict.record.terminal_version == 0


@pytest.mark.parametrize("name", ["postgres", "not_there"])
def test_without_its_schema_the_error_says_what_mends_it(store: PostgresStore, name: str) -> None:
    assert store.where.dsn is not None
    where = PostgresConnection("DATABASE", dsn=make_conninfo(store.where.dsn, dbname=name))
    ledger = REAL[store.kind](where, "test")
    verdicts = []
    with suppress(BrokenInvariant):
        verdicts = scoring(ledger).decide(BATCH[:1])
    with pytest.raises(BrokenInvariant, match="tollgate db upgrade"), ledger.labelling() as work:
        work.claim([LabelClaim(label(BATCH[0], fraud=True), Digest(bytes(32)))])
    assert not any(isinstance(item, Decided) for item in verdicts)
    ledger.close()


def test_a_password_that_is_wrong_is_a_broken_installation(store: PostgresStore) -> None:
    assert store.where.dsn is not None
    ledger = REAL[store.kind](PostgresConnection("DATABASE", dsn=make_conninfo(store.where.dsn, password="no")), "test")
    with pytest.raises(BrokenInvariant, match="login was refused"), ledger.deciding():
        pass


def test_a_server_that_is_not_there_is_transient(store: PostgresStore) -> None:
    assert store.where.dsn is not None
    where = PostgresConnection("DATABASE", dsn=make_conninfo(store.where.dsn, port=free_ports(1)[0]))
    with pytest.raises(Transient), REAL[store.kind](where, "test").deciding():
        pass


def test_a_cache_of_no_bytes_changes_nothing_but_the_cost(store: PostgresStore) -> None:
    ledger = store.ledger(cache_bytes=0)
    for item in BATCH:
        scoring(ledger).decide([item])
    labelling(ledger).record([label(item, fraud=True) for item in BATCH])
    assert (len(ledger.cache), ledger.cache.n_bytes) == (0, 0)
    assert decided(store) == 7


def test_every_connection_is_a_writer_of_its_own(store: PostgresStore) -> None:
    names = set()
    for _ in range(3):
        ledger = store.ledger(new_writer=random_writer)
        scoring(ledger).decide([])
        with ledger.deciding():
            names.add(ledger.writer)
        ledger.close()
        with ledger.deciding():
            names.add(ledger.writer)
    assert len(names) == 6
    assert all(re.fullmatch(r"test-[0-9a-f]{16}", name) for name in names)
    assert random_writer("an app/with: what a name " * 5).startswith("an-app-with--what-a-name-")
    assert len(random_writer("x" * 80)) == 64
    assert re.fullmatch(r"writer-[0-9a-f]{16}", random_writer("..."))


def test_stages_are_told_to_who_asks(store: PostgresStore) -> None:
    stages: list[str] = []
    ledger = store.ledger(observe=lambda stage, seconds: stages.append(stage) if seconds >= 0 else None)
    scoring(ledger).decide(BATCH[:2])
    assert stages == ["prepare claim", "claim", "read", "prepare write", "write", "keep"]
    stages.clear()
    scoring(ledger).decide(BATCH[:2])
    assert stages == ["prepare claim", "claim", "repeats and waiting labels", "read"]


@pytest.mark.parametrize("role", [Role.SCORE, Role.INGEST])
def test_the_rights_of_the_apps_are_enough(
    store: PostgresStore, migrated_database: MigratedDatabase, role: Role
) -> None:
    store.where = migrated_database.role_connection(role)
    ledger = store.ledger()
    early, other = label(BATCH[0], fraud=True), replace(BATCH[0], customer_id=BATCH[1].customer_id)
    if role is Role.INGEST:
        labelling(ledger).record([early])
        scoring(ledger).decide(BATCH[:1])
        labelling(ledger).record([label(BATCH[0], fraud=False)])
    verdicts = scoring(ledger).decide([*BATCH, replace(other, transaction_id=BATCH[1].transaction_id)])
    assert [isinstance(item, Decided) for item in verdicts] == 7 * [True] + [False]
    (verdict,) = scoring(ledger).decide([other])
    assert isinstance(verdict, Refused)
    assert decided(store) == 7
