"""Features of whole columns of transactions, equal bit for bit to `features.transform_one` row by row.

How: rows are sorted by entity, event time and id, and cut between entities into chunks that fit a processor cache. In a
chunk every window is a pair of row numbers found by binary search, every count a difference of row numbers, every sum
a difference of integer prefix sums. A label counts for a contiguous range of its entity's rows (from when it is known
to when its transaction leaves the window or another label overrules it), so its effect on a windowed sum is one
addition at the start of the range, one subtraction at its end, and a running sum.

What a row knows is either what was knowable at its event time (no versions given: every event counts as recorded when
it happened, every label when it was known) or what the recorded entity versions say. With versions, a row for which an
earlier event arrived after it does not know a prefix of its entity's rows; such rows are found and computed once more,
each among a private copy of what it knew.

Memory: output (n, n_features) float32, plus about 50 bytes for each row and 60 for each label that matters, plus the
work of one chunk. An entity larger than a chunk is one chunk, whose memory is linear in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.errors import BrokenInvariant
from shared.domain.feature_chunk import Chunk, PlacedLabels, key_stride, most_entities
from shared.domain.feature_folds import Flags, Ints
from shared.domain.feature_view import (
    EPOCH_WEEKDAY,
    FEATURE_DTYPE,
    FIRST_WEEKEND_DAY,
    NIGHT_UNTIL_HOUR,
    Entity,
    Feature,
    FeatureView,
    Measure,
)
from shared.domain.instants import US_PER_DAY, US_PER_HOUR

CHUNK_ROWS: Final = 1 << 17
"""Rows of a chunk: 1 MB per column of 8 bytes. Twice as many were no faster for all of card-v1 and took 30 MB more."""

_RUN_MEASURES: Final = {Measure.LAST_LABEL, Measure.FRAUD_RUN, Measure.FRAUD_RUN_AGE}
_FRAUD_MEASURES: Final = {Measure.FRAUD_RATE, Measure.KNOWN_FRAUDS}
_GENUINE_MEASURES: Final = {Measure.AMOUNT_TO_GENUINE_MEAN, *_RUN_MEASURES}


@dataclass(frozen=True, slots=True, eq=False)
class TransactionColumns:
    """Transactions as columns of one length n, in any order.

    Attributes:
        transaction_id: (n,) text, or anything that numpy sorts as the ids sort; unique.
        event_time_us: (n,) int64, microseconds since 1970 UTC.
        amount_minor: (n,) int64, minor units.
        customer: (n,) integers or text; equal where the customer is.
        terminal: (n,) integers or text; equal where the terminal is.
        customer_version: (n,) int64, the customer's version that the row created: it knows those below. None for what
            was knowable at the event time.
        terminal_version: (n,) int64, the same for the terminal.
    """

    transaction_id: NDArray[Any]
    event_time_us: Ints
    amount_minor: Ints
    customer: NDArray[Any]
    terminal: NDArray[Any]
    customer_version: Ints | None = None
    terminal_version: Ints | None = None

    def entity(self, entity: Entity) -> NDArray[Any]:
        """The column of the entity's keys."""
        return self.customer if entity is Entity.CUSTOMER else self.terminal

    def version(self, entity: Entity) -> Ints | None:
        """The column of the entity's versions."""
        return self.customer_version if entity is Entity.CUSTOMER else self.terminal_version


@dataclass(frozen=True, slots=True, eq=False)
class LabelColumns:
    """Labels as columns of one length, in any order; a transaction may have none or several.

    Attributes:
        row: int64, the row of its transaction in the TransactionColumns.
        is_fraud: bool.
        known_at_us: int64, microseconds since 1970 UTC.
        source: integers, the place of its source in `labels.PRECEDENCE`.
        confidence: integers, percent.
        customer_version: int64, the customer's version that the label created; given when the transactions' are.
        terminal_version: int64, the same for the terminal.
    """

    row: Ints
    is_fraud: Flags
    known_at_us: Ints
    source: NDArray[Any]
    confidence: NDArray[Any]
    customer_version: Ints | None = None
    terminal_version: Ints | None = None

    def version(self, entity: Entity) -> Ints | None:
        """The column of the entity's versions."""
        return self.customer_version if entity is Entity.CUSTOMER else self.terminal_version

    @classmethod
    def none(cls) -> LabelColumns:
        """No labels at all."""
        empty = np.empty(0, dtype=np.int64)
        return cls(empty, np.empty(0, dtype=np.bool_), empty, empty, empty, empty, empty)


