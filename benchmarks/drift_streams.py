"""Payments with and without drift, hour by hour, for the watch and for what it is compared with.

A stream is a world of the simulator, or a random half of the Handbook's cardholders: features are computed as serving
would have known them, the reference is four weeks, a week of label delay lies behind it, two weeks are learnt from and
two are judged. A drift multiplies all amounts from an hour on, any hour of the day, before features are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_features import load
from shared.domain.bundle_reference import SCORE, Reference, histogram_of
from shared.domain.drift_counts import DecidedRows, HourCounts, hour_counts
from shared.domain.drift_policy import (
    LENGTHS,
    MEMORY_US,
    Clusters,
    Finding,
    Measured,
    Usual,
    Watched,
    judge,
    measure,
    usual,
)
from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from simulator.changes import Change
from simulator.config import WorldConfig
from simulator.history import history_of
from simulator.world import World

HOURS_PER_DAY: Final = 24
REFERENCE: Final = (53, 81)
LEARNT: Final = 81
JUDGED: Final = 109
END: Final = 123
"""Days of a stream: the reference, then from where the watch runs, is judged, and ends (336 hours)."""

type Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Payments as the scoring app would have seen them.

    Attributes:
        columns: The transactions, ordered by time.
        labels: Their labels.
        vectors: (n, n_features) float32.
        hour: (n,) int64, hours since the stream's first day.
        first_us: The first microsecond of the first day.
        is_fraud: (n,) bool, the truth.
    """

    columns: TransactionColumns
    labels: LabelColumns
    vectors: NDArray[np.float32]
    hour: Ints
    first_us: int
    is_fraud: NDArray[np.bool_]

    @classmethod
    def of(cls, columns: TransactionColumns, labels: LabelColumns, is_fraud: NDArray[np.bool_]) -> Stream:
        """The stream of some transactions."""
        first_us = int(columns.event_time_us.min()) // US_PER_DAY * US_PER_DAY
        hour = (columns.event_time_us - first_us) // US_PER_HOUR
        return cls(columns, labels, transform_many(CARD_V1, columns, labels), hour, first_us, is_fraud)

    def with_amounts(self, factor: float, from_hour: int) -> Stream:
        """The same with all amounts times a factor from an hour on."""
        amount = self.columns.amount_minor.copy()
        later = self.hour >= from_hour
        amount[later] = np.maximum(1, np.rint(amount[later] * factor)).astype(np.int64)
        return Stream.of(replace(self.columns, amount_minor=amount), self.labels, self.is_fraud)


def simulated(seed: int, *, days: int = END, changes: tuple[Change, ...] = (), customers: int = 5_000) -> Stream:
    """A world of the simulator."""
    world = World.create(WorldConfig(customers=customers, changes=changes), np.random.default_rng(seed))
    history = history_of(world, 0, days)
    return Stream.of(history.transactions, history.labels, history.is_fraud)


def handbook(seed: int, *, days: int = END) -> tuple[Stream, str]:
    """A random half of the Handbook's cardholders, and where the data come from."""
    columns, labels, source = load()
    rng = np.random.default_rng(seed)
    chosen = rng.random(int(columns.customer.max()) + 1) < 0.5
    first = int(rng.integers(0, 157 - days)) if days < 157 else 0
    start_us = int(columns.event_time_us.min()) // US_PER_DAY * US_PER_DAY + first * US_PER_DAY
    inside = (columns.event_time_us >= start_us) & (columns.event_time_us < start_us + days * US_PER_DAY)
    kept = np.flatnonzero(chosen[columns.customer] & inside)
    kept = kept[np.argsort(columns.event_time_us[kept], kind="stable")]
    is_fraud = np.zeros(len(columns.customer), dtype=np.bool_)
    is_fraud[labels.row] = labels.is_fraud
    taken = TransactionColumns(
        transaction_id=columns.transaction_id[kept],
        event_time_us=columns.event_time_us[kept],
        amount_minor=columns.amount_minor[kept],
        customer=columns.customer[kept],
        terminal=columns.terminal[kept],
    )
    rows = np.arange(len(kept))
    made = LabelColumns(
        rows,
        is_fraud[kept],
        taken.event_time_us,
        np.full(len(kept), 3, dtype=np.int8),
        np.full(len(kept), 100, dtype=np.int8),
    )
    return Stream.of(taken, made, is_fraud[kept]), source


