"""What an hour of decisions looked like in the bins of a bundle's reference, and what it is compared with.

An hour is counted once, in one pass over its rows in bounded memory; longer windows are sums of hours. The counts of
hours are all that later windows need.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_reference import (
    FIRST_BIN,
    HOURS_OF_WEEK,
    MISSING_BIN,
    SCORE,
    UNSEEN_BIN,
    BinKind,
    Histogram,
    Reference,
    hour_of_week,
)
from shared.domain.decision_record import DECISION_FORMAT, DECISION_KIND
from shared.domain.errors import BrokenInvariant

OUTCOMES: Final = 3
"""Approve, review, decline, as `predictions.outcome` numbers them."""

type Counts = NDArray[np.int64]
type Floats = NDArray[np.float64]

_START: Final = bytes((DECISION_KIND, DECISION_FORMAT))
_LENGTH: Final = struct.Struct(">I").unpack_from
_REAL: Final = struct.Struct(">d").unpack_from


class Skimmed(NamedTuple):
    """The parts of a decision record that drift looks at.

    Attributes:
        view: Name of the feature view.
        vector: The feature vector, little-endian binary32.
        raw: The model's output before calibration.
    """

    view: bytes
    vector: bytes
    raw: float


def skim(record: bytes) -> Skimmed:
    """Read three fields of a decision's canonical bytes and step over the others.

    `decision_record.read_decision` reads all of them and proves them canonical, which takes twenty times as long; who
    verifies the log does that.

    Raises:
        BrokenInvariant: The bytes are no decision of the format this release writes.
    """
    if record[:2] != _START:
        raise BrokenInvariant(f"canonical bytes start with {record[:2].hex()}, not those of a decision")
    try:
        place = 2
        for _ in range(3):  # transaction, customer, terminal
            place += 4 + _LENGTH(record, place)[0]
        place += 16  # event time, amount
        place += 4 + _LENGTH(record, place)[0] + 16  # currency, versions of customer and terminal
        end = place + 4 + _LENGTH(record, place)[0]
        view = record[place + 4 : end]
        place = end + 4 + _LENGTH(record, end)[0]
        vector = record[end + 4 : place]
        place += 8  # lateness
        place += 4 + _LENGTH(record, place)[0] + 8  # name and version of the model
        return Skimmed(view, vector, _REAL(record, place)[0])
    except struct.error as error:
        raise BrokenInvariant("the bytes of a decision end early") from error


@dataclass(frozen=True, slots=True, eq=False)
class DecidedRows:
    """Some decisions of one hour, as columns of one length.

    Attributes:
        event_time_us: (n,) int64, microseconds since 1970 UTC.
        vectors: (n, n_features) float32, NaN where a value is missing.
        raw: (n,) float32, the model's outputs.
        score: (n,) float64, calibrated.
        outcome: (n,) int8, 0 approve, 1 review, 2 decline.
        is_champions: (n,) bool, whether the watched bundle decided: outputs of another are another variable.
    """

    event_time_us: NDArray[np.int64]
    vectors: NDArray[np.float32]
    raw: NDArray[np.float32]
    score: NDArray[np.float64]
    outcome: NDArray[np.int8]
    is_champions: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class HourCounts:
    """An hour in the bins of the reference.

    Attributes:
        start_us: Its start, microseconds since 1970 UTC.
        n_rows: Decisions.
        counts: By feature and `SCORE`, (n_bins,) int64.
        outcomes: (3,) int64: approved, reviewed, declined.
    """

    start_us: int
    n_rows: int
    counts: Mapping[str, Counts]
    outcomes: Counts


def bins_of(histogram: Histogram, values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The bin of each of (n,) values, as `Histogram.bins` says.

    There are a dozen edges at most, and comparing with each of them takes a tenth of the time of searching.

    Raises:
        BrokenInvariant: More bins than a byte can number, which no bundle of this release has.
    """
    if histogram.n_bins > np.iinfo(np.uint8).max:
        raise BrokenInvariant(f"a histogram has {histogram.n_bins} bins")
    place = np.zeros(len(values), dtype=np.uint8)
    for edge in histogram.edges:
        place += values >= np.float32(edge)
    if not histogram.edges:
        found = np.full(len(values), UNSEEN_BIN, dtype=np.uint8)
    elif histogram.kind is BinKind.VALUES:
        known = np.array((np.nan, *histogram.edges), dtype=np.float32)
        found = np.where(known[place] == values, place + np.uint8(FIRST_BIN - 1), np.uint8(UNSEEN_BIN))
    else:
        last = np.uint8(len(histogram.edges) - 1)
        inside = (place > 0) & (values <= np.float32(histogram.edges[-1]))
        found = np.where(inside, np.minimum(place, last) + np.uint8(FIRST_BIN - 1), np.uint8(UNSEEN_BIN))
    found[np.isnan(values)] = MISSING_BIN
    return found


def hour_counts(reference: Reference, names: Sequence[str], start_us: int, parts: Iterable[DecidedRows]) -> HourCounts:
    """Count an hour.

    Args:
        reference: Of the bundle that is watched.
        names: The features of its view, in the order of the vectors.
        start_us: Start of the hour, microseconds since 1970 UTC.
        parts: Its rows in pieces; each is let go before the next one.

    Raises:
        BrokenInvariant: Vectors of another width.
    """
    counts = {name: np.zeros(reference.histograms[name].n_bins, dtype=np.int64) for name in (*names, SCORE)}
    outcomes, n_rows = np.zeros(OUTCOMES, dtype=np.int64), 0
    for rows in parts:
        if rows.vectors.ndim != 2 or rows.vectors.shape[1] != len(names):
            raise BrokenInvariant(f"vectors of shape {rows.vectors.shape} are none of {len(names)} features")
        n_rows += len(rows.vectors)
        for name, values in (
            *((name, np.ascontiguousarray(rows.vectors[:, place])) for place, name in enumerate(names)),
            (SCORE, rows.raw[rows.is_champions]),
        ):
            histogram = reference.histograms[name]
            counts[name] += np.bincount(bins_of(histogram, values), minlength=histogram.n_bins)
        outcomes += np.bincount(rows.outcome[rows.is_champions], minlength=OUTCOMES)
    return HourCounts(start_us, n_rows, counts, outcomes)


def matched(histogram: Histogram, hours: Sequence[tuple[int, int]]) -> Floats:
    """The reference's counts as they would be at these hours of the week.

    Where the bundle keeps the hours of a feature, each hour of the window is compared with its own hour of the week, by
    the weight it has in the window; an hour of which the reference has no row, with all hours.

    Args:
        histogram: Of a feature.
        hours: Start, microseconds since 1970 UTC, and rows of each hour of the window.

    Returns:
        (n_bins,) float64; they add up to the reference's rows.
    """
    everywhere = histogram.counts.astype(np.float64)
    total = sum(n_rows for _, n_rows in hours)
    if histogram.by_hour is None or total == 0 or everywhere.sum() == 0:
        return everywhere
    weights = np.zeros(HOURS_OF_WEEK)
    starts = np.array([start_us for start_us, _ in hours], dtype=np.int64)
    np.add.at(weights, hour_of_week(starts), [n_rows / total for _, n_rows in hours])
    rows = histogram.by_hour.sum(axis=1)
    has = rows > 0
    shares = (weights[has, None] * histogram.by_hour[has] / rows[has, None]).sum(axis=0)
    shares += weights[~has].sum() * everywhere / everywhere.sum()
    found: Floats = shares * everywhere.sum()
    return found
