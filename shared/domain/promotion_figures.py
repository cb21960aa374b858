"""Figures of one model on the judged window: calibration, precision and recall, what thresholds and labels allow for.

All intervals are over customers: percentiles of resamples, and for the slope the cluster-robust variance (Liang and
Zeger, "Longitudinal data analysis using generalized linear models", 1986).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.calibration_fit import log_odds
from shared.domain.evaluation import Interval, interval
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.instants import US_PER_DAY
from shared.domain.promotion import Ceiling, FrontierPoint
from shared.domain.promotion_comparison import resampled_weights

CONFIDENCE: Final = 0.95
_NORMAL_975: Final = 1.959963984540054
"""The normal quantile of .975."""

FRONTIER_POINTS: Final = 40

EVIDENCE_US: Final = 30 * US_PER_DAY
"""How far behind the label delay a known fraud is evidence: the longest terminal window of the views, microseconds."""

_STEPS: Final = 50
_CONVERGED: Final = 1e-10

type Floats = NDArray[np.float64]
type Flags = NDArray[np.bool_]


class Figure(NamedTuple):
    """A figure with its interval."""

    value: float
    ends: Interval


class Operating(NamedTuple):
    """What scores achieve at a threshold, and how good they are as probabilities."""

    precision: Figure
    recall: Figure
    brier_skill: Figure


def calibration_slope(probability: Floats, is_fraud: Flags, customer: NDArray[Any]) -> Figure:
    """The slope of outcomes over the log-odds of scores, by logistic regression with an intercept.

    1 is calibrated, less is too sure of itself, more not sure enough. Newton's method; NaN if it does not converge, as
    when scores separate outcomes perfectly.

    Args:
        probability: (n,) float64, calibrated.
        is_fraud: (n,) bool.
        customer: (n,) integers or text.
    """
    none = Figure(float("nan"), Interval(float("nan"), float("nan")))
    design = np.stack([np.ones(len(probability)), log_odds(probability)], axis=1)
    if np.ptp(design[:, 1]) == 0.0:
        return none
    outcome = is_fraud.astype(np.float64)
    found = np.array([0.0, 1.0])
    for _ in range(_STEPS):
        fitted = 1.0 / (1.0 + np.exp(-np.clip(design @ found, -700.0, 700.0)))
        slack = fitted * (1.0 - fitted)
        curvature = design.T @ (design * slack[:, None])
        if not np.linalg.cond(curvature) < 1e15:
            return none
        step = np.linalg.solve(curvature, design.T @ (outcome - fitted))
        found = found + step
        if float(np.max(np.abs(step))) < _CONVERGED:
            break
    else:
        return none
    gradient = design * (outcome - fitted)[:, None]
    code = np.unique(customer, return_inverse=True)[1]
    by_customer = np.stack([np.bincount(code, weights=gradient[:, place]) for place in range(2)], axis=1)
    inverse = np.linalg.inv(curvature)
    spread = float(np.sqrt((inverse @ (by_customer.T @ by_customer) @ inverse)[1, 1]))
    slope = float(found[1])
    return Figure(slope, Interval(slope - _NORMAL_975 * spread, slope + _NORMAL_975 * spread))


def operating_figures(
    probability: Floats, is_fraud: Flags, customer: NDArray[Any], threshold: float, *, n_resamples: int, seed: int
) -> Operating:
    """Precision and recall from a threshold on, and Brier skill against always saying the share of frauds.

    Args:
        probability: (n,) float64, calibrated.
        is_fraud: (n,) bool, some of either kind.
        customer: (n,) integers or text.
        threshold: From here on a transaction is declined.
        n_resamples: Of customers, for the intervals.
        seed: Of the resamples.
    """
    code = np.unique(customer, return_inverse=True)[1]
    declined = probability >= threshold
    outcome = is_fraud.astype(np.float64)
    columns = (declined & is_fraud, declined, is_fraud, (probability - outcome) ** 2, np.ones(len(code)))
    totals = np.stack([np.bincount(code, weights=column) for column in columns], axis=1)
    rng = np.random.default_rng(seed)
    draws = np.stack([resampled_weights(len(totals), rng) @ totals for _ in range(n_resamples)])
    values = _operating(totals.sum(axis=0)[None, :])
    drawn = _operating(draws)
    figures = (
        Figure(float(value[0]), interval(resamples, CONFIDENCE)) for value, resamples in zip(values, drawn, strict=True)
    )
    return Operating(*figures)


def frontier_of(
    probability: Floats, is_fraud: Flags, days: float, min_precision: float = 0.0
) -> tuple[FrontierPoint, ...]:
    """The best precision for each recall, over all thresholds: about `FRONTIER_POINTS`, by rising recall.

    Args:
        probability: (n,) float64.
        is_fraud: (n,) bool.
        days: Length of the window.
        min_precision: The greatest recall with this precision is a point as well.
    """
    points = _every_threshold(probability, is_fraud)
    chosen = set(np.flatnonzero(points.precision >= min_precision)[-1:].tolist())
    for least in np.arange(1, FRONTIER_POINTS + 1) / FRONTIER_POINTS:
        first = int(np.searchsorted(points.recall, least - 1e-12))
        chosen.add(first + int(np.argmax(points.precision[first:])))
    return tuple(
        FrontierPoint(
            float(points.threshold[place]),
            float(points.precision[place]),
            float(points.recall[place]),
            float(points.rows[place] / days),
        )
        for place in sorted(chosen)
    )


def reaching(probability: Floats, is_fraud: Flags, min_recall: float, min_precision: float) -> float | None:
    """The least threshold that reaches both, so the one of the greatest recall; None if none does."""
    points = _every_threshold(probability, is_fraud)
    both = np.flatnonzero((points.recall >= min_recall) & (points.precision >= min_precision))
    return float(points.threshold[both[-1]]) if len(both) else None


def ceilings_of(
    transactions: TransactionColumns,
    labels: LabelColumns,
    frauds: NDArray[np.intp],
    found: Flags,
    delays_us: tuple[int, ...],
) -> tuple[Ceiling, ...]:
    """What the labels known in time allow for, were they to count after each of several delays.

    Args:
        transactions: History.
        labels: Its labels.
        frauds: The rows of the window's frauds, at least one.
        found: For each of these, whether the model finds it at the precision floor.
        delays_us: After how long a label counts, microseconds; the first is the case.
    """
    evidence = [_with_evidence(transactions, labels, frauds, delay_us) for delay_us in delays_us]
    without = ~evidence[0]
    found_without = float(found[without].mean()) if without.any() else 0.0
    shares = [float(known.mean()) for known in evidence]
    return tuple(
        Ceiling(delay_us, share, found_without, share + (1.0 - share) * found_without)
        for delay_us, share in zip(delays_us, shares, strict=True)
    )


def area_under_curve(values: NDArray[Any], is_fraud: Flags) -> float:
    """The probability that a fraud's value exceeds a genuine one's, ties counting half; missing values are least."""
    held = np.where(np.isnan(values), -np.inf, values)
    levels, inverse = np.unique(held, return_inverse=True)
    frauds = np.bincount(inverse, weights=is_fraud, minlength=len(levels))
    genuine = np.bincount(inverse, minlength=len(levels)) - frauds
    below = np.cumsum(genuine) - genuine
    return float(np.sum(frauds * (below + genuine / 2)) / (frauds.sum() * genuine.sum()))


class _Thresholds(NamedTuple):
    """Every threshold, the greatest first."""

    threshold: Floats
    rows: Floats
    precision: Floats
    recall: Floats


def _every_threshold(probability: Floats, is_fraud: Flags) -> _Thresholds:
    levels, inverse = np.unique(-probability, return_inverse=True)
    rows = np.cumsum(np.bincount(inverse)).astype(np.float64)
    frauds = np.cumsum(np.bincount(inverse, weights=is_fraud))
    return _Thresholds(-levels, rows, frauds / rows, frauds / frauds[-1])


def _operating(totals: Floats) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and Brier skill of (m, 5) totals: true declines, declines, frauds, squares, rows."""
    caught, declined, frauds, squares, rows = totals.T
    share = frauds / rows
    known = share * (1.0 - share) > 0
    skill = 1.0 - np.divide(squares / rows, share * (1.0 - share), out=np.full(len(rows), np.nan), where=known)
    precision = np.divide(caught, declined, out=np.zeros(len(rows)), where=declined > 0)
    recall = np.divide(caught, frauds, out=np.full(len(rows), np.nan), where=frauds > 0)
    return precision, recall, skill


def _with_evidence(
    transactions: TransactionColumns, labels: LabelColumns, frauds: NDArray[np.intp], delay_us: int
) -> Flags:
    """(n_frauds,) whether another fraud of its customer or terminal counted by then and was not too old."""
    told = np.flatnonzero(labels.is_fraud)
    rows, counts_us = labels.row[told], labels.known_at_us[told] + delay_us
    happened_us = transactions.event_time_us[rows]
    evidence = np.zeros(len(frauds), dtype=np.bool_)
    for keys in (transactions.customer, transactions.terminal):
        places: dict[Any, list[int]] = {}
        for place, key in enumerate(keys[rows].tolist()):
            places.setdefault(key, []).append(place)
        for number, (row, key) in enumerate(zip(frauds.tolist(), keys[frauds].tolist(), strict=True)):
            mine = places.get(key)
            if mine is not None:
                time_us = int(transactions.event_time_us[row])
                recent = happened_us[mine] > time_us - delay_us - EVIDENCE_US
                others = rows[mine] != row  # a label that is known at once is no evidence for its own transaction
                evidence[number] |= bool((others & recent & (counts_us[mine] <= time_us)).any())
    return evidence
