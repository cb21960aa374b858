"""Labels: what is accepted, which of several holds, and from when."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import InvalidInput
from shared.domain.identifiers import TransactionId
from shared.domain.labels import (
    LABEL_DELAY_US,
    MATURITY_US,
    PRECEDENCE,
    Label,
    LabelSource,
    Verdict,
    label_at,
    matured_label,
    parse_label,
)
from shared.domain.transaction import FUTURE_TOLERANCE_US
from tests.unit.domain.worlds import BASE_US, transaction

NOW_US = BASE_US
LABELS = st.builds(
    lambda verdict, source, known_at_us, before_us, confidence: Label(
        TransactionId("t-1"), verdict, source, known_at_us - before_us, known_at_us, confidence, "ann"
    ),
    st.sampled_from(Verdict),
    st.sampled_from(LabelSource),
    st.integers(NOW_US - 5, NOW_US),
    st.integers(0, 10**12),
    st.integers(0, 100),
)
GOOD = Label(TransactionId("t-1"), Verdict.FRAUD, LabelSource.CHARGEBACK, NOW_US - 5, NOW_US, 100, "bank").to_fields()


@given(LABELS)
def test_a_label_survives_the_wire(label: Label) -> None:
    fields = label.to_fields()
    assert parse_label(fields, NOW_US) == label
    assert parse_label({"type": "tollgate.label", **dict(reversed(fields.items()))}, NOW_US) == label


@pytest.mark.parametrize("name", GOOD)
def test_every_field_is_needed(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_label({key: value for key, value in GOOD.items() if key != name}, NOW_US)
    assert (caught.value.field, caught.value.rule) == (name, "is missing")


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("score", 1, "is not a known field"),
        ("type", "tollgate.transaction", "must be tollgate.label"),
        ("transaction_id", "t\t1", "must not hold control characters"),
        ("verdict", "maybe", "must be one of fraud, genuine"),
        ("verdict", True, "must be one of fraud, genuine"),
        ("source", "rumour", "must be one of maturity, import, customer, analyst, chargeback"),
        ("confidence", 101, "must be a whole number of percent, 0 to 100"),
        ("confidence", -1, "must be a whole number of percent, 0 to 100"),
        ("confidence", 0.5, "must be a whole number of percent, 0 to 100"),
        ("confidence", True, "must be a whole number of percent, 0 to 100"),
        ("author", "", "must not be empty"),
        ("event_time", "2018-04-01T00:00:00.000001Z", None),
        ("known_at", "2018-03-31T00:00:00Z", "must not lie before event_time"),
        ("known_at", "2018-04-01T00:05:00.000001Z", "must not lie more than 300 s in the future"),
        ("known_at", 5, "must be text, a time such as 2018-04-01T00:00:31.000001Z"),
    ],
)
def test_what_breaks_a_rule_names_field_and_rule(field: str, value: object, rule: str | None) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_label({**GOOD, field: value}, NOW_US)
    if rule is None:  # an event time after known-at is told as the other's fault
        assert caught.value.field == "known_at"
    else:
        assert (caught.value.field, caught.value.rule) == (field, rule)


def test_a_label_known_within_the_tolerance_is_accepted() -> None:
    label = replace(parse_label(GOOD, NOW_US), known_at_us=NOW_US + FUTURE_TOLERANCE_US)
    assert parse_label(label.to_fields(), NOW_US) == label


@given(LABELS)
def test_a_label_counts_from_known_at_plus_delay(label: Label) -> None:
    assert label.counts_at(label.known_at_us + LABEL_DELAY_US)
    assert not label.counts_at(label.known_at_us + LABEL_DELAY_US - 1)


@given(st.lists(LABELS, max_size=6), st.randoms(use_true_random=False))
def test_which_label_holds_depends_on_the_set_only(labels: list[Label], random: Random) -> None:
    shuffled = list(labels)
    random.shuffle(shuffled)
    time_us = NOW_US - 2 + LABEL_DELAY_US
    first, second = label_at(labels, time_us), label_at([*shuffled, *shuffled], time_us)
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert first.strength == second.strength
        assert first.verdict is second.verdict
        assert first.counts_at(time_us)


def test_the_conflict_rule_is_source_then_time_then_confidence_then_fraud() -> None:
    base = parse_label(GOOD, NOW_US)
    ordered = [
        replace(base, source=LabelSource.MATURITY, verdict=Verdict.GENUINE),
        replace(base, source=LabelSource.IMPORT),
        replace(base, source=LabelSource.CUSTOMER),
        replace(base, source=LabelSource.ANALYST, known_at_us=NOW_US),
        replace(base, source=LabelSource.CHARGEBACK, known_at_us=NOW_US - 9, event_time_us=NOW_US - 9),
        replace(base, confidence=60, verdict=Verdict.GENUINE),
        replace(base, confidence=60),
        replace(base, confidence=99, verdict=Verdict.GENUINE),
    ]
    assert sorted(ordered, key=lambda label: label.strength) == ordered
    assert PRECEDENCE[-1] is LabelSource.CHARGEBACK
    later_us = NOW_US + LABEL_DELAY_US
    for number in range(1, len(ordered) + 1):
        assert label_at(ordered[:number], later_us) == ordered[number - 1]


def test_history_can_be_asked_again_for_any_time() -> None:
    analyst = replace(parse_label(GOOD, NOW_US), source=LabelSource.ANALYST, known_at_us=NOW_US - 3)
    chargeback = replace(parse_label(GOOD, NOW_US), verdict=Verdict.GENUINE, known_at_us=NOW_US)
    history = [chargeback, analyst]
    assert label_at(history, NOW_US - 4 + LABEL_DELAY_US) is None
    assert label_at(history, NOW_US - 1 + LABEL_DELAY_US) == analyst
    assert label_at(history, NOW_US + LABEL_DELAY_US) == chargeback
    assert label_at(history, NOW_US, label_delay_us=0) == chargeback


def test_silence_makes_a_weak_genuine_label_once_mature() -> None:
    item = transaction(1, 0)
    label = matured_label(item)
    assert label.verdict is Verdict.GENUINE
    assert label.known_at_us == item.event_time_us + MATURITY_US
    overruled_by = replace(label, source=LabelSource.CHARGEBACK, verdict=Verdict.FRAUD)
    assert label_at([overruled_by, label], label.known_at_us, label_delay_us=0) == overruled_by
