"""How well scores find frauds: ROC AUC, average precision and card precision among the top of each day, with intervals.

Definitions: AUC is the probability that a fraud scores above a genuine transaction, ties counting half. Average
precision is the mean of precision over recall without interpolation (Davis and Goadrich, "The relationship between
precision-recall and ROC curves", 2006). Card precision at k (Handbook, section 4.4) asks each day for the k cards
whose most suspicious transaction scores highest, and which share of these has a fraud that day; a card that was found
is not asked about again.

Intervals come from resampling customers, not transactions: the frauds of one card are not independent of each other,
and intervals that ignore it are too narrow. Models are compared on the same resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.errors import BrokenInvariant
from shared.domain.instants import US_PER_DAY

TOP_CARDS: Final = 100
"""Cards a day that can be looked at (Handbook, section 4.4)."""

type Floats = NDArray[np.float64]


class Quality(NamedTuple):
    """What scores achieve.

    Attributes:
        auc: Area under the ROC curve; .5 is chance.
        average_precision: The share of frauds is chance.
        card_precision: At `TOP_CARDS`.
    """

    auc: float
    average_precision: float
    card_precision: float


class Interval(NamedTuple):
    """The ends of an interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """The transactions that scores are judged on, as columns of one length.

    Attributes:
        event_time_us: (n,) int64, microseconds since 1970 UTC.
        customer: (n,) integers or text.
        is_fraud: (n,) bool.
    """

    event_time_us: NDArray[np.int64]
    customer: NDArray[Any]
    is_fraud: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Day:
    """The cards of a day, the most suspicious first: customer number, and whether it had a fraud that day."""

    customer: NDArray[np.intp]
    had_fraud: NDArray[np.bool_]


class Ranking:
    """Transactions ranked by one model's scores, so that many weightings of the customers are measured quickly."""

    def __init__(self, outcomes: Outcomes, scores: NDArray[Any]) -> None:
        """Rank transactions.

        Args:
            outcomes: The transactions.
            scores: (n,) their scores; only the order counts.

        Raises:
            BrokenInvariant: Another length, a NaN, or outcomes of one kind only.
        """
        if scores.shape != outcomes.is_fraud.shape or np.isnan(scores).any():
            raise BrokenInvariant("scores must be numbers, one for each transaction")
        if outcomes.is_fraud.all() or not outcomes.is_fraud.any():
            raise BrokenInvariant("quality needs frauds and genuine transactions")
        customers, code = np.unique(outcomes.customer, return_inverse=True)
        self.n_customers = len(customers)
        order = np.lexsort((code, -scores))
        self._customer = code[order]
        self._fraud = outcomes.is_fraud[order]
        ranked = scores[order]
        self._last_of_tie = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
        self._days = _days(outcomes.event_time_us[order] // US_PER_DAY, self._customer, self._fraud, self.n_customers)

    def quality(self, weights: Floats | None = None, top_cards: int = TOP_CARDS) -> Quality:
        """The figures when each customer counts as often as its weight says.

        Args:
            weights: (n_customers,) not negative, by the order of the sorted customers; None for once each.
            top_cards: Cards a day.
        """
        each = np.ones(self.n_customers) if weights is None else weights
        row = each[self._customer]
        frauds = np.concatenate(([0.0], np.cumsum(np.where(self._fraud, row, 0.0))[self._last_of_tie]))
        genuine = np.concatenate(([0.0], np.cumsum(np.where(self._fraud, 0.0, row))[self._last_of_tie]))
        if frauds[-1] == 0 or genuine[-1] == 0:  # a resample without frauds says nothing
            return Quality(np.nan, np.nan, np.nan)
        found = np.diff(frauds)
        auc = float(np.sum(np.diff(genuine) * (frauds[1:] + frauds[:-1]) / 2) / (frauds[-1] * genuine[-1]))
        seen = frauds[1:] + genuine[1:]
        precision = np.divide(frauds[1:], seen, out=np.zeros_like(seen), where=seen > 0)
        return Quality(auc, float(np.sum(found * precision) / frauds[-1]), self._card_precision(each, top_cards))

    def _card_precision(self, weights: Floats, top_cards: int) -> float:
        known = np.zeros(self.n_customers, dtype=np.bool_)
        precisions = []
        for day in self._days:
            asked = ~known[day.customer]
            customer, had_fraud = day.customer[asked], day.had_fraud[asked]
            total = np.cumsum(weights[customer])
            taken = np.diff(np.minimum(total, top_cards), prepend=0.0)
            precisions.append(float(np.sum(taken[had_fraud]) / top_cards))
            known[customer[(taken > 0) & had_fraud]] = True
        return float(np.mean(precisions))


def _days(day: NDArray[np.int64], customer: NDArray[np.intp], fraud: NDArray[np.bool_], n_customers: int) -> list[_Day]:
    """The cards of each day, from transactions in the order of rank."""
    found = []
    for one in np.unique(day):
        rows = np.flatnonzero(day == one)
        cards, first = np.unique(customer[rows], return_index=True)
        had_fraud = np.zeros(n_customers, dtype=np.bool_)
        had_fraud[customer[rows][fraud[rows]]] = True
        by_rank = np.argsort(first, kind="stable")
        found.append(_Day(cards[by_rank], had_fraud[cards[by_rank]]))
    return found


def resampled(rankings: Mapping[str, Ranking], n_resamples: int, rng: np.random.Generator) -> dict[str, Floats]:
    """The figures of several models on the same resamples of customers.

    Args:
        rankings: By the model's name; all of the same transactions.
        n_resamples: How many.
        rng: Decides which.

    Returns:
        By name, (n_resamples, 3) float64: the fields of `Quality`; NaN where a resample has no fraud.
    """
    n_customers = {ranking.n_customers for ranking in rankings.values()}
    if len(n_customers) != 1:
        raise BrokenInvariant("models are compared on the same customers only")
    (count,) = n_customers
    found = {name: np.empty((n_resamples, len(Quality._fields))) for name in rankings}
    for place in range(n_resamples):
        weights = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        for name, ranking in rankings.items():
            found[name][place] = ranking.quality(weights)
    return found


def interval(resamples: Floats, confidence: float) -> Interval:
    """The percentile interval of (n,) resampled figures; NaN if none of them is a number."""
    known = resamples[~np.isnan(resamples)]
    if not len(known):
        return Interval(np.nan, np.nan)
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return Interval(float(low), float(high))
