"""The archive, the seals and forgetting: the same suite on the tables in memory and on Postgres and Blob storage."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import psycopg
import pytest
from azure.storage.blob import BlobServiceClient
from psycopg import sql

from shared.adapters.blob_seals import BlobSeals
from shared.adapters.postgres_archive import PostgresArchive
from shared.adapters.postgres_erasure import PostgresErasure
from shared.adapters.postgres_ledger import PostgresLedger
from shared.adapters.postgres_seals import PostgresSealedLedger
from shared.domain.archive import HistoryPart, Selection, StoredSeal, StoredTransaction, forgotten_key
from shared.domain.decision import Policy
from shared.domain.errors import Conflict, Transient
from shared.domain.feature_view import Entity
from shared.domain.identifiers import CustomerId, TransactionId
from shared.domain.instants import US_PER_DAY, US_PER_MINUTE
from shared.domain.labels import Label
from shared.domain.ledger import FORGOTTEN_DIGEST
from shared.domain.log_block import verify_chain
from shared.domain.seal import NO_SEAL, Seal, seal_bytes
from shared.domain.surrogates import KeyRing, SurrogateKey
from shared.domain.transaction import Transaction
from shared.ports.archive import Archive, SealedLedger, Seals
from shared.ports.ledger import Erasure, Ledger
from shared.services.forgetting import forget
from shared.services.importing import Importing
from shared.services.labelling import Labelling, LabelOutcome
from shared.services.replaying import Replaying
from shared.services.scoring import Decided, Refused, Scoring, Verdict
from shared.services.sealing import seal
from shared.services.verification_decisions import verify_decisions
from shared.services.verification_log import verify_log
from shared.services.verification_skew import verify_skew
from tests.conftest import MigratedDatabase
from tests.fakes.archive import FakeArchive, FakeArchivedScorers, FakeErasure, FakeSealedLedger, FakeSeals
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.unit.domain.worlds import BASE_US, label, random_world, transaction

KEYS = KeyRing(SurrogateKey("k1", bytes(range(32))))
ALL = Selection()

type NewLedger = Callable[[], Ledger]


@dataclass
class Bench:
    """A ledger of some history, and all that reads, seals and erases it."""

    new_ledger: NewLedger
    archive: Archive
    sealed: SealedLedger
    seals: Seals
    erasure: Erasure
    clock: FakeClock

    def __post_init__(self) -> None:
        self.first, self.second = self.new_ledger(), self.new_ledger()
        self.deciders = [self.scoring(self.first), self.scoring(self.second)]
        self.labelling = Labelling(self.first, KEYS, self.clock)
        self.replaying = Replaying(FakeArchivedScorers([LinearScorer()]))

    def scoring(self, ledger: Ledger) -> Scoring:
        return Scoring(ledger, FixedScorers(), policy=Policy(0.05, 0.4), keys=KEYS, clock=self.clock)

    def arrive(self, events: Sequence[Transaction | Label], size: int = 8) -> None:
        for number, start in enumerate(range(0, len(events), size)):
            batch = events[start : start + size]
            self.clock.time_us += US_PER_MINUTE
            self.deciders[number % 2].decide([item for item in batch if isinstance(item, Transaction)])
            self.labelling.record([item for item in batch if isinstance(item, Label)])

    def decide(self, own: Transaction) -> Verdict:
        """Decide one, as everybody does: again after a fault that passes, such as a cached row that went."""
        try:
            return self.deciders[1].decide([own])[0]
        except Transient:
            return self.deciders[1].decide([own])[0]

    def rows(self, entity: Entity = Entity.CUSTOMER, selection: Selection = ALL) -> list[StoredTransaction]:
        return [row for part in self.parts(entity, selection) for row in part.transactions]

    def parts(self, entity: Entity = Entity.CUSTOMER, selection: Selection = ALL) -> list[HistoryPart]:
        with self.archive.snapshot() as snapshot:
            return list(snapshot.histories(entity, selection))

    def holds(self) -> None:
        """Everything verifies."""
        report = verify_decisions(self.archive, self.replaying, ALL, chunk_rows=20)
        assert report.findings.kept == []
        assert verify_log(self.archive, self.seals).findings.kept == []
        assert verify_skew(self.archive, ALL).unexplained == 0


HISTORY = random_world(11, 48, late=True)
EVENTS: list[Transaction | Label] = sorted(
    [*HISTORY.transactions, *HISTORY.labels],
    key=lambda item: item.event_time_us if isinstance(item, Transaction) else item.known_at_us,
)
IMPORTED = [transaction(900 + number, number * 1000, customer="old") for number in range(3)]


def filled(bench: Bench) -> Bench:
    Importing(bench.first, KEYS, bench.clock).take(IMPORTED)
    bench.arrive(EVENTS)
    return bench


@pytest.fixture
def fake() -> Bench:
    tables = FakeLedger().tables
    archive = FakeArchive(tables)
    salts = iter(range(1, 10_000))
    names = iter(["w-a", "w-b", "w-c", "w-d"])

    def new_salts(keys: Sequence[CustomerId]) -> list[bytes]:
        return [next(salts).to_bytes(16) for _ in keys]

    return filled(
        Bench(
            lambda: FakeLedger(tables, next(names), new_salts),
            archive,
            FakeSealedLedger(archive),
            FakeSeals(),
            FakeErasure(tables),
            FakeClock(),
        )
    )


@pytest.fixture
def postgres(migrated_database: MigratedDatabase, storage: str) -> Iterator[Bench]:
    migrated_database.make_partitions(BASE_US - US_PER_DAY, BASE_US + 400 * US_PER_DAY)
    where = migrated_database.connection
    empty(migrated_database)
    opened: list[PostgresLedger] = []

    def new_ledger() -> Ledger:
        opened.append(PostgresLedger(where, app="tests"))
        return opened[-1]

    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        container = service.create_container(f"seals-{uuid.uuid4().hex}")
        yield filled(
            Bench(
                new_ledger,
                PostgresArchive(where, "tests"),
                PostgresSealedLedger(where, "tests"),
                BlobSeals(container),
                PostgresErasure(where, "tests"),
                FakeClock(),
            )
        )
        container.delete_container()
    for ledger in opened:
        ledger.close()


def empty(database: MigratedDatabase) -> None:
    names = (
        "transaction_ids transactions predictions customer_features merchant_features entity_tiles "
        "feedback_labels log_blocks log_seals outbox dead_letters forgotten"
    )
    with psycopg.connect(database.dsn) as connection:
        for name in names.split():  # truncating all these partitions takes a second
            connection.execute(sql.SQL("DELETE FROM tollgate.{}").format(sql.Identifier(name)))


@pytest.fixture(params=["fake", "postgres"])
def bench(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue(request.param)
    return found


def test_histories_hold_every_row_once_entity_by_entity(bench: Bench) -> None:
    for entity in Entity:
        rows = bench.rows(entity)
        assert len(rows) == len(HISTORY.transactions) + len(IMPORTED)
        keys = [
            row.transaction.customer_id if entity is Entity.CUSTOMER else row.transaction.terminal_id for row in rows
        ]
        assert keys == sorted(keys)
        orders = [(key, *row.transaction.order) for key, row in zip(keys, rows, strict=True)]
        assert orders == sorted(orders)
        assert {row.transaction for row in rows} == {*HISTORY.transactions, *IMPORTED}
        assert all(row.entity.version and row.entity.surrogate for row in rows)
        assert [row.transaction.transaction_id for row in rows if row.decision is None] == [
            item.transaction_id for item in IMPORTED
        ] or entity is Entity.TERMINAL
    labels = [found for part in bench.parts() for found in part.labels]
    assert {found.label for found in labels} == set(HISTORY.labels)
    assert all(found.customer_version and found.terminal_version for found in labels)


def test_a_selection_takes_whole_entities_that_have_something_in_its_time(bench: Bench) -> None:
    times = sorted(item.event_time_us for item in HISTORY.transactions)
    chosen = Selection(since_us=times[20], until_us=times[21])
    rows = bench.rows(Entity.CUSTOMER, chosen)
    own = next(item for item in HISTORY.transactions if item.event_time_us == times[20])
    assert {row.transaction.customer_id for row in rows} == {own.customer_id}
    assert len(rows) == sum(item.customer_id == own.customer_id for item in HISTORY.transactions)
    assert bench.rows(Entity.CUSTOMER, Selection(since_us=times[-1] + 1)) == []


@pytest.mark.parametrize("seed", ["", "a", "b"])
def test_a_share_takes_the_same_entities_everywhere(bench: Bench, seed: str) -> None:
    chosen = Selection(share=0.5, seed=seed)
    for entity, key in ((Entity.CUSTOMER, "customer_id"), (Entity.TERMINAL, "terminal_id")):
        found = {getattr(row.transaction, key) for row in bench.rows(entity, chosen)}
        every = {getattr(row.transaction, key) for row in bench.rows(entity)}
        assert found == {name for name in every if chosen.takes_entity(name)}


def test_a_decision_is_found_by_id(bench: Bench) -> None:
    name = HISTORY.transactions[5].transaction_id
    with bench.archive.snapshot() as snapshot:
        found = snapshot.decision(name)
        assert found is not None
        assert found.transaction_id == name
        assert snapshot.decision(TransactionId("nobody")) is None
        assert snapshot.decision(IMPORTED[0].transaction_id) is None
        assert list(snapshot.strays()) == []


def test_blocks_and_decisions_come_side_by_side_from_the_end(bench: Bench) -> None:
    with bench.archive.snapshot() as snapshot:
        blocks, decisions = list(snapshot.blocks(None)), list(snapshot.logged(None))
        extents = snapshot.extents(None, None)
    places = [(item.block.writer, -item.block.sequence) for item in blocks]
    assert places == sorted(places)
    for extent in extents:
        own = [item.block for item in reversed(blocks) if item.block.writer == extent.writer]
        assert (extent.first, extent.last) == (0, len(own) - 1)
        assert verify_chain(extent.writer, own) == []
    assert len(decisions) == len(HISTORY.transactions)
    order = [(item.writer, -item.sequence, item.leaf) for item in decisions]
    assert order == sorted(order)


def test_a_part_of_the_log_is_cut_by_recorded_time(bench: Bench) -> None:
    with bench.archive.snapshot() as snapshot:
        times = sorted(item.recorded_at_us for item in snapshot.blocks(None))
        extents = snapshot.extents(times[2], times[-1])
        blocks, decisions = list(snapshot.blocks(extents)), list(snapshot.logged(extents))
        assert snapshot.extents(times[-1] + 1, None) == []
    assert {item.recorded_at_us for item in blocks} == set(times[2:-1])
    assert {(item.writer, item.sequence) for item in decisions} == {
        (item.block.writer, item.block.sequence) for item in blocks
    }


def test_a_snapshot_does_not_see_what_comes_later(bench: Bench) -> None:
    if isinstance(bench.archive, FakeArchive):
        pytest.skip("the tables in memory have one moment only")
    with bench.archive.snapshot() as snapshot:
        assert snapshot.extents(None, None)
        bench.deciders[0].decide([transaction(700, 130 * US_PER_DAY)])
        assert snapshot.decision(TransactionId("t0700")) is None
    with bench.archive.snapshot() as snapshot:
        assert snapshot.decision(TransactionId("t0700")) is not None


def test_everything_verifies(bench: Bench) -> None:
    bench.holds()


def test_heads_are_those_of_who_wrote_lately(bench: Bench) -> None:
    heads = bench.sealed.heads(None)
    assert [head.writer for head in heads] == sorted(head.writer for head in heads)
    assert len(heads) == 2
    bench.clock.time_us += 60 * US_PER_MINUTE
    bench.deciders[1].decide([transaction(700, 130 * US_PER_DAY)])
    (recent,) = bench.sealed.heads(bench.clock.time_us)
    assert (recent.writer, recent.sequence) == (
        next(head.writer for head in heads if head.writer == recent.writer),
        next(head.sequence for head in heads if head.writer == recent.writer) + 1,
    )
    assert bench.sealed.heads(bench.clock.time_us + 1) == []


def test_seals_are_kept_once_and_copied_once(bench: Bench) -> None:
    one, other = seal_bytes(Seal(0, 5, NO_SEAL, ())), seal_bytes(Seal(0, 6, NO_SEAL, ()))
    assert bench.seals.get(0) is None
    assert bench.seals.put(0, one)
    assert not bench.seals.put(0, other)
    assert bench.seals.get(0) == one
    assert bench.sealed.last_seal() is None
    bench.sealed.mirror(StoredSeal(0, one))
    bench.sealed.mirror(StoredSeal(0, other))
    assert bench.sealed.last_seal() == StoredSeal(0, one)
    assert bench.sealed.recent_seals(5) == [StoredSeal(0, one)]
    assert bench.sealed.recent_seals(6) == []


def test_a_sealed_log_verifies_and_only_what_moved_is_sealed_again(bench: Bench) -> None:
    first = seal(bench.sealed, bench.seals, bench.clock).seal
    assert first is not None
    assert len(first.heads) == 2
    assert seal(bench.sealed, bench.seals, bench.clock).seal is None
    bench.deciders[1].decide([transaction(700, 130 * US_PER_DAY)])
    second = seal(bench.sealed, bench.seals, bench.clock).seal
    assert second is not None
    assert (second.number, second.previous, len(second.heads)) == (1, first.hash, 1)
    report = verify_log(bench.archive, bench.seals)
    assert (report.findings.kept, report.seals, report.chained) == ([], 2, 0)


def test_forgetting_takes_the_customer_out_and_leaves_all_else_computable(bench: Bench) -> None:
    seal(bench.sealed, bench.seals, bench.clock)
    before = {row.transaction.transaction_id: row for row in bench.rows()}
    erased = forget(bench.erasure, bench.clock, CustomerId("c1"), "request 17")
    after = {row.transaction.transaction_id: row for row in bench.rows()}
    own = {name for name, row in before.items() if row.transaction.customer_id == "c1"}
    assert erased.transactions == len(own)
    assert erased.labels == sum(label.transaction_id in own for label in HISTORY.labels)
    for name, row in after.items():
        if name not in own:
            assert row == before[name]
            continue
        assert row.digest == FORGOTTEN_DIGEST
        assert row.entity == (None, None)
        assert row.transaction == replace(before[name].transaction, customer_id=forgotten_key(erased.surrogate))
        assert row.decision == before[name].decision
    authors = {
        found.label.author.rpartition("-")[0]
        for part in bench.parts()
        for found in part.labels
        if found.label.transaction_id in own
    }
    assert authors == {"forgotten"}
    bench.holds()


def test_forgetting_nobody_changes_nothing(bench: Bench) -> None:
    before = bench.rows()
    assert bench.erasure.erase(CustomerId("nobody"), "request 17", 5) is None
    assert bench.rows() == before
    assert bench.erasure.erase(CustomerId("c1"), "request 17", 5) is not None
    assert bench.erasure.erase(CustomerId("c1"), "request 17", 6) is None


def test_a_forgotten_past_is_a_conflict_and_a_new_start_has_a_new_name(bench: Bench) -> None:
    own = next(item for item in HISTORY.transactions if item.customer_id == "c1")
    bench.deciders[1].decide([own])
    erased = forget(bench.erasure, bench.clock, own.customer_id, "request 17")
    before = bench.rows()
    again = bench.decide(own)
    assert isinstance(again, Refused)
    assert isinstance(again.error, Conflict)
    assert bench.labelling.record([label(own, fraud=True)])[0].outcome is LabelOutcome.REFUSED
    assert bench.rows() == before
    fresh = transaction(701, 131 * US_PER_DAY, customer=own.customer_id, terminal=own.terminal_id)
    anew = bench.decide(fresh)
    assert isinstance(anew, Decided)
    assert anew.record.customer != erased.surrogate
    assert anew.record.customer_version == 0
    bench.holds()
    again_erased = forget(bench.erasure, bench.clock, own.customer_id, "request 18")
    assert (again_erased.transactions, again_erased.surrogate) == (1, anew.record.customer)
    bench.holds()


def test_labels_that_differ_by_their_author_alone_stay_apart(bench: Bench) -> None:
    own = next(item for item in HISTORY.transactions if item.customer_id == "c2")
    one = label(own, fraud=True)
    assert bench.labelling.record([one, replace(one, author="bob"), replace(one, author="eve")])
    erased = forget(bench.erasure, bench.clock, own.customer_id, "request 17")
    assert erased.labels >= 3
    bench.holds()
