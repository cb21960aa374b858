"""The policy `expected-loss-v1`: of approve, review and decline, what is expected to cost least.

With a calibrated score p and an amount a, in minor units,

    approve  costs  p * a                        a missed fraud costs its amount
    review   costs  C + s                        who reviews finds the fraud
    decline  costs  (1 - p) * (m * a + g)        a wrong decline costs margin and goodwill

C is what a review costs. s is the shadow price of capacity, what a review must save beyond C while there are fewer
reviews than would pay: 0 without a limit. For calibrated scores no policy that reviews as many expects a smaller loss
(Elkan, "The foundations of cost-sensitive learning", 2001; with a limit: Everett, "Generalized Lagrange multiplier
method for solving problems of optimum allocation of resources", 1963).

*Equal bits.* All parameters are integers, and so are amounts; all products of them stay below 2**53. What is left are
one difference, two products and one quotient in binary64, each a single operation that IEEE 754 rounds in one way
only. So a decision follows from score, amount and parameters alone, on every machine, one by one and many at once; and
as rounding keeps order, an amount's outcome never becomes milder when the score rises. Of equal losses a review is
chosen last, and an approval before a decline.

*What is not in it.* How many reviews a day has had. A decision that looked at that could not be decided again from
what it recorded; capacity holds for the average day of the span that the shadow price was fitted on (`fit_capacity`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.decision import STRICTNESS, Outcome
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.score import Score
from shared.domain.transaction import MAX_AMOUNT_MINOR

BASIS_POINTS: Final = 10_000
"""Of a whole."""

REVIEW_COST_MINOR: Final = 500
"""What a review costs unless something else is said: five of the currency, some minutes of an analyst's work."""

DECLINE_MARGIN_BP: Final = 200
"""Share of the amount lost with a genuine transaction that is declined, in basis points. An assumption, to be set by
each deployment: the order of what all sides of a card payment earn by it."""

GOODWILL_COST_MINOR: Final = 2_000
"""What an annoyed customer costs beside that. An assumption likewise; docs/policy.md shows what depends on it."""

MAX_REVIEWS_PER_DAY: Final = 10_000_000
"""More than anybody has people for; a bound of `REVIEWS_PER_DAY`."""

_APPROVE, _REVIEW, _DECLINE = range(len(STRICTNESS))

type Floats = NDArray[np.float64]
type Amounts = NDArray[np.int64]
type Places = NDArray[np.int8]
"""Outcomes as places in `STRICTNESS`."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What outcomes cost, in minor units of the one currency.

    Attributes:
        review_minor: A review, 1 to `MAX_AMOUNT_MINOR`.
        margin_bp: A wrong decline, in proportion to the amount: basis points, 0 to `BASIS_POINTS`.
        goodwill_minor: A wrong decline, whatever the amount: 0 to `MAX_AMOUNT_MINOR`.
        declines: Whether declining is among what may be chosen; without it all that is suspicious is reviewed.
    """

    review_minor: int = REVIEW_COST_MINOR
    margin_bp: int = DECLINE_MARGIN_BP
    goodwill_minor: int = GOODWILL_COST_MINOR
    declines: bool = True

    def __post_init__(self) -> None:
        """Refuse costs that make no sense or that arithmetic is not exact for.

        Raises:
            InvalidInput: Names the setting.
        """
        for setting, value, least, greatest in (
            ("REVIEW_COST_MINOR", self.review_minor, 1, MAX_AMOUNT_MINOR),
            ("DECLINE_MARGIN_BP", self.margin_bp, 0, BASIS_POINTS),
            ("GOODWILL_COST_MINOR", self.goodwill_minor, 0, MAX_AMOUNT_MINOR),
        ):
            if not least <= value <= greatest:
                raise InvalidInput(setting, f"must be {least} to {greatest}")

    def wrong_decline(self, amount_minor: int) -> float:
        """What declining a genuine transaction costs, minor units.

        >>> Costs(margin_bp=150, goodwill_minor=1_000).wrong_decline(5_050)
        1075.75
        """
        return float(self.margin_bp * amount_minor + self.goodwill_minor * BASIS_POINTS) / float(BASIS_POINTS)

    def wrong_decline_many(self, amount_minor: Amounts) -> Floats:
        """The same for (n,) amounts; (n,) float64."""
        exact = self.margin_bp * amount_minor + self.goodwill_minor * BASIS_POINTS
        return exact.astype(np.float64) / float(BASIS_POINTS)

    def incurred(self, outcomes: Places, is_fraud: NDArray[np.bool_], amount_minor: Amounts) -> Floats:
        """What outcomes came to cost, now that fraud is known.

        >>> Costs(500, 200, 2_000).incurred(
        ...     np.array([0, 1, 2, 2], dtype=np.int8), np.array([True, True, True, False]), np.array([9_000] * 4)
        ... ).tolist()
        [9000.0, 500.0, 0.0, 2180.0]

        Args:
            outcomes: (n,) places in `STRICTNESS`.
            is_fraud: (n,) bool.
            amount_minor: (n,) int64.

        Returns:
            (n,) float64, minor units.
        """
        missed = np.where(is_fraud, amount_minor, 0).astype(np.float64)
        wrong = np.where(is_fraud, 0.0, self.wrong_decline_many(amount_minor))
        return np.choose(outcomes, (missed, np.full(len(missed), float(self.review_minor)), wrong))


