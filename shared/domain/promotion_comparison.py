"""Whether a challenger is better than the champion: both scored on the same transactions, resampled by customer.

The bootstrap is paired: a resample of customers counts for both models, so what makes a window easy or hard cancels
out, and what remains is the difference between the models (Efron and Tibshirani, "An introduction to the bootstrap",
1993, chapter 16). Customers and not transactions are drawn, because the frauds of a card are not independent.

Segments are judged together: the chance that any segment of an equal challenger is called worse is held by the
distribution of the worst of them over the resamples (Westfall and Young, "Resampling-based multiple testing", 1993,
single-step max-T), which knows how segments overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.errors import BrokenInvariant
from shared.domain.evaluation import Interval
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.promotion import Check, CheckName, GateRules

type Floats = NDArray[np.float64]
type Flags = NDArray[np.bool_]

NEW_US: Final = 30 * US_PER_DAY
"""A customer or terminal is new for so long after its first transaction, microseconds: the longest window of most
features, before which they have little to go by."""

NIGHT_UNTIL_HOUR: Final = 6
"""Night is 00:00 to 06:59 UTC, as in the feature views."""

AMOUNT_BANDS: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The transactions that models are judged on, as columns of one length n.

    Attributes:
        event_time_us: (n,) int64, microseconds since 1970 UTC.
        customer: (n,) integers or text.
        amount_minor: (n,) int64, minor units.
        is_fraud: (n,) bool, the outcome.
    """

    event_time_us: NDArray[np.int64]
    customer: NDArray[Any]
    amount_minor: NDArray[np.int64]
    is_fraud: Flags


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a model says of them.

    Attributes:
        raw: (n,) outputs; only their order counts.
        probability: (n,) float64, calibrated.
    """

    raw: NDArray[Any]
    probability: Floats


class SegmentGain(NamedTuple):
    """A segment's difference.

    Attributes:
        name: Of the segment.
        n_frauds: In it.
        gain: Challenger's average precision less the champion's.
        ends: The interval that holds for all segments together.
        worse: Whether it is shown to be worse.
    """

    name: str
    n_frauds: int
    gain: float
    ends: Interval
    worse: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far a challenger is from the champion.

    Attributes:
        challenger: Its average precision.
        champion: The champion's.
        gain: The difference.
        gain_ends: Its interval, each end off by chance `alpha`.
        loss: The challenger's expected loss, minor units.
        champion_loss: The champion's.
        loss_change: By what share of the champion's the challenger's is greater.
        loss_ends: Its interval.
        segments: Those large enough to be judged.
        too_small: The names of the others.
    """

    challenger: float
    champion: float
    gain: float
    gain_ends: Interval
    loss: float
    champion_loss: float
    loss_change: float
    loss_ends: Interval
    segments: tuple[SegmentGain, ...]
    too_small: tuple[str, ...]

    def checks(self, rules: GateRules) -> tuple[Check, Check, Check]:
        """Gain, loss and segments as checks."""
        worse = [segment for segment in self.segments if segment.worse]
        least = min(self.segments, key=lambda segment: segment.gain, default=None)
        named = ", ".join(f"{segment.name} ({segment.gain:+.3f})" for segment in worse)
        left_out = f"; too few to judge: {', '.join(self.too_small)}" if self.too_small else ""
        return (
            Check(
                CheckName.GAIN,
                self.gain,
                self.gain_ends,
                f"lower end above 0, at a chance of {rules.alpha:g}",
                self.gain_ends.low > 0.0,
                f"average precision {self.challenger:.4f}, the champion's {self.champion:.4f}",
            ),
            Check(
                CheckName.LOSS,
                self.loss_change,
                self.loss_ends,
                f"upper end at most {rules.loss_margin:+g} of the champion's",
                self.loss_ends.high <= rules.loss_margin,  # NaN fails too
                f"{self.loss / 100:,.0f} in major units at a review cost of {rules.review_cost_minor / 100:g}, the "
                f"champion's {self.champion_loss / 100:,.0f}",
            ),
            Check(
                CheckName.SEGMENTS,
                None if least is None else least.gain,
                None if least is None else least.ends,
                f"no segment shown to be worse, at a chance of {rules.segment_alpha:g} over all",
                bool(self.segments) and not worse,
                f"worse in {named}{left_out}"
                if worse
                else f"no segment has the {rules.segment_frauds} frauds it takes{left_out}"
                if least is None
                else f"{len(self.segments)} segments, the least gain in {least.name}{left_out}",
            ),
        )


