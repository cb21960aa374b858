"""The numbers behind the pictures of a run: curves over all thresholds, calibration by bins, cost by threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.cost_policy import REVIEW_COST_MINOR

type Floats = NDArray[np.float64]
type Outcomes = NDArray[np.bool_]

BIN_SHARES: Final = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 1.0)
"""Ends of the calibration bins as shares of the transactions by score: finer where the frauds are."""

_Z: Final = 1.959963984540054
"""Of a normal distribution, for intervals of 95 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """What each threshold leads to, from the greatest score to the least: columns of one length.

    Attributes:
        score: A transaction is flagged from this score on.
        flagged: Transactions flagged.
        caught: Frauds among them.
        caught_minor: Their amounts.
        n_rows: Transactions in all.
        n_frauds: Frauds in all.
        fraud_minor: Their amounts.
    """

    score: Floats
    flagged: NDArray[np.int64]
    caught: NDArray[np.int64]
    caught_minor: NDArray[np.int64]
    n_rows: int
    n_frauds: int
    fraud_minor: int

    @property
    def precision(self) -> Floats:
        """Share of frauds among what is flagged."""
        return self.caught / self.flagged

    @property
    def recall(self) -> Floats:
        """Share of the frauds that is flagged; NaN if there are none."""
        return self.caught / self.n_frauds if self.n_frauds else np.full(len(self.score), np.nan)

    @property
    def false_positive_rate(self) -> Floats:
        """Share of the genuine transactions that is flagged; NaN if there are none."""
        genuine = self.n_rows - self.n_frauds
        return (self.flagged - self.caught) / genuine if genuine else np.full(len(self.score), np.nan)

    def cost_minor(self, review_cost_minor: int = REVIEW_COST_MINOR) -> Floats:
        """Amounts of the frauds that are missed and a review for everything flagged, per 1,000 transactions."""
        missed = self.fraud_minor - self.caught_minor
        return 1_000 * (missed + review_cost_minor * self.flagged) / self.n_rows


def thresholds_of(scores: NDArray[Any], is_fraud: Outcomes, amount_minor: NDArray[np.int64]) -> Thresholds:
    """What each threshold leads to.

    >>> found = thresholds_of(np.array([0.9, 0.2, 0.9]), np.array([True, False, False]), np.array([700, 50, 80]))
    >>> found.score.tolist(), found.precision.tolist(), found.recall.tolist()
    ([0.9, 0.2], [0.5, 0.3333333333333333], [1.0, 1.0])

    Args:
        scores: (n,) numbers.
        is_fraud: (n,).
        amount_minor: (n,), in minor units.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, fraud = scores[order].astype(np.float64), is_fraud[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    lost = np.where(fraud, amount_minor[order], 0)
    return Thresholds(
        score=ranked[last],
        flagged=last.astype(np.int64) + 1,
        caught=np.cumsum(fraud)[last].astype(np.int64),
        caught_minor=np.cumsum(lost)[last],
        n_rows=len(ranked),
        n_frauds=int(fraud.sum()),
        fraud_minor=int(lost.sum()),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Mean score and share of frauds by bin of score: columns of one length.

    Attributes:
        score: Mean calibrated score.
        share: Share of frauds.
        low: Lower end of its interval of 95 %, after Wilson.
        high: Upper end.
        n_rows: Transactions.
    """

    score: Floats
    share: Floats
    low: Floats
    high: Floats
    n_rows: NDArray[np.int64]


def calibration_of(scores: Floats, is_fraud: Outcomes) -> Calibration:
    """How calibrated scores compare with what came of them, by `BIN_SHARES`; bins without transactions are left out.

    The intervals are those of Wilson, "Probable inference, the law of succession, and statistical inference", 1927;
    they count each transaction by itself, so where one card has several frauds they are somewhat too narrow.

    Args:
        scores: (n,) float64, calibrated.
        is_fraud: (n,).
    """
    order = np.argsort(scores, kind="stable")
    ends = np.unique(np.rint(np.array(BIN_SHARES) * len(scores)).astype(np.int64))
    starts, n_rows = ends[:-1], np.diff(ends)
    mean = np.add.reduceat(scores[order], starts) / n_rows
    share = np.add.reduceat(is_fraud[order].astype(np.float64), starts) / n_rows
    centre = (share + _Z**2 / (2 * n_rows)) / (1 + _Z**2 / n_rows)
    half = _Z / (1 + _Z**2 / n_rows) * np.sqrt(share * (1 - share) / n_rows + _Z**2 / (4 * n_rows**2))
    return Calibration(mean, share, np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0), n_rows)
