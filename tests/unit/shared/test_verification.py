"""Every kind of damage to the ledger in memory, and which verification names it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.adapters.bundle_archive import BundleArchive
from shared.domain.archive import Selection, forgotten_key
from shared.domain.canonical import Digest, transaction_digest
from shared.domain.cost_policy import CostPolicy, Costs
from shared.domain.decision import DecidingPolicy, Outcome, Policy
from shared.domain.decision_record import decision_bytes, read_decision
from shared.domain.errors import BrokenInvariant, Conflict, InvalidInput, NotFound
from shared.domain.feature_view import CARD_V1, Entity
from shared.domain.identifiers import CustomerId, TransactionId
from shared.domain.instants import US_PER_DAY, US_PER_MINUTE
from shared.domain.labels import Label
from shared.domain.ledger import LabelVersions
from shared.domain.log_block import Head, next_block
from shared.domain.seal import NO_SEAL, Seal, read_seal, seal_bytes
from shared.domain.surrogates import KeyRing, SurrogateKey
from shared.domain.transaction import Transaction
from shared.entrypoints import timer_seals
from shared.services.forgetting import forget
from shared.services.importing import Importing
from shared.services.labelling import Labelling, LabelOutcome
from shared.services.replaying import Replaying, ReplayVerdict
from shared.services.scoring import Decided, Refused, Scoring
from shared.services.sealing import OVERLAP_US, seal
from shared.services.timed_runs import TimedRuns
from shared.services.verification_decisions import DecisionsReport, verify_decisions
from shared.services.verification_findings import Finding, Subject
from shared.services.verification_log import LogReport, verify_log
from shared.services.verification_skew import SkewReason, verify_skew
from tests.fakes.archive import FakeArchive, FakeArchivedScorers, FakeErasure, FakeSealedLedger, FakeSeals
from tests.fakes.bundles import golden_files, trained_scorer
from tests.fakes.ledger import FakeLedger, Tables
from tests.fakes.pipelines import FakePipelineLog
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.unit.domain.worlds import World, label, random_world, transaction, worlds

KEYS = KeyRing(SurrogateKey("k1", bytes(range(32))))
ALL = Selection()


@dataclass
class Ledgers:
    """Two writers on one set of tables, with everything that verifies them."""

    tables: Tables = field(default_factory=Tables)
    clock: FakeClock = field(default_factory=FakeClock)
    scorer: LinearScorer = field(default_factory=LinearScorer)
    seals: FakeSeals = field(default_factory=FakeSeals)
    policies: tuple[DecidingPolicy, DecidingPolicy] = (Policy(0.05, 0.4), Policy(0.05, 0.4))

    def __post_init__(self) -> None:
        salts = random.Random(7)
        self.archive = FakeArchive(self.tables)
        self.ledgers = [
            FakeLedger(self.tables, writer, lambda new: [salts.randbytes(16) for _ in new]) for writer in ("w-a", "w-b")
        ]
        scorers = FixedScorers(self.scorer)
        self.deciders = [
            Scoring(ledger, scorers, policy=policy, keys=KEYS, clock=self.clock)
            for ledger, policy in zip(self.ledgers, self.policies, strict=True)
        ]
        self.labelling = Labelling(self.ledgers[0], KEYS, self.clock)
        self.replaying = Replaying(FakeArchivedScorers([self.scorer]))
        self.sealed = FakeSealedLedger(self.archive)
        self.erasure = FakeErasure(self.tables)

    def arrive(self, events: list[Transaction | Label], size: int = 4) -> None:
        for number, start in enumerate(range(0, len(events), size)):
            batch = events[start : start + size]
            self.clock.time_us += US_PER_MINUTE
            self.deciders[number % 2].decide([item for item in batch if isinstance(item, Transaction)])
            self.labelling.record([item for item in batch if isinstance(item, Label)])

    def decisions(self, selection: Selection = ALL) -> DecisionsReport:
        return verify_decisions(self.archive, self.replaying, selection, chunk_rows=10)

    def log(self, since_us: int | None = None, until_us: int | None = None) -> LogReport:
        return verify_log(self.archive, self.seals, since_us=since_us, until_us=until_us)

    def seal(self) -> Seal | None:
        return seal(self.sealed, self.seals, self.clock).seal


def in_order(world: World) -> list[Transaction | Label]:
    return sorted(
        [*world.transactions, *world.labels],
        key=lambda item: item.event_time_us if isinstance(item, Transaction) else item.known_at_us,
    )


@pytest.fixture
def ledgers() -> Ledgers:
    found = Ledgers()
    found.arrive(in_order(random_world(3, 60)))
    return found


def kinds(report: DecisionsReport | LogReport) -> set[Subject]:
    return set(report.findings.counts)


def an_id(ledgers: Ledgers, number: int = 30) -> TransactionId:
    return sorted(ledgers.tables.transactions)[number]


def change_record(ledgers: Ledgers, name: TransactionId, **fields: object) -> None:
    row = ledgers.tables.decisions[name]
    record = replace(read_decision(row.record), **fields)  # type: ignore[arg-type]  # any field of a record
    ledgers.tables.decisions[name] = row._replace(record=decision_bytes(record))


@given(worlds(), st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_arrives_in_whatever_order_verifies(world: World, data: st.DataObject) -> None:
    found = Ledgers()
    found.arrive(data.draw(st.permutations([*world.transactions, *world.labels])), size=3)
    report = found.decisions()
    assert report.findings.kept == []
    assert report.replayed == len(world.transactions)
    assert report.recomputed == dict.fromkeys(Entity, len(world.transactions))
    assert found.log().findings.kept == []


def test_an_untouched_ledger_verifies_and_is_counted(ledgers: Ledgers) -> None:
    report = ledgers.decisions()
    assert report.findings.kept == []
    assert (report.replayed, report.unchecked, report.imported) == (60, 0, 0)
    assert report.transactions == dict.fromkeys(Entity, 60)
    assert report.values == 60 * len(CARD_V1.features)
    assert report.labels[Entity.CUSTOMER] == len(ledgers.tables.labels) > 20
    log = ledgers.log()
    assert (log.findings.kept, log.writers, log.decisions) == ([], 2, 60)
    assert (log.blocks, log.chained, log.sealed_at_us) == (len(ledgers.tables.blocks), len(ledgers.tables.blocks), None)


def test_decisions_of_several_policies_replay_side_by_side() -> None:
    """Each by the policy and the parameters that it recorded, whatever is configured since."""
    policies = Policy(0.05, 0.4), CostPolicy(Costs(100, 200, 500), 50)
    found = Ledgers(policies=policies)
    found.arrive(in_order(random_world(3, 60)))
    assert found.decisions().findings.kept == []
    assert found.log().findings.kept == []
    records = [read_decision(row.record) for row in found.tables.decisions.values()]
    outcomes: dict[DecidingPolicy, set[Outcome]] = {}
    for record in records:
        outcomes.setdefault(record.decision.policy, set()).add(record.decision.outcome)
        score = record.decision.score
        assert record.decision.outcome is record.decision.policy.outcome(score, record.amount_minor)
    assert set(outcomes) == set(policies)
    assert len(outcomes[policies[1]]) > 1


def test_another_cost_than_the_recorded_one_is_named_where_it_changes_the_outcome() -> None:
    found = Ledgers(policies=(CostPolicy(Costs(100, 200, 500)), CostPolicy(Costs(100, 200, 500))))
    found.arrive(in_order(random_world(3, 60)))
    rows = found.tables.decisions
    name = next(name for name in sorted(rows) if read_decision(rows[name].record).decision.outcome is Outcome.REVIEW)
    decision = read_decision(rows[name].record).decision
    change_record(found, name, decision=replace(decision, policy=CostPolicy(Costs(10**9, 200, 500))))
    replayed = [item for item in found.decisions().findings.kept if item.subject is Subject.REPLAY]
    assert [item.name for item in replayed] == [name]
    assert replayed[0].detail.startswith("outcome is stored as review")


def test_a_changed_byte_of_a_vector_is_named_by_feature_and_by_the_log(ledgers: Ledgers) -> None:
    name = an_id(ledgers)
    vector = bytearray(read_decision(ledgers.tables.decisions[name].record).vector)
    place = CARD_V1.names.index("terminal_count_7d")
    vector[4 * place + 2] ^= 0x40
    change_record(ledgers, name, vector=bytes(vector))
    report = ledgers.decisions()
    features = [item for item in report.findings.kept if item.subject is Subject.FEATURE]
    assert [item.name for item in features] == [name]
    assert "terminal_count_7d is stored as" in features[0].detail
    assert "and recomputed as" in features[0].detail
    log = ledgers.log()
    assert [item.name for item in log.findings.kept] == [name]
    assert "changed" in log.findings.kept[0].detail


def test_a_changed_amount_is_named_by_body_column_and_features(ledgers: Ledgers) -> None:
    name = an_id(ledgers)
    row = ledgers.tables.transactions[name]
    own = replace(row.transaction, amount_minor=row.transaction.amount_minor + 1)
    ledgers.tables.transactions[name] = row._replace(transaction=own)
    report = ledgers.decisions()
    assert {Subject.BODY, Subject.COLUMN, Subject.FEATURE} <= kinds(report)
    assert Finding(Subject.COLUMN, name, "the transaction's amount_minor is not what the record says") in (
        report.findings.kept
    )
    assert any(item.name == name and item.detail.startswith("amount is stored as") for item in report.findings.kept)


@pytest.mark.parametrize(("field_name", "shown"), [("raw_score", "raw_score"), ("base", "base"), ("others", "others")])
def test_a_changed_number_of_an_answer_is_named(ledgers: Ledgers, field_name: str, shown: str) -> None:
    name = an_id(ledgers)
    record = read_decision(ledgers.tables.decisions[name].record)
    change_record(ledgers, name, **{field_name: getattr(record, field_name) + 2**-10})
    found = ledgers.decisions().findings.kept
    assert [(item.subject, item.name) for item in found] == [(Subject.REPLAY, name)]
    assert found[0].detail.startswith(f"{shown} is stored as")


def test_a_changed_outcome_is_named_by_replay_and_the_column(ledgers: Ledgers) -> None:
    name = an_id(ledgers)
    record = read_decision(ledgers.tables.decisions[name].record)
    outcome = next(item for item in Outcome if item is not record.decision.outcome)
    change_record(ledgers, name, decision=replace(record.decision, outcome=outcome))
    report = ledgers.decisions()
    assert kinds(report) == {Subject.REPLAY, Subject.COLUMN}
    assert "outcome is stored as" in report.findings.kept[0].detail


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_flipped_bit_of_any_record_is_named_by_decisions_and_log(data: st.DataObject) -> None:
    found = Ledgers(policies=(Policy(0.05, 0.4), CostPolicy(Costs(100, 200, 500), 50)))
    found.arrive([transaction(number, number * US_PER_DAY) for number in range(6)])
    name = an_id(found, data.draw(st.integers(0, 5)))
    row = found.tables.decisions[name]
    place = data.draw(st.integers(0, 8 * len(row.record) - 1))
    record = bytearray(row.record)
    record[place // 8] ^= 1 << (place % 8)
    found.tables.decisions[name] = row._replace(record=bytes(record))
    assert {item.name for item in found.log().findings.kept} == {name}
    named = name in {item.name for item in found.decisions().findings.kept}
    assert named or only_parameters_differ(row.record, bytes(record))


def only_parameters_differ(stored: bytes, changed: bytes) -> bool:
    """Parameters of a policy are given: nothing else says what they were, so only the log tells of others."""
    before, after = read_decision(stored), read_decision(changed)
    policy = before.decision.policy
    return after.decision.policy != policy and before == replace(after, decision=replace(after.decision, policy=policy))


def test_a_bundle_that_is_damaged_leaves_its_decisions_unchecked(ledgers: Ledgers) -> None:
    class Damaged:
        def find(self, bundle_digest: str) -> None:
            raise BrokenInvariant("model.onnx is not what the manifest says")

    _, found = Replaying(Damaged()).replay(ledgers.archive, an_id(ledgers))
    assert found.verdict is ReplayVerdict.UNCHECKED
    assert found.obstacle.endswith("cannot be used: model.onnx is not what the manifest says")


def test_only_the_last_few_bundles_stay_in_memory() -> None:
    fetched = []

    class Store:
        def get(self, digest: str) -> dict[str, bytes]:
            fetched.append(digest)
            if digest != trained_scorer().bundle_digest:
                raise NotFound("digest", "is not here")
            return golden_files()

    store: Any = Store()
    archive = BundleArchive(store, lambda _: trained_scorer(), most_held=1)
    digest = trained_scorer().bundle_digest
    assert archive.find("0" * 64) is None
    assert archive.find(digest) is archive.find(digest)
    assert fetched == ["0" * 64, digest]


def test_a_record_that_cannot_be_read_is_named(ledgers: Ledgers) -> None:
    name = an_id(ledgers)
    ledgers.tables.decisions[name] = ledgers.tables.decisions[name]._replace(record=b"nothing")
    report = ledgers.decisions()
    assert kinds(report) == {Subject.REPLAY}
    assert name in {item.name for item in report.findings.kept}


@pytest.mark.parametrize("column", ["outcome", "score", "bundle_digest"])
def test_a_changed_column_beside_the_record_is_named(ledgers: Ledgers, column: str) -> None:
    name = an_id(ledgers)
    row = ledgers.tables.decisions[name]
    other: dict[str, object] = {
        "outcome": next(item for item in type(row.outcome) if item is not row.outcome),
        "score": row.score / 2,
        "bundle_digest": "0" * 64,
    }
    ledgers.tables.decisions[name] = row._replace(**{column: other[column]})  # type: ignore[arg-type]  # by name
    assert ledgers.decisions().findings.kept == [
        Finding(Subject.COLUMN, name, f"the {column} is not what the record says")
    ]


def test_a_changed_label_is_named(ledgers: Ledgers) -> None:
    key, item = next((key, item) for key, item in ledgers.tables.labels.items() if isinstance(item, LabelVersions))
    later = replace(item.label, known_at_us=item.label.known_at_us - 30 * US_PER_DAY)
    ledgers.tables.labels[key] = item._replace(label=later)
    report = ledgers.decisions()
    assert Finding(Subject.LABEL, key[0], "the stored label is not the one that was recorded") in report.findings.kept


@pytest.mark.parametrize("which", ["customer_version", "terminal_version"])
def test_a_changed_version_is_named_as_gap_and_double(ledgers: Ledgers, which: str) -> None:
    name = an_id(ledgers)
    row = ledgers.tables.transactions[name]
    ledgers.tables.transactions[name] = row._replace(**{which: getattr(row, which) - 1})
    report = ledgers.decisions()
    assert {Subject.VERSION, Subject.COLUMN} <= kinds(report)
    details = [item.detail for item in report.findings.kept if item.subject is Subject.VERSION]
    assert any("was given twice" in item for item in details)
    assert any("missing" in item for item in details)


def test_a_removed_transaction_leaves_strays_and_gaps(ledgers: Ledgers) -> None:
    name = an_id(ledgers, 10)
    del ledgers.tables.transactions[name]
    report = ledgers.decisions()
    assert {Subject.STRAY, Subject.VERSION} <= kinds(report)
    strays = {item.detail for item in report.findings.kept if item.name == name}
    assert {"a claimed id without its transaction", "a decision without its transaction"} <= strays


def test_a_removed_newest_transaction_shows_by_the_entitys_own_version() -> None:
    found = Ledgers()
    found.arrive([transaction(1, 0), transaction(2, 5)])
    last = TransactionId("t0002")
    for table in (found.tables.transactions, found.tables.decisions, found.tables.digests):
        del table[last]
    report = found.decisions()
    assert report.findings.counts == {Subject.VERSION: 2}
    assert report.findings.kept[0].detail == "its state is at version 2, its rows end at 1"


def test_a_surrogate_of_another_is_named(ledgers: Ledgers) -> None:
    name = an_id(ledgers)
    change_record(ledgers, name, terminal="k1." + "0" * 32)
    report = ledgers.decisions()
    assert kinds(report) == {Subject.SURROGATE}
    assert report.findings.kept[0].name == name


def test_without_the_bundle_decisions_are_unchecked_and_features_are_compared_all_the_same(ledgers: Ledgers) -> None:
    ledgers.replaying = Replaying(FakeArchivedScorers([]))
    report = ledgers.decisions()
    assert (report.unchecked, report.replayed, kinds(report)) == (60, 0, {Subject.UNCHECKED})
    assert report.values == 60 * len(CARD_V1.features)


def test_a_selection_compares_fewer_decisions_by_full_histories(ledgers: Ledgers) -> None:
    times = sorted(row.transaction.event_time_us for row in ledgers.tables.transactions.values())
    report = ledgers.decisions(Selection(since_us=times[40], until_us=times[50]))
    assert (report.findings.kept, report.replayed, report.recomputed[Entity.TERMINAL]) == ([], 10, 10)
    assert report.transactions[Entity.CUSTOMER] > 10
    sampled = ledgers.decisions(Selection(share=0.5, seed="b"))
    assert sampled.findings.kept == []
    assert 0 < sampled.replayed < 60


@pytest.mark.parametrize("share", [0.0, 1.1, -1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InvalidInput, match="sample"):
        Selection(share=share)
    with pytest.raises(InvalidInput, match="since"):
        Selection(since_us=5, until_us=5)


def test_imported_history_is_counted_and_recomputed_around() -> None:
    found = Ledgers()
    importing = Importing(found.ledgers[0], KEYS, found.clock)
    importing.take([transaction(number, number * 1000) for number in range(6)])
    found.arrive([transaction(20, 90_000), transaction(21, 91_000)])
    report = found.decisions()
    assert (report.findings.kept, report.imported, report.replayed) == ([], 6, 2)


def test_late_decisions_are_compared_and_counted_apart() -> None:
    found = Ledgers()
    found.arrive(
        [transaction(1, 200 * US_PER_DAY), transaction(2, 3 * US_PER_DAY), transaction(3, 201 * US_PER_DAY)], 1
    )
    report = found.decisions()
    assert (report.findings.kept, report.late) == ([], 2)


# ---- the log


def test_every_damage_to_blocks_is_named(ledgers: Ledgers) -> None:
    blocks = ledgers.tables.blocks
    own = [place for place, block in enumerate(blocks) if block.writer == "w-a"]
    middle = own[3]
    block = blocks[middle]

    def found() -> set[tuple[Subject, str, str]]:
        return {tuple(item) for item in ledgers.log().findings.kept if item.subject is Subject.BLOCK}  # type: ignore[misc]

    blocks[middle] = replace(block, leaves=(Digest(bytes(32)), *block.leaves[1:]))
    assert (Subject.BLOCK, "w-a/3", "changed") in found()
    blocks[middle] = block
    del blocks[middle]
    assert (Subject.BLOCK, "w-a/3", "missing") in found()
    blocks.insert(middle, block)
    assert found() == set()
    blocks.append(replace(block, previous=Digest(b"\1" * 32)))
    assert (Subject.BLOCK, "w-a/3", "inserted") in found()
    blocks.pop()
    first, second = blocks[own[2]], blocks[own[3]]
    blocks[own[2]], blocks[own[3]] = replace(second, sequence=2), replace(first, sequence=3)
    assert {name for _, name, _ in found()} >= {"w-a/2", "w-a/3"}
    blocks[own[2]], blocks[own[3]] = first, second
    ledgers.archive.hashes["w-a", 3] = bytes(32)
    assert found() == {(Subject.BLOCK, "w-a/3", "changed")}


def test_removed_inserted_and_swapped_decisions_are_named(ledgers: Ledgers) -> None:
    tables = ledgers.tables
    block = next(item for item in tables.blocks if item.count >= 3)
    own = [name for name, place in tables.places.items() if place[:2] == (block.writer, block.sequence)]
    row = tables.decisions.pop(own[0])
    assert [item.detail for item in ledgers.log().findings.kept] == [
        f"missing: block {block.sequence} of {block.writer}, decision 0"
    ]
    tables.decisions[own[0]] = row
    stranger = TransactionId("stranger")
    tables.decisions[stranger] = row._replace(transaction_id=stranger, record=row.record + b"x")
    tables.places[stranger] = (block.writer, block.sequence, block.count)
    assert [(item.name, item.detail.split(":")[0]) for item in ledgers.log().findings.kept] == [(stranger, "inserted")]
    tables.places[stranger] = ("nobody", 0, 0)
    tables.recorded_at_us["nobody", 0] = 5
    found = ledgers.log().findings.kept
    assert [(item.subject, item.name) for item in found] == [
        (Subject.BLOCK, "nobody/0"),
        (Subject.DECISION, stranger),
    ]
    del tables.decisions[stranger]
    one, two = own[1], own[2]
    tables.places[one], tables.places[two] = tables.places[two], tables.places[one]
    assert {(item.name, item.detail.split(":")[0]) for item in ledgers.log().findings.kept} == {
        (one, "reordered"),
        (two, "reordered"),
    }


def cut_tail(ledgers: Ledgers, count: int = 2) -> None:
    """Cut the newest blocks of both writers with all that stands on them."""
    tables = ledgers.tables
    for writer in ("w-a", "w-b"):
        for block in [item for item in tables.blocks if item.writer == writer][-count:]:
            tables.blocks.remove(block)
            for name, place in list(tables.places.items()):
                if place[:2] == (writer, block.sequence):
                    del tables.decisions[name]


def test_a_cut_tail_verifies_without_a_seal_and_is_named_with_one(ledgers: Ledgers) -> None:
    ends = {block.writer: block.sequence for block in ledgers.tables.blocks}
    before = list(ledgers.tables.blocks), dict(ledgers.tables.decisions)
    cut_tail(ledgers)
    assert ledgers.log().findings.kept == []
    ledgers.tables.blocks[:], ledgers.tables.decisions = before[0], before[1]
    assert ledgers.seal() is not None
    assert ledgers.log().findings.kept == []
    cut_tail(ledgers)
    named = {item.name for item in ledgers.log().findings.kept if item.detail == "missing"}
    assert named == {f"{writer}/{end - back}" for writer, end in ends.items() for back in (0, 1)}


def test_a_writer_that_is_gone_as_a_whole_is_named_by_its_seal(ledgers: Ledgers) -> None:
    ledgers.seal()
    tables = ledgers.tables
    tables.blocks[:] = [block for block in tables.blocks if block.writer != "w-b"]
    for name, place in tables.places.items():
        if place[0] == "w-b":
            del tables.decisions[name]
    found = ledgers.log().findings.kept
    assert found
    assert {item.name.split("/")[0] for item in found} == {"w-b"}


def test_a_writer_older_than_a_seal_that_does_not_know_it_was_inserted(ledgers: Ledgers) -> None:
    made = ledgers.seal()
    assert made is not None
    tables = ledgers.tables
    block = next_block("forged", None, [b"x"])
    tables.blocks.append(block)
    place = ("forged", 0)
    tables.recorded_at_us[place] = made.sealed_at_us - OVERLAP_US
    assert Finding(Subject.BLOCK, "forged/0", "inserted") in ledgers.log().findings.kept
    tables.recorded_at_us[place] = made.sealed_at_us - OVERLAP_US + 1  # may have been in flight: chained, not inserted
    report = ledgers.log()
    assert Finding(Subject.BLOCK, "forged/0", "inserted") not in report.findings.kept
    assert (report.chained, report.chained_from_us) == (1, tables.recorded_at_us[place])


def test_a_commit_that_was_in_flight_while_sealing_is_sealed_next(ledgers: Ledgers) -> None:
    tables = ledgers.tables
    late = tables.blocks.pop()
    hidden = [name for name, place in tables.places.items() if place[:2] == (late.writer, late.sequence)]
    rows = {name: tables.decisions.pop(name) for name in hidden}
    assert ledgers.seal() is not None
    tables.blocks.append(late)
    tables.decisions |= rows
    assert ledgers.log().findings.kept == []
    ledgers.clock.time_us += US_PER_MINUTE
    second = ledgers.seal()
    assert second is not None
    assert second.heads == (Head.of(late),)
    ledgers.clock.time_us += US_PER_DAY
    assert ledgers.seal() is None
    assert ledgers.log().findings.kept == []


def test_a_part_of_the_log_is_verified_from_an_anchor(ledgers: Ledgers) -> None:
    times = sorted(ledgers.tables.recorded_at_us.values())
    report = ledgers.log(since_us=times[6], until_us=times[-4])
    assert (report.findings.kept, report.anchored) == ([], 2)
    assert 0 < report.blocks < len(times)
    first = next(place for place, block in enumerate(ledgers.tables.blocks) if block.sequence == 0)
    ledgers.tables.blocks[first] = replace(ledgers.tables.blocks[first], root=Digest(bytes(32)))
    assert ledgers.log(since_us=times[6]).findings.kept == []
    assert ledgers.log().findings.kept != []


# ---- seals


def test_a_seal_reads_back_and_refuses_what_is_none() -> None:
    made = Seal(4, 99, NO_SEAL, (Head("a", 1, NO_SEAL), Head("b", 0, NO_SEAL)))
    data = seal_bytes(made)
    assert read_seal(data) == made
    assert made.hash != replace(made, sealed_at_us=98).hash
    for damaged in (data[:-1], data + b"\0", b"\x53\x02" + data[2:], b""):
        with pytest.raises(BrokenInvariant):
            read_seal(damaged)
    with pytest.raises(BrokenInvariant, match="sorted"):
        seal_bytes(replace(made, heads=made.heads[::-1]))


def test_seals_follow_one_another_and_hold_only_what_moved(ledgers: Ledgers) -> None:
    first = ledgers.seal()
    assert first is not None
    assert ledgers.seal() is None
    ledgers.deciders[1].decide([transaction(900, 121 * US_PER_DAY)])
    second = ledgers.seal()
    assert second is not None
    assert (second.number, second.previous, [head.writer for head in second.heads]) == (1, first.hash, ["w-b"])
    assert ledgers.archive.mirrored == ledgers.seals.kept
    report = ledgers.log()
    assert (report.findings.kept, report.seals, report.sealed_at_us) == ([], 2, second.sealed_at_us)


def test_of_two_that_seal_at_once_one_wins(ledgers: Ledgers) -> None:
    class Rival(FakeSeals):
        def put(self, number: int, data: bytes) -> bool:
            self.kept.setdefault(number, seal_bytes(Seal(number, 5, NO_SEAL, ())))
            return super().put(number, data)

    ledgers.seals = Rival()
    assert ledgers.seal() is None
    assert read_seal(ledgers.seals.kept[0]).heads == ()


def test_a_copy_that_a_crash_left_out_is_made_by_the_next_attempt(ledgers: Ledgers) -> None:
    ledgers.seal()
    ledgers.archive.mirrored.clear()
    report = ledgers.log()
    assert report.findings.kept == [Finding(Subject.SEAL, "0", "it has no copy in the database")]
    assert ledgers.seal() is None
    assert ledgers.archive.mirrored == ledgers.seals.kept
    assert ledgers.log().findings.kept == []


def test_a_chain_that_fell_behind_its_seal_is_said_and_not_sealed_again(ledgers: Ledgers) -> None:
    ledgers.seal()
    cut_tail(ledgers, 1)
    found = seal(ledgers.sealed, ledgers.seals, ledgers.clock)
    assert found.seal is None
    assert {head.writer for head in found.fallen} == {"w-a", "w-b"}


def test_damage_to_seals_is_named(ledgers: Ledgers) -> None:
    for number in range(3):
        ledgers.deciders[0].decide([transaction(900 + number, (121 + number) * US_PER_DAY)])
        ledgers.seal()
    mirrored, kept = ledgers.archive.mirrored, ledgers.seals.kept
    good = dict(kept)
    forged = seal_bytes(replace(read_seal(good[1]), sealed_at_us=3))
    mirrored[1] = forged
    assert [(item.name, item.detail) for item in ledgers.log().findings.kept] == [
        ("1", "its copy in the database was changed")
    ]
    del mirrored[1]
    assert ledgers.log().findings.kept == [Finding(Subject.SEAL, "1", "it has no copy in the database")]
    mirrored[1] = good[1]
    del mirrored[2]
    assert ledgers.log().findings.kept == [Finding(Subject.SEAL, "2", "it has no copy in the database")]
    mirrored[2] = good[2]
    kept[1] = forged
    mirrored[2] = seal_bytes(replace(read_seal(good[2]), sealed_at_us=4))
    assert {item.name for item in ledgers.log().findings.kept} == {"1", "2"}
    kept[1], mirrored[2] = good[1], good[2]
    del kept[2]
    assert ledgers.log().findings.kept == [Finding(Subject.SEAL, "2", "it is gone from where seals lie")]


# ---- replay


def test_one_decision_replays_or_says_why_not(ledgers: Ledgers) -> None:
    name = an_id(ledgers)
    stored, replay = ledgers.replaying.replay(ledgers.archive, name)
    assert stored.transaction_id == name
    assert (replay.verdict, replay.differences) == (ReplayVerdict.EQUAL, ())
    with pytest.raises(NotFound):
        ledgers.replaying.replay(ledgers.archive, TransactionId("nobody"))
    _, missing = Replaying(FakeArchivedScorers([])).replay(ledgers.archive, name)
    assert missing.verdict is ReplayVerdict.UNCHECKED
    assert "is not kept" in missing.obstacle
    change_record(ledgers, name, fingerprint=Digest(bytes(32)))
    _, other = ledgers.replaying.replay(ledgers.archive, name)
    assert other.verdict is ReplayVerdict.UNCHECKED
    assert "another runtime (000000000000); all else is equal" in other.obstacle


def test_replay_names_rules_and_vectors_that_it_cannot_use(ledgers: Ledgers) -> None:
    name = an_id(ledgers)
    record = read_decision(ledgers.tables.decisions[name].record)
    change_record(ledgers, name, decision=replace(record.decision, rules_version="rules-9"))
    _, replay = ledgers.replaying.replay(ledgers.archive, name)
    assert (replay.verdict, replay.obstacle) == (
        ReplayVerdict.UNCHECKED,
        "its rule set rules-9 is not one that this release knows",
    )
    change_record(ledgers, name, decision=record.decision, vector=record.vector[:-4])
    _, replay = ledgers.replaying.replay(ledgers.archive, name)
    assert [item.field for item in replay.differences] == ["vector"]


# ---- skew


def test_events_in_order_show_no_skew() -> None:
    found = Ledgers()
    found.arrive(in_order(random_world(5, 60)), size=1)
    report = verify_skew(found.archive, ALL, chunk_rows=10)
    assert (report.rows, report.different.total(), report.share) == (60, 0, 0.0)
    assert report.values.total() == 60 * len(CARD_V1.features)


def test_skew_is_told_apart_by_reason() -> None:
    found = Ledgers()
    first, second = transaction(1, 0), transaction(2, 30 * US_PER_DAY, amount=5)
    late = transaction(3, 29 * US_PER_DAY)
    found.arrive([first, second, late, label(first, fraud=True)], size=1)
    report = verify_skew(found.archive, ALL)
    reasons = {reason for _, reason in report.different}
    assert report.different["customer_count_7d", SkewReason.LATE_ARRIVAL] == 1
    assert report.different["customer_known_frauds_30d", SkewReason.LABEL_RECORDED_LATE] == 2
    assert SkewReason.UNEXPLAINED not in reasons
    assert report.rows_different[Entity.CUSTOMER] == 2
    assert 0 < report.share < 1


def test_a_changed_vector_is_unexplained_skew(ledgers: Ledgers) -> None:
    name = an_id(ledgers)
    change_record(ledgers, name, vector=bytes(4 * len(CARD_V1.features)))
    assert verify_skew(ledgers.archive, ALL).unexplained > 10


# ---- forgetting


def test_forgetting_leaves_everything_verifiable_and_nobody_named(ledgers: Ledgers) -> None:
    tables = ledgers.tables
    ledgers.seal()
    erased = forget(ledgers.erasure, ledgers.clock, CustomerId("c1"), "request 17")
    assert erased.transactions > 5
    assert erased.labels > 5
    assert ledgers.decisions().findings.kept == []
    assert ledgers.log().findings.kept == []
    assert verify_skew(ledgers.archive, ALL).unexplained == 0
    stored = [row.transaction.customer_id for row in tables.transactions.values()]
    assert "c1" not in stored
    assert stored.count(forgotten_key(erased.surrogate)) == erased.transactions
    assert (Entity.CUSTOMER, "c1") not in tables.entities
    authors = {
        item.label.author
        for item in tables.labels.values()
        if isinstance(item, LabelVersions)
        and tables.transactions[item.label.transaction_id].transaction.customer_id.startswith("forgotten ")
    }
    assert authors
    assert all(author.startswith("forgotten-") for author in authors)


def test_forgetting_refuses_whom_it_does_not_know_and_reasons_that_name(ledgers: Ledgers) -> None:
    for reason in ("", "  ", "a\nb", "x" * 201, "because c1 asked"):
        with pytest.raises(InvalidInput, match="reason"):
            forget(ledgers.erasure, ledgers.clock, CustomerId("c1"), reason)
    with pytest.raises(NotFound, match="never seen, or forgotten already"):
        forget(ledgers.erasure, ledgers.clock, CustomerId("c9"), "request 17")
    forget(ledgers.erasure, ledgers.clock, CustomerId("c1"), "request 17")
    with pytest.raises(NotFound):
        forget(ledgers.erasure, ledgers.clock, CustomerId("c1"), "request 17")


def test_who_was_forgotten_starts_anew_and_the_past_is_a_conflict(ledgers: Ledgers) -> None:
    own = next(row.transaction for row in ledgers.tables.transactions.values() if row.transaction.customer_id == "c1")
    erased = forget(ledgers.erasure, ledgers.clock, CustomerId("c1"), "request 17")
    blocks = len(ledgers.tables.blocks)
    (again,) = ledgers.deciders[0].decide([own])
    assert isinstance(again, Refused)
    assert isinstance(again.error, Conflict)
    assert len(ledgers.tables.blocks) == blocks
    assert ledgers.labelling.record([label(own, fraud=True)])[0].outcome is LabelOutcome.REFUSED
    fresh = replace(own, transaction_id=TransactionId("anew"), event_time_us=own.event_time_us + 200 * US_PER_DAY)
    (anew,) = ledgers.deciders[0].decide([fresh])
    assert isinstance(anew, Decided)
    assert anew.record.customer != erased.surrogate
    assert anew.record.customer_version == 0
    assert ledgers.tables.digests[fresh.transaction_id] == transaction_digest(fresh)
    assert ledgers.decisions().findings.kept == []


def test_someone_forgotten_in_one_place_only_is_named(ledgers: Ledgers) -> None:
    name = an_id(ledgers)
    ledgers.tables.digests[name] = Digest(bytes(32))
    assert ledgers.decisions().findings.kept == [
        Finding(Subject.BODY, name, "its customer is forgotten in one place and not in the other")
    ]


# ---- the timer that seals


def test_the_timer_seals_and_says_when_the_log_fell_behind(ledgers: Ledgers, caplog: pytest.LogCaptureFixture) -> None:
    class Timer:
        past_due = False

    timer: Any = Timer()
    runs = TimedRuns(FakePipelineLog(), ledgers.clock, "p")
    with caplog.at_level("INFO", logger="shared"):
        timer_seals.make(timer, ledgers.sealed, ledgers.seals, ledgers.clock, runs)
        assert 'log sealed {"seal":0,"heads":2,"past_due":false}' in caplog.text
        caplog.clear()
        timer_seals.make(timer, ledgers.sealed, ledgers.seals, ledgers.clock, runs)
        assert caplog.text == ""
        cut_tail(ledgers, 1)
        timer_seals.make(timer, ledgers.sealed, ledgers.seals, ledgers.clock, runs)
    assert caplog.text.count("the log ends before its seal") == 2
