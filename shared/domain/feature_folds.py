"""Array folds behind `feature_columns`: verdicts over ranges of rows, runs of frauds, medians and outliers.

All work on rows that are sorted by entity, event time and id, in integers. Where a dense form would be quadratic in a
busy entity (many labels out of order, many transactions in the median's window), a sweep with sorted lists takes over;
both give the same integers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from shared.domain.feature_view import OUTLIER_DENOMINATOR, OUTLIER_NUMERATOR
from shared.domain.instants import US_PER_DAY

type Ints = NDArray[np.int64]
type Flags = NDArray[np.bool_]
type Floats = NDArray[np.float64]

DENSE_WINDOW: Final = 512
"""Longest median window, in transactions, that is sorted anew for each row; a busier entity is swept."""

_BLOCK_CELLS: Final = 1 << 18
"""Cells of the amount windows that are sorted at a time: 1 MB of 4 bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """What labels say over ranges of rows, sorted by transaction, then start.

    Attributes:
        place: (m,) the labelled transaction's row.
        is_fraud: (m,) what holds.
        start: (m,) first row for which it holds.
        stop: (m,) first row for which it no longer does.
    """

    place: Ints
    is_fraud: Flags
    start: Ints
    stop: Ints

    def chosen(self, which: Flags) -> Verdicts:
        """Some of them; `which` is (m,)."""
        return Verdicts(self.place[which], self.is_fraud[which], self.start[which], self.stop[which])


@dataclass(frozen=True, slots=True, eq=False)
class FraudRuns:
    """For each of m rows, the last known label and the run of known frauds at the end.

    Attributes:
        last_label: (m,) 1 fraud, 0 genuine, NaN none.
        length: (m,) known frauds since the last known genuine transaction.
        age_days: (m,) from the first transaction of the run to the row; NaN without a run.
    """

    last_label: Floats
    length: Ints
    age_days: Floats


@dataclass(frozen=True, slots=True, eq=False)
class AmountWindows:
    """Where each of m rows' windows over amounts start; a window's length in microseconds is its name.

    Attributes:
        median: (m,) first row of the median's window, which ends before the row.
        outliers: Window to (m,) first rows; these windows end with the row.
        largest: The same, for the largest amounts.
    """

    median: Ints
    outliers: dict[int, Ints]
    largest: dict[int, Ints]


@dataclass(frozen=True, slots=True, eq=False)
class Medians:
    """For each of m rows, how amounts compare with the median before it.

    Attributes:
        twice_median: (m,) the sum of the two middle amounts; 0 without any.
        outliers: Window to (m,): amounts in it, the row's own included, above 5/2 of the median.
        largest: Window to (m,): largest amount in it, the row's own included.
    """

    twice_median: Ints
    outliers: dict[int, Ints]
    largest: dict[int, Ints]


def divide(numerator: Ints, denominator: Ints | int) -> Floats:
    """Binary64 of both sides, then one division; NaN by zero. The same bits as Python's `float(a) / float(b)`."""
    above = numerator.astype(np.float64)
    below = np.broadcast_to(np.asarray(denominator, dtype=np.float64), above.shape)
    quotient = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotient, where=below != 0)
    return quotient


def running_maximum(values: Ints, starts: Ints) -> Ints:
    """(m,) the greatest value up to each row of its group; groups start at `starts[:-1]`."""
    lowest = int(values.min())
    spread = int(values.max()) - lowest + 1
    if spread <= (1 << 62) // len(starts):
        offset = np.repeat(np.arange(len(starts) - 1), np.diff(starts)) * spread - lowest
        return np.maximum.accumulate(values + offset) - offset
    pieces = [np.maximum.accumulate(values[low:high]) for low, high in pairwise(starts)]
    return np.concatenate(pieces)


def overruled(verdicts: Verdicts, strength: Ints, n_rows: int) -> Verdicts:
    """Let stronger labels overrule weaker ones of the same transaction from the row at which they count.

    Each label starts a range in which the strongest label so far holds; the next label of the transaction ends it.

    Args:
        verdicts: One per label.
        strength: (m,) unique ranks by the conflict rule.
        n_rows: Rows there are.
    """
    size = len(strength)
    by_strength = np.argsort(strength)
    rank = np.empty(size, dtype=np.int64)
    rank[by_strength] = np.arange(size)
    order = np.lexsort((rank, verdicts.start, verdicts.place))
    place, start = verdicts.place[order], verdicts.start[order]
    best = np.maximum.accumulate(place * size + rank[order]) - place * size
    stop = np.full(size, n_rows, dtype=np.int64)
    same = place[1:] == place[:-1]
    stop[:-1][same] = start[1:][same]
    return Verdicts(place, verdicts.is_fraud[by_strength[best]], start, stop)


