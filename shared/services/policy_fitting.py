"""The use case that fits a shadow price to what a model said of the newest days, without training anything.

A bundle's price is as old as its test span. Where the number of transactions or their amounts have changed since, or a
capacity is asked for that no training knew of, whoever operates the gate looks here what a price comes to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.cost_policy import Capacity, CostPolicy, fit_capacity
from shared.domain.decision import STRICTNESS, Outcome
from shared.domain.errors import InvalidInput
from shared.domain.instants import US_PER_DAY
from shared.ports.scores import ModelScores

MIN_SCORED: Final = 0.99
"""Least share of a day's decisions that the model has a score for: a day in the middle of which it became champion
would be taken for a quiet one. A few may be missing, such as those decided just before a look for unscored ones."""

_REVIEW: Final = STRICTNESS.index(Outcome.REVIEW)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredDays:
    """Whole days (UTC) of which a model has scored all.

    Attributes:
        starts_us: Their beginnings, rising, microseconds since 1970 UTC.
        day: (n,) each transaction's day, as a place in `starts_us`.
        probability: (n,) calibrated scores.
        amount_minor: (n,) minor units.
    """

    starts_us: tuple[int, ...]
    day: NDArray[np.intp]
    probability: NDArray[np.float64]
    amount_minor: NDArray[np.int64]

    def fitted(self, capacity: Capacity) -> CostPolicy:
        """The policy with the least shadow price that reviews no more than there are people for."""
        return fit_capacity(
            capacity.costs,
            self.probability,
            self.amount_minor,
            days=len(self.starts_us),
            reviews_per_day=capacity.reviews_per_day,
        )

    def reviews(self, policy: CostPolicy) -> NDArray[np.intp]:
        """How many a policy would have reviewed: (n_days,) by day."""
        reviewed = policy.outcomes(self.probability, self.amount_minor) == _REVIEW
        return np.bincount(self.day[reviewed], minlength=len(self.starts_us))


def scored_days(scores: ModelScores, bundle_digest: str, *, until_us: int, n_days: int) -> ScoredDays:
    """The newest whole days of which a model has scored all decisions, whether it decided or scored in shadow.

    Args:
        scores: What models said.
        bundle_digest: The model.
        until_us: Days that ended by then, microseconds since 1970 UTC.
        n_days: So many are looked at; those without decisions, or without this model's scores, are left out.

    Raises:
        InvalidInput: No day is left.
        Transient: The store cannot be reached now.
    """
    end_us = until_us // US_PER_DAY * US_PER_DAY
    start_us = end_us - n_days * US_PER_DAY
    time_us, amount_minor, probability = scores.scored(bundle_digest, start_us, end_us)
    day = (time_us - start_us) // US_PER_DAY
    has_score = ~np.isnan(probability)
    decided = np.bincount(day, minlength=n_days)
    whole = (decided > 0) & (np.bincount(day[has_score], minlength=n_days) >= MIN_SCORED * decided)
    if not whole.any():
        raise InvalidInput("days", f"must hold one of which {bundle_digest[:12]} has scored all; of {n_days} none does")
    kept = np.flatnonzero(has_score & whole[day])
    return ScoredDays(
        tuple((start_us + np.flatnonzero(whole) * US_PER_DAY).tolist()),
        np.cumsum(whole)[day[kept]] - 1,
        probability[kept],
        amount_minor[kept],
    )
