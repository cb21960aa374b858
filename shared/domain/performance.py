"""What decisions were worth, on labels known since then: ranks, outcomes, money and calibration, by segment.

Counted are decisions that were taken before anything was known about their transaction; one whose label was there
before it proves nothing. Of these, ranks, outcomes, calibration and lost amounts need a label. What was declined, and
much of what was reviewed, has no outcome of its own: precision is that of the decisions somebody looked into, and
`labelled share` says how many these are. Recall counts the frauds that are known, not those nobody found.

Intervals are 95 % over resamples of customers, as in `evaluation`; each segment is resampled by itself. A figure that a
window cannot give (one class only, nothing declined) is missing and says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.cost_policy import REVIEW_COST_MINOR
from shared.domain.decision import STRICTNESS, Outcome
from shared.domain.evaluation import TOP_CARDS, Interval, Outcomes, Ranking, interval, resampled
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.promotion_figures import calibration_slope

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 200
FEW_RESAMPLES: Final = 50
MANY_ROWS: Final = 200_000
"""From so many rows on `FEW_RESAMPLES` are drawn for ranks: each is a pass over all rows, and intervals are narrow."""

NEW_EVENTS: Final = 5
"""A customer of whom fewer events were known is new."""

NO_DECISION: Final = -1
"""The outcome of a transaction on which a model did not decide: it scored in shadow."""

ALL: Final = "all"

AMOUNT_EDGES_MINOR: Final = (1_000, 5_000, 20_000)
"""Fixed, so that trends compare like with like; 10, 50 and 200 in a currency with two decimals."""

_APPROVE: Final = STRICTNESS.index(Outcome.APPROVE)
_REVIEW: Final = STRICTNESS.index(Outcome.REVIEW)
_DECLINE: Final = STRICTNESS.index(Outcome.DECLINE)

type Floats = NDArray[np.float64]
type Flags = NDArray[np.bool_]


class Metric(StrEnum):
    """What is measured; amounts are minor units over the window."""

    AUC = "auc"
    AVERAGE_PRECISION = "average precision"
    CARD_PRECISION = "card precision at 100"
    RECALL_DECLINE = "recall of declines"
    PRECISION_DECLINE = "precision of declines"
    RECALL_ALERT = "recall of alerts"
    PRECISION_ALERT = "precision of alerts"
    MISSED = "missed fraud"
    CAUGHT = "declined fraud"
    DECLINED_GENUINE = "declined genuine"
    REVIEW_COST = "review cost"
    CALIBRATION_RATIO = "calibration ratio"
    CALIBRATION_SLOPE = "calibration slope"
    BRIER_SKILL = "brier skill"
    FRAUD_RATE = "fraud rate"
    LABELLED = "labelled share"


NO_FRAUDS: Final = "no frauds are known"
NO_GENUINE: Final = "no genuine transactions are known"
NO_LABELS: Final = "no labels are known"
NONE_DECLINED: Final = "nothing that was declined has a label"
NONE_ALERTED: Final = "nothing that was reviewed or declined has a label"
ONE_SCORE: Final = "scores or outcomes are too much alike"


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRows:
    """Decisions of one model in a window, as columns of one length n.

    Attributes:
        event_time_us: (n,) int64, microseconds since 1970 UTC.
        customer: (n,) int64, a number for each customer.
        amount_minor: (n,) int64, minor units.
        outcome: (n,) int8, place in `STRICTNESS`; `NO_DECISION` for a score in shadow.
        score: (n,) float64, calibrated probability.
        events_known: (n,) int64, events and labels of the customer that were known.
        is_labelled: (n,) bool.
        is_fraud: (n,) bool, what the label says; False without one.
        known_first: (n,) bool, whether a label was known when it was decided.
    """

    event_time_us: NDArray[np.int64]
    customer: NDArray[np.int64]
    amount_minor: NDArray[np.int64]
    outcome: NDArray[np.int8]
    score: Floats
    events_known: NDArray[np.int64]
    is_labelled: Flags
    is_fraud: Flags
    known_first: Flags

    def __len__(self) -> int:
        return len(self.event_time_us)

    def take(self, rows: NDArray[Any]) -> LabelledRows:
        """Some of the rows."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self.__slots__})


class Measured(NamedTuple):
    """One figure.

    Attributes:
        segment: Of which transactions.
        metric: What.
        value: None where the window cannot give it.
        low: Lower end of the interval; None without one.
        high: Upper end.
        n_rows: Labelled decisions of the segment.
        n_frauds: Frauds among them.
        note: Why there is no value; empty if there is one.
    """

    segment: str
    metric: Metric
    value: float | None
    low: float | None
    high: float | None
    n_rows: int
    n_frauds: int
    note: str


