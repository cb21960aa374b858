"""Features of one transaction from entity state: equal in every bit to `features.transform_one` over raw history.

Two scans. Windows that end at the transaction (`_read_near`) need single amounts, because a median does: they cost
what the windows hold. Windows that lag behind it (`_read_lagged`) need counts, sums and labels: tiles that lie inside
a window and whose labels are all known give their sums, and only tiles that an edge cuts are looked into.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.entity_state import EntityState
from shared.domain.entity_state_tiles import Tile, place_of
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import (
    EPOCH_WEEKDAY,
    FEATURE_DTYPE,
    FIRST_WEEKEND_DAY,
    MEDIAN_WINDOW_US,
    NIGHT_UNTIL_HOUR,
    OUTLIER_DENOMINATOR,
    OUTLIER_NUMERATOR,
    Entity,
    Feature,
    FeatureView,
    Measure,
)
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.transaction import Transaction

_START: Final = attrgetter("start_us")

_CALENDAR: Final = frozenset({Measure.AMOUNT, Measure.WEEKEND, Measure.NIGHT})
_BESIDE_MEDIAN: Final = frozenset({Measure.AMOUNT_TO_MEDIAN, Measure.OUTLIERS, Measure.LARGEST_TO_MEDIAN})
_NEAR: Final = _BESIDE_MEDIAN | {Measure.COUNT, Measure.MEAN_AMOUNT}
_LAGGED: Final = frozenset(
    {
        Measure.COUNT,
        Measure.FRAUD_RATE,
        Measure.KNOWN_FRAUDS,
        Measure.LAST_LABEL,
        Measure.FRAUD_RUN,
        Measure.FRAUD_RUN_AGE,
        Measure.AMOUNT_TO_GENUINE_MEAN,
    }
)

type _Places = tuple[int, ...]
"""Places in the feature vector."""


class _NearWindow(NamedTuple):
    """What is wanted of a window that ends at the transaction."""

    window_us: int
    n_events: _Places
    mean_amount: _Places
    amount_to_median: _Places
    outliers: _Places
    largest_to_median: _Places


class _LaggedWindow(NamedTuple):
    """What is wanted of a window that ends a lag before the transaction."""

    window_us: int
    n_events: _Places
    fraud_rate: _Places
    known_frauds: _Places
    genuine_mean: _Places
    last_label: _Places
    fraud_run: _Places
    fraud_run_age: _Places


class _Near(NamedTuple):
    """Windows without lag over one entity."""

    of_terminal: bool
    reach_us: int
    beside_median: bool
    windows: tuple[_NearWindow, ...]


class _Lagged(NamedTuple):
    """Windows with one lag over one entity, by rising length."""

    of_terminal: bool
    lag_us: int
    windows: tuple[_LaggedWindow, ...]


class StateReader:
    """Reads the features of one view; made once, because sorting them by scan and window costs more than a read.

    Raises:
        BrokenInvariant: The view has a measure in a window that state has no scan for.
    """

    __slots__ = ("_calendar", "_lagged", "_near", "_size", "view")

    def __init__(self, view: FeatureView) -> None:
        self.view = view
        self._size = len(view.features)
        for feature in view.features:
            _check(feature)
        self._calendar = [
            (place, feature.measure) for place, feature in enumerate(view.features) if feature.entity is None
        ]
        lags = {(feature.entity, feature.lag_us): None for feature in view.features if feature.entity is not None}
        self._near = [_near_plan(view, entity) for entity, lag_us in lags if not lag_us]
        self._lagged = [_lagged_plan(view, entity, lag_us) for entity, lag_us in lags if lag_us]

    def read(self, customer: EntityState, terminal: EntityState, transaction: Transaction) -> NDArray[np.float32]:
        """The feature vector of one transaction, which state does not hold yet or ignores.

        Equal to `transform_one` over all transactions and labels folded so far, if the transaction is not later than
        the lateness that the horizon allows for; else over those that state has kept.

        Args:
            customer: State of its customer.
            terminal: State of its terminal.
            transaction: The transaction to score.

        Returns:
            (n_features,) float32 in the order of the view; NaN where a feature's null rule says so.

        Raises:
            BrokenInvariant: A state was kept for another view or entity.
        """
        self._check_state(customer, Entity.CUSTOMER)
        self._check_state(terminal, Entity.TERMINAL)
        values = [0.0] * self._size
        for place, measure in self._calendar:
            values[place] = _calendar(measure, transaction)
        for near in self._near:
            _read_near(near, (terminal if near.of_terminal else customer).tiles, transaction, values)
        known_us = transaction.event_time_us - self.view.label_delay_us
        for lagged in self._lagged:
            _read_lagged(lagged, (terminal if lagged.of_terminal else customer).tiles, transaction, known_us, values)
        return np.array(values, dtype=np.float64).astype(FEATURE_DTYPE)

    def _check_state(self, state: EntityState, entity: Entity) -> None:
        header = state.header
        if header.view != self.view.name or header.entity is not entity:
            found = f"{header.entity} for {header.view}"
            raise BrokenInvariant(f"state of a {found} given as that of a {entity} for {self.view.name}")


def _check(feature: Feature) -> None:
    """Refuse a feature that no scan gives."""
    of_entity = _LAGGED if feature.lag_us else _NEAR
    known = _CALENDAR if feature.entity is None else of_entity
    if feature.measure not in known:
        raise BrokenInvariant(f"state cannot give {feature.name}: {feature.measure} at a lag of {feature.lag_us} us")


def _windows(view: FeatureView, entity: Entity, lag_us: int) -> list[int]:
    """Lengths of the windows of an entity at a lag, rising, microseconds."""
    return sorted({item.window_us for item in view.features if item.entity is entity and item.lag_us == lag_us})


def _places(view: FeatureView, entity: Entity, lag_us: int, window_us: int, measure: Measure) -> _Places:
    """Where the view has this measure of this window."""
    wanted = (entity, lag_us, window_us, measure)
    return tuple(
        place
        for place, item in enumerate(view.features)
        if (item.entity, item.lag_us, item.window_us, item.measure) == wanted
    )


def _near_plan(view: FeatureView, entity: Entity) -> _Near:
    measures = (
        Measure.COUNT,
        Measure.MEAN_AMOUNT,
        Measure.AMOUNT_TO_MEDIAN,
        Measure.OUTLIERS,
        Measure.LARGEST_TO_MEDIAN,
    )
    found = tuple(
        _NearWindow(window_us, *(_places(view, entity, 0, window_us, measure) for measure in measures))
        for window_us in _windows(view, entity, 0)
    )
    beside_median = any(each.amount_to_median or each.outliers or each.largest_to_median for each in found)
    reach_us = max(found[-1].window_us, MEDIAN_WINDOW_US if beside_median else 0)
    return _Near(entity is Entity.TERMINAL, reach_us, beside_median, found)


def _lagged_plan(view: FeatureView, entity: Entity, lag_us: int) -> _Lagged:
    measures = (
        Measure.COUNT,
        Measure.FRAUD_RATE,
        Measure.KNOWN_FRAUDS,
        Measure.AMOUNT_TO_GENUINE_MEAN,
        Measure.LAST_LABEL,
        Measure.FRAUD_RUN,
        Measure.FRAUD_RUN_AGE,
    )
    found = tuple(
        _LaggedWindow(window_us, *(_places(view, entity, lag_us, window_us, measure) for measure in measures))
        for window_us in _windows(view, entity, lag_us)
    )
    return _Lagged(entity is Entity.TERMINAL, lag_us, found)


def _calendar(measure: Measure, transaction: Transaction) -> float:
    """A feature of the transaction alone."""
    now_us = transaction.event_time_us
    if measure is Measure.AMOUNT:
        return float(transaction.amount_minor)
    if measure is Measure.WEEKEND:
        return float((now_us // US_PER_DAY + EPOCH_WEEKDAY) % 7 >= FIRST_WEEKEND_DAY)
    return float(now_us % US_PER_DAY // US_PER_HOUR <= NIGHT_UNTIL_HOUR)


def _read_near(near: _Near, tiles: tuple[Tile, ...], transaction: Transaction, values: list[float]) -> None:
    """Windows that end at the transaction and include it."""
    now_us, amount = transaction.event_time_us, transaction.amount_minor
    times, amounts = _before(tiles, transaction, near.reach_us)
    last = len(times)
    twice_median = most = 0
    if near.beside_median:
        twice_median = _twice_median(amounts[bisect_right(times, now_us - MEDIAN_WINDOW_US) :])
        # For integers, a * x > b is x > b // a.
        most = OUTLIER_NUMERATOR * twice_median // (2 * OUTLIER_DENOMINATOR)
    amounts.append(amount)
    for window_us, n_events, mean_amount, amount_to_median, outliers, largest_to_median in near.windows:
        low = bisect_right(times, now_us - window_us)
        inside = amounts[low:]
        for place in n_events:
            values[place] = float(last + 1 - low)
        for place in mean_amount:
            values[place] = _divide(sum(inside), last + 1 - low)
        for place in amount_to_median:
            values[place] = _divide(2 * amount, twice_median)
        for place in outliers:
            values[place] = float(sum([each > most for each in inside])) if twice_median else 0.0
        for place in largest_to_median:
            values[place] = _divide(2 * max(inside), twice_median)


def _before(tiles: tuple[Tile, ...], transaction: Transaction, reach_us: int) -> tuple[list[int], list[int]]:
    """Times and amounts of the events before the transaction in their order, at least as far back as the reach."""
    now_us = transaction.event_time_us
    last = bisect_right(tiles, now_us, key=_START) - 1
    first = max(0, bisect_right(tiles, now_us - reach_us, key=_START) - 1)
    times: list[int] = []
    amounts: list[int] = []
    for tile in tiles[first : last + 1]:
        times += tile.times
        amounts += tile.amounts
    if times and times[-1] >= now_us:
        behind = len(tiles[last].times) - place_of(tiles[last], now_us, transaction.transaction_id)
        del times[len(times) - behind :], amounts[len(amounts) - behind :]
    return times, amounts


def _twice_median(amounts: list[int]) -> int:
    """The sum of the two middle amounts; 0 without any."""
    amounts.sort()
    count = len(amounts)
    return amounts[(count - 1) // 2] + amounts[count // 2] if count else 0


class _Scan:
    """What lies between the lag's edge and the edge reached so far, walking back in time.

    Attributes:
        n_events: Events.
        n_fraud: Known frauds.
        n_genuine: Known genuine ones.
        genuine_sum: Sum of their amounts.
        labelled: Rows with labels as (tile, from, to), back to where the first genuine one is: no run reaches further.
    """

    __slots__ = ("_known_us", "_row", "_tile", "_tiles", "genuine_sum", "labelled", "n_events", "n_fraud", "n_genuine")

    def __init__(self, tiles: tuple[Tile, ...], end_us: int, known_us: int) -> None:
        self._tiles = tiles
        self._known_us = known_us
        self._tile = bisect_right(tiles, end_us, key=_START) - 1
        self._row = bisect_right(tiles[self._tile].times, end_us) if self._tile >= 0 else 0
        self.n_events = self.n_fraud = self.n_genuine = self.genuine_sum = 0
        self.labelled: list[tuple[Tile, int, int]] = []

    def back_to(self, start_us: int) -> None:
        """Take in the events after this time."""
        while self._tile >= 0:
            tile = self._tiles[self._tile]
            if tile.start_us <= start_us:
                if tile.start_us + tile.width_us > start_us:
                    low = bisect_right(tile.times, start_us)
                    self._part(tile, low, self._row)
                    self._row = low
                return
            self._part(tile, 0, self._row)
            self._tile -= 1
            self._whole_tiles_after(start_us)
            self._row = len(self._tiles[self._tile].times) if self._tile >= 0 else 0

    def _whole_tiles_after(self, start_us: int) -> None:
        """Take in whole tiles by their sums; the loop that a very hot entity is spent in."""
        tiles, known_us, place = self._tiles, self._known_us, self._tile
        n_events = n_fraud = genuine_sum = 0
        n_genuine = self.n_genuine
        while place >= 0:
            tile = tiles[place]
            if tile.start_us <= start_us or tile.known_by_us > known_us:
                break
            rows = len(tile.times)
            n_events += rows
            if tile.label_rows:
                if not n_genuine:
                    self.labelled.append((tile, 0, rows))
                n_fraud += tile.n_fraud
                n_genuine += tile.n_genuine
                genuine_sum += tile.genuine_sum
            place -= 1
        self._tile = place
        self.n_events += n_events
        self.n_fraud += n_fraud
        self.n_genuine = n_genuine
        self.genuine_sum += genuine_sum

    def _part(self, tile: Tile, low: int, high: int) -> None:
        """Take in some rows of a tile."""
        if low >= high:
            return
        self.n_events += high - low
        rows = tile.label_rows
        if not rows:
            return
        if not self.n_genuine:
            self.labelled.append((tile, low, high))
        first, last = bisect_left(rows, low), bisect_left(rows, high)
        if first == last:
            return
        known, codes = tile.label_known[first:last], tile.label_codes[first:last]
        one_each = last - first == high - low and len(rows) == tile.n_fraud + tile.n_genuine
        if one_each and max(known) <= self._known_us:  # every row has its only label: sums instead of a walk
            amounts = tile.amounts[low:high]
            frauds = [amounts[row] for row, code in enumerate(codes) if code & 1] if tile.n_fraud else []
            self.n_fraud += len(frauds)
            self.n_genuine += len(amounts) - len(frauds)
            self.genuine_sum += sum(amounts) - sum(frauds)
            return
        labels = zip(rows[first:last], known, codes, strict=True)
        # Within a row labels rise in strength with known-at, so a later entry replaces an earlier one.
        held = {row: code for row, known_us, code in labels if known_us <= self._known_us}
        genuine = [tile.amounts[row] for row, code in held.items() if not code & 1]
        self.n_fraud += len(held) - len(genuine)
        self.n_genuine += len(genuine)
        self.genuine_sum += sum(genuine)


def _run(labelled: list[tuple[Tile, int, int]], known_us: int) -> tuple[float, int, int]:
    """The last verdict (NaN without one), the length of the run of frauds that ends there, and when the run began."""
    last, length, began_us = math.nan, 0, 0
    for tile, low, high in labelled:
        rows, seen = tile.label_rows, -1
        for at in range(bisect_left(rows, high) - 1, bisect_left(rows, low) - 1, -1):
            row = rows[at]
            if row == seen or tile.label_known[at] > known_us:
                continue  # a stronger label of the row holds, or this one is not known yet
            seen = row
            if not tile.label_codes[at] & 1:
                return (1.0 if length else 0.0), length, began_us
            last, length, began_us = 1.0, length + 1, tile.times[row]
    return last, length, began_us


def _read_lagged(
    lagged: _Lagged, tiles: tuple[Tile, ...], transaction: Transaction, known_us: int, values: list[float]
) -> None:
    """Windows that end a lag before the transaction."""
    now_us = transaction.event_time_us
    scan = _Scan(tiles, now_us - lagged.lag_us, known_us)
    for window in lagged.windows:
        scan.back_to(now_us - lagged.lag_us - window.window_us)
        for place in window.n_events:
            values[place] = float(scan.n_events)
        for place in window.fraud_rate:
            values[place] = _divide(scan.n_fraud, scan.n_events) if scan.n_events else 0.0
        for place in window.known_frauds:
            values[place] = float(scan.n_fraud)
        for place in window.genuine_mean:
            values[place] = _divide(transaction.amount_minor * scan.n_genuine, scan.genuine_sum)
        if window.last_label or window.fraud_run or window.fraud_run_age:
            last, length, began_us = _run(scan.labelled, known_us)
            for place in window.last_label:
                values[place] = last
            for place in window.fraud_run:
                values[place] = float(length)
            for place in window.fraud_run_age:
                values[place] = _divide(now_us - began_us, US_PER_DAY) if length else math.nan


def _divide(numerator: int, denominator: int) -> float:
    """The one division of a feature, as in the reference: both sides become binary64 first; NaN by zero."""
    return float(numerator) / float(denominator) if denominator else math.nan
