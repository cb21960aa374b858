"""How often the watch for drift wakes somebody for nothing, how soon it finds drift, and what it costs, beside peers.

Streams are worlds of the simulator (5,000 cardholders, about 350 transactions an hour) and random halves of the
Handbook's cardholders (about 200 an hour), one for each seed, see `drift_streams`. False alarms are hours with a
verdict of drift among 336 in which nothing was ordered to change; seasons, salary days and incidents of fraud go on as
they do. Delay counts from the hour from which all amounts are multiplied, any hour of the day, to the end of the hour
whose verdict is drift.

A new pattern of fraud (gift cards, as many as all other frauds) begins on a day; its labels count as mature 30 days
later, as the truth says. Delay counts from the beginning of the first matured day. False alarms are hours with concept
drift of the 22 days before. The rule was tuned on seeds 101 to 110; the seeds here begin at 111.

Peers see the same features in the same hours with their own defaults: Evidently's drift preset, and NannyML's
univariate calculator with its default methods and thresholds, fitted on the reference, a chunk an hour. Evidently takes
seconds a window, so it sees some of them. NannyML pins a browser that it does not need here, so it is installed without
that into an environment of its own (`build/bench`), with a library that it needs and does not name; where that fails,
it is left out and the note says why.

By default there are 2 seeds, and 6 of a new pattern; `python -m benchmarks.bench_drift --seeds 20` is the long form of
half an hour on two idle cores. `--part` runs one part, `--customers` makes the worlds of the new pattern larger,
`--workers 1` leaves the other core alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import xgboost
from numpy.typing import NDArray

from benchmarks.drift_streams import (
    END,
    HOURS_PER_DAY,
    JUDGED,
    LEARNT,
    REFERENCE,
    Stream,
    Watch,
    handbook,
    reference_of,
    simulated,
)
from benchmarks.report import Report
from shared.domain.bundle_reference import SCORE, Reference, histogram_of
from shared.domain.drift_counts import DecidedRows, hour_counts
from shared.domain.drift_performance import (
    USUAL_DAYS,
    Decline,
    Estimate,
    Figure,
    MaturedRows,
    PerformancePolicy,
    declines,
    figures,
    may_have_fallen,
    missed,
    spread,
)
from shared.domain.drift_policy import Clusters, Watched, measure
from shared.domain.feature_view import CARD_V1
from shared.services.drift_check import MATURED_DAYS
from simulator.changes import NewPattern, Span
from simulator.config import WorldConfig

SEEDS: Final = 2
PATTERN_SEEDS: Final = 6
"""Worlds with a new pattern at least; they are the cheapest, and one says little."""

PATTERN_FIRST: Final = 111
"""The first of their seeds; those from 101 were used to choose the rule."""

PARTS: Final = ("scale", "simulator", "handbook", "pattern", "peers")
FACTORS: Final = (1.5, 1.2)
WITHIN_H: Final = {1.5: 3, 1.2: 24}
QUIET_HOURS: Final = (END - JUDGED) * HOURS_PER_DAY
PEER_QUIET: Final = 6
"""Quiet hours that Evidently sees, one in 56."""

SCALE_ROWS: Final = 1_000_000
SCALE_FEATURES: Final = 30
PIECE: Final = 20_000

TESTED: Final = (76, 104)
PROMOTED: Final = 76
CONCEPT_JUDGED: Final = 112
CHANGED: Final = 134
FOLLOWED: Final = 8
"""Days of the worlds with a new pattern: the test that the bundle's figures come from, which are also its first usual
days; from where alarms are counted; on which the pattern begins; and for how long it is followed."""

NANNYML: Final = Path("build/bench/nannyml")

type Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the watch did on one stream.

    Attributes:
        false_hours: Quiet hours with a verdict of drift.
        delays: By factor, hours until drift was found; None if it was not within a day and a half.
    """

    false_hours: int
    delays: dict[float, int | None]


def fitted(stream: Stream, days: tuple[int, int]) -> xgboost.Booster:
    """A model like the product's, learnt from the truth of some days."""
    first, last = (day * HOURS_PER_DAY for day in days)
    rows = np.flatnonzero((stream.hour >= first) & (stream.hour < last))
    settings = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.1, "nthread": 1, "tree_method": "hist"}
    return xgboost.train(settings, xgboost.DMatrix(stream.vectors[rows], stream.is_fraud[rows], nthread=1), 60)


