"""Figures of quality against their definitions, counted out plainly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.domain.errors import BrokenInvariant
from shared.domain.evaluation import Outcomes, Ranking, interval, resampled
from shared.domain.instants import US_PER_DAY

type Scores = NDArray[np.float64]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Outcomes, Scores, list[int]]:
    """Few customers and days, scores with ties, frauds and genuine transactions; and a weight for each customer."""
    n_rows = draw(st.integers(2, 30))
    fraud = [True, False, *draw(st.lists(st.booleans(), min_size=n_rows - 2, max_size=n_rows - 2))]
    customer = draw(st.lists(st.integers(0, 5), min_size=n_rows, max_size=n_rows))
    day = draw(st.lists(st.integers(0, 2), min_size=n_rows, max_size=n_rows))
    scores = draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]), min_size=n_rows, max_size=n_rows))
    outcomes = Outcomes(np.array(day) * US_PER_DAY + 5, np.array(customer), np.array(fraud))
    return outcomes, np.array(scores), draw(st.lists(st.integers(0, 3), min_size=6, max_size=6))


def repeated(outcomes: Outcomes, weights: list[int]) -> NDArray[np.intp]:
    """Rows as often as their customer's weight says."""
    return np.repeat(np.arange(len(outcomes.customer)), [weights[customer] for customer in outcomes.customer])


@settings(deadline=None)
@given(worlds())
def test_auc_is_the_share_of_pairs_in_order(world: tuple[Outcomes, Scores, list[int]]) -> None:
    outcomes, scores, _ = world
    pairs = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high in scores[outcomes.is_fraud]
        for low in scores[~outcomes.is_fraud]
    ]
    assert math.isclose(Ranking(outcomes, scores).quality().auc, float(np.mean(pairs)))


@settings(deadline=None)
@given(worlds())
def test_average_precision_is_the_mean_of_precision_over_frauds(
    world: tuple[Outcomes, Scores, list[int]],
) -> None:
    outcomes, scores, _ = world
    precisions = [
        float(outcomes.is_fraud[scores >= score].mean()) for score in scores[outcomes.is_fraud]
    ]  # ties are one step of recall
    assert math.isclose(Ranking(outcomes, scores).quality().average_precision, float(np.mean(precisions)))


@settings(deadline=None)
@given(worlds())
def test_weights_count_customers_as_often_as_they_say(
    world: tuple[Outcomes, Scores, list[int]],
) -> None:
    outcomes, scores, weights = world
    rows = repeated(outcomes, weights)
    fraud = outcomes.is_fraud[rows]
    found = Ranking(outcomes, scores).quality(np.array(weights, dtype=float)[np.unique(outcomes.customer)])
    if not fraud.any() or fraud.all():
        assert math.isnan(found.auc)
        return
    again = Ranking(Outcomes(outcomes.event_time_us[rows], outcomes.customer[rows], fraud), scores[rows]).quality()
    assert math.isclose(found.auc, again.auc)
    assert math.isclose(found.average_precision, again.average_precision)


@settings(deadline=None)
@given(worlds(), st.integers(1, 4))
def test_card_precision_asks_each_day_for_the_most_suspicious_cards_not_found_before(
    world: tuple[Outcomes, Scores, list[int]],
    top: int,
) -> None:
    outcomes, scores, _ = world
    day = outcomes.event_time_us // US_PER_DAY
    found: set[int] = set()
    precisions = []
    for one in sorted(set(day.tolist())):
        cards: dict[int, tuple[float, bool]] = {}
        for row in np.flatnonzero(day == one):
            customer = int(outcomes.customer[row])
            if customer not in found:
                score, fraud = cards.get(customer, (-1.0, False))
                cards[customer] = (max(score, float(scores[row])), fraud or bool(outcomes.is_fraud[row]))
        asked = sorted(cards, key=lambda customer: (-cards[customer][0], customer))[:top]
        caught = [customer for customer in asked if cards[customer][1]]
        precisions.append(len(caught) / top)
        found |= set(caught)
    assert math.isclose(Ranking(outcomes, scores).quality(top_cards=top).card_precision, float(np.mean(precisions)))


def drawn(n_rows: int = 4_000) -> tuple[Outcomes, Scores]:
    rng = np.random.default_rng(3)
    fraud = rng.random(n_rows) < 0.1
    outcomes = Outcomes(rng.integers(0, 7 * US_PER_DAY, n_rows), rng.integers(0, 200, n_rows), fraud)
    return outcomes, rng.normal(fraud, 1.0)


def test_a_better_model_is_better_on_the_same_resamples() -> None:
    outcomes, scores = drawn()
    rng = np.random.default_rng(4)
    rankings = {
        "good": Ranking(outcomes, scores + outcomes.is_fraud),
        "plain": Ranking(outcomes, scores),
        "noise": Ranking(outcomes, rng.random(len(scores))),
    }
    draws = resampled(rankings, 100, np.random.default_rng(5))
    again = resampled(rankings, 100, np.random.default_rng(5))
    assert all(np.array_equal(draws[name], again[name]) for name in rankings)
    assert interval(draws["good"][:, 1] - draws["plain"][:, 1], 0.95).low > 0
    low, high = interval(draws["noise"][:, 0], 0.95)
    assert low < 0.5 < high
    assert high - low < 0.12
    point = rankings["plain"].quality()
    for place, value in enumerate(point[:2]):
        low, high = interval(draws["plain"][:, place], 0.95)
        assert low < value < high


def test_an_interval_is_quantiles_without_what_is_no_number() -> None:
    assert interval(np.array([np.nan, *np.arange(101.0)]), 0.9) == pytest.approx((5.0, 95.0))
    assert math.isnan(interval(np.array([np.nan]), 0.9).low)


def test_what_cannot_be_ranked_is_refused() -> None:
    outcomes, scores = drawn(50)
    for wrong in (scores[:-1], np.where(np.arange(50) == 3, np.nan, scores)):
        with pytest.raises(BrokenInvariant, match="scores must be numbers"):
            Ranking(outcomes, wrong)
    for same in (True, False):
        with pytest.raises(BrokenInvariant, match="frauds and genuine"):
            Ranking(Outcomes(outcomes.event_time_us, outcomes.customer, np.full(50, same)), scores)
    first = Outcomes(outcomes.event_time_us[:20], outcomes.customer[:20], outcomes.is_fraud[:20])
    fewer = Ranking(first, scores[:20])
    with pytest.raises(BrokenInvariant, match="same customers"):
        resampled({"a": Ranking(outcomes, scores), "b": fewer}, 1, np.random.default_rng(0))