def reference_of(stream: Stream, raw: NDArray[np.float32]) -> Reference:
    """The histograms that a bundle trained before would carry."""
    first, last = (day * HOURS_PER_DAY for day in REFERENCE)
    rows = np.flatnonzero((stream.hour >= first) & (stream.hour < last))
    time_us = stream.columns.event_time_us[rows]
    found = {name: histogram_of(stream.vectors[rows, place], time_us) for place, name in enumerate(CARD_V1.names)}
    found[SCORE] = histogram_of(raw[rows], time_us)
    return Reference(stream.first_us + REFERENCE[0] * US_PER_DAY, stream.first_us + REFERENCE[1] * US_PER_DAY, found)


class Watch:
    """The watch over a stream, its past in memory."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self._hours: list[HourCounts] = []
        self._past: dict[tuple[str, int, int], list[tuple[int, float, float]]] = {}
        self._recent: list[Measured] = []

    def copy(self) -> Watch:
        """The same watch, to be led on another way."""
        other = Watch(self.watched)
        other._hours = list(self._hours)
        other._past = {key: list(rows) for key, rows in self._past.items()}
        other._recent = list(self._recent)
        return other

    def run(
        self, stream: Stream, raw: NDArray[np.float32], hours: range, *, learning: bool = False
    ) -> Iterator[tuple[int, list[Finding]]]:
        """Judge hours one after the other; while learning, every window counts as usual."""
        edges = np.searchsorted(stream.hour, np.arange(hours.start - max(LENGTHS), hours.stop + 1))
        base = hours.start - max(LENGTHS)
        for hour in hours:
            rows = slice(edges[hour - base], edges[hour - base + 1])
            parts = DecidedRows(
                stream.columns.event_time_us[rows],
                stream.vectors[rows],
                raw[rows],
                raw[rows].astype(np.float64),
                np.zeros(rows.stop - rows.start, dtype=np.int8),
                np.ones(rows.stop - rows.start, dtype=np.bool_),
            )
            start_us = stream.first_us + hour * US_PER_HOUR
            self._hours.append(hour_counts(self.watched.reference, CARD_V1.names, start_us, [parts]))
            found = []
            for length in LENGTHS:
                span = slice(edges[max(hour - base - length + 1, 0)], rows.stop)
                usuals = {name: self._usual(name, length, start_us + US_PER_HOUR) for name in self.watched.subjects}
                inside = [one for one in self._hours if one.start_us > start_us - length * US_PER_HOUR]
                found += measure(self.watched, inside, clusters_of(stream.columns, span), usuals, length)
            for one in found:
                if (learning or not one.broken) and one.n_rows:
                    past = self._past.setdefault((one.subject, one.hours, hour % HOURS_PER_DAY), [])
                    past.append((one.end_us, one.distance - one.chance, one.level))
            self._hours = self._hours[-max(LENGTHS) :]
            self._recent = [one for one in self._recent if one.end_us > start_us - 2 * US_PER_HOUR] + found
            yield hour, judge(self.watched.policy, self._recent, start_us + US_PER_HOUR)

    def _usual(self, name: str, length: int, end_us: int) -> Usual:
        hour = (end_us // US_PER_HOUR - 1) % HOURS_PER_DAY
        kept = np.array(self._past.get((name, length, hour), ()), dtype=np.float64).reshape(-1, 3)
        kept = kept[(kept[:, 0] >= end_us - MEMORY_US) & (kept[:, 0] <= end_us - US_PER_DAY)]
        return usual(kept[:, 0].astype(np.int64), kept[:, 1], kept[:, 2], length, end_us)


def clusters_of(columns: TransactionColumns, rows: slice) -> Clusters:
    """How the transactions of some rows cluster."""
    counts = [np.unique(ids[rows], return_counts=True)[1] for ids in (columns.customer, columns.terminal)]
    return Clusters(int(counts[0].sum()), *(int((each**2).sum()) for each in counts))
