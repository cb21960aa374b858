"""What decisions cost on the Handbook's transactions: by fixed thresholds, and by expected loss.

A missed fraud costs its amount, a review 5; four test weeks, as in `bench_quality`. The model learns from 75 days, is
calibrated on the 14 days after a week's gap, and is tested after another; every threshold and shadow price is chosen on
the calibration span. What is chosen with hindsight is marked so: it bounds what any choice could have reached.
Figures are for the test set of the book (cards with a known fraud leave) and for all transactions, as a deployment
sees them. Intervals are 95 % over resampled customers, differences paired.

`python -m benchmarks.bench_cost --quick` runs one week and few resamples.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_features import load
from benchmarks.bench_quality import (
    BOOK,
    CONFIDENCE,
    DEFAULTS,
    FIRST_DAYS,
    LONG,
    QUICK_RESAMPLES,
    RESAMPLES,
    TITLES,
    WEEK,
    Data,
    fitted,
)
from benchmarks.report import Report
from shared.adapters.onnx_scorer import OnnxGraph
from shared.adapters.xgboost_trainer import XgboostTrainer
from shared.domain.calibration_fit import fit_calibration
from shared.domain.cost_policy import CostPolicy, Costs, fit_capacity
from shared.domain.decision import STRICTNESS, Outcome
from shared.domain.evaluation import Interval, interval
from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import MATURITY_US
from shared.domain.promotion_comparison import resampled_weights
from shared.domain.registry_curves import thresholds_of
from shared.domain.training_model import Rows, TrainingParameters
from shared.domain.training_split import TrainingPlan

CALIBRATION_DAYS: Final = TrainingPlan(as_of_us=0).calibration_days
PRICED_DAYS: Final = TrainingPlan(as_of_us=0).test_days
CAPACITIES: Final = (25, 50, 100)
"""Transactions a day that can be reviewed."""

ALERTS: Final = Costs(review_minor=500, declines=False)
"""The costs of the aims: all that is suspicious is reviewed."""

GOODWILL: Final = (500, 2_000, 10_000)
"""What a wrong decline may cost beside its margin, minor units."""

FIXED: Final = (0.3, 0.8)
"""The thresholds that `fixed-v1` has unless it is told others."""

AIM_SAVING: Final = 40.0
HALF: Final = "threshold .5"
OPTIMAL: Final = "cost-optimal threshold"
EXPECTED: Final = "expected-loss-v1"
THRESHOLDS: Final = (HALF, "threshold of the best F1", "threshold of precision .75", OPTIMAL)

BOOKS_SET: Final = "the book's test set"
EVERYTHING: Final = "all transactions"

_APPROVE, _REVIEW, _DECLINE = (np.int8(STRICTNESS.index(outcome)) for outcome in Outcome)

type Floats = NDArray[np.float64]
type Flags = NDArray[np.bool_]
type Places = NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Transactions with their scores and what came of them: columns of one length.

    Calibrated scores decide; the raw ones rank, because they have fewer ties.
    """

    probability: Floats
    raw: Floats
    amount_minor: NDArray[np.int64]
    is_fraud: Flags
    customer: NDArray[np.int64]
    day: NDArray[np.int64]

    def part(self, chosen: Flags) -> Span:
        return Span(
            self.probability[chosen],
            self.raw[chosen],
            self.amount_minor[chosen],
            self.is_fraud[chosen],
            self.customer[chosen],
            self.day[chosen],
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """What policies came to cost: by name, (n_customers,) minor units, and by week."""

    n_customers: int
    by_customer: dict[str, Floats] = field(default_factory=dict)
    by_week: dict[str, list[float]] = field(default_factory=dict)
    reviews: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, span: Span, outcomes: Places, costs: Costs) -> None:
        incurred = costs.incurred(outcomes, span.is_fraud, span.amount_minor)
        found = np.bincount(span.customer, weights=incurred, minlength=self.n_customers)
        self.by_customer[name] = self.by_customer.get(name, 0.0) + found
        self.by_week.setdefault(name, []).append(float(found.sum()))
        self.reviews[name] = self.reviews.get(name, 0) + int((outcomes == _REVIEW).sum())

    def total(self, name: str) -> float:
        """In whole units of the currency."""
        return float(self.by_customer[name].sum()) / 100

    def saving(self, name: str, against: str) -> float:
        """Percent."""
        return 100 * (1 - self.total(name) / self.total(against))

    def saving_ends(self, name: str, against: str, n_resamples: int) -> Interval:
        """Its interval, percent."""
        rng = np.random.default_rng(20185)
        pair = np.stack([self.by_customer[name], self.by_customer[against]], axis=1)
        draws = np.stack([resampled_weights(self.n_customers, rng) @ pair for _ in range(n_resamples)])
        return interval(100 * (1 - draws[:, 0] / draws[:, 1]), CONFIDENCE)


