"""How fast the simulator draws, what it holds in memory, and how hard its fraud is to find.

Quality is that of rules and of a shallow XGBoost on the features of `card-v1`. Both see what a bank would: features
know a label only when the view lets them, and the model is trained on what was labelled by the end of its training
window plus a gap; what nobody found out by then counts as genuine. They are judged by the truth, which only a
simulator has. AP is average precision; CP@100 the share of compromised cards among the hundred most suspicious of a
day, mean over days.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Report
from shared.domain.feature_columns import transform_many
from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_DAY
from simulator.changes import NewPattern, Scenario, Span
from simulator.config import WorldConfig
from simulator.exports import export
from simulator.history import History, history_of
from simulator.wire import Disturbance, disturbed
from simulator.world import World

ROOT: Final = Path(__file__).resolve().parents[1]
DAYS: Final = 110
SEEDS: Final = (7, 8, 9)
TRAIN: Final = (60, 135)
TEST: Final = (150, 180)
"""Days of training and of test; between them lies a gap in which labels come in."""

MODEL: Final = {
    "n_estimators": 100,
    "max_depth": 4,
    "learning_rate": 0.1,
    "tree_method": "hist",
    "max_bin": 1024,
    "base_score": 0.5,
    "n_jobs": 1,
}
"""Nothing of it was tuned on the simulator; `base_score` and `max_bin` as the Handbook's data want them."""

type Floats = NDArray[np.float64]
type Flags = NDArray[np.bool_]


def run() -> Report:
    """The figures."""
    report = Report("simulator")
    add_speed(report)
    add_memory(report)
    add_quality(report)
    add_new_pattern(report)
    return report


def add_speed(report: Report) -> None:
    """Drawing, files and wire events."""
    world = World.create(WorldConfig(), np.random.default_rng(SEEDS[0]))
    started = time.process_time()
    count = sum(len(batch) for batch in world.days(0, DAYS))
    seconds = (time.process_time() - started) * 1e6 / count
    note = f"{count:,} drawn in {DAYS} days of 5,000 cardholders, truth and labels included"
    report.add("a million transactions", seconds, "CPU s", aim=60, better="lower", note=note)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        export(world, 0, DAYS, Path(folder))
        seconds = (time.process_time() - started) * 1e6 / count
    report.add("a million transactions as Parquet", seconds, "CPU s", aim=60, better="lower", note="drawing included")
    batch = next(world.days(0, 1))
    bad = Disturbance(repeated=0.1, conflicting=0.01, late=0.02, malformed=0.01, shuffle_s=60)
    started = time.process_time()
    events = disturbed(batch, bad, np.random.default_rng(1))
    rate = len(events) / (time.process_time() - started)
    note = "bodies with 10 % repeats, late, conflicting and malformed ones"
    report.add("wire events", rate, "per CPU s", aim=10_000, note=note)


def add_memory(report: Report) -> None:
    """Peak memory of a process that draws and keeps nothing, for few days and for many."""
    few, many = _peak_mb(DAYS), _peak_mb(10 * DAYS)
    report.add(f"peak memory, {DAYS} days", few, "MB", aim=200, better="lower", note="interpreter and numpy included")
    note = f"ten times the days; growth {many - few:.0f} MB"
    report.add(f"peak memory, {10 * DAYS:,} days", many, "MB", aim=220, better="lower", note=note)