def scored(booster: xgboost.Booster, stream: Stream) -> NDArray[np.float32]:
    """Its outputs."""
    booster.set_param({"nthread": 1})
    found: NDArray[np.float32] = booster.inplace_predict(stream.vectors).astype(np.float32)
    return found


def made(kind: str, seed: int) -> Stream:
    """The stream of a seed."""
    return simulated(seed) if kind == "simulator" else handbook(seed)[0]


def watched(kind: str, seed: int) -> Outcome:
    """One stream: quiet, and with each drift."""
    stream = made(kind, seed)
    booster = fitted(stream, (30, REFERENCE[0]))
    raw = scored(booster, stream)
    watch = Watch(Watched(reference_of(stream, raw), CARD_V1))
    hours = [day * HOURS_PER_DAY for day in (LEARNT, JUDGED, END)]
    for _ in watch.run(stream, raw, range(hours[0], hours[1]), learning=True):
        pass
    start = hours[1] + int(np.random.default_rng(seed).integers(1, HOURS_PER_DAY))
    false_hours, before = 0, watch
    for hour, found in watch.run(stream, raw, range(hours[1], hours[2])):
        false_hours += bool(found)
        if hour == start - 1:
            before = watch.copy()
    delays: dict[float, int | None] = {}
    for factor in FACTORS:
        drifted = stream.with_amounts(factor, start)
        run = before.copy().run(drifted, scored(booster, drifted), range(start, start + 36))
        delays[factor] = next((hour - start + 1 for hour, found in run if found), None)
    return Outcome(false_hours, delays)


@dataclass(frozen=True, slots=True)
class PatternOutcome:
    """What matured labels said in one world with a new pattern.

    Attributes:
        false_hours: Hours with concept drift before it.
        delay: Hours of the new pattern until concept drift was found; None if it was not in the days followed.
        recall_before: Share of frauds found on the quiet days before it.
        recall_after: On the days since.
    """

    false_hours: int
    delay: int | None
    recall_before: float
    recall_after: float


def new_pattern(seed: int, customers: int = 5_000) -> PatternOutcome:
    """Concept drift on matured labels, hour by hour, as the watch judges it."""
    begins = WorldConfig().first_date + timedelta(days=CHANGED)
    stream = simulated(seed, days=CHANGED + FOLLOWED, changes=(NewPattern(Span(begins), 1.0),), customers=customers)
    raw = scored(fitted(stream, (30, TESTED[0])), stream).astype(np.float64)
    columns, policy = stream.columns, PerformancePolicy()
    frauds = np.flatnonzero(stream.is_fraud)
    fraud_hour = stream.hour[frauds]

    def rows(first: int, last: int) -> MaturedRows:
        inside = slice(*np.searchsorted(stream.hour, [first, last]))
        return MaturedRows(raw[inside], stream.is_fraud[inside], columns.customer[inside], columns.terminal[inside])

    def recall(first: int, last: int) -> dict[Figure, Estimate]:
        inside = frauds[slice(*np.searchsorted(fraud_hour, [first, last]))]
        only = MaturedRows(raw[inside], stream.is_fraud[inside], columns.customer[inside], columns.terminal[inside])
        return {Figure.RECALL: figures(only, threshold)[Figure.RECALL]}

    tested = TESTED[0] * HOURS_PER_DAY, TESTED[1] * HOURS_PER_DAY
    threshold = best_threshold(rows(*tested))
    own = recall(*tested)
    days = [
        missed(rows(day * HOURS_PER_DAY, (day + 1) * HOURS_PER_DAY), threshold) for day in range(CHANGED + FOLLOWED)
    ]

    def is_found(hour: int) -> bool:
        found: list[Decline | None] = []
        for length in MATURED_DAYS:
            span = hour + 1 - length * HOURS_PER_DAY, hour + 1
            now = recall(*span)
            found += declines(policy, own, now)
            if length == min(MATURED_DAYS) and may_have_fallen(policy, own, now):
                last = (hour + 1) // HOURS_PER_DAY - max(MATURED_DAYS)
                usual = days[max(PROMOTED, last - USUAL_DAYS) : last]
                found.append(spread(policy, usual, missed(rows(*span), threshold)))
        return any(one is not None for one in found)

    start, end = CHANGED * HOURS_PER_DAY, (CHANGED + FOLLOWED) * HOURS_PER_DAY
    delay = next((hour + 1 - start for hour in range(start, end) if is_found(hour)), None)
    false_hours = sum(is_found(hour) for hour in range(CONCEPT_JUDGED * HOURS_PER_DAY, start))
    before, after = (
        recall(*span)[Figure.RECALL].value for span in ((CONCEPT_JUDGED * HOURS_PER_DAY, start), (start, end))
    )
    return PatternOutcome(false_hours, delay, before, after)


