"""A feature view that looks further back than state is kept, on a real server with history, writers and a real kill."""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner, Result

from shared.adapters.bundle_scorers import BundleScorers
from shared.adapters.file_bundles import FileBundles
from shared.adapters.onnx_scorer import OnnxScorer
from shared.adapters.postgres import PostgresConnection
from shared.adapters.postgres_archive import PostgresArchive
from shared.adapters.postgres_erasure import PostgresErasure
from shared.adapters.postgres_filling import PostgresStateFilling
from shared.adapters.postgres_ledger import WiredLedger
from shared.adapters.postgres_promotions import PostgresPromotions
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.postgres_views import PostgresViewBook
from shared.adapters.schema.grants import Role
from shared.bootstrap.parts import views_of
from shared.domain.archive import Selection
from shared.domain.bundle import open_bundle, pack_bundle
from shared.domain.bundle_pointer import Pointer
from shared.domain.bundle_pointer import Role as ModelRole
from shared.domain.entity_state import EntityState, fold
from shared.domain.entity_state_codec import read_header, read_state, state_bytes
from shared.domain.entity_state_layout import BASE_LAYOUT, StateLayout
from shared.domain.entity_state_read import StateReader
from shared.domain.errors import Conflict, InvalidInput, Transient
from shared.domain.feature_view import CARD_V1, HANDBOOK_V1, VIEWS, Entity, Feature, FeatureView, Measure, Null
from shared.domain.features import History, PastTransaction, transform_one
from shared.domain.identifiers import CustomerId
from shared.domain.instants import US_PER_DAY
from shared.domain.kept_view import KeptView, ViewStatus, declared_layout, why_refused
from shared.domain.labels import LABEL_DELAY_US, Label
from shared.domain.ledger import LabelVersions
from shared.domain.promotion import Check, CheckName, GateRules, write_verdict
from shared.domain.promotion import Verdict as GateVerdict
from shared.domain.reasons import CATALOGUE
from shared.domain.transaction import Transaction
from shared.services.backfilling import Backfilling
from shared.services.labelling import Labelling
from shared.services.replaying import Replaying
from shared.services.scoring import Decided, Refused, Scoring, Verdict
from shared.services.succession import Succession
from shared.services.verification_decisions import verify_decisions
from tests.conftest import MigratedDatabase
from tests.contract.ledger_stores import REAL, PostgresStore, labelling, scoring
from tests.fakes.archive import FakeArchivedScorers
from tests.fakes.ledger import Tables
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.unit.domain.worlds import BASE_US, label, same_bits, transaction
from tests.unit.shared.test_promotion_judging import made
from tests.unit.shared.test_scoring import KEYS, POLICY
from twin.cli import app
from twin.services.postgres import admin_dsn
from twin.services.settings import DATABASE_USER, TwinSettings

DAYS: Final = 300
WITHIN_S: Final = 60.0

LONG: Final = FeatureView(
    "long-v1",
    (
        *HANDBOOK_V1.features,
        Feature("c150", Measure.COUNT, "transactions", entity=Entity.CUSTOMER, window_us=150 * US_PER_DAY),
        *(
            Feature(f"t60_{measure}", measure, "any", null, Entity.TERMINAL, 60 * US_PER_DAY, LABEL_DELAY_US)
            for measure, null in (
                (Measure.COUNT, Null.ZERO),
                (Measure.FRAUD_RATE, Null.ZERO),
                (Measure.LAST_LABEL, Null.NAN),
                (Measure.FRAUD_RUN, Null.ZERO),
                (Measure.FRAUD_RUN_AGE, Null.NAN),
            )
        ),
    ),
)
"""Looks back 60 days at terminals and 150 at customers, where state is kept for 37 and 97."""

CARD: Final = LinearScorer("card", 1, CARD_V1)
FURTHER: Final = LinearScorer("further", 2, LONG)

type Item = Transaction | Label