class _Drawn(NamedTuple):
    """A figure and what it is in resamples, (n_resamples,) float64; or with ends that were computed."""

    value: float
    resamples: Floats
    computed: Interval | None = None


def segments_of(rows: LabelledRows) -> Iterator[tuple[str, Flags]]:
    """The segments by name, with the rows that belong to each: all, bands of amount, hours (UTC), new and known."""
    yield ALL, np.ones(len(rows), dtype=np.bool_)
    band = np.searchsorted(np.array(AMOUNT_EDGES_MINOR), rows.amount_minor, side="right")
    edges = [0, *AMOUNT_EDGES_MINOR]
    for place, low in enumerate(edges):
        high = f" to {edges[place + 1] / 100:g}" if place + 1 < len(edges) else " and more"
        yield f"amount:{low / 100:g}{high}", band == place
    quarter = rows.event_time_us % US_PER_DAY // (6 * US_PER_HOUR)
    for place in range(4):
        yield f"hours:{6 * place:02} to {6 * place + 6:02}", quarter == place
    is_new = rows.events_known < NEW_EVENTS
    yield "customer:new", is_new
    yield "customer:known", ~is_new


def measure(
    rows: LabelledRows,
    rng: np.random.Generator,
    *,
    n_resamples: int = RESAMPLES,
    review_cost_minor: int = REVIEW_COST_MINOR,
) -> list[Measured]:
    """Every figure of one model for a window, by segment; segments without a decision are left out.

    Args:
        rows: Its decisions, or its scores in shadow: these have no figures of outcomes.
        rng: Decides on resamples.
        n_resamples: How many.
        review_cost_minor: What a review costs, minor units.
    """
    counted = rows.take(~rows.known_first)
    found: list[Measured] = []
    for name, chosen in segments_of(counted):
        if chosen.any():
            found += _measured(name, counted.take(chosen), rng, n_resamples, review_cost_minor)
    return found


def _measured(
    segment: str, rows: LabelledRows, rng: np.random.Generator, n_resamples: int, review_cost_minor: int
) -> Iterator[Measured]:
    n_rows, n_frauds = int(rows.is_labelled.sum()), int(rows.is_fraud.sum())
    drawn = _outcome_figures(rows, rng, n_resamples, review_cost_minor) | _rank_figures(segment, rows, rng, n_resamples)
    for metric, figure in drawn.items():
        if isinstance(figure, str):
            yield Measured(segment, metric, None, None, None, n_rows, n_frauds, figure)
            continue
        ends = figure.computed or interval(figure.resamples, CONFIDENCE)
        low, high = (None, None) if np.isnan(ends.low) else (ends.low, ends.high)
        yield Measured(segment, metric, figure.value, low, high, n_rows, n_frauds, "")


def _outcome_figures(
    rows: LabelledRows, rng: np.random.Generator, n_resamples: int, review_cost_minor: int
) -> dict[Metric, _Drawn | str]:
    """Figures that are sums over decisions, or ratios of sums: drawn by weighing the sums of customers."""
    labelled, fraud = rows.is_labelled, rows.is_fraud
    genuine = labelled & ~fraud
    approved, declined = rows.outcome == _APPROVE, rows.outcome == _DECLINE
    reviewed = rows.outcome == _REVIEW
    alerted = declined | reviewed
    amount = rows.amount_minor.astype(np.float64)
    columns = {
        "rows": np.ones(len(rows)),
        "labelled": labelled,
        "frauds": fraud,
        "declined": declined & labelled,
        "declined frauds": declined & fraud,
        "alerted": alerted & labelled,
        "alerted frauds": alerted & fraud,
        "missed": np.where(approved & fraud, amount, 0.0),
        "caught": np.where(declined & fraud, amount, 0.0),
        "declined genuine": np.where(declined & genuine, amount, 0.0),
        "reviews": reviewed * float(review_cost_minor),
        "scores": np.where(labelled, rows.score, 0.0),
        "errors": np.where(labelled, (rows.score - fraud) ** 2, 0.0),
    }
    of = dict(zip(columns, _drawn_totals(rows.customer, list(columns.values()), rng, n_resamples), strict=True))

    def ratio(above: str, below: str, note: str) -> _Drawn | str:
        return _drawn(of[above], of[below]) if of[below][0] > 0 else note

    found: dict[Metric, _Drawn | str] = {
        Metric.LABELLED: ratio("labelled", "rows", NO_LABELS),
        Metric.FRAUD_RATE: ratio("frauds", "labelled", NO_LABELS),
        Metric.CALIBRATION_RATIO: ratio("frauds", "scores", NO_LABELS),
    }
    rate = np.divide(of["frauds"], of["labelled"], out=np.zeros_like(of["frauds"]), where=of["labelled"] > 0)
    chance = of["labelled"] * rate * (1.0 - rate)
    if chance[0] > 0:
        share = _drawn(of["errors"], chance)
        found[Metric.BRIER_SKILL] = _Drawn(1.0 - share.value, 1.0 - share.resamples)
    else:
        found[Metric.BRIER_SKILL] = _one_class(rows)
    if (rows.outcome == NO_DECISION).all():
        return found
    found |= {
        Metric.RECALL_DECLINE: ratio("declined frauds", "frauds", NO_FRAUDS),
        Metric.PRECISION_DECLINE: ratio("declined frauds", "declined", NONE_DECLINED),
        Metric.RECALL_ALERT: ratio("alerted frauds", "frauds", NO_FRAUDS),
        Metric.PRECISION_ALERT: ratio("alerted frauds", "alerted", NONE_ALERTED),
    }
    for metric, name in (
        (Metric.MISSED, "missed"),
        (Metric.CAUGHT, "caught"),
        (Metric.DECLINED_GENUINE, "declined genuine"),
        (Metric.REVIEW_COST, "reviews"),
    ):
        found[metric] = _Drawn(float(of[name][0]), of[name][1:])
    return found


