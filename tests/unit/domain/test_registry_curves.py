"""The curves of a run's pictures, beside those of scikit-learn and of plain counting."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve  # type: ignore[import-untyped]  # it has no types

from shared.domain.registry_curves import calibration_of, thresholds_of

ROWS = st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(1, 500)), min_size=1, max_size=60)


@given(ROWS)
def test_each_threshold_counts_what_lies_at_or_above_it(rows: list[tuple[int, bool, int]]) -> None:
    scores = np.array([row[0] for row in rows]) / 10
    fraud, amount = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    found = thresholds_of(scores, fraud, amount)
    assert found.score.tolist() == sorted(set(scores.tolist()), reverse=True)
    for place, threshold in enumerate(found.score):
        flagged = scores >= threshold
        assert found.flagged[place] == flagged.sum()
        assert found.caught[place] == (flagged & fraud).sum()
        cost = amount[fraud & ~flagged].sum() + 7 * flagged.sum()
        assert np.isclose(found.cost_minor(7)[place], 1_000 * cost / len(rows))


def test_the_curves_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    scores = np.round(rng.random(3_000), 2)
    fraud = rng.random(3_000) < scores**3
    found = thresholds_of(scores, fraud, np.ones(3_000, np.int64))
    precision, recall, thresholds = precision_recall_curve(fraud, scores)
    np.testing.assert_allclose(found.score, thresholds[::-1])
    np.testing.assert_allclose(found.precision, precision[:-1][::-1])
    np.testing.assert_allclose(found.recall, recall[:-1][::-1])
    false_positive, true_positive, _ = roc_curve(fraud, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.false_positive_rate, false_positive[1:])
    np.testing.assert_allclose(found.recall, true_positive[1:])


def test_outcomes_of_one_kind_leave_rates_unknown() -> None:
    scores, amount = np.array([0.5, 0.1]), np.array([3, 4])
    assert np.isnan(thresholds_of(scores, np.array([False, False]), amount).recall).all()
    assert np.isnan(thresholds_of(scores, np.array([True, True]), amount).false_positive_rate).all()


def test_bins_of_calibrated_scores_hold_what_the_scores_promise() -> None:
    rng = np.random.default_rng(9)
    scores = rng.beta(0.3, 20, 200_000)
    fraud = rng.random(200_000) < scores
    found = calibration_of(scores, fraud)
    assert found.n_rows.sum() == 200_000
    assert found.n_rows.tolist()[:2] == [100_000, 60_000]
    width = found.high - found.low
    assert (np.abs(found.share - found.score) < width).all()
    assert ((found.low <= found.score) & (found.score <= found.high)).sum() >= len(width) - 2
    assert (found.low <= found.share).all()
    assert (found.share <= found.high).all()
    assert np.isclose(np.average(found.share, weights=found.n_rows), fraud.mean())


def test_scores_that_promise_too_much_lie_outside_their_intervals() -> None:
    rng = np.random.default_rng(9)
    scores = rng.beta(0.3, 20, 200_000)
    found = calibration_of(scores, rng.random(200_000) < scores / 2)
    assert (found.score > found.high)[-3:].all()


def test_few_rows_make_few_bins() -> None:
    found = calibration_of(np.array([0.2, 0.4]), np.array([False, True]))
    assert (found.n_rows.tolist(), found.share.tolist()) == ([1, 1], [0.0, 1.0])
    assert found.high.max() == 1.0


def test_the_interval_is_wilsons() -> None:
    found = calibration_of(np.full(2, 0.5), np.array([True, False]))
    assert found.n_rows.tolist() == [1, 1]
    np.testing.assert_allclose(found.low, [0.2065, 0.0], atol=1e-4)  # of 1 in 1, and of 0 in 1