class PrecisionRanking:
    """Transactions ranked by one model, so that many weightings of the customers are measured quickly."""

    def __init__(self, scores: NDArray[Any], customer: NDArray[np.intp], is_fraud: Flags) -> None:
        """Rank transactions.

        Args:
            scores: (n,) only the order counts; equal ones are one threshold.
            customer: (n,) numbers of the customers.
            is_fraud: (n,) bool.

        Raises:
            BrokenInvariant: A score is NaN.
        """
        if np.isnan(scores).any():
            raise BrokenInvariant("a score is no number")
        order = np.argsort(-scores, kind="stable")
        ranked, fraud = scores[order], is_fraud[order]
        last_of_tie = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
        # Precision is asked for at thresholds with a fraud only: rows between them count as one sum each, and rows
        # below the last fraud not at all.
        found = np.flatnonzero(fraud)
        threshold, self._threshold_of = np.unique(np.searchsorted(last_of_tie, found), return_inverse=True)
        ends = last_of_tie[threshold] + 1
        self._starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
        self._customer = customer[order[: ends[-1]]] if len(ends) else order[:0]
        self._fraud_customer = customer[order[found]]

    def average_precision(self, weights: Floats) -> float:
        """Average precision when each customer counts as often as its weight says; NaN without a fraud."""
        frauds = np.bincount(self._threshold_of, weights=weights[self._fraud_customer], minlength=len(self._starts))
        total = frauds.sum()
        if not total > 0.0:
            return float("nan")
        seen = np.cumsum(np.add.reduceat(weights[self._customer], self._starts))
        precision = np.divide(np.cumsum(frauds), seen, out=np.zeros_like(seen), where=seen > 0)
        return float(np.dot(frauds, precision) / total)


def resampled_weights(n_customers: int, rng: np.random.Generator) -> Floats:
    """How often each customer counts in one resample: (n_customers,) float64."""
    return np.bincount(rng.integers(0, n_customers, n_customers), minlength=n_customers).astype(np.float64)


def expected_loss(judged: Judged, probability: Floats, review_cost_minor: int) -> Floats:
    """What each transaction costs when those are reviewed whose expected loss exceeds a review: (n,) minor units.

    A missed fraud costs its amount, a review what a review costs (docs: decision 12, "money decides thresholds").
    """
    amount = judged.amount_minor.astype(np.float64)
    reviewed = probability * amount > review_cost_minor
    return np.where(reviewed, float(review_cost_minor), np.where(judged.is_fraud, amount, 0.0))


