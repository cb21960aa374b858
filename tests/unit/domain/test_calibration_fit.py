"""Calibration: rising, close to the truth it was drawn from, and keeping the order of transactions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.calibration_fit import STEPS, fit_calibration, log_odds, pool_adjacent
from shared.domain.errors import BrokenInvariant


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.1, 5)), min_size=1, max_size=30))
def test_pooled_means_rise_and_keep_the_total(pairs: list[tuple[float, float]]) -> None:
    values, weights = (np.array(column) for column in zip(*pairs, strict=True))
    block = pool_adjacent(values, weights)
    assert block[0] == 0
    assert set(np.diff(block).tolist()) <= {0, 1}
    means = np.bincount(block, weights=values * weights) / np.bincount(block, weights=weights)
    assert np.all(np.diff(means) > -1e-9)
    # Of all rising functions it is the closest: no single threshold step can improve on it (optimality condition).
    residual = weights * (values - means[block])
    assert abs(residual.sum()) < 1e-6
    assert np.all(np.cumsum(residual) > -1e-6)


def test_the_table_finds_the_probabilities_that_outcomes_were_drawn_from() -> None:
    rng = np.random.default_rng(1)
    raw = (1 / (1 + np.exp(-rng.normal(-3, 2, 200_000)))).astype(np.float32)
    truth = raw.astype(np.float64) ** 1.5  # a model that claims too much
    table = fit_calibration(raw, rng.random(len(raw)) < truth)
    assert len(table.edges) <= STEPS
    found = table.probability_many(raw)
    assert abs(found.mean() / truth.mean() - 1) < 0.03
    for low, high in ((0.0, 0.01), (0.01, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (truth >= low) & (truth < high)
        assert abs(found[inside].mean() / truth[inside].mean() - 1) < 0.12, (low, high)


def test_the_order_of_transactions_survives() -> None:
    rng = np.random.default_rng(2)
    raw = rng.beta(0.3, 3, 20_000).astype(np.float32)
    table = fit_calibration(raw, rng.random(len(raw)) < raw)
    found = table.probability_many(np.sort(raw))
    assert np.all(np.diff(found) >= 0)
    assert len(np.unique(found)) > STEPS / 4


def test_no_score_is_certain() -> None:
    raw = np.array([0.1] * 50 + [0.9] * 50, dtype=np.float32)
    table = fit_calibration(raw, raw > 0.5)
    assert 0.0 < table.probability(0.1) < 0.05
    assert 0.95 < table.probability(0.9) < 1.0
    assert 0.0 < table.probability(0.0) <= table.probability(1.0) < 1.0


def test_a_model_that_says_always_the_same_gets_one_step() -> None:
    table = fit_calibration(np.full(100, 0.5, dtype=np.float32), np.arange(100) < 20)
    assert table.edges == ()
    assert abs(table.probability(0.5) - 20.5 / 101) < 1e-9


def test_a_model_that_ranks_backwards_gets_one_step() -> None:
    raw = np.linspace(0.01, 0.99, 100).astype(np.float32)
    assert fit_calibration(raw, raw < 0.3).edges == ()


@pytest.mark.parametrize("same", [True, False])
def test_outcomes_of_one_kind_cannot_be_fitted(same: bool) -> None:
    with pytest.raises(BrokenInvariant, match="frauds and genuine"):
        fit_calibration(np.full(5, 0.5, dtype=np.float32), np.full(5, same))


def test_log_odds_stay_finite() -> None:
    assert np.isfinite(log_odds(np.array([0.0, 1.0, 0.5], dtype=np.float32))).all()