class ExpectedLosses(NamedTuple):
    """What each outcome is expected to cost, minor units: (n,) float64 each; a review without the shadow price."""

    approve: Floats
    review: Floats
    decline: Floats


@dataclass(frozen=True, slots=True)
class CostPolicy:
    """The policy, with all that it depends on.

    Attributes:
        costs: What outcomes cost.
        shadow_price_minor: What a review must save beyond its cost, minor units, 0 to `MAX_AMOUNT_MINOR`.
    """

    costs: Costs = Costs()
    shadow_price_minor: int = 0

    def __post_init__(self) -> None:
        """Refuse a shadow price that is none.

        Raises:
            InvalidInput: Names the setting.
        """
        if not 0 <= self.shadow_price_minor <= MAX_AMOUNT_MINOR:
            raise InvalidInput("REVIEW_SHADOW_PRICE_MINOR", f"must be 0 to {MAX_AMOUNT_MINOR}")

    @property
    def name(self) -> str:
        """Name and version of the policy."""
        return "expected-loss-v1"

    @property
    def parameters(self) -> Mapping[str, int | float | bool]:
        """Costs and shadow price, by name."""
        return {
            "review_cost_minor": self.costs.review_minor,
            "decline_margin_bp": self.costs.margin_bp,
            "goodwill_cost_minor": self.costs.goodwill_minor,
            "declines": self.costs.declines,
            "review_shadow_price_minor": self.shadow_price_minor,
        }

    def outcome(self, score: Score, amount_minor: int, /) -> Outcome:
        """What is expected to cost least.

        >>> policy = CostPolicy(Costs(review_minor=500))
        >>> [policy.outcome(Score(0.1, ""), amount).value for amount in (5_000, 5_001)]
        ['approve', 'review']
        >>> policy.outcome(Score(0.9, ""), 5_000).value
        'decline'
        """
        approve = score.probability * float(amount_minor)
        decline = math.inf
        if self.costs.declines:
            decline = (1.0 - score.probability) * self.costs.wrong_decline(amount_minor)
        if min(approve, decline) > self._review_bar:
            return Outcome.REVIEW
        return Outcome.APPROVE if approve <= decline else Outcome.DECLINE

    def outcomes(self, probability: Floats, amount_minor: Amounts) -> Places:
        """The same for many, equal one by one.

        Args:
            probability: (n,) float64, calibrated, 0 to 1.
            amount_minor: (n,) int64, minor units.

        Returns:
            (n,) int8, places in `STRICTNESS`.
        """
        losses = self.losses(probability, amount_minor)
        reviewed = np.minimum(losses.approve, losses.decline) > self._review_bar
        otherwise = np.where(losses.approve <= losses.decline, _APPROVE, _DECLINE)
        return np.where(reviewed, _REVIEW, otherwise).astype(np.int8)

    def losses(self, probability: Floats, amount_minor: Amounts) -> ExpectedLosses:
        """What each outcome is expected to cost; a decline is infinite where none may be chosen.

        Args:
            probability: (n,) float64, calibrated, 0 to 1.
            amount_minor: (n,) int64, minor units.
        """
        decline = np.full(len(probability), np.inf)
        if self.costs.declines:
            decline = (1.0 - probability) * self.costs.wrong_decline_many(amount_minor)
        review = np.full(len(probability), float(self.costs.review_minor))
        return ExpectedLosses(probability * amount_minor.astype(np.float64), review, decline)

    @property
    def _review_bar(self) -> float:
        """What must be saved for a review: a sum of integers, exact."""
        return float(self.costs.review_minor + self.shadow_price_minor)