def transform_many(
    view: FeatureView, transactions: TransactionColumns, labels: LabelColumns, *, chunk_rows: int = CHUNK_ROWS
) -> NDArray[np.float32]:
    """The feature vectors of all rows, each from what its row knew.

    Args:
        view: Which features.
        transactions: All transactions of the entities concerned, as far back as `view.reach_us` says.
        labels: All labels of these transactions.
        chunk_rows: Rows worked on at a time; changes speed and memory, never a value.

    Returns:
        (n, n_features) float32, rows in the order of `transactions`, columns in the order of the view.

    Raises:
        BrokenInvariant: Columns of different lengths, a label of a row that is not there, or versions of some only.
    """
    _check(transactions, labels)
    n_rows = len(transactions.event_time_us)
    out = np.empty((n_rows, len(view.features)), dtype=FEATURE_DTYPE)
    if n_rows == 0:
        return out
    _fill_calendar(view, transactions, out)
    order = _event_order(transactions)
    for entity in Entity:
        features = [(column, feature) for column, feature in enumerate(view.features) if feature.entity is entity]
        if not features:
            continue
        grouped = _Grouped.of(entity, transactions, order)
        placed = _placed(entity, [feature for _, feature in features], labels, grouped)
        lag_us = min(feature.lag_us for _, feature in features)
        for places in grouped.chunks(chunk_rows, view.reach_us(entity)):
            chunk = _chunk(view, grouped, transactions, placed, places)
            _fill(out, chunk, features, np.arange(len(chunk.rows)))
            for own in chunk.private_copies(lag_us, chunk_rows):
                _fill(out, own, features, own.starts[1:] - 1)
    return out


def _fill(out: NDArray[np.float32], chunk: Chunk, features: list[tuple[int, Feature]], places: Ints) -> None:
    """Write the features of some places of a chunk, a row of neighbouring columns at a time."""
    values = np.empty((len(places), len(features)), dtype=FEATURE_DTYPE)
    for number, (_, feature) in enumerate(features):
        values[:, number] = chunk.value(feature)[places]
    for part, columns in _runs([column for column, _ in features]):
        out[chunk.rows[places], columns] = values[:, part]


def _runs(columns: list[int]) -> Iterator[tuple[slice, slice]]:
    """Neighbouring columns as pairs of slices, so that a row is written in few pieces."""
    start = 0
    for end in range(1, len(columns) + 1):
        if end == len(columns) or columns[end] != columns[end - 1] + 1:
            yield slice(start, end), slice(columns[start], columns[end - 1] + 1)
            start = end


def _check(transactions: TransactionColumns, labels: LabelColumns) -> None:
    n_rows = len(transactions.event_time_us)
    for column in (
        transactions.transaction_id,
        transactions.amount_minor,
        transactions.customer,
        transactions.terminal,
        transactions.customer_version,
        transactions.terminal_version,
    ):
        if column is not None and column.shape != (n_rows,):
            raise BrokenInvariant(f"a column of {column.shape} stands beside columns of ({n_rows},)")
    for column in (labels.is_fraud, labels.known_at_us, labels.source, labels.confidence):
        if column.shape != labels.row.shape:
            raise BrokenInvariant(f"a label column of {column.shape} stands beside columns of {labels.row.shape}")
    if len(labels.row) and not 0 <= int(labels.row.min()) <= int(labels.row.max()) < n_rows:
        raise BrokenInvariant("a label names a row that is not there")
    for entity in Entity:
        if transactions.version(entity) is not None and len(labels.row) and labels.version(entity) is None:
            raise BrokenInvariant(f"transactions carry {entity} versions and labels do not")