def fraud_runs(verdicts: Verdicts, time_us: Ints, starts: Ints) -> FraudRuns:
    """Last known label and run of known frauds for each row.

    Where labels of an entity became known in the order of its transactions, those that a row sees are a slice of the
    entity's labels, and the run is what follows the last genuine one of the slice. Other entities are swept.

    Args:
        verdicts: Cut to the window, none empty.
        time_us: (n_rows,) event times.
        starts: (n_groups + 1,) first rows of the entities.
    """
    n_rows = len(time_us)
    group = np.searchsorted(starts, verdicts.place, side="right") - 1
    same = group[1:] == group[:-1]
    falls = same & ((verdicts.start[1:] < verdicts.start[:-1]) | (verdicts.stop[1:] < verdicts.stop[:-1]))
    unordered = np.zeros(len(starts) - 1, dtype=np.bool_)
    unordered[group[1:][falls]] = True
    in_order = verdicts.chosen(~unordered[group])
    low, high, first = _ordered_runs(in_order, n_rows)
    last_label = np.full(n_rows, np.nan)
    seen = high > low
    last_label[seen] = in_order.is_fraud[high[seen] - 1]
    length = high - first
    age_days = np.full(n_rows, np.nan)
    running = length > 0
    began_us = time_us[in_order.place[first[running]]]
    age_days[running] = divide(time_us[running] - began_us, US_PER_DAY)
    found = FraudRuns(last_label, length, age_days)
    for number in np.flatnonzero(unordered):
        low_item, high_item = np.searchsorted(group, [number, number + 1])
        rows = range(starts[number], starts[number + 1])
        _sweep_runs(verdicts, range(low_item, high_item), time_us, rows, found)
    return found


def _ordered_runs(verdicts: Verdicts, n_rows: int) -> tuple[Ints, Ints, Ints]:
    """For each row the slice [low, high) of verdicts that hold, and where its run of frauds starts (high: no run)."""
    high = np.cumsum(np.bincount(verdicts.start, minlength=n_rows + 1)[:n_rows])
    low = np.cumsum(np.bincount(verdicts.stop, minlength=n_rows + 1)[:n_rows])
    after_genuine = np.where(verdicts.is_fraud, 0, np.arange(1, len(verdicts.place) + 1))
    after_genuine = np.concatenate(([0], np.maximum.accumulate(after_genuine)))
    return low, high, np.maximum(after_genuine[high], low)


def _sweep_runs(verdicts: Verdicts, items: range, time_us: Ints, rows: range, found: FraudRuns) -> None:
    """Fill in one entity whose labels came out of order: its known transactions in sorted lists, row by row."""
    joins: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    leaves: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    for item in items:
        entry = int(verdicts.place[item]), bool(verdicts.is_fraud[item])
        joins[int(verdicts.start[item])].append(entry)
        leaves[int(verdicts.stop[item])].append(entry)
    known: list[int] = []
    genuine: list[int] = []
    for row in rows:
        for place, is_fraud in leaves.get(row, ()):
            del known[bisect_left(known, place)]
            if not is_fraud:
                del genuine[bisect_left(genuine, place)]
        for place, is_fraud in joins.get(row, ()):
            insort(known, place)
            if not is_fraud:
                insort(genuine, place)
        if not known:
            continue
        first = bisect_right(known, genuine[-1]) if genuine else 0
        found.length[row] = len(known) - first
        found.last_label[row] = float(first < len(known))
        if first < len(known):
            found.age_days[row] = float(time_us[row] - time_us[known[first]]) / float(US_PER_DAY)


