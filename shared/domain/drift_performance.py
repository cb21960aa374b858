"""Whether the model still finds frauds: on matured labels, with intervals, and by an estimate in the time before.

Labels mature weeks after the decision. Then recall, precision, the fraud rate and how far scores add up to frauds are
ratios of sums over decisions, and their intervals allow for decisions that belong together: frauds of one card or one
terminal are one incident. Recall of a day tells little, because incidents are few; what tells more of a day is in
`drift_incidents`. Until labels mature calibrated scores say what to expect, as long as calibration holds: a fraud that
the model takes for genuine lowers nothing in the estimate, so it warns of what changes inside the model's view only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_manifest import Manifest
from shared.domain.drift_statistics import normal_tail
from shared.domain.pipeline import Cause, Priority

NORMAL_95: Final = 1.959963984540054
"""Standard deviations to either side that hold 95 % of a normal distribution."""

LEAST_FRAUDS: Final = 20
"""Frauds below which a window says nothing about recall: the normal approximation of a share near one half is off by
less than a hundredth from there on."""

type Floats = NDArray[np.float64]
type Flags = NDArray[np.bool_]
type Codes = NDArray[np.int64]


class Figure(StrEnum):
    """What is tracked; the names of the manifest's metrics where it has them."""

    RECALL = "recall"
    PRECISION = "precision"
    CALIBRATION = "calibration_ratio"
    FRAUD_RATE = "fraud_rate"
    MISSED_INCIDENTS = "missed_incidents"


class Estimate(NamedTuple):
    """A figure with its 95 % interval.

    Attributes:
        value: NaN where nothing is to be divided by.
        low: Lower end.
        high: Upper end.
        n_rows: What it is taken over: frauds for recall, declines for precision, decisions otherwise.
    """

    value: float
    low: float
    high: float
    n_rows: int

    @property
    def error(self) -> float:
        """Its standard error."""
        return (self.high - self.low) / (2.0 * NORMAL_95)


@dataclass(frozen=True, slots=True, eq=False)
class MaturedRows:
    """Decisions whose outcome is known for good, as columns of one length.

    Attributes:
        score: (n,) float64, calibrated.
        is_fraud: (n,) bool.
        customer: (n,) int64, equal for equal customers.
        terminal: (n,) int64, likewise.
    """

    score: Floats
    is_fraud: Flags
    customer: Codes
    terminal: Codes


