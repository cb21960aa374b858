"""One chunk of rows: what `feature_columns` computes each feature from.

The rows are those of some entities, sorted by entity, event time and id. What several features need (bounds of windows,
verdicts, medians) is computed once and kept while the chunk lives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

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
from shared.domain.feature_view import MEDIAN_WINDOW_US, Entity, Feature, FeatureView, Measure


def key_stride(span_us: int, reach_us: int) -> int:
    """Distance between the search keys of two entities: a window that starts before the first event stays inside."""
    return span_us + reach_us + 2


def most_entities(stride: int) -> int:
    """How many entities one chunk may have, so that search keys stay below 2**62."""
    return max(1, (1 << 62) // stride)


@dataclass(frozen=True, slots=True, eq=False)
class PlacedLabels:
    """The labels that an entity's features read, sorted by the place of their transaction.

    Attributes:
        place: (m,) non-falling.
        is_fraud: (m,).
        known_at_us: (m,).
        strength: (m,) int64, the rank of the label by the conflict rule; empty where no transaction has two labels.
        version: (m,) the entity's versions that they created; read only where rows have versions.
    """

    place: Ints
    is_fraud: Flags
    known_at_us: Ints
    strength: Ints
    version: Ints


@dataclass(slots=True, eq=False)
class Chunk:
    """The rows of some entities, and what is computed from them once.

    Attributes:
        view: The feature view.
        entity: Which kind of entity.
        rows: (m,) rows of the input.
        time_us: (m,) event times.
        amount: (m,) amounts.
        group: (m,) 0, 1, 2 ... the entity.
        starts: (n_groups + 1,) where entities start.
        span_us: Greatest distance of two event times.
        labels: The chunk's labels.
        version: (m,) the entity's version that each row created, or None.
        wanted: (m,) the rows whose costly features are asked for; None for all.
    """

    view: FeatureView
    entity: Entity
    rows: Ints
    time_us: Ints
    amount: Ints
    group: Ints
    starts: Ints
    span_us: int
    labels: PlacedLabels
    version: Ints | None
    wanted: Flags | None = None
    _base_us: int = field(init=False)
    _stride: int = field(init=False)
    _key: Ints = field(init=False)
    _bounds: dict[int, Ints] = field(default_factory=dict)
    _tardy: Ints | None = None
    _verdicts: Verdicts | None = None
    _medians: Medians | None = None
    _run: dict[tuple[int, int], FraudRuns] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make search keys that rise through the chunk: entity times stride, plus time."""
        self._base_us = int(self.time_us.min())
        self._stride = key_stride(self.span_us, self.view.reach_us(self.entity))
        self._key = self.group * self._stride + (self.time_us - self._base_us)

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
            self._bounds[reach_us] = np.searchsorted(self._key, self._key - reach_us, side="right")
        return self._bounds[reach_us]

    def from_time(self, place: Ints, time_us: Ints) -> Ints:
        """The first rows of the entities at `place` with an event time >= `time_us`; the entity's end without one."""
        offset = np.clip(time_us - self._base_us, 0, self._stride - 1)
        return np.searchsorted(self._key, self.group[place] * self._stride + offset, side="left")

    def verdicts(self) -> Verdicts:
        """What the chunk's labels say, over which rows: known, and not overruled by another label."""
        if self._verdicts is None:
            labels = self.labels
            start = self._knowable()
            if self.version is not None:
                tardy = self._tardy_labels(self.version)
                start[tardy] = np.maximum(start[tardy], self._first_knowing(tardy, self.version))
            stop = np.full(len(start), len(self.rows), dtype=np.int64)
            found = Verdicts(labels.place, labels.is_fraud, start, stop)
            same = labels.place[1:] == labels.place[:-1]
            self._verdicts = overruled(found, labels.strength, len(self.rows)) if same.any() else found
        return self._verdicts

    def private_copies(self, lag_us: int, most_rows: int) -> Iterator[Chunk]:
        """Chunks for the rows that do not know all before them: for each an entity of what it knew, itself the last.

        Args:
            lag_us: The least lag of any feature that is asked for.
            most_rows: Rows of one chunk; more only where a single row knows more.
        """
        if self.version is None:
            return
        targets = self._strangers(lag_us, self.version)
        known = np.cumsum(targets - self.behind(self.view.reach_us(self.entity))[targets] + 1)
        most_targets = most_entities(self._stride)
        first = 0
        while first < len(targets):
            gone = int(known[first - 1]) if first else 0
            end = max(first + 1, int(np.searchsorted(known, gone + most_rows, side="right")))
            end = min(end, first + most_targets)
            yield self._as_known_to(targets[first:end], self.version)
            first = end

    def _knowable(self) -> Ints:
        """The row of the entity from which each label counts by its time."""
        return self.from_time(self.labels.place, self.labels.known_at_us + self.view.label_delay_us)

    def _tardy_labels(self, version: Ints) -> Ints:
        """The labels that some row does not know although they count by their time: recorded late."""
        if self._tardy is None:
            backwards = running_maximum(-version[::-1], len(self.rows) - self.starts[::-1])
            least_from_here = -backwards[::-1]
            start = self._knowable()
            ever = start < self.starts[self.group[self.labels.place] + 1]
            least = least_from_here[np.minimum(start, len(self.rows) - 1)]
            self._tardy = np.flatnonzero(ever & (least < self.labels.version))
        return self._tardy

    def _strangers(self, lag_us: int, version: Ints) -> Ints:
        """The rows that do not know a prefix of their entity's rows, or of its tardy labels in order of version.

        Those for which a row at least `lag_us` before them came after them, and those that came before a tardy label
        while an earlier row of the entity came after it.
        """
        top = running_maximum(version, self.starts)
        before = self.behind(lag_us) if lag_us else np.arange(len(self.rows)) + 1
        seen = before > self.starts[self.group]
        strange = seen & (top[np.maximum(before, 1) - 1] > version)
        keys, scale = self._version_keys(self._tardy_labels(version), version)
        keys.sort()
        below_top = np.searchsorted(keys, self.group * scale + top, side="left")
        known = np.searchsorted(keys, self.group * scale + version, side="right")
        return np.flatnonzero(strange | (below_top > known))

    def _version_keys(self, labels: Ints, version: Ints) -> tuple[Ints, int]:
        """Search keys of the versions of some labels, and the distance of the keys of two entities."""
        versions = self.labels.version[labels]
        scale = max(int(version.max()), int(versions.max(initial=0))) + 2
        if scale > (1 << 62) // len(self.starts) or min(int(version.min()), int(versions.min(initial=0))) < 0:
            raise BrokenInvariant("entity versions cannot be searched: negative, or too large")
        return self.group[self.labels.place[labels]] * scale + versions, scale

    def _first_knowing(self, labels: Ints, version: Ints) -> Ints:
        """The first rows of the entities that know these labels by their version; exact but for strangers."""
        keys, scale = self._version_keys(labels, version)
        top = self.group * scale + running_maximum(version, self.starts)
        return np.searchsorted(top, keys, side="right")

    def _as_known_to(self, targets: Ints, version: Ints) -> Chunk:
        """A chunk with one entity for each target (rows of this chunk, rising): what it knew within reach, and it."""
        labels = self.labels
        group, place = _expanded(self.behind(self.view.reach_us(self.entity))[targets], targets + 1)
        own = version[targets]
        known = (version[place] < own[group]) | (place == targets[group])
        group, place = group[known], place[known]
        label_starts = np.searchsorted(labels.place, np.arange(len(self.rows) + 1))
        of, number = _expanded(label_starts[place], label_starts[place + 1])
        recorded = labels.version[number] < own[group[of]]
        of, number = of[recorded], number[recorded]
        starts = np.searchsorted(group, np.arange(len(targets) + 1))
        wanted = np.zeros(len(place), dtype=np.bool_)
        wanted[starts[1:] - 1] = True
        return Chunk(
            view=self.view,
            entity=self.entity,
            rows=self.rows[place],
            time_us=self.time_us[place],
            amount=self.amount[place],
            group=group,
            starts=starts,
            span_us=self.span_us,
            labels=PlacedLabels(
                of,
                labels.is_fraud[number],
                labels.known_at_us[number],
                labels.strength[number] if len(labels.strength) else labels.strength,
                labels.version[number],
            ),
            version=None,
            wanted=wanted,
        )

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
            windows = AmountWindows(self.behind(MEDIAN_WINDOW_US), outliers, largest)
            self._medians = medians(self.amount, windows, self.starts, self.wanted)
        return self._medians


def _expanded(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """All numbers of the ranges [low, high), and for each the number of its range."""
    count = high - low
    of = np.repeat(np.arange(len(count)), count)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count) + low[of]