def scores_of(data: Data, calibrated_from: int) -> Callable[[NDArray[np.intp]], Span]:
    """A model that is calibrated on the days from one on and has learnt from those before: what scores rows."""
    learnt = data.learnt_from(calibrated_from, LONG)
    model = XgboostTrainer().fit(Rows(data.vectors[learnt], data.is_fraud[learnt]), None, TrainingParameters())
    graph = OnnxGraph(model.model, len(CARD_V1.features))
    before = data.between(calibrated_from, calibrated_from + CALIBRATION_DAYS)
    table = fit_calibration(graph.raw(data.vectors[before]), data.is_fraud[before])

    def scored(rows: NDArray[np.intp]) -> Span:
        outputs = graph.raw(data.vectors[rows])
        return Span(
            table.probability_many(outputs),
            outputs.astype(np.float64),
            data.transactions.amount_minor[rows],
            data.is_fraud[rows],
            data.transactions.customer[rows],
            data.day[rows],
        )

    return scored


def week_of(data: Data, first_day: int) -> tuple[Span, Span, Flags]:
    """The calibration span and the test week, both scored, and which of the week the book tests on."""
    calibrated_from = first_day - WEEK - CALIBRATION_DAYS
    scored = scores_of(data, calibrated_from)
    tested = data.between(first_day, first_day + WEEK)
    before = data.between(calibrated_from, calibrated_from + CALIBRATION_DAYS)
    return scored(before), scored(tested), np.isin(tested, data.tested_on(first_day))


def came_later(data: Data, first_day: int) -> list[int]:
    """Reviews of a test week by prices as a retraining fits them: to a test span that ended a maturity before."""
    priced_to = first_day - round(MATURITY_US / US_PER_DAY)
    priced_from = priced_to - PRICED_DAYS
    scored = scores_of(data, priced_from - WEEK - CALIBRATION_DAYS)
    priced, week = scored(data.between(priced_from, priced_to)), scored(data.between(first_day, first_day + WEEK))
    fits = (
        fit_capacity(ALERTS, priced.probability, priced.amount_minor, days=PRICED_DAYS, reviews_per_day=n)
        for n in CAPACITIES
    )
    return [int((fit.outcomes(week.probability, week.amount_minor) == _REVIEW).sum()) for fit in fits]


def chosen_thresholds(span: Span) -> dict[str, float]:
    """The peers' thresholds, from the calibration span."""
    curve = thresholds_of(span.probability, span.is_fraud, span.amount_minor)
    precision, recall = curve.precision, curve.recall
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    precise = np.flatnonzero(precision >= 0.75)
    places = (int(np.argmax(f1)), int(precise[-1]), int(np.argmin(curve.cost_minor(ALERTS.review_minor))))
    return dict(zip(THRESHOLDS, (0.5, *(float(curve.score[place]) for place in places)), strict=True))


def reviewed(flags: Flags) -> Places:
    """Those are reviewed, the others approved."""
    return np.where(flags, _REVIEW, _APPROVE)


def first_of_each_day(span: Span, order: Floats, wanted: Flags, n: int) -> Flags:
    """The n transactions of each day that come first by a falling order, of those that are wanted at all."""
    taken = np.zeros(len(order), dtype=np.bool_)
    for day in np.unique(span.day):
        rows = np.flatnonzero((span.day == day) & wanted)
        taken[rows[np.argsort(-order[rows], kind="stable")[:n]]] = True
    return taken


def best_bar(span: Span) -> Places:
    """With hindsight: the best of all bars for the expected loss of an approval."""
    saved = span.probability * span.amount_minor
    order = np.argsort(-saved, kind="stable")
    missed = np.where(span.is_fraud, span.amount_minor, 0)[order]
    costs = np.concatenate(([0], np.cumsum(ALERTS.review_minor - missed)))
    outcomes = np.full(len(order), _APPROVE)
    outcomes[order[: int(np.argmin(costs))]] = _REVIEW
    return outcomes