def _peak_mb(n_days: int) -> float:
    command = [sys.executable, "-m", "benchmarks.bench_simulator", str(n_days)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A world's training and test rows.

    Attributes:
        features: (n, n_features) float32.
        scenario: (n,) int8, the truth.
        labelled: (n,) bool, fraud as far as labels said before the test began.
        day: (n,) int64, 0 for the world's first.
        customer: (n,) int64.
    """

    features: NDArray[np.float32]
    scenario: NDArray[np.int8]
    labelled: Flags
    day: NDArray[np.int64]
    customer: NDArray[np.int64]

    @property
    def truth(self) -> Flags:
        """(n,) bool, whether it was fraud."""
        is_fraud: Flags = self.scenario != Scenario.GENUINE
        return is_fraud

    @classmethod
    def of(cls, seed: int, config: WorldConfig) -> Case:
        """Draw a world and compute its features."""
        world = World.create(config, np.random.default_rng(seed))
        history = history_of(world, 0, TEST[1])
        day = history.transactions.event_time_us // US_PER_DAY - world.config.first_day
        features = transform_many(CARD_V1, history.transactions, history.labels)
        before_us = world.config.first_us + TEST[0] * US_PER_DAY
        labelled = labelled_by(history, before_us)
        return cls(features, history.scenario, labelled, day, history.transactions.customer)

    def within(self, days: tuple[int, int]) -> Flags:
        """Rows of some days."""
        first, last = days
        return (first <= self.day) & (self.day < last)

    def column(self, name: str) -> Floats:
        """A feature in the test rows; what is missing is less than everything."""
        values = self.features[self.within(TEST), CARD_V1.names.index(name)].astype(np.float64)
        return np.where(np.isnan(values), -1.0, values)


def labelled_by(history: History, before_us: int) -> Flags:
    """(n,) bool: whether the strongest label known before a time says fraud; no label says genuine."""
    labels = history.labels
    known = np.flatnonzero(labels.known_at_us < before_us)
    by_strength = known[
        np.lexsort((labels.is_fraud[known], labels.confidence[known], labels.known_at_us[known], labels.source[known]))
    ]
    said = np.zeros(len(history.scenario), dtype=np.bool_)
    said[labels.row[by_strength]] = labels.is_fraud[by_strength]  # the last of a row's labels holds
    return said


def add_quality(report: Report) -> None:
    """What rules and a model reach, mean over seeds."""
    found: dict[str, list[tuple[float, float]]] = {}
    rates = []
    for seed in SEEDS:
        case = Case.of(seed, WorldConfig())
        test = case.within(TEST)
        rates.append(float(case.truth[test].mean()))
        for name, scores in scored(case):
            ap = average_precision(case.truth[test], scores)
            cp = card_precision(case.truth[test], scores, case.customer[test], case.day[test])
            found.setdefault(name, []).append((ap, cp))
    seeds = f"mean of {len(SEEDS)} worlds"
    report.add("fraud rate in the test days", 100 * float(np.mean(rates)), "%", note=seeds)
    singles = {name: float(np.mean([ap for ap, _ in found[name]])) for name in CARD_V1.names}
    best = max(singles, key=lambda name: singles[name])
    model_ap = float(np.mean([ap for ap, _ in found["model"]]))
    spread = ", ".join(f"{ap:.2f}" for ap, _ in found["model"])
    report.add("AP of a shallow XGBoost on card-v1", model_ap, "", aim=0.5, note=f"not hopeless; worlds: {spread}")
    report.add("the same", model_ap, "", aim=0.8, better="lower", note="not trivial")
    for title, name in (
        (f"AP of the best single feature, {best}", best),
        ("AP of an amount threshold", "amount"),
        ("AP of the amount beside the card's median", "amount_to_median_30d"),
        ("AP of a count burst (count of a day)", "customer_count_1d"),
        ("AP of count of a day times amount beside median", "burst"),
    ):
        report.add(title, float(np.mean([ap for ap, _ in found[name]])), "", aim=0.3, better="lower", note=seeds)
    for title, name in (("CP@100 of the model", "model"), ("CP@100 of the best single feature", best)):
        report.add(title, float(np.mean([cp for _, cp in found[name]])), "", note=seeds)
    perfect = float(np.mean([cp for _, cp in found["perfect"]]))
    report.add("CP@100 of a perfect model", perfect, "", note="fewer than 100 cards a day are compromised")


def scored(case: Case) -> Iterator[tuple[str, Floats]]:
    """Scores of the test rows by model, rule and truth."""
    test = case.within(TEST)
    yield "model", modelled(case)
    for name in CARD_V1.names:
        yield name, case.column(name)
    yield "burst", case.column("customer_count_1d") * case.column("amount_to_median_30d")
    yield "perfect", case.truth[test].astype(np.float64)


def modelled(case: Case) -> Floats:
    """Scores of the test rows by a model of the training rows and their labels."""
    xgboost: Any = importlib.import_module("xgboost")
    train, test = case.within(TRAIN), case.within(TEST)
    model = xgboost.XGBClassifier(**MODEL)
    model.fit(case.features[train], case.labelled[train])
    scores: Floats = model.predict_proba(case.features[test])[:, 1].astype(np.float64)
    return scores


def add_new_pattern(report: Report) -> None:
    """How blind a model is to a pattern that began with the test days, and how well it sees one it was trained on."""
    for begun, title in ((TEST[0], "not in training"), (TRAIN[0], "in training")):
        begins = WorldConfig().first_date + timedelta(days=begun)
        case = Case.of(SEEDS[0], WorldConfig(changes=(NewPattern(Span(begins), 0.5),)))
        scores, scenario = modelled(case), case.scenario[case.within(TEST)]
        alerts = scores >= np.quantile(scores, 0.99)
        new = scenario == Scenario.GIFT_CARDS
        old = (scenario != Scenario.GENUINE) & ~new
        note = f"1 % alerts; {int(new.sum()):,} new frauds, recall of the others {float(alerts[old].mean()):.2f}"
        report.add(f"recall of a new pattern, {title}", float(alerts[new].mean()), "", note=note)


def average_precision(truth: Flags, scores: Floats) -> float:
    """Precision at each recall, weighted by the step in recall; rows of equal score count together."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.append(np.diff(scores[order]) != 0, True)
    precision = (hits / np.arange(1, len(hits) + 1))[last]
    recall = hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def card_precision(truth: Flags, scores: Floats, customer: NDArray[np.int64], day: NDArray[np.int64]) -> float:
    """Compromised among the 100 cards with the greatest score of a day, mean over days."""
    found = []
    for today in np.unique(day):
        rows = day == today
        cards, place = np.unique(customer[rows], return_inverse=True)
        greatest = np.full(len(cards), -np.inf)
        np.maximum.at(greatest, place, scores[rows])
        compromised = np.zeros(len(cards), dtype=np.bool_)
        np.logical_or.at(compromised, place, truth[rows])
        found.append(compromised[np.argsort(-greatest, kind="stable")[:100]].mean())
    return float(np.mean(found))


def main() -> None:
    """Draw so many days, keep none, print the peak resident memory in MB."""
    world = World.create(WorldConfig(), np.random.default_rng(SEEDS[0]))
    for _ in world.days(0, int(sys.argv[1])):
        pass
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    print(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024)


if __name__ == "__main__":
    main()
