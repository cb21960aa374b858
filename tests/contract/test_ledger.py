"""The same suite against the ledger in memory and both real ones, through the use cases that they serve."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import batched
from typing import Any

import pytest

from shared.domain.canonical import label_digest, transaction_digest
from shared.domain.decision_record import DecisionRecord, Lateness, read_decision
from shared.domain.entity_state_codec import read_header
from shared.domain.entity_state_tiles import MAX_EVENTS
from shared.domain.errors import BrokenInvariant, Conflict
from shared.domain.feature_view import Entity
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import Label, LabelSource
from shared.domain.ledger import (
    FORGOTTEN_DIGEST,
    Claim,
    Claimed,
    DecisionWrites,
    LabelClaim,
    LabelVersions,
    TransactionRow,
)
from shared.domain.log_block import Head, verify_chain, verify_leaves
from shared.domain.transaction import Transaction
from shared.services.importing import Importing, ImportOutcome
from shared.services.labelling import LabelOutcome
from shared.services.scoring import Decided, Refused, Verdict
from tests.conftest import MigratedDatabase
from tests.contract.ledger_stores import (
    FIRST_US,
    KINDS,
    LAST_US,
    FakeStore,
    Store,
    labelling,
    scoring,
    store_of,
)
from tests.fakes.ledger import Tables
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.unit.domain.worlds import label, transaction
from tests.unit.shared.test_scoring import KEYS, recomputed, versions

VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F))
"""Every character that an identifier may have."""


@pytest.fixture(scope="module")
def dsn(migrated_database: MigratedDatabase) -> str:
    migrated_database.make_partitions(FIRST_US, LAST_US)
    return migrated_database.dsn


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "fake":
        yield FakeStore()
        return
    with store_of(request.param, request.getfixturevalue("dsn")) as real:
        yield real


def record(verdict: Verdict) -> DecisionRecord:
    assert isinstance(verdict, Decided)
    return verdict.record


def spread(
    count: int, *, first: int = 0, customers: int = 7, terminals: int = 3, step_us: int = 60_000_000
) -> list[Transaction]:
    return [
        transaction(number, number * step_us, customer=f"c{number % customers}", terminal=f"m{number % terminals}")
        for number in range(first, first + count)
    ]


def assert_sound(tables: Tables) -> None:
    """Vectors are those of the raw events by recorded versions, versions are dense, chains verify."""
    vectors = recomputed(tables)
    for entity in Entity:
        for key, found in versions(tables, entity).items():
            assert sorted(found) == list(range(1, len(found) + 1))
            header = tables.entities[entity, key].header
            assert header is not None
            assert read_header(header)[0].version == len(found)
    writers = {block.writer for block in tables.blocks}
    leaves = 0
    for writer in writers:
        own = [block for block in tables.blocks if block.writer == writer]
        assert verify_chain(writer, own) == []
        leaves += sum(block.count for block in own)
    assert leaves == len(tables.decisions) == len(tables.outbox)
    assert set(tables.decisions) == set(tables.outbox)
    for identifier, row in tables.decisions.items():
        made = read_decision(row.record)
        if made.lateness is Lateness.NONE:
            assert made.vector == vectors[identifier]


def test_what_is_decided_is_stored_as_a_whole(store: Store) -> None:
    ledger = store.ledger()
    batch = spread(5)
    verdicts = scoring(ledger).decide(batch)
    tables = store.tables()
    assert tables.digests == {item.transaction_id: transaction_digest(item) for item in batch}
    assert {row.transaction for row in tables.transactions.values()} == set(batch)
    assert {key: row.record for key, row in tables.decisions.items()} == {
        record(verdict).transaction_id: verdict.data for verdict in verdicts if isinstance(verdict, Decided)
    }
    assert tables.outbox == [item.transaction_id for item in batch]
    (block,) = tables.blocks
    assert (block.writer, block.sequence) == (ledger.writer, 0)
    assert ledger.head == Head.of(block)
    assert verify_leaves(block, [tables.decisions[item.transaction_id].record for item in batch]) == []
    assert_sound(tables)


def test_an_empty_claim_knows_nothing_and_leaves_nothing(store: Store) -> None:
    ledger = store.ledger()
    with ledger.deciding() as work:
        assert work.claim([]) == Claimed(frozenset(), {}, {}, {}, {})
    with ledger.labelling() as marking:
        assert not marking.claim([]).fresh
    tables = store.tables()
    assert (tables.digests, tables.entities, tables.blocks) == ({}, {}, [])


def test_a_repeat_gets_the_stored_decision_whatever_the_model_says_today(store: Store) -> None:
    scorers = FixedScorers()
    first = scoring(store.ledger(), scorers).decide([transaction(1, 0)])[0]
    scorers.scorer = LinearScorer(version=2, base=3.0)
    decide = scoring(store.ledger(), scorers)
    new, again = decide.decide([transaction(2, 5), transaction(1, 0)])
    assert isinstance(first, Decided)
    assert isinstance(again, Decided)
    assert (again.data, again.repeated) == (first.data, True)
    assert record(new).customer_version == 1
    before = store.tables().blocks
    assert [isinstance(item, Decided) and item.repeated for item in decide.decide([transaction(2, 5)])] == [True]
    assert store.tables().blocks == before


@pytest.mark.parametrize("changed", ["customer_id", "terminal_id", "amount_minor", "currency", "event_time_us"])
def test_the_same_id_with_another_body_is_a_conflict_and_changes_nothing(store: Store, changed: str) -> None:
    decide = scoring(store.ledger())
    own = transaction(1, 0)
    decide.decide([own])
    before = store.tables().transactions.copy(), store.tables().entities.copy()
    value = getattr(own, changed)
    fields: dict[str, Any] = {changed: value + 1 if isinstance(value, int) else value + "x"}
    other = replace(own, **fields)
    (found,) = decide.decide([other])
    assert isinstance(found, Refused)
    assert isinstance(found.error, Conflict)
    assert before == (store.tables().transactions, store.tables().entities)
    # Beside a fresh one it leaves no trace either, not even rows for its entities.
    found, _ = decide.decide([other, transaction(2, 1)])
    assert isinstance(found, Refused)
    tables = store.tables()
    assert set(tables.digests) == {"t0001", "t0002"}
    assert set(tables.entities) == {(Entity.CUSTOMER, "c"), (Entity.TERMINAL, "m")}
    assert_sound(tables)


def test_a_claim_tells_all_of_a_repeat_whatever_body_asks(store: Store) -> None:
    scoring(store.ledger()).decide([transaction(1, 0), transaction(2, 100 * US_PER_DAY)])
    Importing(store.ledger(), KEYS, FakeClock()).take([transaction(3, 101 * US_PER_DAY)])
    bodies = [transaction(1, 90 * US_PER_DAY), transaction(2, 5), transaction(3, 101 * US_PER_DAY), transaction(4, 6)]
    ledger = store.ledger()
    for asked in (bodies, bodies[:1], bodies[1:3]):
        with ledger.deciding() as work:
            claimed = work.claim([Claim(item, transaction_digest(item)) for item in asked])
        tables = store.tables()
        expected = {item.transaction_id for item in asked} - {bodies[3].transaction_id}
        assert set(claimed.repeats) == expected
        for identifier, repeat in claimed.repeats.items():
            decision = tables.decisions.get(identifier)
            assert repeat == (tables.digests[identifier], None if decision is None else decision.record)


def test_within_a_batch_an_id_is_decided_once(store: Store) -> None:
    one, other = transaction(1, 0), transaction(1, 0, amount=2)
    first, again, conflict = scoring(store.ledger()).decide([one, one, other])
    assert isinstance(first, Decided)
    assert isinstance(again, Decided)
    assert (first.repeated, again.repeated) == (False, True)
    assert isinstance(conflict, Refused)
    assert store.tables().digests == {one.transaction_id: transaction_digest(one)}


class _Stop(Exception):
    """Raised by a test inside a unit of work."""


def test_a_unit_that_is_left_leaves_no_trace(store: Store) -> None:
    ledger = store.ledger()
    scoring(ledger).decide([transaction(1, 0)])
    before, head = store.tables().entities.copy(), ledger.head
    claims = [Claim(item, transaction_digest(item)) for item in (transaction(2, 1), transaction(3, 2, customer="new"))]
    with ledger.deciding() as work:
        assert work.claim(claims).fresh == {"t0002", "t0003"}
    with suppress(_Stop), ledger.deciding() as work:
        work.claim(claims)
        raise _Stop
    said = label(transaction(9, 0), fraud=True)
    with suppress(_Stop), ledger.labelling() as marking:
        marking.claim([LabelClaim(said, label_digest(said))])
        raise _Stop
    tables = store.tables()
    assert set(tables.digests) == {"t0001"}
    assert (tables.entities, ledger.head) == (before, head)
    assert [record(item).customer_version for item in scoring(ledger).decide([transaction(2, 1)])] == [1]
    assert_sound(store.tables())


def test_new_and_known_entities_are_told_apart(store: Store) -> None:
    ledger = store.ledger()
    scoring(ledger).decide([transaction(1, 0)])
    new = transaction(2, 1, customer="new")
    for reader in (ledger, store.ledger()):
        with reader.deciding() as work:
            claimed = work.claim([Claim(new, transaction_digest(new))])
        customer, terminal = claimed.customers[new.customer_id], claimed.terminals[new.terminal_id]
        assert (customer.surrogate, customer.state.header.version, len(customer.salt)) == (None, 0, 16)
        assert terminal.surrogate == store.tables().entities[Entity.TERMINAL, "m"].surrogate
        assert (terminal.state.header.version, terminal.salt) == (1, b"")


def test_labels_come_before_and_after_their_transaction(store: Store) -> None:
    ledger = store.ledger()
    decide, mark = scoring(ledger), labelling(ledger)
    own = transaction(1, 0)
    early = label(own, fraud=True)
    twice = label(own, fraud=False, known_after_us=-3)
    outcomes = [verdict.outcome for verdict in mark.record([early, twice, early])]
    assert outcomes == [LabelOutcome.WAITING, LabelOutcome.WAITING, LabelOutcome.REPEATED]
    assert store.tables().digests == {own.transaction_id: None}
    assert record(decide.decide([own])[0]).customer_version == 0
    assert [verdict.outcome for verdict in mark.record([early])] == [LabelOutcome.REPEATED]
    late = label(own, fraud=True, known_after_us=7)
    assert [verdict.outcome for verdict in mark.record([late])] == [LabelOutcome.RECORDED]
    found = {
        item.label: (item.customer_version, item.terminal_version)
        for item in store.tables().labels.values()
        if isinstance(item, LabelVersions)
    }
    assert found == {twice: (2, 2), early: (3, 3), late: (4, 4)}
    made = record(decide.decide([transaction(2, 8 * US_PER_DAY)])[0])
    assert made.customer_version == 4
    assert_sound(store.tables())


def test_labels_that_waited_are_folded_in_the_order_in_which_they_were_known(store: Store) -> None:
    own = transaction(1, 0)
    said = [label(own, fraud=place % 2 == 0, known_after_us=(place * 7) % 5) for place in range(10)]
    labelling(store.ledger()).record(said)
    scoring(store.ledger()).decide([own])
    found = {
        item.customer_version: item.label for item in store.tables().labels.values() if isinstance(item, LabelVersions)
    }
    expected = sorted(said, key=lambda item: (item.known_at_us, label_digest(item)))
    assert [found[version] for version in sorted(found)] == expected
    assert min(found) == 2


def test_a_label_keeps_all_that_it_says(store: Store) -> None:
    mark = labelling(store.ledger())
    said = [
        replace(label(transaction(1, 0), fraud=fraud), source=source, confidence=confidence, author=f"a{confidence}")
        for source in LabelSource
        for fraud, confidence in ((True, 0), (False, 100))
    ]
    mark.record(said)
    held = store.tables().labels
    assert {key[1] for key in held} == {label_digest(item) for item in said}
    assert {item.source for item in held.values() if isinstance(item, Label)} == set(LabelSource)
    assert sorted(repr(item) for item in held.values()) == sorted(repr(item) for item in said)
    assert record(scoring(store.ledger()).decide([transaction(1, 0)])[0]).transaction_id == "t0001"
    assert_sound(store.tables())


def test_one_batch_of_labels_may_name_known_unknown_and_forgotten_transactions(store: Store) -> None:
    ledger = store.ledger()
    batch = spread(3, customers=3)
    scoring(ledger).decide(batch)
    store.forget("t0002")
    unknown = transaction(9, 0)
    outcomes = [
        verdict.outcome for verdict in labelling(ledger).record([label(item, fraud=True) for item in (*batch, unknown)])
    ]
    assert outcomes == [LabelOutcome.RECORDED, LabelOutcome.RECORDED, LabelOutcome.REFUSED, LabelOutcome.WAITING]
    assert {key[0] for key in store.tables().labels} == {"t0000", "t0001", "t0009"}
    (verdict,) = scoring(ledger).decide([batch[2]])
    assert isinstance(verdict, Refused)
    assert store.tables().digests[batch[2].transaction_id] == FORGOTTEN_DIGEST


def test_late_events_are_flagged_and_stored(store: Store) -> None:
    decide = scoring(store.ledger())
    decide.decide([transaction(1, 100 * US_PER_DAY, terminal="m1")])
    (verdict,) = decide.decide([transaction(2, 0, terminal="m2")])
    assert record(verdict).lateness is Lateness.CUSTOMER
    assert store.tables().transactions[record(verdict).transaction_id] == TransactionRow(
        transaction(2, 0, terminal="m2"), 2, 1, Lateness.CUSTOMER
    )


def test_tiles_split_and_expire(store: Store) -> None:
    one, other = scoring(store.ledger()), scoring(store.ledger())
    before = 0
    for place, batch in enumerate(batched(spread(3 * MAX_EVENTS, customers=1, terminals=1), 40, strict=False)):
        (one, other)[place % 2].decide(batch)
        before = max(before, len(store.tables().entities[Entity.CUSTOMER, "c0"].tiles))
    assert before > 1
    one.decide([transaction(900, 150 * US_PER_DAY, customer="c0", terminal="m0")])
    (verdict,) = other.decide([transaction(901, 150 * US_PER_DAY + 1, customer="c0", terminal="m0")])
    assert record(verdict).customer_version == 3 * MAX_EVENTS + 1
    tables = store.tables()
    for entity, key in ((Entity.CUSTOMER, "c0"), (Entity.TERMINAL, "m0")):
        stored = tables.entities[entity, key]
        assert stored.header is not None
        assert read_header(stored.header)[1] == len(stored.tiles) == 1
    assert_sound(tables)


def test_a_hot_entity_fills_a_batch(store: Store) -> None:
    hot = spread(300, customers=50, terminals=1, step_us=1_000)
    for batch in (hot[:299], hot[299:]):
        scoring(store.ledger()).decide(batch)
    tables = store.tables()
    assert len(tables.decisions) == 300
    assert_sound(tables)


def test_batches_of_one_and_of_a_thousand(store: Store) -> None:
    ledger = store.ledger()
    batch = spread(1_001, customers=333, terminals=77)
    assert record(scoring(ledger).decide(batch[:1])[0]).transaction_id == "t0000"
    verdicts = scoring(ledger).decide(batch)
    assert [isinstance(item, Decided) and item.repeated for item in verdicts] == [True] + 1_000 * [False]
    assert [block.count for block in store.tables().blocks] == [1, 1_000]
    assert_sound(store.tables())


def test_identifiers_may_have_every_visible_character(store: Store) -> None:
    halves = VISIBLE[: len(VISIBLE) // 2], VISIBLE[len(VISIBLE) // 2 :]
    decide = scoring(store.ledger())
    batch = [
        replace(transaction(0, place), transaction_id=half, customer_id=half, terminal_id=half[::-1])
        for place, half in enumerate((*halves, *VISIBLE))
    ]
    random.Random(5).shuffle(batch)
    verdicts = decide.decide(batch)
    assert {record(verdict).transaction_id for verdict in verdicts} == {*halves, *VISIBLE}
    assert set(store.tables().digests) == {*halves, *VISIBLE}
    said = [label(item, fraud=True) for item in batch]
    assert {verdict.outcome for verdict in labelling(store.ledger()).record(said)} == {LabelOutcome.RECORDED}
    assert all(isinstance(item, Decided) and item.repeated for item in decide.decide(batch))


def test_two_ledgers_take_turns_on_the_same_entities(store: Store) -> None:
    ledgers = [store.ledger(), store.ledger(), store.ledger()]
    chance = random.Random(11)
    arrivals: list[Transaction | Label] = [*spread(400, customers=4, terminals=2, step_us=3_600_000_000)]
    arrivals += [label(item, fraud=chance.random() < 0.3) for item in arrivals[::3] if isinstance(item, Transaction)]
    # Not wholly shuffled: most of it comes within its lateness, some before and some after its label.
    arrivals.sort(key=lambda item: (item.event_time_us + chance.randrange(3 * US_PER_DAY), item.transaction_id))
    for place, part in enumerate(batched(arrivals, 17, strict=False)):
        ledger = ledgers[place % 2 if place % 5 else 2]
        scoring(ledger).decide([item for item in part if isinstance(item, Transaction)])
        labelling(ledger).record([item for item in part if isinstance(item, Label)])
    tables = store.tables()
    assert len(tables.decisions) == 400
    assert_sound(tables)


def test_threads_with_shuffled_overlapping_batches_know_of_one_another(store: Store) -> None:
    events = spread(240, customers=5, terminals=2, step_us=30_000_000)
    said = [label(item, fraud=item.amount_minor % 2 == 0) for item in events[::4]]
    faults: list[BaseException] = []
    answers: list[dict[TransactionId, bytes]] = []
    start = threading.Barrier(3)

    def run(seed: int) -> None:
        chance = random.Random(seed)
        ledger = store.ledger()
        decide, mark = scoring(ledger), labelling(ledger)
        mine = chance.sample(events, 200)
        start.wait()
        try:
            answered = {}
            for part in batched(mine, 23, strict=False):
                verdicts = decide.decide(part)
                mark.record(chance.sample(said, 8))
                answered.update(
                    {record(item).transaction_id: item.data for item in verdicts if isinstance(item, Decided)}
                )
            answers.append(answered)
        except BaseException as found:  # noqa: BLE001 - told to the test below
            faults.append(found)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    scoring(store.ledger()).decide(events)
    tables = store.tables()
    assert len(tables.decisions) == len(events)
    for answered in answers:
        assert all(tables.decisions[key].record == data for key, data in answered.items())
    assert_sound(tables)


def test_a_poisoned_batch_is_narrowed_down_to_what_is_at_fault(store: Store) -> None:
    scoring(store.ledger()).decide([transaction(0, 0, customer="bad", terminal="m0")])
    store.damage(Entity.CUSTOMER, "bad")
    batch = [
        transaction(number, number, customer="bad" if number == 5 else f"c{number}", terminal=f"m{number}")
        for number in range(1, 12)
    ]
    verdicts = scoring(store.ledger()).decide(batch)
    refused = [verdict for verdict in verdicts if isinstance(verdict, Refused)]
    assert [verdict.transaction_id for verdict in refused] == ["t0005"]
    assert isinstance(refused[0].error, BrokenInvariant)
    tables = store.tables()
    assert "t0005" not in tables.digests
    assert len(tables.decisions) == 11


def test_history_is_taken_in_without_decisions(store: Store) -> None:
    ledger = store.ledger()
    batch = spread(300, customers=9, terminals=4)
    importing = Importing(ledger, KEYS, FakeClock())
    assert set(importing.take(batch)) == {ImportOutcome.IMPORTED}
    assert set(importing.take(batch[:2])) == {ImportOutcome.REPEATED}
    (verdict,) = scoring(ledger).decide([batch[0]])
    assert isinstance(verdict, Refused)
    (verdict,) = scoring(ledger).decide(spread(1, first=300, customers=9, terminals=4))
    assert record(verdict).terminal_version == 75
    tables = store.tables()
    assert len(tables.transactions) == 301
    assert_sound(tables)


def test_a_write_is_all_or_nothing(store: Store) -> None:
    """A unit may write nothing but state: then there is no block, no decision and nothing in the outbox."""
    ledger = store.ledger()
    own = transaction(1, 0)
    with ledger.deciding() as work:
        work.claim([Claim(own, transaction_digest(own))])
        work.write(DecisionWrites((TransactionRow(own, 1, 1, Lateness.NONE),), (), (), (), None, 5))
    tables = store.tables()
    assert (len(tables.transactions), tables.blocks, tables.outbox, tables.entities) == (1, [], [], {})


def _serial(store: Store) -> None:
    """One input for all kinds: repeats, conflicts, labels early and late, late events, splits and expiry."""
    chance = random.Random(3)
    ledger = store.ledger()
    decide, mark = scoring(ledger), labelling(ledger)
    events = spread(260, customers=6, terminals=3, step_us=8 * 3_600_000_000)
    events += [transaction(500 + place, place * 1_000, customer="c0", terminal="m0") for place in range(90)]
    events.sort(key=lambda item: (item.event_time_us + chance.randrange(10 * US_PER_DAY), item.transaction_id))
    for part in batched(events, 31, strict=False):
        decide.decide([*part, *chance.sample(events, 3), replace(part[0], amount_minor=7)])
        mark.record([label(item, fraud=chance.random() < 0.4) for item in chance.sample(events, 9)])


def test_equal_input_gives_equal_tables_whatever_the_ledger(dsn: str) -> None:
    fake = FakeStore()
    _serial(fake)
    stored = []
    for kind in ("plain", "pipelined"):
        with store_of(kind, dsn) as real:
            _serial(real)
            tables, expected = real.tables(), fake.tables()
            for name in ("digests", "known", "transactions", "decisions", "labels", "entities", "blocks", "outbox"):
                assert getattr(tables, name) == getattr(expected, name), name
            stored.append(real.all_rows())
            assert_sound(tables)
    assert stored[0] == stored[1]
    assert len(stored[0]["transactions"]) == 350
