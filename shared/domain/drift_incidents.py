"""Whether fraud of a new kind is missed: by the incidents that a day's missed frauds come to, against usual days.

Frauds come in incidents: one card that is used until it is blocked, one till at which cards are copied for weeks. So
recall of a day lies anywhere and hardly says that it fell. Missed incidents do: each missed fraud counts one, divided
by all frauds of its card or of its terminal, whichever has more, in the week that ends with the day. A card's spree
comes to one, a till that was found out last week to a seventh a day, and fraud of a new kind to as many as it has
victims. Days are compared on the scale of square roots, on which chance alone spreads counts equally.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from shared.domain.drift_performance import (
    NORMAL_95,
    Codes,
    Decline,
    Estimate,
    Figure,
    Flags,
    MaturedRows,
    PerformancePolicy,
)
from shared.domain.drift_statistics import normal_tail
from shared.domain.pipeline import Cause, Priority

WEEK_DAYS: Final = 7
"""Days, the one that is looked at included, in which frauds of one card or terminal belong together. Seven and fourteen
did equally well (record 0031), and a week is read anyway."""

USUAL_DAYS: Final = 28
"""Days that tell how many missed incidents are usual: four of each weekday."""

LEAST_DAYS: Final = 14
"""Days below which they tell nothing: their standard deviation is known to a fifth from there on."""

ROOT_SHIFT: Final = 3 / 8
"""Added to a count before the root is taken, so that the spread is the same for small counts too (Anscombe, "The
transformation of Poisson, binomial and negative-binomial data", 1948)."""

POISSON_ROOT: Final = 0.5
"""Standard deviation of that root of a Poisson count, whatever its mean (ibid.)."""


@dataclass(frozen=True, slots=True, eq=False)
class Frauds:
    """The frauds among decisions whose outcome is known.

    Attributes:
        n_rows: The decisions, frauds or not.
        customer: (n_frauds,) int64, equal for equal customers.
        terminal: (n_frauds,) int64, likewise.
        is_missed: (n_frauds,) bool, whether the score was below the threshold.
    """

    n_rows: int
    customer: Codes
    terminal: Codes
    is_missed: Flags


class Missed(NamedTuple):
    """How widely fraud was missed.

    Attributes:
        n_rows: Decisions whose outcome is known.
        incidents: What their missed frauds come to.
        squares: The sum of the squares of what each incident comes to.
    """

    n_rows: int
    incidents: float
    squares: float


def frauds(rows: MaturedRows, threshold: float) -> Frauds:
    """The frauds among some decisions.

    Args:
        rows: The decisions.
        threshold: Calibrated score from which on a decision counts as a decline.
    """
    chosen = rows.is_fraud
    return Frauds(len(rows.score), rows.customer[chosen], rows.terminal[chosen], rows.score[chosen] < threshold)


def missed_incidents(before: Sequence[Frauds], now: Frauds) -> Missed:
    """What the missed frauds of a day come to.

    Args:
        before: The days before it that make a week with it, as far as they are known.
        now: The day.
    """
    n_before = sum(len(one.customer) for one in before)
    cards, card_frauds = _sizes([one.customer for one in (*before, now)])
    tills, till_frauds = _sizes([one.terminal for one in (*before, now)])
    cards, card_frauds = cards[n_before:][now.is_missed], card_frauds[n_before:][now.is_missed]
    tills, till_frauds = tills[n_before:][now.is_missed], till_frauds[n_before:][now.is_missed]
    incident = np.where(card_frauds >= till_frauds, cards, -1 - tills)
    weight = 1.0 / np.maximum(card_frauds, till_frauds)
    each = np.bincount(np.unique(incident, return_inverse=True)[1], weights=weight)
    return Missed(now.n_rows, float(each.sum()), float((each**2).sum()))


def spread(policy: PerformancePolicy, usual: Sequence[Missed], now: Missed) -> Decline | None:
    """Concept drift by more missed incidents than on usual days.

    By how much days differ is taken from the usual days themselves, and never for less than incidents that come
    independently of one another lead to expect. It does not know recall: ask `may_have_fallen` first, or more fraud of
    the known kinds counts as well.

    Args:
        policy: The thresholds.
        usual: Days of the same model that lie before.
        now: The day to be judged.

    Returns:
        None if too few days were seen or the day is none of interest.
    """
    days = [one for one in usual if one.n_rows]
    if len(days) < LEAST_DAYS or not now.n_rows:
        return None
    roots = np.sqrt([one.incidents / one.n_rows * now.n_rows + ROOT_SHIFT for one in days])
    center, deviation = float(roots.mean()), max(_least_deviation(days), float(roots.std(ddof=1)))
    root = math.sqrt(now.incidents + ROOT_SHIFT)
    p_value = normal_tail((root - center) / (deviation * math.sqrt(1 + 1 / len(days))))
    if p_value >= policy.error:
        return None
    before = _squared(center, deviation, sum(one.n_rows for one in days))
    after = _squared(root, deviation, now.n_rows)
    return Decline(Cause.CONCEPT_DRIFT, Figure.MISSED_INCIDENTS, before, after, p_value, Priority.IMMEDIATE)


def _sizes(parts: Sequence[Codes]) -> tuple[Codes, Codes]:
    """Codes counted from 0 on, and how often each occurs in all parts together."""
    _, codes, counts = np.unique(np.concatenate(parts), return_inverse=True, return_counts=True)
    return codes, counts[codes]


def _least_deviation(days: Sequence[Missed]) -> float:
    """Standard deviation of the root of a sum over incidents that come independently, some of them in part.

    The variance of such a sum is that of a Poisson count times the mean square of what an incident comes to over its
    mean (Campbell's theorem).
    """
    incidents = sum(one.incidents for one in days)
    return POISSON_ROOT * math.sqrt(sum(one.squares for one in days) / incidents) if incidents > 0 else POISSON_ROOT


def _squared(root: float, deviation: float, n_rows: int) -> Estimate:
    """A count whose root has a standard deviation."""
    ends = (root, max(0.0, root - NORMAL_95 * deviation), root + NORMAL_95 * deviation)
    value, low, high = (max(0.0, end**2 - ROOT_SHIFT) for end in ends)
    return Estimate(value, low, high, n_rows)
