"""The deciding use case on the ledger in memory; the real ledgers go through the same in tests/contract."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.bundle_manifest import Thresholds
from shared.domain.canonical import transaction_digest
from shared.domain.cost_policy import Capacity, CostPolicy, FittedCapacity
from shared.domain.decision import Outcome, Policy
from shared.domain.decision_record import DecisionRecord, Lateness, decision_bytes, read_decision
from shared.domain.errors import BrokenInvariant, Conflict, Transient
from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.feature_view import CARD_V1, Entity
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import PRECEDENCE, Label
from shared.domain.ledger import FORGOTTEN_DIGEST, LabelVersions
from shared.domain.log_block import Head, verify_chain, verify_leaves
from shared.domain.policy_choice import Advice, PolicyRule
from shared.domain.surrogates import KeyRing, SurrogateKey, surrogate_of
from shared.domain.transaction import Transaction
from shared.services.labelling import Labelling, LabelOutcome
from shared.services.scoring import Decided, Refused, Scoring, Verdict
from shared.services.stages import StageTimes
from tests.fakes.ledger import FakeLedger, Tables
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.unit.domain.worlds import World, label, transaction, worlds

KEYS = KeyRing(SurrogateKey("k1", bytes(range(32))))
POLICY = Policy(0.05, 0.4)


def scoring(ledger: FakeLedger, scorers: FixedScorers | None = None, keys: KeyRing = KEYS) -> Scoring:
    return Scoring(ledger, scorers or FixedScorers(), policy=POLICY, keys=keys, clock=FakeClock())


def labelling(ledger: FakeLedger) -> Labelling:
    return Labelling(ledger, KEYS, FakeClock())


def record(verdict: Verdict) -> DecisionRecord:
    assert isinstance(verdict, Decided)
    return verdict.record


def error(verdict: Verdict) -> Exception:
    assert isinstance(verdict, Refused)
    return verdict.error


def recomputed(tables: Tables) -> dict[str, bytes]:
    """Every vector from raw transactions and labels by versions, as the verifier does it."""
    rows = list(tables.transactions.values())
    places = {row.transaction.transaction_id: place for place, row in enumerate(rows)}
    found = [item for item in tables.labels.values() if isinstance(item, LabelVersions)]

    def ints(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(values, dtype=np.int64)

    columns = TransactionColumns(
        transaction_id=np.array([row.transaction.transaction_id for row in rows], dtype=np.str_),
        event_time_us=ints([row.transaction.event_time_us for row in rows]),
        amount_minor=ints([row.transaction.amount_minor for row in rows]),
        customer=np.array([row.transaction.customer_id for row in rows], dtype=np.str_),
        terminal=np.array([row.transaction.terminal_id for row in rows], dtype=np.str_),
        customer_version=ints([row.customer_version for row in rows]),
        terminal_version=ints([row.terminal_version for row in rows]),
    )
    labels = LabelColumns(
        row=ints([places[item.label.transaction_id] for item in found]),
        is_fraud=np.array([item.label.is_fraud for item in found], dtype=np.bool_),
        known_at_us=ints([item.label.known_at_us for item in found]),
        source=ints([PRECEDENCE.index(item.label.source) for item in found]),
        confidence=ints([item.label.confidence for item in found]),
        customer_version=ints([item.customer_version for item in found]),
        terminal_version=ints([item.terminal_version for item in found]),
    )
    vectors = transform_many(CARD_V1, columns, labels)
    return {row.transaction.transaction_id: vectors[place].tobytes() for place, row in enumerate(rows)}


def versions(tables: Tables, entity: Entity) -> dict[str, list[int]]:
    """All versions that transactions and labels created, per entity."""
    created: dict[str, list[int]] = {}
    for row in tables.transactions.values():
        of_customer = entity is Entity.CUSTOMER
        key = row.transaction.customer_id if of_customer else row.transaction.terminal_id
        created.setdefault(key, []).append(row.customer_version if of_customer else row.terminal_version)
    for item in tables.labels.values():
        if isinstance(item, LabelVersions):
            known = tables.known[item.label.transaction_id]
            of_customer = entity is Entity.CUSTOMER
            key = known.customer_id if of_customer else known.terminal_id
            created.setdefault(key, []).append(item.customer_version if of_customer else item.terminal_version)
    return created


@given(worlds(), st.data())
@settings(max_examples=60, deadline=None)
def test_every_decision_can_be_recomputed_from_raw_events_by_its_versions(world: World, data: st.DataObject) -> None:
    ledger = FakeLedger()
    decide, mark = scoring(ledger), labelling(ledger)
    arrivals: list[Transaction | Label] = data.draw(st.permutations([*world.transactions, *world.labels]))
    while arrivals:
        size = data.draw(st.integers(1, len(arrivals)))
        batch, arrivals = arrivals[:size], arrivals[size:]
        decide.decide([item for item in batch if isinstance(item, Transaction)])
        mark.record([item for item in batch if isinstance(item, Label)])
    tables = ledger.tables
    vectors = recomputed(tables)
    for verdict in decide.decide(world.transactions):
        made = record(verdict)
        if made.lateness is Lateness.NONE:
            assert made.vector == vectors[made.transaction_id]
    for entity in Entity:
        assert all(sorted(found) == list(range(1, len(found) + 1)) for found in versions(tables, entity).values())
    assert verify_chain(ledger.writer, tables.blocks, ledger.head) == []


def test_with_another_champion_another_price_decides_and_is_recorded() -> None:
    asked = Capacity(20)
    scorers = FixedScorers()
    rule = PolicyRule(CostPolicy(shadow_price_minor=77), asked)
    decide = Scoring(FakeLedger(), scorers, policy=rule, keys=KEYS, clock=FakeClock())
    made = []
    for number, price in enumerate((None, 1_300, 900), start=1):
        fitted = None if price is None else FittedCapacity(asked, CostPolicy(shadow_price_minor=price))
        scorers.scorer = LinearScorer(version=number, advice=Advice(Thresholds(0.2, 0.6), fitted))
        made.append(record(decide.decide([transaction(number, 0)])[0]))
    assert [one.decision.policy for one in made] == [CostPolicy(shadow_price_minor=price) for price in (77, 1_300, 900)]
    # What was recorded decides again by itself, whoever is champion by then.
    for one in made:
        again = read_decision(decision_bytes(one)).decision
        assert again.policy.outcome(again.score, one.amount_minor) is one.decision.outcome


def test_a_decision_says_what_it_knew_and_why() -> None:
    ledger = FakeLedger()
    own = transaction(1, 0, amount=7_777)
    made = record(scoring(ledger).decide([own])[0])
    scorer = LinearScorer()
    assert (made.customer_version, made.terminal_version, made.view) == (0, 0, "card-v1")
    assert (made.model_name, made.model_version, made.decision.score.bundle_digest) == (
        scorer.name,
        scorer.version,
        scorer.bundle_digest,
    )
    logit = math.log(made.raw_score / (1 - made.raw_score))
    total = made.base + sum(reason.contribution for reason in made.reasons) + made.others
    assert total == pytest.approx(logit, abs=1e-5)
    assert made.customer == surrogate_of(KEYS.current, Entity.CUSTOMER, own.customer_id, bytes(16))
    assert made.terminal == surrogate_of(KEYS.current, Entity.TERMINAL, own.terminal_id)
    assert made.decision.outcome in set(Outcome)


def test_what_is_stored_is_what_is_answered_and_what_the_log_binds() -> None:
    ledger = FakeLedger()
    verdicts = scoring(ledger).decide([transaction(number, number) for number in range(5)])
    (block,) = ledger.tables.blocks
    stored = [row.record for row in ledger.tables.decisions.values()]
    assert verify_leaves(block, stored) == []
    assert [decision_bytes(record(verdict)) for verdict in verdicts] == stored
    assert ledger.tables.outbox == [row.transaction_id for row in ledger.tables.decisions.values()]
    assert ledger.head == Head.of(block)


def test_a_repeat_gets_the_stored_decision_whatever_the_model_says_today() -> None:
    ledger, scorers = FakeLedger(), FixedScorers()
    decide = scoring(ledger, scorers)
    first = decide.decide([transaction(1, 0)])[0]
    scorers.scorer = LinearScorer(version=2, base=3.0)
    again = decide.decide([transaction(2, 5), transaction(1, 0)])[1]
    assert isinstance(first, Decided)
    assert isinstance(again, Decided)
    assert (again.data, again.record, again.repeated, first.repeated) == (first.data, first.record, True, False)
    assert len(ledger.tables.blocks) == 2


def test_a_batch_of_repeats_writes_nothing() -> None:
    ledger = FakeLedger()
    decide = scoring(ledger)
    decide.decide([transaction(1, 0)])
    decide.decide([transaction(1, 0), transaction(1, 0)])
    assert len(ledger.tables.blocks) == 1


def test_within_a_batch_an_id_is_decided_once() -> None:
    ledger = FakeLedger()
    one, other = transaction(1, 0), transaction(1, 0, amount=2)
    first, again, conflict = scoring(ledger).decide([one, one, other])
    assert isinstance(first, Decided)
    assert isinstance(again, Decided)
    assert (first.repeated, again.repeated) == (False, True)
    assert isinstance(error(conflict), Conflict)
    assert ledger.tables.digests[one.transaction_id] == transaction_digest(one)


@pytest.mark.parametrize("changed", ["customer_id", "terminal_id", "amount_minor", "currency", "event_time_us"])
def test_the_same_id_with_another_body_is_a_conflict_and_changes_nothing(changed: str) -> None:
    ledger = FakeLedger()
    decide = scoring(ledger)
    own = transaction(1, 0)
    decide.decide([own])
    before = (dict(ledger.tables.digests), dict(ledger.tables.transactions), list(ledger.tables.blocks))
    value = getattr(own, changed)
    fields: dict[str, Any] = {changed: value + 1 if isinstance(value, int) else value + "x"}
    other = replace(own, **fields)
    found = error(decide.decide([other])[0])
    assert isinstance(found, Conflict)
    assert (found.field, found.rule) == ("transaction_id", "was used before with another body")
    assert before == (ledger.tables.digests, ledger.tables.transactions, ledger.tables.blocks)


def test_of_two_bodies_in_one_batch_the_stored_one_is_answered_whatever_comes_first() -> None:
    ledger = FakeLedger()
    decide = scoring(ledger)
    one, other = transaction(1, 0), transaction(1, 0, amount=2)
    decide.decide([one])
    first, second, third = decide.decide([other, one, other])
    assert isinstance(second, Decided)
    assert (second.repeated, second.record.amount_minor) == (True, one.amount_minor)
    assert isinstance(error(first), Conflict)
    assert isinstance(error(third), Conflict)


def test_an_imported_transaction_has_no_decision_to_repeat() -> None:
    ledger = FakeLedger()
    decide = scoring(ledger)
    decide.decide([transaction(1, 0)])
    ledger.tables.decisions.clear()
    found = error(decide.decide([transaction(1, 0)])[0])
    assert isinstance(found, Conflict)
    assert "imported" in found.rule


def test_a_forgotten_transaction_stays_forgotten() -> None:
    ledger = FakeLedger()
    decide = scoring(ledger)
    own = transaction(1, 0)
    decide.decide([own])
    ledger.tables.digests[own.transaction_id] = FORGOTTEN_DIGEST
    assert isinstance(error(decide.decide([own])[0]), Conflict)
    (verdict,) = labelling(ledger).record([label(own, fraud=True)])
    assert verdict.outcome is LabelOutcome.REFUSED


def test_nothing_to_decide_is_no_unit_of_work() -> None:
    ledger = FakeLedger()
    ledger.fault_at_claim = Transient("not reached")
    assert scoring(ledger).decide([]) == []


@pytest.mark.parametrize("fault", ["fault_at_claim", "fault_at_write"])
def test_a_transient_fault_fails_the_whole_batch_and_a_retry_decides_it(fault: str) -> None:
    ledger = FakeLedger()
    decide = scoring(ledger)
    setattr(ledger, fault, Transient("gone"))
    with pytest.raises(Transient):
        decide.decide([transaction(1, 0), transaction(2, 1)])
    assert not ledger.tables.transactions
    verdicts = decide.decide([transaction(1, 0), transaction(2, 1)])
    assert [record(verdict).transaction_id for verdict in verdicts] == ["t0001", "t0002"]


def test_without_a_champion_nothing_is_claimed() -> None:
    ledger = FakeLedger()
    with pytest.raises(Transient, match="champion"):
        scoring(ledger, FixedScorers(None)).decide([transaction(1, 0)])
    assert not ledger.tables.digests


def test_a_poisoned_batch_is_narrowed_down_to_what_is_at_fault() -> None:
    ledger = FakeLedger()
    decide = scoring(ledger)
    decide.decide([transaction(0, 0, customer="bad", terminal="m0")])
    stored = ledger.tables.entities[Entity.CUSTOMER, "bad"]
    assert stored.header is not None
    stored.header = stored.header[:-1] + b"?"
    batch = [
        transaction(number, number, customer="bad" if number == 5 else f"c{number}", terminal=f"m{number}")
        for number in range(1, 12)
    ]
    verdicts = decide.decide(batch)
    refused = [verdict.transaction_id for verdict in verdicts if isinstance(verdict, Refused)]
    assert refused == ["t0005"]
    assert isinstance(error(verdicts[4]), BrokenInvariant)
    assert "t0005" not in ledger.tables.digests
    assert len(ledger.tables.decisions) == 11


def test_an_event_later_than_state_promises_is_flagged() -> None:
    ledger = FakeLedger()
    decide = scoring(ledger)
    decide.decide([transaction(1, 20 * US_PER_DAY, terminal="m1")])
    (verdict,) = decide.decide([transaction(2, 12 * US_PER_DAY, terminal="m2")])
    assert record(verdict).lateness is Lateness.CUSTOMER
    (verdict,) = decide.decide([transaction(3, 13 * US_PER_DAY, terminal="m1")])
    assert record(verdict).lateness is Lateness.NONE  # exactly seven days late is in time


def test_an_entity_keeps_the_surrogate_it_was_given_when_keys_rotate() -> None:
    ledger = FakeLedger()
    first = record(scoring(ledger).decide([transaction(1, 0)])[0])
    rotated = KeyRing(SurrogateKey("k2", bytes(range(32, 64))), (KEYS.current,))
    old, new = scoring(ledger, keys=rotated).decide([transaction(2, 1), transaction(3, 2, customer="new")])
    assert record(old).customer == first.customer
    assert record(new).customer.startswith("k2.")


def test_a_label_waits_for_its_transaction_and_counts_from_then_on() -> None:
    ledger = FakeLedger()
    decide, mark = scoring(ledger), labelling(ledger)
    own = transaction(1, 0)
    said = label(own, fraud=True)
    assert [verdict.outcome for verdict in mark.record([said, said])] == [LabelOutcome.WAITING, LabelOutcome.REPEATED]
    assert record(decide.decide([own])[0]).customer_version == 0
    assert [verdict.outcome for verdict in mark.record([said])] == [LabelOutcome.REPEATED]
    later = transaction(2, 8 * US_PER_DAY)
    made = record(decide.decide([later])[0])
    assert made.customer_version == 2  # the transaction and its label
    values = dict(zip(CARD_V1.names, np.frombuffer(made.vector, dtype="<f4").tolist(), strict=True))
    assert values["terminal_last_label"] == 1.0


def test_labels_are_recorded_once_with_the_versions_they_create() -> None:
    ledger = FakeLedger()
    decide, mark = scoring(ledger), labelling(ledger)
    own = transaction(1, 0)
    decide.decide([own])
    early, late = label(own, fraud=False), label(own, fraud=True, known_after_us=5)
    outcomes = [verdict.outcome for verdict in mark.record([late, early, late])]
    assert outcomes == [LabelOutcome.RECORDED, LabelOutcome.RECORDED, LabelOutcome.REPEATED]
    found = {
        item.label: (item.customer_version, item.terminal_version)
        for item in ledger.tables.labels.values()
        if isinstance(item, LabelVersions)
    }
    assert found == {early: (2, 2), late: (3, 3)}


@pytest.mark.parametrize("fault", ["fault_at_claim", "fault_at_write"])
def test_labels_survive_a_transient_fault_by_being_recorded_again(fault: str) -> None:
    ledger = FakeLedger()
    mark = labelling(ledger)
    setattr(ledger, fault, Transient("gone"))
    said = label(transaction(1, 0), fraud=True)
    with pytest.raises(Transient):
        mark.record([said])
    assert [verdict.outcome for verdict in mark.record([said])] == [LabelOutcome.WAITING]


def test_several_threads_on_the_same_entities_know_of_one_another() -> None:
    tables = Tables()
    batch = [transaction(number, number % 50, customer=f"c{number % 3}", terminal="m") for number in range(90)]
    faults: list[BaseException] = []

    def run(name: str, part: list[Transaction]) -> None:
        try:
            decide = scoring(FakeLedger(tables, name))
            for start in range(0, len(part), 7):
                decide.decide(part[start : start + 7])
        except BaseException as found:  # noqa: BLE001 - told to the test below
            faults.append(found)

    threads = [threading.Thread(target=run, args=(f"w{place}", batch[place * 20 :])) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    vectors = recomputed(tables)
    decided = scoring(FakeLedger(tables)).decide(batch)
    assert all(record(verdict).vector == vectors[record(verdict).transaction_id] for verdict in decided)
    assert sorted(versions(tables, Entity.TERMINAL)["m"]) == list(range(1, 91))


def test_the_time_of_each_stage_is_told() -> None:
    ticks = iter(range(100))
    stages = StageTimes(lambda: float(next(ticks)))
    ledger = FakeLedger()
    decide = Scoring(ledger, FixedScorers(), policy=POLICY, keys=KEYS, clock=FakeClock(), stages=stages)
    decide.decide([transaction(1, 0)])
    assert stages.taken() == {"claim": 1, "features": 1, "model": 1, "record": 1, "write": 1}
    decide.decide([transaction(1, 0)])
    assert stages.taken() == {"claim": 1}
