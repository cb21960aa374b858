"""Figures of decisions: against hand-worked tables, scikit-learn, and what must hold of any window."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (  # type: ignore[import-untyped]  # scikit-learn ships no types
    average_precision_score,
    brier_score_loss,
    roc_auc_score,
)

from shared.domain.decision import STRICTNESS, Outcome
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.performance import (
    ALL,
    NEW_EVENTS,
    NO_DECISION,
    NO_FRAUDS,
    NO_GENUINE,
    NO_LABELS,
    NONE_ALERTED,
    NONE_DECLINED,
    LabelledRows,
    Measured,
    Metric,
    measure,
    segments_of,
)

APPROVE, REVIEW, DECLINE = (STRICTNESS.index(one) for one in (Outcome.APPROVE, Outcome.REVIEW, Outcome.DECLINE))


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def rows_of(count: int, seed: int = 0, frauds: float = 0.1, unlabelled: float = 0.0) -> LabelledRows:
    """Decisions whose scores are calibrated probabilities."""
    draw = np.random.default_rng(seed)
    score = draw.beta(frauds * 2, 2 - frauds * 2, count)
    labelled = draw.random(count) >= unlabelled
    return LabelledRows(
        event_time_us=20_000 * US_PER_DAY + draw.integers(0, 7 * US_PER_DAY, count),
        customer=draw.integers(0, max(1, count // 5), count),
        amount_minor=draw.integers(1, 50_000, count),
        outcome=np.where(score >= 0.8, DECLINE, np.where(score >= 0.3, REVIEW, APPROVE)).astype(np.int8),
        score=score,
        events_known=draw.integers(0, 20, count),
        is_labelled=labelled,
        is_fraud=(draw.random(count) < score) & labelled,
        known_first=np.zeros(count, dtype=np.bool_),
    )


def by_metric(found: list[Measured], segment: str = ALL) -> dict[Metric, Measured]:
    return {one.metric: one for one in found if one.segment == segment}


def test_outcomes_and_money_by_hand() -> None:
    rows = LabelledRows(
        event_time_us=np.arange(8, dtype=np.int64),
        customer=np.arange(8, dtype=np.int64),
        amount_minor=np.array([100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800]),
        # Missed; caught; reviewed fraud, genuine and unknown; declined genuine and unknown; approved genuine.
        outcome=np.array([APPROVE, DECLINE, REVIEW, REVIEW, REVIEW, DECLINE, DECLINE, APPROVE], dtype=np.int8),
        score=np.array([0.1, 0.9, 0.5, 0.5, 0.5, 0.9, 0.9, 0.1]),
        events_known=np.full(8, 9),
        is_labelled=np.array([1, 1, 1, 1, 0, 1, 0, 1], dtype=np.bool_),
        is_fraud=np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=np.bool_),
        known_first=np.zeros(8, dtype=np.bool_),
    )
    found = by_metric(measure(rows, rng(), n_resamples=20))
    assert {
        metric: found[metric].value for metric in found if metric not in {Metric.AUC, Metric.CALIBRATION_SLOPE}
    } == {
        Metric.LABELLED: 6 / 8,
        Metric.FRAUD_RATE: 3 / 6,
        Metric.CALIBRATION_RATIO: pytest.approx(3 / 3.0),
        Metric.BRIER_SKILL: pytest.approx(1 - (0.81 + 0.01 + 0.25 + 0.25 + 0.81 + 0.01) / 6 / 0.25),
        Metric.RECALL_DECLINE: pytest.approx(1 / 3),
        Metric.PRECISION_DECLINE: 1 / 2,
        Metric.RECALL_ALERT: pytest.approx(2 / 3),
        Metric.PRECISION_ALERT: 2 / 4,
        Metric.MISSED: 100.0,
        Metric.CAUGHT: 200.0,
        Metric.DECLINED_GENUINE: 3_200.0,
        Metric.REVIEW_COST: 1_500.0,
        Metric.AVERAGE_PRECISION: found[Metric.AVERAGE_PRECISION].value,
        Metric.CARD_PRECISION: 0.03,
    }
    assert (found[Metric.AUC].n_rows, found[Metric.AUC].n_frauds) == (6, 3)


def test_ranks_and_calibration_are_those_of_scikit_learn() -> None:
    rows = rows_of(4_000, unlabelled=0.2)
    labelled = rows.take(rows.is_labelled)
    found = by_metric(measure(rows, rng(), n_resamples=100))
    wanted = {
        Metric.AUC: roc_auc_score(labelled.is_fraud, labelled.score),
        Metric.AVERAGE_PRECISION: average_precision_score(labelled.is_fraud, labelled.score),
        Metric.BRIER_SKILL: 1
        - brier_score_loss(labelled.is_fraud, labelled.score)
        / (labelled.is_fraud.mean() * (1 - labelled.is_fraud.mean())),
    }
    assert {metric: found[metric].value for metric in wanted} == pytest.approx(wanted)
    slope = found[Metric.CALIBRATION_SLOPE]
    assert slope.low is not None
    assert slope.high is not None
    assert slope.low < 1.0 < slope.high
    ratio = found[Metric.CALIBRATION_RATIO]
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < 1.0 < ratio.high


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    # Recall of alerts at a threshold of .3 under Beta scores, from many rows.
    truth = by_metric(measure(rows_of(100_000, seed=99), rng(), n_resamples=1))[Metric.RECALL_ALERT].value
    assert truth is not None
    held = 0
    for seed in range(20):
        one = by_metric(measure(rows_of(600, seed=seed), np.random.default_rng(seed), n_resamples=60))
        ends = one[Metric.RECALL_ALERT]
        assert ends.low is not None
        assert ends.high is not None
        held += ends.low <= truth <= ends.high
    assert held >= 16  # of 20; with a chance of .95 each, fewer has one of .3 %


def test_what_was_known_before_the_decision_is_not_counted() -> None:
    rows = rows_of(500)
    spoilt = replace(rows, known_first=rows.is_fraud.copy())
    found = by_metric(measure(spoilt, rng(), n_resamples=5))
    assert found[Metric.FRAUD_RATE].n_frauds == 0
    assert found[Metric.AUC].note == NO_FRAUDS
    assert measure(replace(rows, known_first=np.ones(500, dtype=np.bool_)), rng()) == []


@pytest.mark.parametrize(
    ("fraud", "labelled", "note"), [(False, True, NO_FRAUDS), (True, True, NO_GENUINE), (False, False, NO_LABELS)]
)
def test_one_class_gives_notes_and_no_crash(fraud: bool, labelled: bool, note: str) -> None:
    rows = rows_of(40)
    same = replace(rows, is_fraud=np.full(40, fraud), is_labelled=np.full(40, labelled))
    found = by_metric(measure(same, rng(), n_resamples=5))
    for metric in (
        Metric.AUC,
        Metric.AVERAGE_PRECISION,
        Metric.CARD_PRECISION,
        Metric.CALIBRATION_SLOPE,
        Metric.BRIER_SKILL,
    ):
        assert (found[metric].value, found[metric].low, found[metric].note) == (None, None, note)
    assert found[Metric.MISSED].value is not None


def test_nothing_declined_or_alerted_gives_notes() -> None:
    rows = replace(rows_of(200), outcome=np.full(200, APPROVE, dtype=np.int8))
    found = by_metric(measure(rows, rng(), n_resamples=5))
    assert found[Metric.PRECISION_DECLINE].note == NONE_DECLINED
    assert found[Metric.PRECISION_ALERT].note == NONE_ALERTED
    assert found[Metric.RECALL_ALERT].value == 0.0
    assert found[Metric.MISSED].value == float(rows.amount_minor[rows.is_fraud].sum())


def test_scores_in_shadow_have_no_outcomes() -> None:
    rows = replace(rows_of(300), outcome=np.full(300, NO_DECISION, dtype=np.int8))
    found = by_metric(measure(rows, rng(), n_resamples=5))
    assert set(found) == {
        Metric.LABELLED,
        Metric.FRAUD_RATE,
        Metric.CALIBRATION_RATIO,
        Metric.BRIER_SKILL,
        Metric.AUC,
        Metric.AVERAGE_PRECISION,
        Metric.CARD_PRECISION,
        Metric.CALIBRATION_SLOPE,
    }


# Each example measures a dozen segments twice; how long that takes says more of the machine than of the code.
@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(0, 10_000), st.floats(0.05, 0.9), st.floats(0, 1))
def test_any_window_is_measured(count: int, seed: int, frauds: float, unlabelled: float) -> None:
    rows = rows_of(count, seed, frauds, unlabelled)
    found = measure(rows, rng(), n_resamples=4)
    assert found == measure(rows, rng(), n_resamples=4)
    assert len({(one.segment, one.metric) for one in found}) == len(found)
    for one in found:
        assert (one.value is None) == bool(one.note)
        assert (one.low is None) == (one.high is None)
        for value in (one.value, one.low, one.high):
            assert value is None or math.isfinite(value)
        assert 0 <= one.n_frauds <= one.n_rows <= count
    order = np.random.default_rng(seed).permutation(count)
    again = by_metric(measure(rows.take(order), rng(), n_resamples=0))
    for metric, one in by_metric(found).items():
        if one.value is not None:
            assert again[metric].value == pytest.approx(one.value, rel=1e-6, abs=1e-9)


@given(st.integers(1, 200), st.integers(0, 10_000))
def test_each_kind_of_segment_holds_every_row_once(count: int, seed: int) -> None:
    rows = rows_of(count, seed)
    kinds: dict[str, int] = {}
    for name, chosen in segments_of(rows):
        kind = name.partition(":")[0]
        kinds[kind] = kinds.get(kind, 0) + int(chosen.sum())
    assert kinds == {ALL: count, "amount": count, "hours": count, "customer": count}


def test_segments_begin_where_they_say() -> None:
    rows = replace(
        rows_of(4),
        amount_minor=np.array([999, 1_000, 19_999, 20_000]),
        event_time_us=np.array([6 * US_PER_HOUR - 1, 6 * US_PER_HOUR, 0, US_PER_DAY - 1]) + 20_000 * US_PER_DAY,
        events_known=np.array([NEW_EVENTS - 1, NEW_EVENTS, 0, 100]),
    )
    chosen = {name: np.flatnonzero(found).tolist() for name, found in segments_of(rows)}
    assert chosen["amount:0 to 10"] == [0]
    assert chosen["amount:10 to 50"] == [1]
    assert chosen["amount:50 to 200"] == [2]
    assert chosen["amount:200 and more"] == [3]
    assert chosen["hours:00 to 06"] == [0, 2]
    assert chosen["hours:06 to 12"] == [1]
    assert chosen["hours:18 to 24"] == [3]
    assert chosen["customer:new"] == [0, 2]