def add_alerts(tally: Tally, before: Span, week: Span) -> None:
    """Approve or review, with any number of reviews, and with so many a day."""
    thresholds = chosen_thresholds(before)
    policy = CostPolicy(ALERTS)
    tally.add("no reviews", week, reviewed(np.zeros(len(week.day), dtype=np.bool_)), ALERTS)
    for name, threshold in thresholds.items():
        tally.add(name, week, reviewed(week.probability >= threshold), ALERTS)
    tally.add(EXPECTED, week, policy.outcomes(week.probability, week.amount_minor), ALERTS)
    tally.add("the best bar with hindsight", week, best_bar(week), ALERTS)
    worth = week.is_fraud & (week.amount_minor > ALERTS.review_minor)
    tally.add("who knows all frauds", week, reviewed(worth), ALERTS)
    days = len(np.unique(before.day))
    saved, worth_it = week.probability * week.amount_minor, week.probability >= thresholds[OPTIMAL]
    ranked_before = np.sort(before.raw[before.probability >= thresholds[OPTIMAL]])[::-1]
    for n in CAPACITIES:
        first = first_of_each_day(week, saved, saved > ALERTS.review_minor, n)
        tally.add(f"{n} by saving", week, reviewed(first), ALERTS)
        tally.add(f"{n} by score", week, reviewed(first_of_each_day(week, week.raw, worth_it, n)), ALERTS)
        fit = fit_capacity(ALERTS, before.probability, before.amount_minor, days=days, reviews_per_day=n)
        tally.add(f"{n} by shadow price", week, fit.outcomes(week.probability, week.amount_minor), ALERTS)
        threshold = ranked_before[n * days] if n * days < len(ranked_before) else -np.inf
        tally.add(f"{n} by threshold", week, reviewed(worth_it & (week.raw > threshold)), ALERTS)


def add_declines(tally: Tally, week: Span) -> None:
    """All three outcomes, for several costs of a wrong decline."""
    low, high = FIXED
    fixed = np.where(week.probability >= high, _DECLINE, np.where(week.probability >= low, _REVIEW, _APPROVE))
    half = np.where(week.probability >= 0.5, _DECLINE, _APPROVE)
    for goodwill in GOODWILL:
        costs = replace(Costs(), goodwill_minor=goodwill)
        policy = CostPolicy(costs)
        tally.add(f"{goodwill} fixed-v1", week, fixed, costs)
        tally.add(f"{goodwill} decline at .5", week, half, costs)
        tally.add(f"{goodwill} {EXPECTED}", week, policy.outcomes(week.probability, week.amount_minor), costs)


def add_peers(tally: Tally, data: Data, first_day: int, week: Span, rows: NDArray[np.intp]) -> None:
    """Review from an output of .5 on, by the models that others publish or get by default."""
    for name, score in fitted(data, first_day, (BOOK, DEFAULTS), {}).items():
        tally.add(f".5 of {name}", week, reviewed(score(data.vectors[rows]) >= 0.5), ALERTS)


def run(*, quick: bool = False) -> Report:
    """The figures."""
    report = Report("cost")
    transactions, labels, source = load()
    if source.startswith("SYNTHETIC"):
        report.add("transactions", len(labels.row), "rows", note="NOT measured: the Handbook file is not here")
        return report
    started = time.process_time()
    data = Data.of(transactions, labels)
    first_days = [int(np.datetime64(day).astype(np.int64)) for day in (FIRST_DAYS[:1] if quick else FIRST_DAYS)]
    n_resamples = QUICK_RESAMPLES if quick else RESAMPLES
    n_customers = int(transactions.customer.max()) + 1
    tallies = {BOOKS_SET: Tally(n_customers), EVERYTHING: Tally(n_customers)}
    for first_day in first_days:
        before, week, in_book = week_of(data, first_day)
        rows = data.between(first_day, first_day + WEEK)
        for name, tally in tallies.items():
            kept = in_book if name == BOOKS_SET else np.ones_like(in_book)
            add_alerts(tally, before, week.part(kept))
            add_declines(tally, week.part(kept))
            add_peers(tally, data, first_day, week.part(kept), rows[kept])
    note = f"{source}; {len(first_days)} test weeks; intervals are 95 % over {n_resamples} resamples of customers"
    report.add("transactions", len(data.day), "rows", note=note)
    for name, tally in tallies.items():
        report_alerts(report, name, tally, n_resamples)
    report_capacity(report, tallies[EVERYTHING], n_resamples, len(first_days) * WEEK)
    report_declines(report, tallies[EVERYTHING], n_resamples)
    if not quick:
        report_age(report, data, first_days)
    report.add("processor time of all of it", time.process_time() - started, "s", aim=600, better="lower")
    return report


