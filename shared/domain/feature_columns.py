"""Features of whole columns of transactions, equal bit for bit to `features.transform_one` row by row.

How: rows are sorted by entity, event time and id, and cut between entities into chunks that fit a processor cache. In a
chunk every window is a pair of row numbers found by binary search, every count a difference of row numbers, every sum
a difference of integer prefix sums. A label counts for a contiguous range of its entity's rows (from when it is known
to when its transaction leaves the window or another label overrules it), so its effect on a windowed sum is one
addition at the start of the range, one subtraction at its end, and a running sum.

What a row knows is either what was knowable at its event time (no versions given: every event counts as recorded when
it happened, every label when it was known) or what the recorded entity versions say. With versions, a row whose entity
saw an earlier event arrive after it (a late event) does not know a prefix of its entity's rows; such rows are found
and computed by the reference.

Memory: output (n, n_features) float32, plus about 50 bytes for each row and 60 for each label that matters, plus the
work of one chunk. An entity larger than a chunk is one chunk, whose work is linear in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.errors import BrokenInvariant
from shared.domain.feature_folds import (
    AmountWindows,
    Flags,
    Floats,
    FraudRuns,
    Ints,
    Medians,
    Verdicts,
    divide,
    fraud_runs,
    medians,
    overruled,
    running_maximum,
)
from shared.domain.feature_view import (
    EPOCH_WEEKDAY,
    FEATURE_DTYPE,
    FIRST_WEEKEND_DAY,
    MEDIAN_WINDOW_US,
    NIGHT_UNTIL_HOUR,
    Entity,
    Feature,
    FeatureView,
    Measure,
)
from shared.domain.features import History, PastTransaction, transform_one
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.labels import PRECEDENCE, Label, Verdict
from shared.domain.transaction import Transaction

CHUNK_ROWS: Final = 1 << 17
"""Rows of a chunk: 1 MB per column of 8 bytes, about a processor's second-level cache (measured: bench-features)."""

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
    late: list[Ints] = []
    for entity in Entity:
        features = [(column, feature) for column, feature in enumerate(view.features) if feature.entity is entity]
        if not features:
            continue
        grouped = _Grouped.of(entity, transactions, order)
        known = _PlacedLabels.of(entity, [feature for _, feature in features], labels, grouped)
        for start, stop in grouped.chunks(chunk_rows, view.reach_us(entity)):
            chunk = _Chunk.cut(view, grouped, transactions, known=known, places=(start, stop))
            values = np.empty((stop - start, len(features)), dtype=FEATURE_DTYPE)
            for place, (_, feature) in enumerate(features):
                values[:, place] = chunk.value(feature)
            for part, columns in _runs([column for column, _ in features]):
                out[chunk.rows, columns] = values[:, part]
            if chunk.late.any():
                late.append(chunk.rows[chunk.late])
    if late:
        _fill_late(view, transactions, labels, order=order, rows=np.unique(np.concatenate(late)), out=out)
    return out


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
        most_groups = max(1, (1 << 62) // _key_stride(self.span_us, reach_us))
        group, n_groups = 0, len(self.starts) - 1
        while group < n_groups:
            full = int(np.searchsorted(self.starts, self.starts[group] + chunk_rows, side="right")) - 1
            end = min(max(full, group + 1), group + most_groups, n_groups)
            yield int(self.starts[group]), int(self.starts[end])
            group = end


def _key_stride(span_us: int, reach_us: int) -> int:
    """Distance between the search keys of two entities: a window that starts before the first event stays inside."""
    return span_us + reach_us + 2


@dataclass(frozen=True, slots=True, eq=False)
class _PlacedLabels:
    """The labels that an entity's features read, sorted by the place of their transaction.

    Attributes:
        place: (m,) non-falling.
        is_fraud: (m,).
        known_at_us: (m,).
        strength: (m,) int64, the rank of the label by the conflict rule; empty where no transaction has two labels.
        version: (m,) the entity's versions, or None.
    """

    place: Ints
    is_fraud: Flags
    known_at_us: Ints
    strength: Ints
    version: Ints | None

    @classmethod
    def of(cls, entity: Entity, features: list[Feature], labels: LabelColumns, grouped: _Grouped) -> _PlacedLabels:
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
        version = labels.version(entity)
        return cls(place, is_fraud, known_at_us, strength, None if version is None else take(version))


@dataclass(slots=True, eq=False)
class _Chunk:
    """The rows of some entities, sorted by entity, event time and id, and what is computed from them once.

    Attributes:
        view: The feature view.
        rows: (m,) rows of the input.
        time_us: (m,) event times.
        amount: (m,) amounts.
        group: (m,) 0, 1, 2 ... the entity.
        starts: (n_groups + 1,) where entities start.
        base_us: The event time that search keys are counted from.
        stride: Distance of the search keys of two entities.
        key: (m,) rising search keys: group * stride + time - base.
        late: (m,) rows that do not know all rows before them.
        labels: The chunk's labels.
        top_version: (m,) greatest version up to each row of its entity, or None.
    """

    view: FeatureView
    rows: Ints
    time_us: Ints
    amount: Ints
    group: Ints
    starts: Ints
    base_us: int
    stride: int
    key: Ints
    late: Flags
    labels: _PlacedLabels
    top_version: Ints | None
    _bounds: dict[int, Ints] = field(default_factory=dict)
    _verdicts: Verdicts | None = None
    _medians: Medians | None = None
    _run: dict[tuple[int, int], FraudRuns] = field(default_factory=dict)

    @classmethod
    def cut(
        cls,
        view: FeatureView,
        grouped: _Grouped,
        transactions: TransactionColumns,
        *,
        known: _PlacedLabels,
        places: tuple[int, int],
    ) -> _Chunk:
        start, stop = places
        rows = grouped.rows[start:stop]
        time_us = grouped.time_us[start:stop]
        first, last = np.searchsorted(grouped.starts, [start, stop])
        starts = grouped.starts[first : last + 1] - start
        group = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        base_us = int(time_us.min())
        stride = _key_stride(grouped.span_us, view.reach_us(grouped.entity))
        low, high = np.searchsorted(known.place, [start, stop])
        labels = _PlacedLabels(
            known.place[low:high] - start,
            known.is_fraud[low:high],
            known.known_at_us[low:high],
            known.strength[low:high],
            None if known.version is None else known.version[low:high],
        )
        versions = transactions.version(grouped.entity)
        top_version, late = None, np.zeros(len(rows), dtype=np.bool_)
        if versions is not None:
            own = versions[rows]
            top_version = running_maximum(own, starts)
            late = own < top_version
        return cls(
            view=view,
            rows=rows,
            time_us=time_us,
            amount=transactions.amount_minor[rows],
            group=group,
            starts=starts,
            base_us=base_us,
            stride=stride,
            key=group * stride + (time_us - base_us),
            late=late,
            labels=labels,
            top_version=top_version,
        )

    def value(self, feature: Feature) -> Floats | Ints:
        """One feature of all rows of the chunk; (m,)."""
        here = np.arange(len(self.rows))
        match feature.measure:
            case Measure.COUNT:
                high = self.behind(feature.lag_us) if feature.lag_us else here + 1
                return high - self.behind(feature.reach_us)
            case Measure.MEAN_AMOUNT:
                sums = np.concatenate(([0], np.cumsum(self.amount)))
                low = self.behind(feature.window_us)
                return divide(sums[1:] - sums[low], here + 1 - low)
            case Measure.FRAUD_RATE:
                count = self.behind(feature.lag_us) - self.behind(feature.reach_us)
                rate = divide(self.sum_over_verdicts(feature, is_fraud=True), count)
                rate[count == 0] = 0.0
                return rate
            case Measure.KNOWN_FRAUDS:
                return self.sum_over_verdicts(feature, is_fraud=True)
            case Measure.AMOUNT_TO_GENUINE_MEAN:
                count = self.sum_over_verdicts(feature, is_fraud=False)
                total = self.sum_over_verdicts(feature, is_fraud=False, of=self.amount)
                return divide(self.amount * count, total)
            case Measure.LAST_LABEL:
                return self.runs(feature).last_label
            case Measure.FRAUD_RUN:
                return self.runs(feature).length
            case Measure.FRAUD_RUN_AGE:
                return self.runs(feature).age_days
            case Measure.AMOUNT_TO_MEDIAN:
                return divide(2 * self.amount, self.medians().twice_median)
            case Measure.OUTLIERS:
                return self.medians().outliers[feature.window_us]
            case Measure.LARGEST_TO_MEDIAN:
                return divide(2 * self.medians().largest[feature.window_us], self.medians().twice_median)
            case _:
                raise BrokenInvariant(f"the measure {feature.measure} needs no entity")

    def behind(self, reach_us: int) -> Ints:
        """(m,) for each row the first row of its entity with an event time > its own - reach."""
        if reach_us not in self._bounds:
            self._bounds[reach_us] = np.searchsorted(self.key, self.key - reach_us, side="right")
        return self._bounds[reach_us]

    def from_time(self, place: Ints, time_us: Ints) -> Ints:
        """The first rows of the entities at `place` with an event time >= `time_us`; the entity's end without one."""
        offset = np.clip(time_us - self.base_us, 0, self.stride - 1)
        return np.searchsorted(self.key, self.group[place] * self.stride + offset, side="left")

    def verdicts(self) -> Verdicts:
        """What the chunk's labels say, over which rows: known, and not overruled by another label."""
        if self._verdicts is None:
            labels = self.labels
            start = self.from_time(labels.place, labels.known_at_us + self.view.label_delay_us)
            if self.top_version is not None and labels.version is not None:
                start = np.maximum(start, self.from_version(labels.place, labels.version, self.top_version))
            stop = np.full(len(start), len(self.rows), dtype=np.int64)
            found = Verdicts(labels.place, labels.is_fraud, start, stop)
            same = labels.place[1:] == labels.place[:-1]
            self._verdicts = overruled(found, labels.strength, len(self.rows)) if same.any() else found
        return self._verdicts

    def from_version(self, place: Ints, version: Ints, top_version: Ints) -> Ints:
        """The first rows of the entities at `place` that know `version`; exact for rows that are not late."""
        highest = max(int(top_version.max()), int(version.max(initial=0))) + 2
        if highest > (1 << 62) // len(self.starts):
            raise BrokenInvariant(f"entity versions as large as {highest} cannot be searched")
        key = self.group * highest + top_version
        return np.searchsorted(key, self.group[place] * highest + version, side="right")

    def in_window(self, feature: Feature) -> Verdicts:
        """The verdicts, cut to the rows that have their transaction in the feature's window; empty ones left out."""
        verdicts = self.verdicts()
        event_us = self.time_us[verdicts.place]
        start = np.maximum(verdicts.start, self.from_time(verdicts.place, event_us + feature.lag_us))
        stop = np.minimum(verdicts.stop, self.from_time(verdicts.place, event_us + feature.reach_us))
        cut = Verdicts(verdicts.place, verdicts.is_fraud, start, stop)
        return cut.chosen(start < stop)

    def sum_over_verdicts(self, feature: Feature, *, is_fraud: bool, of: Ints | None = None) -> Ints:
        """(m,) how many transactions of the window are known as this, or the sum of a column over them."""
        verdicts = self.in_window(feature)
        verdicts = verdicts.chosen(verdicts.is_fraud == is_fraud)
        change = np.zeros(len(self.rows) + 1, dtype=np.int64)
        weight: Ints | int = 1 if of is None else of[verdicts.place]
        np.add.at(change, verdicts.start, weight)
        np.subtract.at(change, verdicts.stop, weight)
        return np.cumsum(change[:-1])

    def runs(self, feature: Feature) -> FraudRuns:
        """Last label and run of known frauds of each row's window."""
        window = (feature.window_us, feature.lag_us)
        if window not in self._run:
            self._run[window] = fraud_runs(self.in_window(feature), self.time_us, self.starts)
        return self._run[window]

    def medians(self) -> Medians:
        """Median, outliers and largest amounts of all rows."""
        if self._medians is None:
            outliers, largest = (
                {
                    feature.window_us: self.behind(feature.window_us)
                    for feature in self.view.features
                    if feature.measure is measure
                }
                for measure in (Measure.OUTLIERS, Measure.LARGEST_TO_MEDIAN)
            )
            self._medians = medians(
                self.amount, AmountWindows(self.behind(MEDIAN_WINDOW_US), outliers, largest), self.starts
            )
        return self._medians


def _fill_late(
    view: FeatureView,
    transactions: TransactionColumns,
    labels: LabelColumns,
    *,
    order: Ints,
    rows: Ints,
    out: NDArray[np.float32],
) -> None:
    """Compute rows by the reference, from the events that the versions say they knew."""
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    by_row = np.argsort(labels.row, kind="stable")
    label_starts = np.searchsorted(labels.row[by_row], np.arange(len(order) + 1))
    grouped = {entity: _Grouped.of(entity, transactions, order) for entity in Entity}
    places = {entity: grouped[entity].places() for entity in Entity}

    def known_to(row: int, entity: Entity) -> list[PastTransaction]:
        groups, place = grouped[entity], int(places[entity][row])
        first = int(groups.starts[np.searchsorted(groups.starts, place, side="right") - 1])
        horizon_us = int(transactions.event_time_us[row]) - view.reach_us(entity)
        first += int(np.searchsorted(groups.time_us[first:place], horizon_us))
        versions, label_versions = transactions.version(entity), labels.version(entity)
        before = groups.rows[first:place]
        if versions is not None:
            before = before[versions[before] < versions[row]]
        found: list[PastTransaction] = []
        for other in before:
            numbers = by_row[label_starts[other] : label_starts[other + 1]]
            if versions is not None and label_versions is not None:
                numbers = numbers[label_versions[numbers] < versions[row]]
            known = tuple(_label(labels, int(number)) for number in numbers)
            found.append(
                PastTransaction(
                    _rank_id(int(rank[other])),
                    int(transactions.event_time_us[other]),
                    int(transactions.amount_minor[other]),
                    known,
                )
            )
        return found

    for row in rows.tolist():
        transaction = Transaction(
            _rank_id(int(rank[row])),
            CustomerId(""),
            TerminalId(""),
            int(transactions.amount_minor[row]),
            "",
            int(transactions.event_time_us[row]),
        )
        history = History(known_to(row, Entity.CUSTOMER), known_to(row, Entity.TERMINAL))
        out[row] = transform_one(view, transaction, history)


def _rank_id(rank: int) -> TransactionId:
    """An id that sorts as the rank does."""
    return TransactionId(f"{rank:020}")


def _label(labels: LabelColumns, number: int) -> Label:
    known_at_us = int(labels.known_at_us[number])
    return Label(
        transaction_id=TransactionId(""),
        verdict=Verdict.FRAUD if labels.is_fraud[number] else Verdict.GENUINE,
        source=PRECEDENCE[int(labels.source[number])],
        event_time_us=known_at_us,
        known_at_us=known_at_us,
        confidence=int(labels.confidence[number]),
        author="",
    )