def _rank_figures(
    segment: str, rows: LabelledRows, rng: np.random.Generator, n_resamples: int
) -> dict[Metric, _Drawn | str]:
    """Figures of the order of scores; intervals, cards and the slope only for all transactions."""
    judged = rows.take(rows.is_labelled)
    whole = segment == ALL
    metrics = [Metric.AUC, Metric.AVERAGE_PRECISION]
    if whole:
        metrics += [Metric.CARD_PRECISION, Metric.CALIBRATION_SLOPE]
    note = _one_class(judged)
    if note:
        return dict.fromkeys(metrics, note)
    ranking = Ranking(Outcomes(judged.event_time_us, judged.customer, judged.is_fraud), judged.score)
    quality = ranking.quality(top_cards=TOP_CARDS)
    draws = min(n_resamples, FEW_RESAMPLES) if len(judged) >= MANY_ROWS else n_resamples
    drawn = resampled({segment: ranking}, draws if whole else 0, rng)[segment]
    found: dict[Metric, _Drawn | str] = {
        Metric.AUC: _Drawn(quality.auc, drawn[:, 0]),
        Metric.AVERAGE_PRECISION: _Drawn(quality.average_precision, drawn[:, 1]),
    }
    if whole:
        found[Metric.CARD_PRECISION] = _Drawn(quality.card_precision, drawn[:, 2])
        slope = calibration_slope(judged.score, judged.is_fraud, judged.customer)
        found[Metric.CALIBRATION_SLOPE] = (
            ONE_SCORE if np.isnan(slope.value) else _Drawn(slope.value, np.empty(0), slope.ends)
        )
    return found


def _one_class(rows: LabelledRows) -> str:
    """Why there are no two classes; empty if there are."""
    n_rows, n_frauds = int(rows.is_labelled.sum()), int(rows.is_fraud.sum())
    if n_rows == 0:
        return NO_LABELS
    if n_frauds == 0:
        return NO_FRAUDS
    return NO_GENUINE if n_frauds == n_rows else ""


def _drawn_totals(
    customer: NDArray[np.int64], columns: list[NDArray[Any]], rng: np.random.Generator, n_resamples: int
) -> list[Floats]:
    """For each column its total, and behind it its totals in resamples: (1 + n_resamples,) float64."""
    customers, code = np.unique(customer, return_inverse=True)
    count = len(customers)
    sums = np.stack([np.bincount(code, weights=column, minlength=count) for column in columns], axis=1)
    totals = np.empty((1 + n_resamples, len(columns)))
    totals[0] = sums.sum(axis=0)
    for place in range(1, 1 + n_resamples):
        totals[place] = np.bincount(rng.integers(0, count, count), minlength=count) @ sums
    return list(totals.T)


def _drawn(above: Floats, below: Floats) -> _Drawn:
    """A ratio of totals; NaN in resamples where there is nothing to divide by."""
    values = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    return _Drawn(float(values[0]), values[1:])