def stream(seed: int = 5, n_rows: int = 700) -> list[Item]:
    """Months of traffic in the order of arrival: some of it days late, some of it months; labels late, some twice.

    One customer and one terminal end early, so that what state lacks of them lies elsewhere than for the others.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[int, Item]] = []
    for number, second in enumerate(np.sort(rng.integers(0, DAYS * 86_400, n_rows)).tolist()):
        is_early = second < 130 * 86_400
        item = transaction(
            number,
            second * 1_000_000,
            customer=f"c{rng.integers(5 if is_early else 4)}",
            terminal=f"m{rng.integers(7 if is_early else 6)}",
            amount=int(rng.lognormal(8, 1)) + 1,
        )
        chance = rng.random()
        delay_us = int(rng.integers(120 if chance < 0.03 else 6)) * US_PER_DAY if chance < 0.1 else 0
        found.append((item.event_time_us + delay_us, item))
        for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
            known_us = int(rng.integers(60 * 86_400)) * 1_000_000
            said = label(item, fraud=bool(rng.random() < 0.4), known_after_us=known_us)
            found.append((said.known_at_us + int(rng.integers(US_PER_DAY)), said))
    return [item for _, item in sorted(found, key=lambda pair: pair[0])]


@dataclass
class Bench:
    """A fresh database with a stream that arrives in it.

    Attributes:
        database: Its logins.
        store: Everything in it.
        server: Connection string of the server's own user, who sees what others wait for.
    """

    database: MigratedDatabase
    store: PostgresStore
    server: str

    def __post_init__(self) -> None:
        self.session = PostgresSession(self.database.role_connection(Role.BACKFILL), "test")
        self.book = PostgresViewBook(self.session)

    def feed(self, ledger: WiredLedger, items: Sequence[Item], scorer: LinearScorer = CARD) -> list[Verdict]:
        """Decide and record, in order and in small batches."""
        deciding, recording = scoring(ledger, FixedScorers(scorer)), labelling(ledger)
        verdicts: list[Verdict] = []
        for start in range(0, len(items), 9):
            part = items[start : start + 9]
            verdicts += deciding.decide([item for item in part if isinstance(item, Transaction)])
            recording.record([item for item in part if isinstance(item, Label)])
        return verdicts

    def backfill(
        self, told: Callable[[KeptView, int], None] = lambda _at, _total: None, group: int = 3, view: FeatureView = LONG
    ) -> KeptView:
        with filling_of(self.database.role_connection(Role.BACKFILL)) as filling:
            return Backfilling(self.book, filling, FakeClock(), group=group).run(view, told)

    def layout(self) -> StateLayout:
        return declared_layout(self.book.kept())

    def assert_as_if_kept_from_the_beginning(self) -> int:
        """Every stored state equals, in every byte, one folded from raw events under the layout; how many."""
        tables, layout = self.store.tables(), self.layout()
        for (entity, key), stored in tables.entities.items():
            ideal = fold(EntityState.empty(layout, entity), past(tables, entity, key)).state
            assert stored.header is not None
            found = read_state(stored.header, [data for _, data in stored.tiles.values()])
            assert state_bytes(found) == state_bytes(ideal), (entity, key)
        return len(tables.entities)

    def verify(self) -> int:
        """Rebuild every decision from raw events, by the versions that it knew; how many."""
        replaying = Replaying(FakeArchivedScorers([CARD, FURTHER]))
        archive = PostgresArchive(self.database.role_connection(Role.READER), "test")
        report = verify_decisions(archive, replaying, Selection(None, None, 1.0, ""))
        assert report.findings.kept == []
        assert report.recomputed == dict.fromkeys(Entity, report.replayed)
        assert report.late > 5
        return report.replayed


def past(tables: Tables, entity: Entity, key: str) -> list[PastTransaction]:
    """Raw events of an entity with the labels that were folded."""
    labels: dict[str, list[Label]] = {}
    for found in tables.labels.values():
        if isinstance(found, LabelVersions):
            labels.setdefault(found.label.transaction_id, []).append(found.label)
    return [
        PastTransaction(name, row.transaction.event_time_us, row.transaction.amount_minor, tuple(labels.get(name, ())))
        for name, row in tables.transactions.items()
        if key == (row.transaction.customer_id if entity is Entity.CUSTOMER else row.transaction.terminal_id)
    ]


@contextmanager
def filling_of(where: PostgresConnection) -> Iterator[PostgresStateFilling]:
    with closing(PostgresStateFilling(where, "test")) as filling:
        yield filling


@pytest.fixture(autouse=True)
def _long_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VIEWS, LONG.name, LONG)
    for name in LONG.names[len(HANDBOOK_V1.names) :]:
        monkeypatch.setitem(CATALOGUE, name, CATALOGUE["amount"])


@pytest.fixture(params=["pipelined"])
def bench(request: pytest.FixtureRequest, database: TwinSettings, database_template: str) -> Iterator[Bench]:
    """A database of its own for each test: a layout that was declared is never taken back."""
    name = f"views_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(admin_dsn(database), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template} OWNER {DATABASE_USER}".encode())
    own = MigratedDatabase(name, database.postgres)
    own.make_partitions(BASE_US - US_PER_DAY, BASE_US + (DAYS + 10) * US_PER_DAY)
    store = PostgresStore(str(request.param), own.dsn)
    found = Bench(own, store, admin_dsn(database))
    try:
        yield found
    finally:
        found.session.close()
        store.close()
        with psycopg.connect(admin_dsn(database), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def fill_until_killed(dsn: str) -> None:
    """The process that is killed: one entity at a time, and no more than a few of them."""

    def stand_still(at: KeptView, _total: int) -> None:
        if at.entities == 2:
            threading.Event().wait()

    where = PostgresConnection("DATABASE", dsn=dsn)
    with closing(PostgresSession(where, "victim")) as session, filling_of(where) as filling:
        Backfilling(PostgresViewBook(session), filling, FakeClock(), group=1).run(LONG, stand_still)


@pytest.mark.parametrize("bench", list(REAL), indirect=True)
def test_a_longer_view_is_refused_filled_while_others_decide_killed_gone_on_with_and_then_decides(bench: Bench) -> None:
    items = stream()
    parts = [items[: len(items) * place // 5] for place in (3, 4, 5)]
    before, during, after = parts[0], parts[1][len(parts[0]) :], parts[2][len(parts[1]) :]
    writer = bench.store.ledger()
    assert not [one for one in bench.feed(writer, before) if isinstance(one, Refused)]
    assert "tollgate views backfill long-v1" in why_refused(LONG, bench.book.kept())
    too_early = bench.feed(bench.store.ledger(), [transaction(9000, 299 * US_PER_DAY, terminal="m1")], FURTHER)
    assert isinstance(too_early[0], Refused)

    victim = multiprocessing.get_context("spawn").Process(
        target=fill_until_killed, args=(bench.database.role_dsn(Role.BACKFILL),)
    )
    victim.start()
    try:
        deadline = time.monotonic() + WITHIN_S
        while not (kept := [view for view in bench.book.kept() if view.entities >= 2]):
            assert time.monotonic() < deadline
            assert victim.is_alive()
            time.sleep(0.02)
    finally:
        victim.kill()
        victim.join()
    until(lambda: not connected(bench, "-filling"))  # the server notices in its own time, and lets go of its lock then
    assert kept[0].status is ViewStatus.FILLING
    assert "filling" in why_refused(LONG, bench.book.kept())

    # The writer goes on with the states that it had in memory; what is filled already is folded further by it.
    written: list[Verdict] = []
    half = len(during) // 2
    written += bench.feed(writer, during[:half])
    failures: list[BaseException] = []

    def write() -> None:
        try:
            written.extend(bench.feed(writer, during[half:]))
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        complete = bench.backfill(group=1)
    finally:
        thread.join()
    assert not failures
    assert not [one for one in written if isinstance(one, Refused)]
    assert complete.status is ViewStatus.COMPLETE
    assert complete.transactions > 100
    assert why_refused(LONG, bench.book.kept()) == ""
    assert bench.assert_as_if_kept_from_the_beginning() == 12

    decided = bench.feed(bench.store.ledger(), after, FURTHER)
    decided += bench.feed(writer, [transaction(9001, 299 * US_PER_DAY, customer="new", terminal="m1")])
    decided += bench.feed(bench.store.ledger(), [transaction(9002, 299 * US_PER_DAY, customer="new")], FURTHER)
    assert {one.record.view for one in decided if isinstance(one, Decided)} == {LONG.name, CARD_V1.name}
    assert not [one for one in decided if isinstance(one, Refused)]
    assert bench.assert_as_if_kept_from_the_beginning() == 14
    assert bench.verify() == len(bench.store.tables().decisions) > 600
    assert_reads_are_exact(bench)


def assert_reads_are_exact(bench: Bench) -> None:
    """What state gives for each pair of entities is what the reference computes over their raw history."""
    tables = bench.store.tables()
    states = {
        owner: read_state(stored.header or b"", [data for _, data in stored.tiles.values()])
        for owner, stored in tables.entities.items()
    }
    reader, count = StateReader(LONG), 0
    for customer in (key for entity, key in states if entity is Entity.CUSTOMER):
        for terminal in (key for entity, key in states if entity is Entity.TERMINAL):
            pair = states[Entity.CUSTOMER, customer], states[Entity.TERMINAL, terminal]
            at_us = max(state.header.greatest_us or 0 for state in pair) - BASE_US
            probe = transaction(9999, at_us, customer=customer, terminal=terminal)
            history = History(past(tables, Entity.CUSTOMER, customer), past(tables, Entity.TERMINAL, terminal))
            assert same_bits(reader.read(*pair, probe), transform_one(LONG, probe, history))
            count += 1
    assert count > 30


def test_a_shorter_view_decides_at_once_and_nothing_is_raised(bench: Bench) -> None:
    items = stream(seed=6, n_rows=120)
    bench.feed(bench.store.ledger(), items[: len(items) // 2])
    handbook = LinearScorer("handbook", 3, HANDBOOK_V1)
    decided = bench.feed(bench.store.ledger(), items[len(items) // 2 :], handbook)
    assert {one.record.view for one in decided if isinstance(one, Decided)} == {HANDBOOK_V1.name}
    assert bench.layout() == BASE_LAYOUT
    bench.assert_as_if_kept_from_the_beginning()
    assert bench.backfill(view=HANDBOOK_V1).status is ViewStatus.COMPLETE
    assert bench.layout() == BASE_LAYOUT


def test_filling_twice_and_on_an_empty_database_changes_nothing(bench: Bench) -> None:
    assert bench.backfill().status is ViewStatus.COMPLETE
    bench.feed(bench.store.ledger(), stream(seed=7, n_rows=150))
    before = bench.store.all_rows()
    assert bench.backfill().status is ViewStatus.COMPLETE
    assert bench.store.all_rows() == before
    bench.assert_as_if_kept_from_the_beginning()


class StandsStill(FakeClock):
    """A clock that is asked once a unit of work has all its locks, and answers when something has happened."""

    def __init__(self, happened: Callable[[], bool]) -> None:
        super().__init__()
        self.asked, self.answered = threading.Event(), threading.Event()
        self._happened = happened

    def now_us(self) -> int:
        self.asked.set()
        until(self._happened)
        self.answered.set()
        return super().now_us()


def test_writers_that_do_not_know_yet_are_waited_for(bench: Bench) -> None:
    """A unit that began before the view was declared makes entities with the old layout; they are filled after it."""
    bench.feed(bench.store.ledger(), stream(seed=8, n_rows=60))

    def is_declared() -> bool:
        with psycopg.connect(bench.database.dsn) as connection:
            return connection.execute("SELECT 1 FROM tollgate.feature_views").fetchone() is not None

    clock = StandsStill(is_declared)
    old = Scoring(bench.store.ledger(), FixedScorers(CARD), policy=POLICY, keys=KEYS, clock=clock)
    thread = threading.Thread(target=old.decide, args=([transaction(9003, 0, customer="slow", terminal="slow")],))
    thread.start()
    try:
        assert clock.asked.wait(WITHIN_S)
        answered: list[bool] = []
        bench.backfill(lambda _at, _total: answered.append(clock.answered.is_set()))
    finally:
        thread.join()
    assert answered
    assert all(answered)
    assert (Entity.TERMINAL, "slow") in bench.store.tables().entities
    bench.assert_as_if_kept_from_the_beginning()


def connected(bench: Bench, session: str) -> bool:
    """Whether the server still has a connection of the filler."""
    with psycopg.connect(bench.server, autocommit=True) as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND application_name LIKE %s",
            [bench.database.name, f"%{session}"],
        )
        return found.fetchone() is not None


def waits(bench: Bench, session: str) -> bool:
    """Whether a connection of the filler waits for a lock."""
    with psycopg.connect(bench.server, autocommit=True) as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_stat_activity"
            " WHERE datname = %s AND application_name LIKE %s AND wait_event_type = 'Lock'",
            [bench.database.name, f"%{session}"],
        )
        return found.fetchone() is not None


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def raise_only(bench: Bench, view: FeatureView) -> None:
    """A filler whose connections go between the raise and the reading: the horizon is raised, and nothing filled."""
    errors: list[BaseException] = []
    bench.book.keep(KeptView.of(view, ViewStatus.FILLING, 1))  # else it would wait for whoever locks the table below

    def fill() -> None:
        try:
            bench.backfill(group=100, view=view)
        except Transient as error:
            errors.append(error)

    with psycopg.connect(bench.database.dsn) as connection:
        connection.execute("LOCK TABLE tollgate.transactions IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=fill)
        thread.start()
        until(lambda: waits(bench, "filling-reads"))
        with psycopg.connect(bench.server, autocommit=True) as server:
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name LIKE %s",
                [bench.database.name, "%filling%"],
            )
        thread.join()
        until(lambda: not connected(bench, "-filling"))  # only then is its lock free
    assert errors


@pytest.mark.parametrize("entity", Entity)
def test_a_label_that_comes_between_the_reading_and_the_lock_is_not_lost(bench: Bench, entity: Entity) -> None:
    view = FeatureView(f"{entity}-v1", tuple(item for item in LONG.features if item.entity in {None, entity}))
    needed_us = view.horizon_us(entity)
    old, new = transaction(1, 200 * US_PER_DAY - needed_us + US_PER_DAY), transaction(2, 200 * US_PER_DAY)
    ledger = bench.store.ledger()
    bench.feed(ledger, [old, new])
    raise_only(bench, view)
    key = str(old.customer_id if entity is Entity.CUSTOMER else old.terminal_id)
    before, _ = read_header(bench.store.tables().entities[entity, key].header or b"")
    assert (before.horizon_us, before.complete_us) == (needed_us, BASE_LAYOUT.of(entity).horizon_us)

    clock, said = StandsStill(lambda: waits(bench, "-filling")), label(old, fraud=True)
    recording = threading.Thread(target=Labelling(ledger, KEYS, clock).record, args=([said],))
    recording.start()
    assert clock.asked.wait(WITHIN_S)
    patient = {"lock_timeout": "60s", "statement_timeout": "90s"}
    with closing(PostgresStateFilling(bench.database.role_connection(Role.BACKFILL), "test", patient)) as filling:
        found = Backfilling(bench.book, filling, FakeClock()).run(view, lambda _at, _total: None)
    recording.join()
    assert found.status is ViewStatus.COMPLETE
    assert found.transactions == 1
    assert [item.label for item in bench.store.tables().labels.values() if isinstance(item, LabelVersions)] == [said]
    bench.assert_as_if_kept_from_the_beginning()


def test_a_customer_who_is_forgotten_meanwhile_stays_forgotten_and_may_come_back(bench: Bench) -> None:
    bench.feed(bench.store.ledger(), stream(seed=9, n_rows=200))
    erasure = PostgresErasure(bench.database.role_connection(Role.FORGET), "test")
    gone: list[str] = []

    def forget_one(at: KeptView, _total: int) -> None:
        if not gone and at.entities == 1:
            gone.append("c2")
            assert erasure.erase(CustomerId("c2"), "request 1", 1) is not None

    assert bench.backfill(forget_one, group=1).status is ViewStatus.COMPLETE
    tables = bench.store.tables()
    assert gone
    assert (Entity.CUSTOMER, "c2") not in tables.entities
    assert not [key for (_, key), _ in tables.entities.items() if key == "c2"]
    bench.assert_as_if_kept_from_the_beginning()
    (back,) = bench.feed(bench.store.ledger(), [transaction(9004, 299 * US_PER_DAY, customer="c2")], FURTHER)
    assert isinstance(back, Decided)


def test_only_one_fills_at_a_time(bench: Bench) -> None:
    where = bench.database.role_connection(Role.BACKFILL)
    with filling_of(where) as first, first.alone(), pytest.raises(Conflict, match="somebody else"):
        bench.backfill()
    assert bench.backfill().status is ViewStatus.COMPLETE


def passed(digest: str, champion: str | None) -> bytes:
    """A verdict of the gate that lets a bundle through: what the gate finds is not what is tested here."""
    checks = (Check(CheckName.OPENS, None, None, "all", True, "as it was announced"),)
    return write_verdict(GateVerdict(digest, champion, "drawn 1", 1, GateRules(), None, checks))


def test_a_bundle_of_a_view_becomes_champion_and_serves_only_once_the_view_may_decide(
    bench: Bench, tmp_path: Path
) -> None:
    bench.feed(bench.store.ledger(), stream(seed=11, n_rows=150))
    store = FileBundles(tmp_path)
    where = bench.database.role_connection(Role.SCORE)
    scorers = BundleScorers(store, OnnxScorer, views=views_of(where, "test"))
    with closing(PostgresSession(bench.database.role_connection(Role.RETRAIN), "test")) as session:
        book = PostgresViewBook(session)
        throne = Succession(store, PostgresPromotions(session), FakeClock(), views=book)
        first = throne.install(made(HANDBOOK_V1, 2), ModelRole.CHAMPION, author="ada", reason="first").pointer.digest
        assert [(view.name, view.status) for view in book.kept()] == [(HANDBOOK_V1.name, ViewStatus.COMPLETE)]
        assert scorers.refresh()
        with closing(REAL[bench.store.kind](where, "test")) as ledger:
            deciding = Scoring(ledger, scorers, policy=POLICY, keys=KEYS, clock=FakeClock())
            (one,) = deciding.decide([transaction(9101, 299 * US_PER_DAY, customer="c1", terminal="m1")])
            assert isinstance(one, Decided)
            assert one.record.view == HANDBOOK_V1.name

            second = store.put(second_version(made(LONG, 2)))
            throne.judged(passed(second, first), None, 1)
            with pytest.raises(InvalidInput, match=r"long-v1 may not decide: it needs .* days of a terminal"):
                throne.promote(second, author="ada", reason="better")
            with pytest.raises(InvalidInput, match="long-v1 may not decide"):
                throne.check(LONG)
            point(store, second)  # somebody's tool does it all the same
            assert not scorers.refresh()
            assert "long-v1 may not decide" in scorers.problem
            assert scorers.current().bundle_digest == first
            point(store, first)
            assert not scorers.refresh()
            assert scorers.refusal is None

            assert bench.backfill(group=100).status is ViewStatus.COMPLETE
            throne.check(LONG)
            throne.judged(passed(second, first), None, 2)
            throne.promote(second, author="ada", reason="better")
            assert scorers.refresh()
            (two,) = deciding.decide([transaction(9102, 299 * US_PER_DAY + 1, customer="c1", terminal="m1")])
            assert isinstance(two, Decided)
            assert (two.record.view, two.record.decision.score.bundle_digest) == (LONG.name, second)
    bench.assert_as_if_kept_from_the_beginning()


def test_a_table_that_cannot_be_read_is_no_fault_of_the_bundle(bench: Bench, tmp_path: Path) -> None:
    store = FileBundles(tmp_path)
    digest = store.put(made(HANDBOOK_V1, 2))
    point(store, digest)
    without_right = views_of(bench.database.role_connection(Role.DRIFT), "test")
    scorers = BundleScorers(store, OnnxScorer, views=without_right)
    assert not scorers.refresh()
    assert scorers.refusal is None
    assert "feature views cannot be read" in scorers.problem
    assert BundleScorers(
        store, OnnxScorer, views=views_of(bench.database.role_connection(Role.SCORE), "test")
    ).refresh()


def second_version(files: dict[str, bytes]) -> dict[str, bytes]:
    bundle = open_bundle(files)
    return pack_bundle(
        replace(bundle.manifest, version=2),
        model=bundle.model,
        booster=bundle.booster,
        tables=bundle.tables,
        probes=bundle.probes,
        reference=bundle.reference,
    )


def point(store: FileBundles, digest: str | None) -> None:
    present = store.pointer(ModelRole.CHAMPION)
    store.point(Pointer(ModelRole.CHAMPION, digest, present.next_number, 1, "a tool", "by hand"), present.tag)


def test_the_commands_list_and_fill(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    bench.feed(bench.store.ledger(), stream(seed=12, n_rows=150))

    def run(*arguments: str, role: Role = Role.BACKFILL) -> Result:
        return CliRunner().invoke(app, ["views", *arguments, "--database", bench.database.role_dsn(role)])

    def lines() -> dict[str, str]:
        listed = run("list", role=Role.READER)
        assert listed.exit_code == 0
        return {name: line for line in listed.output.splitlines() for name in VIEWS if f" {name} " in line}

    before = lines()
    assert set(before) == {"card-v1", "handbook-v1", "long-v1"}
    assert before["card-v1"].rstrip(" │").endswith("yes")
    assert "tollgate views backfill long-v1" in before["long-v1"]
    assert "74 days" in before["long-v1"]
    done = run("backfill", "long-v1")
    assert done.exit_code == 0, done.output
    assert "12 of 12 entities" in done.output
    assert "long-v1 is complete since" in done.output
    assert lines()["long-v1"].rstrip(" │").endswith("yes")
    assert run("backfill", "another-v1").exit_code == 1
    changed = replace(LONG, features=LONG.features[:-1])
    monkeypatch.setitem(VIEWS, LONG.name, changed)
    refused = run("backfill", "long-v1")
    assert refused.exit_code == 1
    assert "a changed view needs a new name" in refused.output
    assert "its definition is not the one" in lines()["long-v1"]
    assert run("backfill", "card-v1", role=Role.READER).exit_code == 2


def test_a_transaction_that_stays_open_is_not_waited_for_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(bench.database.dsn) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        with monkeypatch.context() as impatient:
            impatient.setattr("shared.adapters.postgres_filling.WAIT_S", 0.3)
            with pytest.raises(Transient, match="still open"):
                bench.backfill()
        (kept,) = bench.book.kept()
        assert kept.status is ViewStatus.DECLARED
        connection.rollback()
    assert bench.backfill().status is ViewStatus.COMPLETE