def _fill_calendar(view: FeatureView, transactions: TransactionColumns, out: NDArray[np.float32]) -> None:
    """The features of the transaction alone."""
    time_us = transactions.event_time_us
    for column, feature in enumerate(view.features):
        match feature.measure:
            case Measure.AMOUNT:
                out[:, column] = transactions.amount_minor.astype(np.float64)
            case Measure.WEEKEND:
                out[:, column] = (time_us // US_PER_DAY + EPOCH_WEEKDAY) % 7 >= FIRST_WEEKEND_DAY
            case Measure.NIGHT:
                out[:, column] = time_us // US_PER_HOUR % 24 <= NIGHT_UNTIL_HOUR
            case _ if feature.entity is None:
                raise BrokenInvariant(f"the measure {feature.measure} needs an entity")
            case _:
                pass  # computed entity by entity


def _event_order(transactions: TransactionColumns) -> Ints:
    """Rows by event time, then id. Ids are looked at only where times are equal: sorting text is slow."""
    time_us = transactions.event_time_us
    order = np.argsort(time_us, kind="stable")
    sorted_us = time_us[order]
    same = sorted_us[1:] == sorted_us[:-1]
    if same.any():
        tied = np.zeros(len(order), dtype=np.bool_)
        tied[1:] |= same
        tied[:-1] |= same
        rows = order[tied]
        order[tied] = rows[np.lexsort((transactions.transaction_id[rows], time_us[rows]))]
    return order


def _codes(keys: NDArray[Any]) -> NDArray[np.uint64]:
    """Entity keys as small integers; equal exactly where the keys are."""
    if keys.dtype.kind in "iu":
        signed = keys.astype(np.int64)  # unsigned keys may wrap, and the difference too: equal stays equal
        return (signed - signed.min()).astype(np.uint64)
    return np.unique(keys, return_inverse=True)[1].astype(np.uint64)


def _stable_argsort(codes: NDArray[np.uint64]) -> Ints:
    """A stable argsort by 16 bits at a time: numpy sorts 16-bit integers in linear time."""
    order = np.argsort((codes & np.uint64(0xFFFF)).astype(np.uint16), kind="stable")
    high = int(codes.max()) >> 16
    shift = 16
    while high:
        digit = ((codes >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
        high >>= 16
        shift += 16
    return order


@dataclass(frozen=True, slots=True, eq=False)
class _Grouped:
    """All rows sorted by entity, event time and id.

    Attributes:
        entity: By which entity.
        rows: (n,) the row at each place.
        starts: (n_groups + 1,) the place at which each entity's rows start; n at the end.
        time_us: (n,) event times at the places.
        span_us: From the first event time of all to the last.
    """

    entity: Entity
    rows: Ints
    starts: Ints
    time_us: Ints
    span_us: int

    @classmethod
    def of(cls, entity: Entity, transactions: TransactionColumns, order: Ints) -> _Grouped:
        codes = _codes(transactions.entity(entity))[order]
        by_code = _stable_argsort(codes)
        codes = codes[by_code]
        rows = order[by_code]
        changes = np.flatnonzero(codes[1:] != codes[:-1]) + 1
        starts = np.concatenate(([0], changes, [len(rows)])).astype(np.int64)
        time_us = transactions.event_time_us[rows]
        span_us = int(transactions.event_time_us[order[-1]]) - int(transactions.event_time_us[order[0]])
        return cls(entity, rows, starts, time_us, span_us)

    def places(self) -> Ints:
        """(n,) the place of each row; the inverse of `rows`."""
        places = np.empty(len(self.rows), dtype=np.int64)
        places[self.rows] = np.arange(len(self.rows))
        return places

    def chunks(self, chunk_rows: int, reach_us: int) -> Iterator[tuple[int, int]]:
        """Ranges of places, cut between entities, with at most so many entities that search keys fit 62 bits."""
        most_groups = most_entities(key_stride(self.span_us, reach_us))
        group, n_groups = 0, len(self.starts) - 1
        while group < n_groups:
            full = int(np.searchsorted(self.starts, self.starts[group] + chunk_rows, side="right")) - 1
            end = min(max(full, group + 1), group + most_groups, n_groups)
            yield int(self.starts[group]), int(self.starts[end])
            group = end


def _chunk(
    view: FeatureView,
    grouped: _Grouped,
    transactions: TransactionColumns,
    placed: PlacedLabels,
    places: tuple[int, int],
) -> Chunk:
    """The chunk of a range of places."""
    start, stop = places
    rows = grouped.rows[start:stop]
    first, last = np.searchsorted(grouped.starts, [start, stop])
    starts = grouped.starts[first : last + 1] - start
    low, high = np.searchsorted(placed.place, [start, stop])
    versions = transactions.version(grouped.entity)
    return Chunk(
        view=view,
        entity=grouped.entity,
        rows=rows,
        time_us=grouped.time_us[start:stop],
        amount=transactions.amount_minor[rows],
        group=np.repeat(np.arange(len(starts) - 1), np.diff(starts)),
        starts=starts,
        span_us=grouped.span_us,
        labels=PlacedLabels(
            placed.place[low:high] - start,
            placed.is_fraud[low:high],
            placed.known_at_us[low:high],
            placed.strength[low:high],
            placed.version[low:high],
        ),
        version=None if versions is None else versions[rows],
    )


def _placed(entity: Entity, features: list[Feature], labels: LabelColumns, grouped: _Grouped) -> PlacedLabels:
    """The labels that an entity's features read, sorted by the place of their transaction."""
    measures = {feature.measure for feature in features}
    if measures & _GENUINE_MEASURES:
        chosen: slice | Ints = slice(None)
    elif measures & _FRAUD_MEASURES:  # a genuine label matters only where it may overrule a fraud label
        touched = np.zeros(len(grouped.rows), dtype=np.bool_)
        touched[labels.row[labels.is_fraud]] = True
        chosen = np.flatnonzero(touched[labels.row])
    else:
        chosen = slice(0, 0)
    rows = labels.row[chosen]
    place = grouped.places()[rows] if len(rows) else rows
    order = np.argsort(place, kind="stable")
    place = place[order]

    def take(column: NDArray[Any]) -> NDArray[Any]:
        taken: NDArray[Any] = column[chosen][order]
        return taken

    strength = np.empty(0, dtype=np.int64)
    is_fraud, known_at_us = take(labels.is_fraud), take(labels.known_at_us)
    if (place[1:] == place[:-1]).any():
        strength = np.empty(len(place), dtype=np.int64)
        ranked = np.lexsort((is_fraud, take(labels.confidence), known_at_us, take(labels.source)))
        strength[ranked] = np.arange(len(place))
    versions = labels.version(entity)
    version = np.zeros(len(place), dtype=np.int64) if versions is None else take(versions)
    return PlacedLabels(place, is_fraud, known_at_us, strength, version)
