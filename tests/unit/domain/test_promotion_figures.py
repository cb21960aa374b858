"""Figures of one model: calibration, floors, frontier and ceilings, against other libraries and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # the library has no types
from sklearn.metrics import brier_score_loss, roc_auc_score  # type: ignore[import-untyped]  # as above

from shared.domain.calibration_fit import log_odds
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.instants import US_PER_DAY
from shared.domain.promotion_figures import (
    area_under_curve,
    calibration_slope,
    ceilings_of,
    frontier_of,
    operating_figures,
    reaching,
)


def drawn(n_rows: int = 5_000, seed: int = 1, sharpness: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities and outcomes drawn by them; with another sharpness the probabilities claim too much or little."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-2.0, 1.5, n_rows)
    is_fraud = rng.random(n_rows) < 1 / (1 + np.exp(-true))
    return 1 / (1 + np.exp(-sharpness * true)), is_fraud


@pytest.mark.parametrize(("sharpness", "expected"), [(1.0, 1.0), (2.0, 0.5), (0.5, 2.0)])
def test_the_slope_is_that_of_logistic_regression(sharpness: float, expected: float) -> None:
    probability, is_fraud = drawn(sharpness=sharpness)
    found = calibration_slope(probability, is_fraud, np.arange(5_000))
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds(probability)[:, None], is_fraud).coef_[0, 0]
    assert found.value == pytest.approx(reference, abs=1e-4)
    assert found.value == pytest.approx(expected, rel=0.1)
    assert found.ends.low < expected < found.ends.high


def test_the_interval_of_the_slope_knows_that_a_customers_rows_belong_together() -> None:
    probability, is_fraud = drawn()
    once = calibration_slope(probability, is_fraud, np.arange(5_000)).ends
    repeated = calibration_slope(np.tile(probability, 10), np.tile(is_fraud, 10), np.tile(np.arange(5_000), 10)).ends
    assert repeated.low == pytest.approx(once.low, abs=1e-6)  # ten times the same customers tell nothing new
    assert repeated.high == pytest.approx(once.high, abs=1e-6)


def test_there_is_no_slope_where_nothing_differs_or_all_is_separated() -> None:
    is_fraud = np.arange(100) < 10
    assert np.isnan(calibration_slope(np.full(100, 0.1), is_fraud, np.arange(100)).value)
    separated = calibration_slope(np.where(is_fraud, 0.9, 0.1), is_fraud, np.arange(100))
    assert not 0.9 <= separated.value <= 1.1


def test_precision_recall_and_skill_are_what_others_count() -> None:
    probability, is_fraud = drawn()
    found = operating_figures(probability, is_fraud, np.arange(5_000) // 5, 0.4, n_resamples=200, seed=1)
    declined = probability >= 0.4
    assert found.precision.value == pytest.approx(is_fraud[declined].mean())
    assert found.recall.value == pytest.approx(declined[is_fraud].mean())
    share = is_fraud.mean()
    assert found.brier_skill.value == pytest.approx(1 - brier_score_loss(is_fraud, probability) / (share * (1 - share)))
    assert all(figure.ends.low < figure.value < figure.ends.high for figure in found)
    nothing = operating_figures(probability, is_fraud, np.arange(5_000), 1.0, n_resamples=20, seed=1)
    assert (nothing.precision.value, nothing.recall.value) == (0.0, 0.0)


def test_the_frontier_worked_by_hand() -> None:
    probability = np.array([0.9, 0.8, 0.7, 0.7, 0.2])
    is_fraud = np.array([True, False, True, False, True])
    found = frontier_of(probability, is_fraud, days=2.0)
    assert [(point.threshold, point.alerts_per_day) for point in found] == [(0.9, 0.5), (0.2, 2.5)]
    assert [(point.precision, point.recall) for point in found] == [(1.0, pytest.approx(1 / 3)), (0.6, 1.0)]
    assert reaching(probability, is_fraud, 0.0, 0.9) == 0.9
    assert reaching(probability, is_fraud, 0.6, 0.5) == 0.2
    assert reaching(probability, is_fraud, 0.6, 0.9) is None


def test_no_threshold_beats_the_frontier() -> None:
    probability, is_fraud = drawn()
    found = frontier_of(np.round(probability, 2), is_fraud, days=1.0)
    recalls, precisions = [point.recall for point in found], [point.precision for point in found]
    assert recalls == sorted(recalls)
    assert precisions == sorted(precisions, reverse=True)
    assert len(found) <= 40
    precise = frontier_of(probability, is_fraud, days=1.0, min_precision=0.6)
    greatest = max(point.recall for point in precise if point.precision >= 0.6)
    threshold = reaching(probability, is_fraud, 0.0, 0.6)
    assert threshold is not None
    assert greatest == pytest.approx((probability[is_fraud] >= threshold).mean())
    for threshold in np.unique(np.round(probability, 2)):
        declined = np.round(probability, 2) >= threshold
        recall, precision = declined[is_fraud].mean(), is_fraud[declined].mean()
        if recall < 1 / 40:
            continue
        floor = np.floor(recall * 40) / 40  # the frontier is told at these recalls
        best = max(point.precision for point in found if point.recall >= floor - 1e-9)
        assert precision <= best + 1e-12


def test_the_area_is_that_of_others_and_missing_values_are_least() -> None:
    probability, is_fraud = drawn()
    rounded = np.round(probability, 1)
    assert area_under_curve(rounded, is_fraud) == pytest.approx(roc_auc_score(is_fraud, rounded))
    assert area_under_curve(np.array([np.nan, 0.0, 1.0]), np.array([True, False, False])) == 0.0


def test_ceilings_worked_by_hand() -> None:
    """Four frauds: one on a customer told of in time, one told of two days ago, one on an old terminal, one alone."""
    day = US_PER_DAY
    transactions = TransactionColumns(
        transaction_id=np.arange(7),
        event_time_us=np.array([10, 17, 1, 60, 20, 60, 60]) * day,
        amount_minor=np.full(7, 100),
        customer=np.array([1, 2, 3, 1, 1, 2, 9]),
        terminal=np.array([11, 12, 13, 14, 15, 13, 19]),
    )
    labels = LabelColumns(
        row=np.array([0, 1, 2]),
        is_fraud=np.array([True, True, True]),
        known_at_us=np.array([12, 18, 2]) * day,
        source=np.zeros(3, dtype=np.int8),
        confidence=np.zeros(3, dtype=np.int8),
    )
    frauds = np.array([4, 5, 6, 3])
    # Row 4 (day 20): customer 1 was told of on day 12, which counts from day 19 on, or earlier with less delay.
    # Rows 5 and 3 (day 60): what was told lies more than 30 days behind the delay. Row 6: nobody knows anything.
    found = ceilings_of(transactions, labels, frauds, np.array([True, True, False, False]), (7 * day, 9 * day, 0))
    assert [ceiling.with_evidence for ceiling in found] == [0.25, 0.0, 0.25]
    assert [ceiling.label_delay_us for ceiling in found] == [7 * day, 9 * day, 0]
    assert {ceiling.found_without for ceiling in found} == {1 / 3}
    assert found[0].recall == pytest.approx(0.25 + 0.75 / 3)


def test_with_evidence_for_all_the_ceiling_is_one() -> None:
    transactions = TransactionColumns(
        np.arange(2), np.array([0, 20]) * US_PER_DAY, np.full(2, 1), np.array([1, 1]), np.array([1, 2])
    )
    labels = LabelColumns(
        np.array([0]), np.array([True]), np.array([0]), np.zeros(1, dtype=np.int8), np.zeros(1, dtype=np.int8)
    )
    (found,) = ceilings_of(transactions, labels, np.array([1]), np.array([False]), (7 * US_PER_DAY,))
    assert (found.with_evidence, found.found_without, found.recall) == (1.0, 0.0, 1.0)
    (itself,) = ceilings_of(transactions, labels, np.array([0]), np.array([False]), (0,))
    assert itself.with_evidence == 0.0  # known at once, but no evidence for its own transaction