def medians(
    amount: Ints,
    windows: AmountWindows,
    starts: Ints,
    wanted: Flags | None = None,
    *,
    dense_window: int = DENSE_WINDOW,
) -> Medians:
    """Medians, outliers and largest amounts for each row.

    Args:
        amount: (m,) minor units, greater than 0.
        windows: Where each row's windows start.
        starts: (n_groups + 1,) first rows of the entities.
        wanted: (m,) the rows to compute; None for all. Others may be left at 0.
        dense_window: Longest window that is not swept; changes speed, never a value.
    """
    first = np.minimum.reduce([windows.median, *windows.outliers.values(), *windows.largest.values()])
    depth = np.arange(len(amount)) - first
    found = Medians(
        np.zeros(len(amount), dtype=np.int64),
        {window: np.zeros(len(amount), dtype=np.int64) for window in windows.outliers},
        {window: np.zeros(len(amount), dtype=np.int64) for window in windows.largest},
    )
    if wanted is None:
        rest = np.ones(len(amount), dtype=np.bool_)
        for number in np.flatnonzero(np.maximum.reduceat(depth, starts[:-1]) > dense_window):
            rest[starts[number] : starts[number + 1]] = False
            _sweep_medians(amount, windows, range(starts[number], starts[number + 1]), found)
        rows = np.flatnonzero(rest)
    else:  # a sweep would visit every row for the few that are wanted
        rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(depth[rows].astype(np.uint32), kind="stable")[::-1]]
    # Half as many bytes to sort where amounts allow it; the values are the same.
    narrow = amount.astype(np.int32) if len(amount) and amount.max() < np.iinfo(np.int32).max else amount
    margin = int(depth[rows[0]]) if len(rows) else 0
    padded = np.concatenate([np.zeros(margin, dtype=narrow.dtype), narrow])
    start = 0
    while start < len(rows):
        width = int(depth[rows[start]])
        block = rows[start : start + max(1, _BLOCK_CELLS // (width + 1))]
        amounts = sliding_window_view(padded, width + 1)[block - width + margin]
        _dense_medians(amounts, block, windows, found)
        start += len(block)
    return found


def _dense_medians(amounts: NDArray[np.signedinteger], rows: Ints, windows: AmountWindows, found: Medians) -> None:
    """Fill in rows whose amounts before them and their own are the columns of `amounts`, the own one last."""
    width = amounts.shape[1] - 1
    count = rows - windows.median[rows]
    twice_median = np.zeros(len(rows), dtype=np.int64)
    if width:
        before = np.sort(_only_last(amounts[:, :width], count), axis=1)  # what is outside sorts to the front
        first = width - count
        each = np.arange(len(rows))
        middle = before[each, np.minimum(first + np.maximum(count - 1, 0) // 2, width - 1)].astype(np.int64)
        middle += before[each, np.minimum(first + count // 2, width - 1)]
        twice_median = np.where(count > 0, middle, 0)
    found.twice_median[rows] = twice_median
    # 4 a > 5 m holds for integers exactly if a > floor(5 m / 4), which can be compared at the amounts' own width.
    limit = OUTLIER_NUMERATOR * twice_median // (2 * OUTLIER_DENOMINATOR)
    limit = np.minimum(np.where(count > 0, limit, np.iinfo(np.int64).max), np.iinfo(amounts.dtype).max)
    item, column = np.nonzero(amounts > limit.astype(amounts.dtype)[:, None])
    back = width - column
    for window, lows in windows.outliers.items():
        inside = back <= (rows - lows[rows])[item]
        found.outliers[window][rows] = np.bincount(item[inside], minlength=len(rows))
    for window, lows in windows.largest.items():
        depth = rows - lows[rows] + 1
        found.largest[window][rows] = _only_last(amounts[:, width + 1 - int(depth.max()) :], depth).max(axis=1)


def _only_last(amounts: NDArray[np.signedinteger], count: Ints) -> NDArray[np.signedinteger]:
    """A copy in which all but the last `count` columns of each row are -1."""
    width = amounts.shape[1]
    kept = amounts.copy()
    doubtful = width - int(count.min())
    kept[:, :doubtful][np.arange(doubtful) < (width - count)[:, None]] = -1
    return kept


def _sweep_medians(amount: Ints, windows: AmountWindows, rows: range, found: Medians) -> None:
    """Fill in the rows of one busy entity: each window's amounts in a sorted list, moved on row by row."""
    amounts: dict[int, int] = dict(zip(rows, amount[rows.start : rows.stop].tolist(), strict=True))
    before = _SortedWindow()
    outliers = {window: _SortedWindow() for window in windows.outliers}
    largest = {window: _SortedWindow() for window in windows.largest}
    for kept in (before, *outliers.values(), *largest.values()):
        kept.first = rows.start
    for row in rows:
        before.leave(int(windows.median[row]), amounts)
        count = len(before.values)
        twice_median = before.values[(count - 1) // 2] + before.values[count // 2] if count else 0
        found.twice_median[row] = twice_median
        limit = OUTLIER_NUMERATOR * twice_median // (2 * OUTLIER_DENOMINATOR)
        for window, kept in outliers.items():
            insort(kept.values, amounts[row])
            kept.leave(int(windows.outliers[window][row]), amounts)
            found.outliers[window][row] = len(kept.values) - bisect_right(kept.values, limit) if count else 0
        for window, kept in largest.items():
            insort(kept.values, amounts[row])
            kept.leave(int(windows.largest[window][row]), amounts)
            found.largest[window][row] = kept.values[-1]
        insort(before.values, amounts[row])


@dataclass(slots=True)
class _SortedWindow:
    """The amounts of a moving range of rows, sorted.

    Attributes:
        first: First row inside.
        values: The amounts.
    """

    first: int = 0
    values: list[int] = field(default_factory=list)

    def leave(self, low: int, amounts: dict[int, int]) -> None:
        """Let the rows before `low` go."""
        while self.first < low:
            del self.values[bisect_left(self.values, amounts[self.first])]
            self.first += 1
