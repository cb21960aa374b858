"""Reference histograms: what every feature and the score looked like while the model was trained and tested.

Drift is measured against these and nothing else, so bins are frozen with the bundle. A histogram has a bin for missing
values, one for values that the reference never showed, and its ordinary bins. A feature with few distinct values has a
bin for each of them (unseen: any other value); any other feature has bins between quantiles of the reference (unseen:
below its least or above its greatest value). Where the distribution follows the hour of the week, the counts of each of
the 168 hours are kept as well, so that a night is compared with nights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_manifest import Fields, canonical_json
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import EPOCH_WEEKDAY, FeatureView
from shared.domain.instants import US_PER_HOUR

QUANTILE_BINS: Final = 10
"""Ordinary bins of a feature with many values: deciles, the usual form of PSI (record 0006)."""

MAX_VALUES: Final = 12
"""A feature with at most so many distinct values has a bin for each."""

HOURS_OF_WEEK: Final = 168

RHYTHM_FLOOR: Final = 0.05
"""PSI between a mean hour of the week and all hours, above what chance gives, from which the hours are kept.

The floor of record 0006: a rhythm weaker than what an alert needs cannot raise one.
"""

MISSING_BIN: Final = 0
UNSEEN_BIN: Final = 1
FIRST_BIN: Final = 2

SCORE: Final = "score"
"""The name of the score's histogram; it is over the model's raw output."""

type Counts = NDArray[np.int64]


class BinKind(StrEnum):
    """How ordinary bins are cut."""

    VALUES = "values"
    QUANTILES = "quantiles"


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of one column of the reference.

    Attributes:
        kind: How bins are cut.
        edges: Rising float32 values. With `values`, bin i holds exactly edge i; with `quantiles`, bin i holds
            `edges[i] <= x < edges[i + 1]`, the last one including its upper edge.
        counts: (2 + n_bins,) int64: missing, unseen, then the ordinary bins.
        by_hour: (168, 2 + n_bins) int64, counts by hour of the week from Monday 00:00 UTC; None without a rhythm.
    """

    kind: BinKind
    edges: tuple[float, ...]
    counts: Counts
    by_hour: Counts | None = None

    @property
    def n_bins(self) -> int:
        """Bins in all, missing and unseen included."""
        return FIRST_BIN + (len(self.edges) if self.kind is BinKind.VALUES else max(len(self.edges) - 1, 0))

    def bins(self, values: NDArray[np.float32]) -> NDArray[np.intp]:
        """The bin of each of (n,) float32 values."""
        edges = np.array(self.edges, dtype=np.float32)
        found = np.full(len(values), UNSEEN_BIN, dtype=np.intp)
        if len(edges):
            place = np.searchsorted(edges, values, side="right") - 1
            if self.kind is BinKind.VALUES:
                inside = (place >= 0) & (edges[np.maximum(place, 0)] == values)
            else:
                inside = (place >= 0) & (values <= edges[-1])
                place = np.minimum(place, len(edges) - 2)
            found[inside] = FIRST_BIN + place[inside]
        found[np.isnan(values)] = MISSING_BIN
        return found

    def count(self, values: NDArray[np.float32]) -> Counts:
        """How many of (n,) float32 values fall into each bin: (n_bins,) int64."""
        return np.bincount(self.bins(values), minlength=self.n_bins).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The histograms of a bundle.

    Attributes:
        start_us: Start of the reference window, microseconds since 1970 UTC.
        end_us: The first microsecond after it.
        histograms: By feature name, and `SCORE`.
    """

    start_us: int
    end_us: int
    histograms: Mapping[str, Histogram]


def hour_of_week(event_time_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Hours since Monday 00:00 UTC, 0 to 167, of (n,) times in microseconds since 1970 UTC."""
    return (event_time_us // US_PER_HOUR + EPOCH_WEEKDAY * 24) % HOURS_OF_WEEK


def histogram_of(values: NDArray[np.float32], event_time_us: NDArray[np.int64]) -> Histogram:
    """The histogram of a column of the reference.

    Args:
        values: (n,) float32, NaN where missing.
        event_time_us: (n,) int64, microseconds since 1970 UTC.
    """
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    if len(distinct) <= MAX_VALUES:
        kind, edges = BinKind.VALUES, distinct
    else:
        # Edges are values that occur: `inverted_cdf` interpolates nothing, so no rounding can move a row.
        shares = np.linspace(0.0, 1.0, QUANTILE_BINS + 1)
        kind, edges = BinKind.QUANTILES, np.unique(np.quantile(known, shares, method="inverted_cdf"))
    empty = Histogram(kind, tuple(edges.astype(np.float32).tolist()), np.zeros(0, dtype=np.int64))
    bins = empty.bins(values)
    counts = np.bincount(bins, minlength=empty.n_bins).astype(np.int64)
    cells = hour_of_week(event_time_us) * empty.n_bins + bins
    by_hour = np.bincount(cells, minlength=HOURS_OF_WEEK * empty.n_bins).reshape(HOURS_OF_WEEK, -1).astype(np.int64)
    return Histogram(kind, empty.edges, counts, by_hour if rhythm(by_hour) >= RHYTHM_FLOOR else None)


def rhythm(by_hour: Counts) -> float:
    """How strongly a distribution follows the hour of the week: mean PSI of an hour against all, less chance.

    Without a rhythm, n times the PSI of n rows over B bins is about chi-square with B - 1 degrees of freedom (Yurdakul
    and Naranjo, "Statistical properties of the population stability index", 2020), so its mean is (B - 1) / n.

    Args:
        by_hour: (168, n_bins) int64 counts.

    Returns:
        The mean over hours, weighted by their rows; 0 or less without a rhythm.
    """
    rows = by_hour.sum(axis=1)
    used = by_hour.sum(axis=0) > 0
    if rows.sum() == 0 or used.sum() < 2:
        return 0.0
    half = 0.5  # rows added to each cell, so that an empty one has a logarithm
    here = (by_hour[:, used] + half) / (rows + half * used.sum())[:, None]
    everywhere = by_hour[:, used].sum(axis=0) / rows.sum()
    index = ((here - everywhere) * np.log(here / everywhere)).sum(axis=1)
    chance = (used.sum() - 1) / np.maximum(rows, 1)
    return float(((index - chance) * rows).sum() / rows.sum())


def write_reference(reference: Reference) -> bytes:
    """The reference as canonical JSON."""
    return canonical_json(
        {
            "start_us": reference.start_us,
            "end_us": reference.end_us,
            "histograms": {
                name: {
                    "kind": histogram.kind.value,
                    "edges": list(histogram.edges),
                    "counts": histogram.counts.tolist(),
                    "by_hour": None if histogram.by_hour is None else histogram.by_hour.ravel().tolist(),
                }
                for name, histogram in reference.histograms.items()
            },
        }
    )


def read_reference(data: bytes, view: FeatureView) -> Reference:
    """The inverse of `write_reference`.

    Raises:
        BrokenInvariant: It cannot be read, or its histograms are not those of the view's features and the score.
    """
    try:
        root = Fields(json.loads(data), "the reference")
    except (ValueError, RecursionError) as error:
        raise BrokenInvariant("the reference is no JSON") from error
    histograms = {name: _histogram(name, entry) for name, entry in root.fields("histograms").each()}
    if set(histograms) != {*view.names, SCORE}:
        raise BrokenInvariant(f"the reference's histograms are not those of {view.name} and the score")
    return Reference(root.integer("start_us"), root.integer("end_us"), histograms)


def _histogram(name: str, entry: Fields) -> Histogram:
    kind = entry.text("kind")
    if kind not in {member.value for member in BinKind}:
        raise BrokenInvariant(f"the histogram of {name} has bins of kind {kind!r}")
    edges = entry.numbers("edges")
    bare = Histogram(BinKind(kind), edges, np.array(entry.integers("counts"), dtype=np.int64))
    if any(left >= right for left, right in pairwise(edges)):
        raise BrokenInvariant(f"the edges of {name} do not rise")
    if any(float(np.float32(edge)) != edge for edge in edges):
        raise BrokenInvariant(f"the edges of {name} are not binary32")
    if bare.counts.shape != (bare.n_bins,):
        raise BrokenInvariant(f"the histogram of {name} has {len(bare.counts)} counts for {bare.n_bins} bins")
    if not entry.has("by_hour"):
        return bare
    by_hour = np.array(entry.integers("by_hour"), dtype=np.int64)
    if by_hour.shape != (HOURS_OF_WEEK * bare.n_bins,):
        raise BrokenInvariant(f"the hours of {name} have {len(by_hour)} counts")
    by_hour = by_hour.reshape(HOURS_OF_WEEK, bare.n_bins)
    if not np.array_equal(by_hour.sum(axis=0), bare.counts):
        raise BrokenInvariant(f"the hours of {name} do not add up to its counts")
    return Histogram(bare.kind, edges, bare.counts, by_hour)