@dataclass(frozen=True, slots=True)
class Capacity:
    """As many reviews as there are people for.

    Attributes:
        reviews_per_day: Transactions that can be reviewed on an average day, 1 to `MAX_REVIEWS_PER_DAY`.
        costs: What outcomes cost.
    """

    reviews_per_day: int
    costs: Costs = Costs()

    def __post_init__(self) -> None:
        """Refuse a capacity that is none.

        Raises:
            InvalidInput: Names the setting.
        """
        if not 1 <= self.reviews_per_day <= MAX_REVIEWS_PER_DAY:
            raise InvalidInput("REVIEWS_PER_DAY", f"must be 1 to {MAX_REVIEWS_PER_DAY}")


@dataclass(frozen=True, slots=True)
class FittedCapacity:
    """A capacity, and what it comes to with one model's scores.

    Attributes:
        capacity: What was asked for.
        policy: What reviews so many, at its costs.
    """

    capacity: Capacity
    policy: CostPolicy


def fit_capacity(
    costs: Costs, probability: Floats, amount_minor: Amounts, *, days: float, reviews_per_day: float
) -> CostPolicy:
    """The policy whose reviews fit a capacity, as the average day of a span has it.

    The least whole shadow price with which no more of the span is reviewed than `days * reviews_per_day`. The span must
    be one that the model was not fitted on, such as the one it was calibrated on. No outcomes are needed.

    >>> scores, amounts = np.array([0.5, 0.5, 0.5, 0.5]), np.array([2_000, 4_000, 6_000, 8_000])
    >>> review_only = Costs(review_minor=500, declines=False)
    >>> fit_capacity(review_only, scores, amounts, days=1, reviews_per_day=2).shadow_price_minor
    1500

    Args:
        costs: What outcomes cost.
        probability: (n,) float64, calibrated scores of all transactions of the span.
        amount_minor: (n,) int64, their amounts, minor units.
        days: Length of the span, days.
        reviews_per_day: Transactions a day that can be reviewed, on average.

    Raises:
        InvalidInput: No length, or a capacity below 0.
        BrokenInvariant: Columns of different lengths, or scores that are no probabilities.
    """
    if not days > 0.0:
        raise InvalidInput("days", "must be greater than 0")
    if not reviews_per_day >= 0.0:
        raise InvalidInput("REVIEWS_PER_DAY", "must not be less than 0")
    if probability.shape != amount_minor.shape or not ((probability >= 0.0) & (probability <= 1.0)).all():
        raise BrokenInvariant("a capacity needs a probability for each amount")
    policy = CostPolicy(costs)
    losses = policy.losses(probability, amount_minor)
    unreviewed = np.minimum(losses.approve, losses.decline)
    room = math.floor(min(days * reviews_per_day, float(len(unreviewed))))
    if room >= len(unreviewed):
        return policy
    # One more than there is room for must not exceed the bar; all others above it then have room.
    first_out = np.partition(unreviewed, len(unreviewed) - 1 - room)[len(unreviewed) - 1 - room]
    return replace(policy, shadow_price_minor=max(0, math.ceil(float(first_out)) - costs.review_minor))
