"""Batches off the stream on fakes: nothing lost, nothing twice, the rest goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.event import StreamEvent
from shared.domain.feature_view import Entity
from shared.domain.instants import US_PER_DAY, format_instant
from shared.domain.labels import LABEL_TYPE, Label
from shared.domain.probe import PROBE_TYPE
from shared.domain.transaction import TRANSACTION_TYPE, Transaction
from shared.services.ingestion import Ingestion, IngestOutcome
from shared.services.labelling import Labelling, LabelVerdict
from shared.services.scoring import Scoring, Verdict
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock, FakeDeadLetters, FakeProbeReceipts
from tests.fakes.scorers import FixedScorers
from tests.unit.domain.worlds import BASE_US, label, transaction
from tests.unit.shared.test_scoring import KEYS, POLICY


class OddScoring(Scoring):
    """Fails as a bug would, for some transactions."""

    odd: frozenset[str] = frozenset()

    def decide(self, transactions: Sequence[Transaction]) -> list[Verdict]:
        if any(item.transaction_id in self.odd for item in transactions):
            raise KeyError("a bug")
        return super().decide(transactions)


class OddLabelling(Labelling):
    """Fails as a bug would, for some labels."""

    odd: frozenset[str] = frozenset()

    def record(self, labels: Sequence[Label]) -> list[LabelVerdict]:
        if any(item.transaction_id in self.odd for item in labels):
            raise BrokenInvariant("state is damaged")
        return super().record(labels)


@dataclass
class Bench:
    """An ingestion with everything around it in memory."""

    ledger: FakeLedger = field(default_factory=FakeLedger)
    receipts: FakeProbeReceipts = field(default_factory=FakeProbeReceipts)
    dead_letters: FakeDeadLetters = field(default_factory=FakeDeadLetters)
    clock: FakeClock = field(default_factory=lambda: FakeClock(BASE_US + 40 * US_PER_DAY))
    lateness_us: int | None = None

    def __post_init__(self) -> None:
        self.scoring = OddScoring(self.ledger, FixedScorers(), policy=POLICY, keys=KEYS, clock=self.clock)
        self.labelling = OddLabelling(self.ledger, KEYS, self.clock)
        self.ingestion = Ingestion(
            self.scoring,
            self.labelling,
            receipts=self.receipts,
            dead_letters=self.dead_letters,
            clock=self.clock,
            currency="EUR",
            lateness_us=self.lateness_us,
        )

    def take(self, *bodies: object) -> IngestOutcome:
        return self.ingestion.take(events(*bodies))

    def reasons(self) -> dict[int, str]:
        """Sequence number to reason of each dead letter."""
        return {
            letter.event.sequence_number: f"{letter.field}: {letter.rule}" for letter in self.dead_letters.kept.values()
        }


def events(*bodies: object) -> list[StreamEvent]:
    return [
        StreamEvent("transactions", "1", place, str(place * 100), BASE_US + place, raw(body))
        for place, body in enumerate(bodies)
    ]


def raw(body: object) -> bytes:
    if isinstance(body, Transaction):
        return json.dumps({"type": TRANSACTION_TYPE, **body.to_fields()}).encode()
    if isinstance(body, Label):
        return json.dumps({"type": LABEL_TYPE, **body.to_fields()}).encode()
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def probe(probe_id: str) -> dict[str, object]:
    return {"type": PROBE_TYPE, "probe_id": probe_id, "sent_at": format_instant(BASE_US)}


def test_each_kind_of_event_finds_its_use_case() -> None:
    bench = Bench()
    own = transaction(1, 0)
    outcome = bench.take(own, label(own, fraud=True), label(transaction(9, 0), fraud=False))
    assert outcome == IngestOutcome(decided=1, labelled=2, waiting=1)
    assert bench.take(own, label(own, fraud=True)) == IngestOutcome(repeated=2)


def test_an_event_without_a_type_is_a_transaction() -> None:
    bench = Bench()
    assert bench.take(transaction(1, 0).to_fields()) == IngestOutcome(decided=1)
    assert bench.take(transaction(1, 0)) == IngestOutcome(repeated=1)


BAD = {
    "not_json": (b"{", "must be JSON"),
    "not_an_object": ([], "must be a JSON object"),
    "nothing": ({}, "transaction_id: is missing"),
    "another_type": ({"type": "x"}, 'not "x"'),
    "unknown_field": ({"type": TRANSACTION_TYPE, **transaction(1, 0).to_fields(), "cvv": "1"}, "cvv: is not a known"),
    "missing_field": ({"type": TRANSACTION_TYPE}, "transaction_id: is missing"),
    "wrong_type": ({"type": TRANSACTION_TYPE, **transaction(1, 0).to_fields(), "amount_minor": "1"}, "amount_minor"),
    "nan": (
        raw(transaction(1, 0)).replace(b'"amount_minor": 1000', b'"amount_minor": NaN'),
        "must not hold NaN",
    ),
    "other_currency": (
        {"type": TRANSACTION_TYPE, **transaction(1, 0).to_fields(), "currency": "USD"},
        "currency: must be",
    ),
    "future": (transaction(1, 50 * US_PER_DAY), "event_time: must not lie more than"),
    "too_late": (transaction(1, 1), "event_time: must not lie more than 7 days in the past"),
    "bad_label": (
        {"type": LABEL_TYPE, **label(transaction(1, 0), fraud=True).to_fields(), "confidence": 101},
        "confidence",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_a_dead_letter_with_its_reason_and_the_rest_goes_on(name: str) -> None:
    body, reason = BAD[name]
    bench = Bench(lateness_us=7 * US_PER_DAY)
    good = transaction(2, 39 * US_PER_DAY)
    outcome = bench.take(body, good)
    assert (outcome.decided, outcome.dead_lettered) == (1, 1)
    assert reason in bench.reasons()[0]
    (letter,) = bench.dead_letters.kept.values()
    assert letter.event.body == raw(body)


def test_a_conflicting_body_is_a_dead_letter() -> None:
    bench = Bench()
    outcome = bench.take(transaction(1, 0), transaction(1, 0, amount=5))
    assert outcome == IngestOutcome(decided=1, dead_lettered=1)
    assert bench.reasons() == {1: "transaction_id: was used before with another body"}


def test_an_unclassified_fault_is_narrowed_down() -> None:
    bench = Bench()
    bench.scoring.odd = frozenset({"t0003"})
    bench.labelling.odd = frozenset({"t0005"})
    own = [transaction(number, number) for number in range(8)]
    outcome = bench.take(*own, *(label(item, fraud=False) for item in own))
    assert outcome == IngestOutcome(decided=7, labelled=7, waiting=1, dead_lettered=2)
    assert bench.reasons() == {
        3: ": could not be processed: KeyError",
        13: ": could not be processed: state is damaged",
    }


def test_one_event_alone_is_buried() -> None:
    bench = Bench()
    bench.scoring.odd = frozenset({"t0001"})
    assert bench.take(transaction(1, 0)) == IngestOutcome(dead_lettered=1)


def test_a_fault_of_most_of_the_batch_is_ours_and_buries_nothing() -> None:
    bench = Bench()
    bench.scoring.odd = frozenset({"t0001", "t0002", "t0003"})
    with pytest.raises(KeyError):
        bench.take(*(transaction(number, number) for number in range(5)))
    assert not bench.dead_letters.kept


def test_damaged_state_of_one_customer_buries_only_its_events() -> None:
    bench = Bench()
    bench.take(transaction(0, 0, customer="bad"))
    stored = bench.ledger.tables.entities[Entity.CUSTOMER, "bad"]
    assert stored.header is not None
    stored.header = b"?" + stored.header[1:]
    outcome = bench.take(
        *(transaction(n, n, customer="bad" if n == 2 else "c", terminal=f"m{n}") for n in (1, 2, 3, 4))
    )
    assert outcome == IngestOutcome(decided=3, dead_lettered=1)
    assert list(bench.reasons()) == [1]


@pytest.mark.parametrize("where", ["fault_at_claim", "fault_at_write"])
def test_a_transient_fault_brings_the_whole_batch_again(where: str) -> None:
    bench = Bench()
    setattr(bench.ledger, where, Transient("down"))
    batch = (transaction(1, 0), b"{", label(transaction(1, 0), fraud=True))
    with pytest.raises(Transient):
        bench.take(*batch)
    assert not bench.dead_letters.kept
    assert bench.take(*batch) == IngestOutcome(decided=1, labelled=1, dead_lettered=1)


def test_a_dead_letter_that_cannot_be_kept_brings_the_batch_again() -> None:
    bench = Bench()
    bench.dead_letters.fault = Transient("down")
    with pytest.raises(Transient):
        bench.take(transaction(1, 0), b"{")
    bench.dead_letters.fault = None
    assert bench.take(transaction(1, 0), b"{") == IngestOutcome(repeated=1, dead_lettered=1)


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_however_often_and_however_cut_effects_are_those_of_one_delivery(picks: list[int], size: int) -> None:
    own = [transaction(number, number) for number in range(4)]
    bodies = [*own, label(own[0], fraud=True), b"nonsense"]
    once, often = Bench(), Bench()
    chosen = [bodies[pick] for pick in picks]
    for number, body in enumerate(chosen):
        if body not in chosen[:number]:
            once.ingestion.take(events(body))
    for start in range(0, len(chosen), size):
        often.take(*chosen[start : start + size])
        often.take(*chosen[start : start + size])
    assert often.ledger.tables.digests == once.ledger.tables.digests
    assert set(often.ledger.tables.labels) == set(once.ledger.tables.labels)
    assert len(often.ledger.tables.outbox) == len(once.ledger.tables.outbox)
