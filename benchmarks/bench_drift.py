"""How often the watch for drift wakes somebody for nothing, how soon it finds drift, and what it costs, beside peers.

Streams are worlds of the simulator (5,000 cardholders, about 350 transactions an hour; then 20,000) and random halves
of the Handbook's cardholders (about 200 an hour), one for each seed, see `drift_streams`. False alarms are hours with a
verdict of drift among 336 in which nothing was ordered to change; seasons, salary days and incidents of fraud go on as
they do. Delay counts from the hour from which all amounts are multiplied, any hour of the day, to the end of the hour
whose verdict is drift.

A new pattern of fraud (gift cards) begins on a day, see `drift_concept`: as many as make recall fall to half, or, which
is harder, only as many as all other frauds together. Delay counts from the beginning of the first matured day. The rule
was chosen on seeds 101 to 130; the seeds here begin at 201. The rules for features were chosen on seeds 41 to 70 of the
simulator and 41 to 52 of the Handbook; those here are 1 to 20.

Peers see the same features in the same hours with their own defaults: Evidently's drift preset, and NannyML's
univariate calculator with its default methods and thresholds, fitted on the reference, a chunk an hour. Evidently takes
seconds a window, so it sees some of them. NannyML pins a browser that it does not need here, so it is installed without
that into an environment of its own (`build/bench`), with a library that it needs and does not name; where that fails,
it is left out and the note says why.

There are 20 seeds, the cheap parts come first, and each world's outcome is kept (`drift_outcomes`): a run that was cut
off, or that was out of time, goes on where it was. No world is begun after 40 minutes; figures are of the worlds that
were ended by then, and say so. `python -m benchmarks.bench_drift` has options: `--part` runs one part, `--seeds` fewer
worlds, `--customers` larger ones for the new pattern, `--workers 1` leaves the other core alone.
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
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.drift_concept import QUIET_DAYS, new_pattern
from benchmarks.drift_outcomes import Outcome, outcomes
from benchmarks.drift_streams import END, HOURS_PER_DAY, JUDGED, REFERENCE, Stream, simulated
from benchmarks.drift_watching import FACTORS, QUIET_HOURS, SOON_H, watched
from benchmarks.report import Report
from shared.domain.bundle_reference import SCORE, Reference, histogram_of
from shared.domain.drift_counts import DecidedRows, hour_counts
from shared.domain.drift_policy import Clusters, Watched, measure
from shared.domain.feature_view import CARD_V1

SEEDS: Final = 20
MINUTES: Final = 40.0

PATTERN_FIRST: Final = 201
"""The first seed of the worlds with a new pattern; those from 101 to 130 were used to choose the rule."""

HALVING: Final = 1.7
"""Gift cards as a share of all other frauds at which recall falls to half: the model finds 45 % of the others and 9 %
of gift cards, so that (.45 + .09 x) / (1 + x) is .225 for x of 1.67."""

PARTS: Final = ("scale", "pattern", "peers", "simulator", "handbook", "large")
WITHIN_H: Final = {1.5: SOON_H, 1.2: 24}
ENOUGH: Final = 500
"""Payments in the first hours of a drift from which on all of 80 drifts were found in time, over 30 worlds with seeds
from 41 on, on which the rules were chosen (record 0036)."""

LARGE: Final = 20_000
"""Cardholders of the larger worlds; the others have 5,000."""

PEER_QUIET: Final = 6
"""Quiet hours that Evidently sees, one in 56."""

SCALE_ROWS: Final = 1_000_000
SCALE_FEATURES: Final = 30
PIECE: Final = 20_000

NANNYML: Final = Path("build/bench/nannyml")


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


def add_watch(report: Report, part: str, seeds: int, pool: ProcessPoolExecutor, until_s: float) -> None:
    """False alarms and delays on one kind of stream."""
    kind, make = part, partial(watched, kind=part)
    if part == "large":
        kind, make = f"simulator of {LARGE:,}", partial(watched, kind="simulator", customers=LARGE)
    found = outcomes(part, make, range(1, seeds + 1), pool, until_s)
    if not found:
        report.add(f"{kind}: left out", 0, "", note="there was no time")
        return
    false = [of(one, "false_hours") for one in found.values()]
    note = f"{of_seeds(found, seeds)}; hours of each: {listed(false)}"
    report.add(f"{kind}: false alarms", mean(false), "per 336 quiet h", aim=1, better="lower", note=note)
    for factor in FACTORS:
        delays = [one[f"x{factor}"] for one in found.values()]
        name = f"{kind}: amounts x{factor} found within {WITHIN_H[factor]} h"
        report.add(name, within(delays, WITHIN_H[factor]), "of seeds", aim=1, note=f"hours, by seed: {listed(delays)}")
        known = [one for one in delays if one is not None]
        report.add(f"{kind}: amounts x{factor}, median delay", float(np.median(known)) if known else np.nan, "h")
        busy = [delay for one, delay in zip(found.values(), delays, strict=True) if of(one, "payments") >= ENOUGH]
        if WITHIN_H[factor] == SOON_H and busy:
            name = f"{kind}: and of {len(busy)} with {ENOUGH} payments by then"
            payments = listed(of(one, "payments") for one in found.values())
            report.add(name, within(busy, SOON_H), "of seeds", note=f"payments in {SOON_H} h, by seed: {payments}")


def add_new_pattern(report: Report, seeds: int, customers: int, pool: ProcessPoolExecutor, until_s: float) -> None:
    """Concept drift by a new pattern that halves recall and by a smaller one, by the truth and as labels tell it."""
    chosen = range(PATTERN_FIRST, PATTERN_FIRST + seeds)
    for title, share in (("a new pattern that halves recall", HALVING), ("one as frequent as other fraud", 1.0)):
        make = partial(new_pattern, share=share, customers=customers)
        found = outcomes(f"pattern-{customers}-{share}", make, chosen, pool, until_s)
        if not found:
            report.add(f"{title}: left out", 0, "", note="there was no time")
            continue
        for who, by in (("truth", "the truth"), ("labels", "labels")):
            worlds = [
                {name.removeprefix(f"{who}_"): value for name, value in one.items() if name.startswith(who)}
                for one in found.values()
            ]
            delays = [one["delay"] for one in worlds]
            frauds = mean(of(one, "frauds_a_day") for one in worlds)
            note = f"{of_seeds(found, seeds)}, {frauds:.0f} frauds a day before; hours, by seed: {listed(delays)}"
            aim = 1 if (share, who) == (HALVING, "truth") else None
            report.add(f"{title}, by {by}: found within 24 h", within(delays, 24), "of seeds", aim=aim, note=note)
            report.add(f"{title}, by {by}: found within 48 h", within(delays, 48), "of seeds")
            recalls = [mean(of(one, f"recall_{when}") for one in worlds) for when in ("before", "after")]
            report.add(f"{title}, by {by}: recall", recalls[1], "", note=f"{recalls[0]:.2f} before")
            if share == HALVING:  # the days before the change are the same in both
                add_quiet(report, f"matured labels, by {by}", worlds)


def add_quiet(report: Report, title: str, worlds: Sequence[Outcome]) -> None:
    """Hours of false alarm before the pattern, all together and by the figure that gave them, and notices."""
    per_hours = QUIET_HOURS / (QUIET_DAYS * HOURS_PER_DAY)
    false = [of(one, "false_hours") for one in worlds]
    by = ", ".join(
        f"{mean(of(one, name) for one in worlds) * per_hours:.2f} by {name.removeprefix('false_hours_by_')}"
        for name in worlds[0]
        if name.startswith("false_hours_by_")
    )
    note = f"{by}; hours in {QUIET_DAYS} days, of each seed: {listed(false)}"
    value = mean(false) * per_hours
    report.add(f"{title}: hours of false alarm", value, "per 336 quiet h", aim=1, better="lower", note=note)
    notices = mean(of(one, "false_notices") for one in worlds) * per_hours
    report.add(f"{title}: false notices", notices, "per 336 quiet h", note="one a day and cause")


def of(outcome: Outcome, name: str) -> float:
    """A figure that every world has."""
    value = outcome[name]
    if value is None:
        raise RuntimeError(f"a world has no {name}")
    return value


def mean(values: Iterable[float]) -> float:
    """The mean."""
    return float(np.mean(list(values)))


def within(delays: Sequence[float | None], hours: int) -> float:
    """The share of delays that are no longer."""
    return sum(one is not None and one <= hours for one in delays) / len(delays)


def listed(values: Iterable[float | None]) -> str:
    """Whole numbers in a row."""
    return ", ".join("none" if one is None else f"{one:.0f}" for one in values)


def of_seeds(found: Collection[int], seeds: int) -> str:
    """How many worlds figures are of."""
    return f"{seeds} seeds" if len(found) == seeds else f"{len(found)} of {seeds} seeds, for lack of time"


def add_peers(report: Report, seed: int) -> None:
    """Evidently and NannyML on one stream of the simulator, quiet and with amounts times 1.5."""
    stream = simulated(seed)
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


def run(
    seeds: int = SEEDS,
    parts: Collection[str] = PARTS,
    customers: int = 5_000,
    workers: int = 2,
    minutes: float = MINUTES,
) -> Report:
    """The figures."""
    report, until_s = Report("drift"), time.monotonic() + 60 * minutes
    context = multiprocessing.get_context("spawn")
    if "scale" in parts:
        with ProcessPoolExecutor(1, mp_context=context) as alone:
            seconds, peak_mb = alone.submit(scale).result()
        report.add("1 M rows of 30 features counted and measured", seconds, "CPU s", aim=2, better="lower")
        report.add(
            "peak memory of that", peak_mb, "MB", aim=300, better="lower", note="libraries of this benchmark included"
        )
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        if "pattern" in parts:
            add_new_pattern(report, seeds, customers, pool, until_s)
        if "peers" in parts and time.monotonic() < until_s:
            add_peers(report, 1)
        elif "peers" in parts:
            report.add("peers: left out", 0, "", note="there was no time")
        for part in ("simulator", "handbook", "large"):
            if part in parts:
                add_watch(report, part, seeds, pool, until_s)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--customers", type=int, default=5_000, help="of the worlds with a new pattern")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which no world is begun")
    given = parser.parse_args()
    run(given.seeds, given.part or PARTS, given.customers, given.workers, given.minutes).finish()
