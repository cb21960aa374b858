"""A shadow price from what a model said of whole days: which days count, and how many reviews a price comes to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shared.domain.cost_policy import Capacity, CostPolicy, Costs
from shared.domain.errors import InvalidInput
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.ports.scores import ScoredTransactions
from shared.services.policy_fitting import ScoredDays, scored_days

MODEL = "a" * 64
FIRST_US = 20_000 * US_PER_DAY
REVIEW_ONLY = Costs(review_minor=500, declines=False)


class Scores:
    """Decided transactions of several days, a hundred a day unless said otherwise."""

    def __init__(self, n_days: int = 5, per_day: int = 100) -> None:
        rng = np.random.default_rng(11)
        n = n_days * per_day
        time_us = FIRST_US + np.repeat(np.arange(n_days), per_day) * US_PER_DAY + rng.integers(0, US_PER_DAY, n)
        self.rows = ScoredTransactions(time_us, rng.integers(100, 20_000, n), rng.random(n))
        self.asked: list[tuple[str, int, int]] = []

    def change(self, places: Any, **columns: Any) -> None:
        for name, value in columns.items():
            getattr(self.rows, name)[places] = value

    def scored(self, bundle_digest: str, start_us: int, end_us: int) -> ScoredTransactions:
        self.asked.append((bundle_digest, start_us, end_us))
        inside = (self.rows.event_time_us >= start_us) & (self.rows.event_time_us < end_us)
        order = np.random.default_rng(12).permutation(np.flatnonzero(inside))  # a store has no order
        return ScoredTransactions(*(column[order] for column in self.rows))


def days_of(scores: Scores, n_days: int = 5) -> ScoredDays:
    return scored_days(scores, MODEL, until_us=FIRST_US + 5 * US_PER_DAY + 7 * US_PER_HOUR, n_days=n_days)


def test_whole_days_before_today_are_looked_at() -> None:
    scores = Scores()
    found = days_of(scores, 3)
    assert scores.asked == [(MODEL, FIRST_US + 2 * US_PER_DAY, FIRST_US + 5 * US_PER_DAY)]
    assert found.starts_us == tuple(FIRST_US + day * US_PER_DAY for day in (2, 3, 4))
    assert np.bincount(found.day).tolist() == [100, 100, 100]


def test_days_on_which_another_model_decided_too_are_left_out() -> None:
    scores = Scores()
    scores.change(slice(100, 200), probability=np.nan)  # the day before it became champion
    scores.change(slice(200, 202), probability=np.nan)  # that day: two of a hundred
    scores.change(slice(300, 301), probability=np.nan)  # decided just before a look for unscored ones
    found = days_of(scores)
    assert found.starts_us == tuple(FIRST_US + day * US_PER_DAY for day in (0, 3, 4))
    assert np.bincount(found.day).tolist() == [100, 99, 100]
    assert not np.isnan(found.probability).any()


def test_days_without_decisions_are_no_quiet_days() -> None:
    scores = Scores(n_days=3)  # two days of the five have none
    assert len(days_of(scores).starts_us) == 3


def test_without_a_whole_day_nothing_is_fitted() -> None:
    scores = Scores()
    scores.change(slice(None, None, 2), probability=np.nan)
    with pytest.raises(InvalidInput, match="days must hold one of which aaaaaaaaaaaa has scored all; of 5 none does"):
        days_of(scores)
    with pytest.raises(InvalidInput, match="of 5 none does"):
        days_of(Scores(n_days=0))


@pytest.mark.parametrize("reviews_per_day", [1, 7, 30])
def test_a_fitted_price_reviews_as_many_as_there_are_people_for(reviews_per_day: int) -> None:
    found = days_of(Scores())
    policy = found.fitted(Capacity(reviews_per_day, REVIEW_ONLY))
    assert policy.costs == REVIEW_ONLY
    assert policy.shadow_price_minor > 0
    counts = found.reviews(policy)
    assert counts.shape == (5,)
    assert (
        counts.sum()
        <= 5 * reviews_per_day
        < found.reviews(CostPolicy(REVIEW_ONLY, policy.shadow_price_minor - 1)).sum()
    )
    assert counts.max() > reviews_per_day  # it holds for the average day, not for each


def test_reviews_are_counted_by_the_day_of_their_transactions() -> None:
    scores = Scores(per_day=2)
    scores.change(slice(None), probability=0.0)
    scores.change([2, 3, 9], probability=1.0, amount_minor=10_000)
    assert days_of(scores).reviews(CostPolicy(REVIEW_ONLY)).tolist() == [0, 2, 0, 0, 1]