def joined(*parts: MaturedRows) -> MaturedRows:
    """Decisions of several windows as those of one."""
    return MaturedRows(
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.is_fraud for part in parts]),
        np.concatenate([part.customer for part in parts]),
        np.concatenate([part.terminal for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class PerformancePolicy:
    """When performance is drift.

    Attributes:
        recall_drop: Least fall of recall that counts (record 0026).
        target_change: Least relative change of the fraud rate that counts (`TARGET_DRIFT_THRESHOLD`).
        error: How often each may be found by chance.
        recall_error: How often recall may be; few incidents make a window's recall, so that its tail is longer than the
            normal one (record 0031).
    """

    recall_drop: float = 0.05
    target_change: float = 0.5
    error: float = 0.001
    recall_error: float = 0.0001


@dataclass(frozen=True, slots=True)
class Decline:
    """Performance that changed.

    Attributes:
        cause: Concept drift or target drift.
        figure: Of which figure.
        before: The bundle's own.
        now: The window's.
        p_value: Chance of one as far off, one-sided, if nothing changed.
        priority: Of the trigger to open.
    """

    cause: Cause
    figure: Figure
    before: Estimate
    now: Estimate
    p_value: float
    priority: Priority


def ratio(numerator: Floats, denominator: Floats, *clusters: Codes) -> Estimate:
    """A ratio of two sums over rows in clusters, with an interval by linearisation.

    The variance is the sum over clusters of the square of the cluster's residual (Cochran, "Sampling techniques", 1977,
    section 9A.1); of several ways to cluster, the one that makes it greatest counts.

    Args:
        numerator: (n,) what is summed above.
        denominator: (n,) what is summed below.
        clusters: (n,) codes from nought on with few gaps, each a way in which rows belong together.
    """
    below = float(denominator.sum())
    if below <= 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(numerator.sum()) / below
    residual = numerator - value * denominator
    variance = 0.0
    for codes in clusters:
        variance = max(variance, float((np.bincount(codes, weights=residual) ** 2).sum()))
    half = NORMAL_95 * math.sqrt(variance) / below
    return Estimate(value, value - half, value + half, int(np.count_nonzero(denominator)))


def figures(rows: MaturedRows, threshold: float) -> dict[Figure, Estimate]:
    """What decisions were worth whose outcome is known.

    Args:
        rows: The decisions.
        threshold: Calibrated score from which on a decision counts as a decline.
    """
    found, fraud = (rows.score >= threshold).astype(np.float64), rows.is_fraud.astype(np.float64)
    customer, terminal = (np.unique(codes, return_inverse=True)[1] for codes in (rows.customer, rows.terminal))
    return {
        Figure.RECALL: ratio(found * fraud, fraud, customer, terminal),
        Figure.PRECISION: ratio(found * fraud, found, customer, terminal),
        Figure.CALIBRATION: ratio(rows.score, fraud, customer, terminal),
        Figure.FRAUD_RATE: ratio(fraud, np.ones(len(fraud)), customer, terminal),
    }


def expected(score: Floats, threshold: float) -> dict[Figure, Estimate]:
    """What to expect of decisions without labels, if their scores are calibrated.

    Each decision is a fraud with the chance that its score says, independently; so the sums of scores above the
    threshold and in all are the expected frauds found and present. The interval is what is left to chance when the
    scores are right; it does not know how wrong they are.

    Args:
        score: (n,) float64, calibrated.
        threshold: Calibrated score from which on a decision counts as a decline.
    """
    above = score >= threshold
    total, found, declined = float(score.sum()), float(score[above].sum()), int(above.sum())
    variance = score * (1.0 - score)
    nothing = Estimate(math.nan, math.nan, math.nan, 0)
    result = dict.fromkeys((Figure.RECALL, Figure.PRECISION, Figure.FRAUD_RATE), nothing)
    if len(score):
        result[Figure.FRAUD_RATE] = _around(total / len(score), math.sqrt(variance.sum()) / len(score), len(score))
    if total > 0:
        recall = found / total
        spread = math.sqrt((variance * np.where(above, 1.0 - recall, recall) ** 2).sum()) / total
        result[Figure.RECALL] = _around(recall, spread, len(score))
    if declined:
        result[Figure.PRECISION] = _around(found / declined, math.sqrt(variance[above].sum()) / declined, declined)
    return result


def reference_figures(manifest: Manifest) -> dict[Figure, Estimate]:
    """What the bundle said of itself on its test span; a figure it does not name is not there."""
    scale = NORMAL_95 / _deviations(manifest.confidence)
    found = {}
    for metric in manifest.metrics:
        if metric.name in {member.value for member in Figure}:
            low, high = ((end - metric.value) * scale + metric.value for end in (metric.low, metric.high))
            known = manifest.spans["test"].n_frauds if metric.name == Figure.RECALL and "test" in manifest.spans else 0
            found[Figure(metric.name)] = Estimate(metric.value, low, high, known)
    spans = manifest.spans.values()
    rows, frauds = sum(span.n_rows for span in spans), sum(span.n_frauds for span in spans)
    if rows and frauds:
        rate = frauds / rows
        # Frauds of one incident come together; the interval of recall tells by how much, as far as it is known.
        found[Figure.FRAUD_RATE] = _around(rate, rate / math.sqrt(frauds) * _incident_factor(manifest, frauds), rows)
    return found


def declines(
    policy: PerformancePolicy, before: Mapping[Figure, Estimate], now: Mapping[Figure, Estimate]
) -> list[Decline]:
    """What changed for certain, and by enough to matter.

    A figure of a window is never taken for more certain than the bundle's own is for so many rows: a window of few
    incidents may happen to have equal ones, and its own residuals then say nothing of how much incidents differ.

    Args:
        policy: The thresholds.
        before: The bundle's own figures.
        now: Those of a window of matured decisions.
    """
    found = []
    for figure in (Figure.RECALL, Figure.FRAUD_RATE):
        ours, theirs = now.get(figure), before.get(figure)
        if ours is None or theirs is None or math.isnan(ours.value) or now[Figure.RECALL].n_rows < LEAST_FRAUDS:
            continue
        change = theirs.value - ours.value if figure is Figure.RECALL else abs(ours.value - theirs.value)
        least = policy.recall_drop if figure is Figure.RECALL else policy.target_change * theirs.value
        ours_error = max(ours.error, theirs.error * math.sqrt(theirs.n_rows / ours.n_rows))
        error = math.hypot(ours_error, theirs.error)
        p_value = normal_tail(change / error) if error > 0 else float(change <= 0)
        if change < least or p_value >= (policy.recall_error if figure is Figure.RECALL else policy.error):
            continue
        if figure is Figure.RECALL:
            found.append(Decline(Cause.CONCEPT_DRIFT, figure, theirs, ours, p_value, Priority.IMMEDIATE))
        else:
            found.append(Decline(Cause.TARGET_DRIFT, figure, theirs, ours, p_value, Priority.MEDIUM))
    return found


def may_have_fallen(
    policy: PerformancePolicy, before: Mapping[Figure, Estimate], now: Mapping[Figure, Estimate]
) -> bool:
    """Whether recall of a day lies so far below the bundle's that missed incidents are to be asked."""
    ours, theirs = now.get(Figure.RECALL), before.get(Figure.RECALL)
    if ours is None or theirs is None or ours.n_rows < LEAST_FRAUDS:
        return False
    return theirs.value - ours.value >= policy.recall_drop


def _around(value: float, error: float, n_rows: int) -> Estimate:
    return Estimate(value, value - NORMAL_95 * error, value + NORMAL_95 * error, n_rows)


def _deviations(confidence: float) -> float:
    """Standard deviations to either side that hold a share of a normal distribution, by halving."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - 2 * normal_tail(middle) < confidence else (low, middle)
    return (low + high) / 2


def _incident_factor(manifest: Manifest, frauds: int) -> float:
    """By how much frauds that come together widen an interval, at least 1."""
    for metric in manifest.metrics:
        if metric.name == Figure.RECALL and 0 < metric.value < 1:
            independent = math.sqrt(metric.value * (1 - metric.value) / frauds)
            return max(1.0, (metric.high - metric.low) / (2 * _deviations(manifest.confidence)) / independent)
    return 1.0