def report_alerts(report: Report, name: str, tally: Tally, n_resamples: int) -> None:
    """What each policy costs with any number of reviews."""
    for policy in ("no reviews", *THRESHOLDS, EXPECTED, "the best bar with hindsight", "who knows all frauds"):
        weeks = " ".join(f"{week / 100:,.0f}" for week in tally.by_week[policy])
        note = f"{tally.saving(policy, HALF):+.1f} % against {HALF}; {tally.reviews[policy]:,} reviews; weeks {weeks}"
        report.add(f"{name}: loss, {policy}", tally.total(policy), "", note=note)
    against = {
        HALF: AIM_SAVING,
        OPTIMAL: None,
        f".5 of {BOOK}": None,
        f".5 of {DEFAULTS}": None,
    }
    titles = {f".5 of {model}": f".5 of: {TITLES[model]}" for model in (BOOK, DEFAULTS)}
    for peer, aim in against.items():
        low, high = tally.saving_ends(EXPECTED, peer, n_resamples)
        most = tally.saving("the best bar with hindsight", peer)
        note = f"{low:.1f} to {high:.1f}; with hindsight at most {most:.1f}"
        saving = tally.saving(EXPECTED, peer)
        report.add(f"{name}: saved against {titles.get(peer, peer)}", saving, "%", aim=aim, note=note)


def report_capacity(report: Report, tally: Tally, n_resamples: int, days: int) -> None:
    """Equal capacity: ranked within a day, and by what was fitted before."""
    for n in CAPACITIES:
        for ours, theirs, how in (
            (f"{n} by saving", f"{n} by score", "ranking each day by score"),
            (f"{n} by shadow price", f"{n} by threshold", "a threshold on the score, both fitted before"),
        ):
            low, high = tally.saving_ends(ours, theirs, n_resamples)
            each = f"{tally.reviews[ours] / days:.1f} and {tally.reviews[theirs] / days:.1f} reviews a day"
            losses = f"loss {tally.total(ours):,.0f} and {tally.total(theirs):,.0f}"
            note = f"{low:.1f} to {high:.1f}; {losses}; {each}"
            name = f"{n} reviews a day: saved against {how}"
            report.add(name, tally.saving(ours, theirs), "%", aim=0.0 if "each day" in how else None, note=note)


def report_declines(report: Report, tally: Tally, n_resamples: int) -> None:
    """All three outcomes."""
    for goodwill in GOODWILL:
        ours = f"{goodwill} {EXPECTED}"
        for peer in ("fixed-v1", "decline at .5"):
            theirs = f"{goodwill} {peer}"
            low, high = tally.saving_ends(ours, theirs, n_resamples)
            losses = f"loss {tally.total(ours):,.0f} and {tally.total(theirs):,.0f}"
            reviews = f"{tally.reviews[ours]:,} and {tally.reviews[theirs]:,} reviews"
            name = f"a wrong decline costs {goodwill / 100:.0f} and 2 %: saved against {peer}"
            note = f"{low:.1f} to {high:.1f}; {losses}; {reviews}"
            report.add(name, tally.saving(ours, theirs), "%", note=note)


def report_age(report: Report, data: Data, first_days: list[int]) -> None:
    """How many reviews come by a price that is as old as a retraining leaves it."""
    weeks = np.array([came_later(data, first_day) for first_day in first_days])
    for n, counts in zip(CAPACITIES, weeks.T.tolist(), strict=True):
        each = " ".join(f"{count / WEEK:.1f}" for count in counts)
        note = f"fitted to {PRICED_DAYS} days that ended {MATURITY_US / US_PER_DAY:.0f} days before; weeks {each}"
        report.add(f"reviews a day that came for {n}", sum(counts) / (WEEK * len(counts)), "", note=note)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one test week, few resamples")
    run(quick=parser.parse_args().quick).finish()
