"""Evidently's report on one window, drawn in a process of its own: `python -m shared.adapters.evidently_report`.

The process is a child of the drift app and gets its input as files, so that a report that is too large, too slow or
broken ends a child and nothing else. What Evidently says is for people: the verdict was stored before, by our own
statistics on all rows (record 0029).

The reference has no rows: a bundle holds histograms, because rows would be payments of people. So both sides are shown
in the bins of the reference, where they can be compared exactly: window values fall into their bins, and reference rows
are made in the proportions of the counts. What concerns two features together means nothing, and the report says so.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_reference import SCORE, BinKind, Histogram, hour_of_week
from shared.domain.instants import format_instant

WINDOW: Final = "window.parquet"
REFERENCE: Final = "reference.json"
HTML: Final = "report.html"
JSON: Final = "report.json"

MAX_ROWS: Final = 20_000
"""Of each side: the shape of a distribution needs no more, and memory stays the same whatever the window holds."""

EVENT_TIME: Final = "event_time_us"
RAW: Final = "raw"

PSI_FLOOR: Final = 0.05
"""From which on Evidently marks a column: the floor of record 0006. It knows neither what chance gives nor what is
usual, so it marks more than the verdict does, in small windows above all."""

CPU_S: Final = 120
"""CPU seconds of the child: a report takes about 5, importing what draws it another 5."""


def labels_of(histogram: Histogram) -> list[str]:
    """What the bins are called, in their order; numbered, so that whoever sorts the names sorts the bins.

    >>> labels_of(Histogram(BinKind.QUANTILES, (0.0, 1.5, 20.0), np.zeros(4, dtype=np.int64)))
    ['00 missing', '01 unseen', '02 0 to 1.5', '03 1.5 to 20']
    """
    if histogram.kind is BinKind.VALUES:
        names = [f"{edge:.4g}" for edge in histogram.edges]
    else:
        names = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(histogram.edges)]
    return [f"{place:02} {name}" for place, name in enumerate(("missing", "unseen", *names))]


def bins_of(histogram: Histogram, hours: NDArray[np.int64], count: int) -> NDArray[np.intp]:
    """The bins of rows that are distributed as a histogram is, without chance.

    Args:
        histogram: Of the reference.
        hours: Hours of the week in the window, (n,) int64; a feature with a rhythm is taken from these alone.
        count: How many rows.

    Returns:
        (count,) bins, rising; empty without any counts.
    """
    counts = histogram.counts
    if histogram.by_hour is not None and len(hours):
        matched = histogram.by_hour[np.unique(hours)].sum(axis=0)
        counts = matched if matched.sum() else counts
    ends = np.cumsum(counts)
    if not ends[-1]:
        return np.zeros(0, dtype=np.intp)
    places = (np.arange(count) + 0.5) / count * ends[-1]
    bins: NDArray[np.intp] = np.searchsorted(ends, places, side="right")
    return bins


def _window(path: Path, most: int) -> Any:
    """At most so many rows of the window, evenly from all of it, as a data frame."""
    pa, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")

    with parquet.ParquetFile(path) as file:
        stride = max(1, -(-file.metadata.num_rows // most))
        offset, parts = 0, []
        for batch in file.iter_batches(batch_size=50_000):
            parts.append(batch.take(pa.array(range(-offset % stride, batch.num_rows, stride), type=pa.int64())))
            offset += batch.num_rows
        return pa.Table.from_batches(parts, schema=file.schema_arrow).to_pandas()


def _histograms(path: Path) -> dict[str, Histogram]:
    """The histograms of a bundle's reference; it was checked when the bundle was opened."""
    return {
        name: Histogram(
            BinKind(entry["kind"]),
            tuple(entry["edges"]),
            np.array(entry["counts"], dtype=np.int64),
            None
            if entry["by_hour"] is None
            else np.array(entry["by_hour"], dtype=np.int64).reshape(-1, len(entry["counts"])),
        )
        for name, entry in json.loads(path.read_bytes())["histograms"].items()
    }


def draw(folder: Path, about: dict[str, Any], most: int = MAX_ROWS) -> None:
    """Read the window and the reference in a folder, and write the report there.

    Args:
        folder: Holds `WINDOW` and `REFERENCE`; gets `HTML` and `JSON`.
        about: What is said of the report in its JSON, such as the bundle's digest.
        most: Rows of each side at most.

    Raises:
        ValueError: Window and reference have no column in common, or the window has no row.
    """
    # Without types, and paid by the child alone.
    pandas, evidently, presets = map(import_module, ("pandas", "evidently", "evidently.presets"))

    current = _window(folder / WINDOW, most)
    histograms = _histograms(folder / REFERENCE)
    # The score's histogram is over the raw output.
    columns = {name: RAW if name == SCORE and RAW in current.columns else name for name in histograms}
    names = [name for name in histograms if columns[name] in current.columns]
    if not names or current.empty:
        raise ValueError("there is nothing to compare")
    times = current[EVENT_TIME].to_numpy(dtype=np.int64) if EVENT_TIME in current.columns else np.zeros(0, np.int64)
    hours = hour_of_week(times)
    shown, reference = {}, {}
    for name in names:
        labels = np.array(labels_of(histograms[name]))
        made = labels[bins_of(histograms[name], hours, most)]
        if len(made):
            reference[name] = made
            shown[name] = labels[histograms[name].bins(current[columns[name]].to_numpy(dtype=np.float32))]
    definition = evidently.DataDefinition(categorical_columns=list(shown))
    # One column is enough to call it drift: the headline must not deny what a column shows.
    report = evidently.Report(
        [presets.DataDriftPreset(cat_method="psi", cat_threshold=PSI_FLOOR, drift_share=1 / max(len(shown), 1))]
    )
    snapshot = report.run(
        evidently.Dataset.from_pandas(pandas.DataFrame(shown), data_definition=definition),
        evidently.Dataset.from_pandas(pandas.DataFrame(reference), data_definition=definition),
    )
    said = {
        **about,
        "rows": len(current),
        "window_start": format_instant(int(times.min())) if len(times) else None,
        "window_end": format_instant(int(times.max())) if len(times) else None,
        "left_out": sorted(set(names) - set(shown)),
        "reference": "the bundle's histograms; both sides are shown in their bins, joint distributions mean nothing",
        "decides": "nothing; verdicts are in drift_metrics",
    }
    snapshot.save_html(str(folder / HTML))
    (folder / JSON).write_text(json.dumps({"about": said, "evidently": json.loads(snapshot.json())}), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """The child: a folder, the bytes of memory it may have, and what to say of the report as JSON."""
    folder, memory_bytes, about = arguments
    limit = int(memory_bytes)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    draw(Path(folder), json.loads(about))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
