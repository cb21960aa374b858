"""Features of one transaction from entity state: equal in every bit to `features.transform_one` over raw history.

Windows that end at the transaction (`_read_near`) need single amounts, because a median does: they cost what the
windows hold. Windows that lag behind it (`_read_lagged`) need counts, sums and labels, which come from scans.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.entity_state import EntityState
from shared.domain.entity_state_scan import counts, fraud_run
from shared.domain.entity_state_spans import Tiles
from shared.domain.entity_state_tiles import Column, place_of
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import (
    EPOCH_WEEKDAY,
    FEATURE_DTYPE,
    FIRST_WEEKEND_DAY,
    LABEL_MEASURES,
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

_CALENDAR: Final = frozenset({Measure.AMOUNT, Measure.WEEKEND, Measure.NIGHT})
_BESIDE_MEDIAN: Final = frozenset({Measure.AMOUNT_TO_MEDIAN, Measure.OUTLIERS, Measure.LARGEST_TO_MEDIAN})
_NEAR: Final = _BESIDE_MEDIAN | {Measure.COUNT, Measure.MEAN_AMOUNT}
_LAGGED: Final = LABEL_MEASURES | {Measure.COUNT}

NOWHERE: Final = -1
"""The place of a value that no feature wants; a read has one value more than the view has features, at the end."""


class _NearWindow(NamedTuple):
    """Where the values of a window go that ends at the transaction."""

    window_us: int
    n_events: int
    mean_amount: int
    amount_to_median: int
    outliers: int
    largest_to_median: int


class _Near(NamedTuple):
    """Windows without lag over one entity."""

    of_terminal: bool
    reach_us: int
    beside_median: bool
    windows: tuple[_NearWindow, ...]


class _LaggedWindow(NamedTuple):
    """Where the values of a window go that ends a lag before the transaction."""

    window_us: int
    n_events: int
    known_frauds: int
    fraud_rate: int
    genuine_mean: int


class _Run(NamedTuple):
    """Where the values of a run of frauds go that ends a lag before the transaction."""

    window_us: int
    last_label: int
    length: int
    age: int


class _Lagged(NamedTuple):
    """Windows with one lag over one entity, by rising length."""

    of_terminal: bool
    lag_us: int
    windows: tuple[_LaggedWindow, ...]
    runs: tuple[_Run, ...]


class StateReader:
    """Reads the features of one view; made once, because sorting them by scan and window costs more than a read.

    Raises:
        BrokenInvariant: The view has a measure in a window that state has no scan for.
    """

    __slots__ = ("_blank", "_calendar", "_copies", "_customer_us", "_lagged", "_near", "_terminal_us", "view")

    def __init__(self, view: FeatureView) -> None:
        self.view = view
        self._customer_us = view.horizon_us(Entity.CUSTOMER)
        self._terminal_us = view.horizon_us(Entity.TERMINAL)
        self._blank = [0.0] * (len(view.features) + 1)
        self._copies = _copies(view)
        for feature in view.features:
            _check(feature)
        self._calendar = _calendar_places(view)
        lags = {(feature.entity, feature.lag_us): None for feature in view.features if feature.entity is not None}
        self._near = [_near_plan(view, entity) for entity, lag_us in lags if not lag_us]
        self._lagged = [_lagged_plan(view, entity, lag_us) for entity, lag_us in lags if lag_us]

    def read(self, customer: EntityState, terminal: EntityState, transaction: Transaction) -> NDArray[np.float32]:
        """The feature vector of one transaction, which state does not hold yet or ignores.

        Equal to `transform_one` over all transactions and labels folded so far, if the transaction is not later than
        the lateness that the horizon allows for; else over those that state has kept. State may be kept further back
        than the view looks: what it holds beside that is not read.

        Args:
            customer: State of its customer.
            terminal: State of its terminal.
            transaction: The transaction to score.

        Returns:
            (n_features,) float32 in the order of the view; NaN where a feature's null rule says so.

        Raises:
            BrokenInvariant: A state is of another entity, or does not reach back as far as the view looks.
        """
        self._check_state(customer, Entity.CUSTOMER, self._customer_us)
        self._check_state(terminal, Entity.TERMINAL, self._terminal_us)
        values = self._blank.copy()
        amount, weekend, night = self._calendar
        now_us = transaction.event_time_us
        day, within_us = divmod(now_us, US_PER_DAY)
        values[amount] = float(transaction.amount_minor)
        values[weekend] = float((day + EPOCH_WEEKDAY) % 7 >= FIRST_WEEKEND_DAY)
        values[night] = float(within_us // US_PER_HOUR <= NIGHT_UNTIL_HOUR)
        for near in self._near:
            _read_near(near, (terminal if near.of_terminal else customer).tiles, transaction, values)
        known_us = now_us - self.view.label_delay_us
        for lagged in self._lagged:
            _read_lagged(lagged, (terminal if lagged.of_terminal else customer).tiles, transaction, known_us, values)
        for source, target in self._copies:
            values[target] = values[source]
        # Binary64 to binary32 in one rounding, as in the reference.
        return np.array(values[:NOWHERE], dtype=FEATURE_DTYPE)

    def _check_state(self, state: EntityState, entity: Entity, needed_us: int) -> None:
        header = state.header
        if header.complete_us < needed_us or header.entity is not entity:
            found = f"state of a {header.entity}, complete for {header.complete_us} us (horizon of {header.view})"
            raise BrokenInvariant(f"{found}, given as that of a {entity}: {self.view.name} needs {needed_us} us")


def _check(feature: Feature) -> None:
    """Refuse a feature that no scan gives."""
    of_entity = _LAGGED if feature.lag_us else _NEAR
    known = _CALENDAR if feature.entity is None else of_entity
    if feature.measure not in known:
        raise BrokenInvariant(f"state cannot give {feature.name}: {feature.measure} at a lag of {feature.lag_us} us")


def _windows(view: FeatureView, entity: Entity, lag_us: int) -> list[int]:
    """Lengths of the windows of an entity at a lag, rising, microseconds."""
    return sorted({item.window_us for item in view.features if item.entity is entity and item.lag_us == lag_us})


def _key(feature: Feature) -> tuple[Entity | None, int, int, Measure]:
    """What two features share that have the same value."""
    return feature.entity, feature.lag_us, feature.window_us, feature.measure


def _place(view: FeatureView, entity: Entity, lag_us: int, window_us: int, measure: Measure) -> int:
    """The first place at which the view has this measure of this window."""
    keys = [_key(feature) for feature in view.features]
    wanted = (entity, lag_us, window_us, measure)
    return keys.index(wanted) if wanted in keys else NOWHERE


def _copies(view: FeatureView) -> list[tuple[int, int]]:
    """Places of features that have the value of an earlier one: from, to."""
    keys = [_key(feature) for feature in view.features]
    return [(keys.index(key), place) for place, key in enumerate(keys) if keys.index(key) < place]


def _near_plan(view: FeatureView, entity: Entity) -> _Near:
    measures = (
        Measure.COUNT,
        Measure.MEAN_AMOUNT,
        Measure.AMOUNT_TO_MEDIAN,
        Measure.OUTLIERS,
        Measure.LARGEST_TO_MEDIAN,
    )
    found = tuple(
        [
            _NearWindow(window_us, *[_place(view, entity, 0, window_us, measure) for measure in measures])
            for window_us in _windows(view, entity, 0)
        ]
    )
    beside_median = any(max(each.amount_to_median, each.outliers, each.largest_to_median) != NOWHERE for each in found)
    reach_us = max(found[-1].window_us, MEDIAN_WINDOW_US if beside_median else 0)
    return _Near(entity is Entity.TERMINAL, reach_us, beside_median, found)


def _lagged_plan(view: FeatureView, entity: Entity, lag_us: int) -> _Lagged:
    counted = Measure.COUNT, Measure.KNOWN_FRAUDS, Measure.FRAUD_RATE, Measure.AMOUNT_TO_GENUINE_MEAN
    of_run = Measure.LAST_LABEL, Measure.FRAUD_RUN, Measure.FRAUD_RUN_AGE
    windows: list[_LaggedWindow] = []
    runs: list[_Run] = []
    for window_us in _windows(view, entity, lag_us):
        window = _LaggedWindow(window_us, *[_place(view, entity, lag_us, window_us, measure) for measure in counted])
        if max(window[1:]) != NOWHERE:
            windows.append(window)
        run = _Run(window_us, *[_place(view, entity, lag_us, window_us, measure) for measure in of_run])
        if max(run[1:]) != NOWHERE:
            runs.append(run)
    return _Lagged(entity is Entity.TERMINAL, lag_us, tuple(windows), tuple(runs))


def _calendar_places(view: FeatureView) -> tuple[int, int, int]:
    """Where the features of the transaction alone go: amount, weekend, night."""
    measures = [feature.measure for feature in view.features]
    amount, weekend, night = [
        measures.index(measure) if measure in measures else NOWHERE
        for measure in (Measure.AMOUNT, Measure.WEEKEND, Measure.NIGHT)
    ]
    return amount, weekend, night


def _read_near(near: _Near, tiles: Tiles, transaction: Transaction, values: list[float]) -> None:
    """Windows that end at the transaction and include it."""
    now_us, amount = transaction.event_time_us, transaction.amount_minor
    times, amounts = _before(tiles, transaction, near.reach_us)
    last = len(times)
    twice_median = most = 0
    if near.beside_median:
        ordered = sorted(amounts[bisect_right(times, now_us - MEDIAN_WINDOW_US) :])
        if ordered:
            count = len(ordered)
            twice_median = ordered[(count - 1) // 2] + ordered[count // 2]
        # For integers, a * x > b is x > b // a.
        most = OUTLIER_NUMERATOR * twice_median // (2 * OUTLIER_DENOMINATOR)
    amounts.append(amount)
    for window_us, n_events, mean_amount, amount_to_median, outliers, largest_to_median in near.windows:
        low = bisect_right(times, now_us - window_us)
        inside = amounts[low:]
        values[n_events] = size = float(last + 1 - low)
        if mean_amount != NOWHERE:
            values[mean_amount] = float(sum(inside)) / size
        if amount_to_median != NOWHERE:
            values[amount_to_median] = _divide(2 * amount, twice_median)
        if outliers != NOWHERE:
            values[outliers] = float(len([each for each in inside if each > most])) if twice_median else 0.0
        if largest_to_median != NOWHERE:
            values[largest_to_median] = _divide(2 * max(inside), twice_median)


def _before(tiles: Tiles, transaction: Transaction, reach_us: int) -> tuple[Column, list[int]]:
    """Times and amounts of the events before the transaction in their order, at least as far back as the reach."""
    now_us = transaction.event_time_us
    found = tiles.between(now_us - reach_us, now_us)
    times = memoryview(b"".join([tile.time_bytes for tile in found])).cast("q")
    columns = b"".join([tile.amount_bytes for tile in found])
    if 2 * len(columns) == times.nbytes:  # every tile has the narrow form
        amounts = memoryview(columns).cast("I").tolist()
    else:
        amounts = [amount for tile in found for amount in tile.amounts]
    if times and times[-1] >= now_us:
        behind = len(found[-1].times) - place_of(found[-1], now_us, transaction.transaction_id)
        return times[: len(times) - behind], amounts[: len(times) - behind]
    return times, amounts


def _read_lagged(lagged: _Lagged, tiles: Tiles, transaction: Transaction, known_us: int, values: list[float]) -> None:
    """Windows that end a lag before the transaction."""
    now_us = transaction.event_time_us
    end_us = now_us - lagged.lag_us
    if lagged.windows:
        edges = [(end_us - window.window_us, window.genuine_mean != NOWHERE) for window in lagged.windows]
        found = counts(tiles.parts, edges, end_us, known_us)
        for (_, count, known_frauds, fraud_rate, genuine_mean), sums in zip(lagged.windows, found, strict=True):
            n_events, n_fraud, n_genuine, genuine_sum = sums
            values[count] = float(n_events)
            values[known_frauds] = float(n_fraud)
            values[fraud_rate] = float(n_fraud) / float(n_events) if n_events else 0.0
            if genuine_mean != NOWHERE:
                values[genuine_mean] = _divide(transaction.amount_minor * n_genuine, genuine_sum)
    for window_us, last_label, run, run_age in lagged.runs:
        values[last_label], length, began_us = fraud_run(tiles.parts, end_us - window_us, end_us, known_us)
        values[run] = float(length)
        values[run_age] = _divide(now_us - began_us, US_PER_DAY) if length else math.nan


def _divide(numerator: int, denominator: int) -> float:
    """The one division of a feature, as in the reference: both sides become binary64 first; NaN by zero."""
    return float(numerator) / float(denominator) if denominator else math.nan