def best_threshold(rows: MaturedRows) -> float:
    """The score whose decisions have the best harmonic mean of precision and recall."""
    order = np.argsort(-rows.score)
    found = np.cumsum(rows.is_fraud[order])
    harmonic = 2 * found / (np.arange(1, len(order) + 1) + rows.is_fraud.sum())
    return float(rows.score[order[int(np.argmax(harmonic))]])


def scale() -> tuple[float, float]:
    """CPU seconds and peak resident MB of counting and measuring an hour of a million rows of thirty features."""
    rng = np.random.default_rng(1)
    known = rng.lognormal(3, 1, (PIECE, SCALE_FEATURES)).astype(np.float32)
    names = CARD_V1.names + tuple(f"more_{place}" for place in range(SCALE_FEATURES - len(CARD_V1.names)))
    time_us = np.arange(PIECE, dtype=np.int64) * 1_000_000
    histograms = {name: histogram_of(known[:, place], time_us) for place, name in enumerate(names)}
    histograms[SCORE] = histogram_of(known[:, 0], time_us)
    reference = Reference(0, 1, histograms)

    def pieces() -> Iterator[DecidedRows]:
        for _ in range(SCALE_ROWS // PIECE):
            yield DecidedRows(
                time_us, known, known[:, 0], np.zeros(PIECE), np.zeros(PIECE, np.int8), np.ones(PIECE, np.bool_)
            )

    started = time.process_time()
    hour = hour_counts(reference, names, 0, pieces())
    measure(Watched(reference, CARD_V1), [hour], Clusters(SCALE_ROWS, SCALE_ROWS * 2, SCALE_ROWS * 9), {}, 1)
    seconds = time.process_time() - started
    if hour.n_rows != SCALE_ROWS:
        raise RuntimeError(f"{hour.n_rows} rows were counted")
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def add_watch(report: Report, kind: str, seeds: int, pool: ProcessPoolExecutor) -> None:
    """False alarms and delays on one kind of stream."""
    outcomes = list(pool.map(partial(watched, kind), range(1, seeds + 1)))
    false = [one.false_hours for one in outcomes]
    note = f"{seeds} seeds; hours of each: {', '.join(map(str, false))}"
    report.add(f"{kind}: false alarms", sum(false) / len(false), "per 336 quiet h", aim=1, better="lower", note=note)
    for factor in FACTORS:
        delays = [one.delays[factor] for one in outcomes]
        known = [one for one in delays if one is not None]
        within = sum(one <= WITHIN_H[factor] for one in known)
        note = f"of each seed: {', '.join('none' if one is None else str(one) for one in delays)}"
        name = f"{kind}: amounts x{factor} found within {WITHIN_H[factor]} h"
        report.add(name, within / len(delays), "of seeds", aim=1, note=note)
        report.add(f"{kind}: amounts x{factor}, median delay", float(np.median(known)) if known else np.nan, "h")


def add_new_pattern(report: Report, seeds: int, customers: int, pool: ProcessPoolExecutor) -> None:
    """Concept drift by a new pattern."""
    chosen = range(PATTERN_FIRST, PATTERN_FIRST + max(seeds, PATTERN_SEEDS))
    outcomes = list(pool.map(partial(new_pattern, customers=customers), chosen))
    delays = [one.delay for one in outcomes]
    for hours in (24, 48):
        within = sum(one is not None and one <= hours for one in delays)
        note = f"{customers} cardholders; hours, by seed from {PATTERN_FIRST}: {', '.join(map(str, delays))}"
        name = f"a new pattern found within {hours} h of its labels' maturity"
        report.add(name, within / len(delays), "of seeds", aim=1 if hours == 24 else None, note=note)
    recalls = np.mean([(one.recall_before, one.recall_after) for one in outcomes], axis=0)
    report.add("recall under the new pattern", float(recalls[1]), "", note=f"{recalls[0]:.2f} before")
    false = [one.false_hours for one in outcomes]
    days = CHANGED - CONCEPT_JUDGED
    mean = sum(false) / len(false) * QUIET_HOURS / (days * HOURS_PER_DAY)
    note = f"hours in {days} quiet days, of each seed: {', '.join(map(str, false))}"
    report.add("concept drift: false alarms", mean, "per 336 quiet h", aim=1, better="lower", note=note)


def add_peers(report: Report, seed: int) -> None:
    """Evidently and NannyML on one stream of the simulator, quiet and with amounts times 1.5."""
    stream = made("simulator", seed)
    start = JUDGED * HOURS_PER_DAY + 12
    drifted = stream.with_amounts(1.5, start)
    edges = [day * HOURS_PER_DAY for day in REFERENCE]
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        parts: tuple[tuple[str, Stream, int, int], ...] = (
            ("reference", stream, edges[0], edges[1]),
            ("quiet", stream, JUDGED * HOURS_PER_DAY, END * HOURS_PER_DAY),
            ("drifted", drifted, start, start + 6),
        )
        for name, one, first, last in parts:
            inside = (one.hour >= first) & (one.hour < last)
            files[name] = f"{folder}/{name}.npz"
            np.savez(files[name], vectors=one.vectors[inside], hour=one.hour[inside])
        for title, python, code in (
            ("Evidently 0.7.23", sys.executable, "evidently"),
            ("NannyML", str(_nannyml() or ""), "nannyml"),
        ):
            if not python:
                report.add(f"{title}: left out", 0, "", note="it could not be installed; see build/bench/nannyml.log")
                continue
            done = subprocess.run(
                [python, str(Path(__file__).with_name("drift_peers.py")), code, folder, str(PEER_QUIET)],
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
                env={**os.environ, "PYTHONWARNINGS": "ignore", "NML_DISABLE_USAGE_LOGGING": "1"},
            )
            if done.returncode:
                report.add(f"{title}: left out", 0, "", note=done.stderr.strip().splitlines()[-1][:200])
                continue
            found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
            seen = f"{found['quiet_seen']} quiet hours seen"
            report.add(f"{title}: any feature drifts", found["any"] * QUIET_HOURS, "per 336 quiet h", note=seen)
            report.add(
                f"{title}: half of the features drift", found["half"] * QUIET_HOURS, "per 336 quiet h", note=seen
            )
            delay = found["delay_any"], found["delay_half"]
            note = f"first hour of six with any feature, with half of them: {delay[0]}, {delay[1]}"
            report.add(f"{title}: amounts x1.5, hour found", delay[1] or np.nan, "h", note=note)
            report.add(f"{title}: CPU", found["cpu_s"], "s per window")
            report.add(f"{title}: peak memory", found["peak_mb"], "MB")


def _nannyml() -> Path | None:
    """The Python of an environment with NannyML, made if there is none; None if that fails."""
    python = NANNYML / "bin" / "python"
    if (
        python.exists()
        and subprocess.run([python, "-c", "import nannyml"], capture_output=True, check=False).returncode == 0
    ):
        return python
    uv = Path(sys.executable).with_name("uv")
    overrides = NANNYML.with_name("nannyml-overrides.txt")
    overrides.parent.mkdir(parents=True, exist_ok=True)
    overrides.write_text('kaleido ; python_version < "3"\n', encoding="utf-8")
    steps: Sequence[Sequence[str | Path]] = (
        [uv, "venv", "--clear", "--python", sys.executable, NANNYML],
        [uv, "pip", "install", "--python", python, "--override", overrides, "nannyml", "statsmodels"],
    )
    with NANNYML.with_name("nannyml.log").open("w", encoding="utf-8") as log:
        for step in steps:
            if subprocess.run(step, stdout=log, stderr=log, check=False, timeout=600).returncode:
                return None
    return python


def run(seeds: int = SEEDS, parts: Collection[str] = PARTS, customers: int = 5_000, workers: int = 2) -> Report:
    """The figures."""
    report = Report("drift")
    context = multiprocessing.get_context("spawn")
    if "scale" in parts:
        with ProcessPoolExecutor(1, mp_context=context) as alone:
            seconds, peak_mb = alone.submit(scale).result()
        report.add("1 M rows of 30 features counted and measured", seconds, "CPU s", aim=2, better="lower")
        report.add(
            "peak memory of that", peak_mb, "MB", aim=300, better="lower", note="libraries of this benchmark included"
        )
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for kind in ("simulator", "handbook"):
            if kind in parts:
                add_watch(report, kind, seeds, pool)
        if "pattern" in parts:
            add_new_pattern(report, seeds, customers, pool)
    if "peers" in parts:
        add_peers(report, 1)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="default: %(default)s; the long form is 20")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--customers", type=int, default=5_000, help="of the worlds with a new pattern")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    run(given.seeds, given.part or PARTS, given.customers, given.workers).finish()