def compare(
    judged: Judged, challenger: Scores, champion: Scores, segments: Mapping[str, Flags], rules: GateRules
) -> Comparison:
    """Compare two models on the same resamples of customers.

    Args:
        judged: The transactions.
        challenger: What the challenger says of them.
        champion: What the champion says of them.
        segments: By name, (n,) bool; they may overlap.
        rules: How many resamples, at which chances.
    """
    customers, code = np.unique(judged.customer, return_inverse=True)
    enough = {}
    for name, inside in segments.items():
        n_frauds = int(judged.is_fraud[inside].sum())
        if min(n_frauds, int(inside.sum()) - n_frauds) >= rules.segment_frauds:
            enough[name] = inside
    everything = np.ones(len(code), dtype=np.bool_)
    parts = [everything, *enough.values()]
    pairs = [
        tuple(
            PrecisionRanking(scores.raw[part], code[part], judged.is_fraud[part]) for scores in (challenger, champion)
        )
        for part in parts
    ]

    def gains(weights: Floats) -> Floats:
        return np.array([ours.average_precision(weights) - theirs.average_precision(weights) for ours, theirs in pairs])

    losses = [
        np.bincount(code, weights=expected_loss(judged, scores.probability, rules.review_cost_minor))
        for scores in (challenger, champion)
    ]
    once = np.ones(len(customers))
    observed = gains(once)
    rng = np.random.default_rng(rules.seed)
    drawn = np.empty((rules.resamples, len(parts)))
    changes = np.empty(rules.resamples)
    for place in range(rules.resamples):
        weights = resampled_weights(len(customers), rng)
        drawn[place] = gains(weights)
        changes[place] = _change(float(weights @ losses[0]), float(weights @ losses[1]))
    drawn = np.where(np.isnan(drawn), observed, drawn)  # a resample without a fraud says nothing
    loss, champion_loss = float(losses[0].sum()), float(losses[1].sum())
    return Comparison(
        challenger=pairs[0][0].average_precision(once),
        champion=pairs[0][1].average_precision(once),
        gain=float(observed[0]),
        gain_ends=_ends(drawn[:, 0], rules.alpha),
        loss=loss,
        champion_loss=champion_loss,
        loss_change=_change(loss, champion_loss),
        loss_ends=_ends(changes, rules.alpha),
        segments=_segment_gains(
            list(enough),
            [int(judged.is_fraud[inside].sum()) for inside in enough.values()],
            observed[1:],
            drawn[:, 1:],
            rules.segment_alpha,
        ),
        too_small=tuple(name for name in segments if name not in enough),
    )


def segments_of(
    judged: Judged, customer_since_us: NDArray[np.int64], terminal_since_us: NDArray[np.int64]
) -> dict[str, Flags]:
    """The segments that are judged by themselves.

    Args:
        judged: The transactions.
        customer_since_us: (n,) int64, the first transaction of each one's customer.
        terminal_since_us: (n,) int64, the same of the terminal.

    Returns:
        By name, (n,) bool: bands of the amount with about as many frauds each, night and day, customers and terminals
        new and known.
    """
    time_us = judged.event_time_us
    night = time_us // US_PER_HOUR % 24 <= NIGHT_UNTIL_HOUR
    new_customer, new_terminal = time_us - customer_since_us < NEW_US, time_us - terminal_since_us < NEW_US
    found = {
        "night": night,
        "day": ~night,
        "new customers": new_customer,
        "known customers": ~new_customer,
        "new terminals": new_terminal,
        "known terminals": ~new_terminal,
    }
    amount = judged.amount_minor
    shares = np.arange(1, AMOUNT_BANDS) / AMOUNT_BANDS
    edges = np.unique(np.quantile(amount[judged.is_fraud], shares, method="inverted_cdf"))
    band = np.searchsorted(edges, amount, side="left")
    for place in range(len(edges) + 1):
        low = "0" if place == 0 else f"{edges[place - 1] / 100:.2f}"
        high = "" if place == len(edges) else f" to {edges[place] / 100:.2f}"
        found[f"amounts above {low}{high}"] = band == place
    return found


def _segment_gains(
    names: list[str], n_frauds: list[int], observed: Floats, drawn: Floats, alpha: float
) -> tuple[SegmentGain, ...]:
    """Which segments are worse, by the distribution of the worst of all."""
    if not names:
        return ()
    spread = drawn.std(axis=0)
    known = spread > 0.0
    scaled = np.divide(drawn - observed, spread, out=np.zeros_like(drawn), where=known)
    critical = -float(np.quantile(scaled.min(axis=1), alpha))
    low, high = observed - critical * spread, observed + critical * spread
    return tuple(
        SegmentGain(name, count, float(gain), Interval(float(least), float(greatest)), bool(greatest < 0.0))
        for name, count, gain, least, greatest in zip(names, n_frauds, observed, low, high, strict=True)
    )


def _change(loss: float, champion_loss: float) -> float:
    return (loss - champion_loss) / champion_loss if champion_loss > 0 else (0.0 if loss == 0 else float("inf"))


def _ends(drawn: Floats, alpha: float) -> Interval:
    low, high = np.quantile(drawn, [alpha, 1.0 - alpha])
    return Interval(float(low), float(high))
