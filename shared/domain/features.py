"""Features of one transaction from the raw known history of its entities: the reference for every other form.

Written to be read, not to be fast: each measure is a few lines over lists. `feature_columns.transform_many` computes
the same for whole columns, and the online state will fold the same incrementally; both are tested against this module.

Numbers: everything is an integer or a sum of integers until one last division in binary64, whose result is rounded once
to binary32. IEEE 754 defines that division and that rounding exactly, so their order of evaluation cannot matter and no
library can change a bit (record 0013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.labels import Label, label_at
from shared.domain.transaction import Transaction


@dataclass(frozen=True, slots=True)
class PastTransaction:
    """What an entity's history keeps of one transaction.

    Attributes:
        transaction_id: Breaks ties of the event time.
        event_time_us: Microseconds since 1970 UTC.
        amount_minor: Minor units.
        labels: Every label recorded for it that the decision knows, in any order, counting yet or not.
    """

    transaction_id: TransactionId
    event_time_us: int
    amount_minor: int
    labels: tuple[Label, ...] = ()

    @property
    def order(self) -> tuple[int, str]:
        """The place among the events of an entity: event time, then id."""
        return self.event_time_us, self.transaction_id


@dataclass(frozen=True, slots=True)
class History:
    """What a decision knows of the two entities of its transaction.

    Knowing is the caller's part: these are the events whose version is at most the entity version that the decision
    recorded. Order is free, events at or after the transaction are ignored, and so is the transaction itself.

    Attributes:
        customer: Known transactions of its customer.
        terminal: Known transactions at its terminal.
    """

    customer: Sequence[PastTransaction] = ()
    terminal: Sequence[PastTransaction] = ()


def transform_one(view: FeatureView, transaction: Transaction, history: History) -> NDArray[np.float32]:
    """The feature vector of one transaction.

    Args:
        view: Which features.
        transaction: The transaction to score.
        history: What is known of its entities; need not reach further back than `view.reach_us`.

    Returns:
        (n_features,) float32 in the order of the view; NaN where a feature's null rule says so.
    """
    past = {
        Entity.CUSTOMER: _before(history.customer, transaction),
        Entity.TERMINAL: _before(history.terminal, transaction),
    }
    values = [_value(feature, view, transaction, past) for feature in view.features]
    return np.array(values, dtype=np.float64).astype(FEATURE_DTYPE)


def _before(events: Sequence[PastTransaction], transaction: Transaction) -> list[PastTransaction]:
    """The events that come before the transaction, in order."""
    return sorted((event for event in events if event.order < transaction.order), key=lambda event: event.order)


def _value(
    feature: Feature, view: FeatureView, transaction: Transaction, past: dict[Entity, list[PastTransaction]]
) -> float:
    """One feature, as the binary64 that is then rounded to binary32."""
    now_us = transaction.event_time_us
    amount = transaction.amount_minor
    if feature.entity is None:
        return _calendar(feature.measure, now_us, amount)
    events = past[feature.entity]
    window = _window(events, now_us, feature.window_us, feature.lag_us)
    match feature.measure:
        case Measure.COUNT:
            return float(len(window) + (feature.lag_us == 0))
        case Measure.MEAN_AMOUNT:
            return _divide(sum(event.amount_minor for event in window) + amount, len(window) + 1)
        case Measure.AMOUNT_TO_MEDIAN | Measure.OUTLIERS | Measure.LARGEST_TO_MEDIAN:
            amounts = [*(event.amount_minor for event in window), amount]
            return _beside_median(feature.measure, amounts, _twice_median(events, now_us))
        case _:
            known = [(event, label_at(event.labels, now_us, view.label_delay_us)) for event in window]
            return _of_labels(feature.measure, transaction, len(window), known)


def _calendar(measure: Measure, now_us: int, amount: int) -> float:
    """A feature of the transaction alone."""
    match measure:
        case Measure.AMOUNT:
            return float(amount)
        case Measure.WEEKEND:
            return float((now_us // US_PER_DAY + EPOCH_WEEKDAY) % 7 >= FIRST_WEEKEND_DAY)
        case Measure.NIGHT:
            return float(now_us % US_PER_DAY // US_PER_HOUR <= NIGHT_UNTIL_HOUR)
        case _:
            raise BrokenInvariant(f"the measure {measure} needs an entity")


def _beside_median(measure: Measure, amounts: list[int], twice_median: int) -> float:
    """A feature of the amounts of a window, the transaction's own last, beside the median before it."""
    match measure:
        case Measure.AMOUNT_TO_MEDIAN:
            return _divide(2 * amounts[-1], twice_median)
        case Measure.OUTLIERS:
            return float(sum(_is_outlier(amount, twice_median) for amount in amounts))
        case _:
            return _divide(2 * max(amounts), twice_median)


def _of_labels(
    measure: Measure, transaction: Transaction, n_window: int, known: list[tuple[PastTransaction, Label | None]]
) -> float:
    """A feature of the labels that hold for the events of a window."""
    labelled = [(event, label.is_fraud) for event, label in known if label is not None]
    n_fraud = sum(is_fraud for _, is_fraud in labelled)
    run: list[PastTransaction] = []
    for event, is_fraud in reversed(labelled):
        if not is_fraud:
            break
        run.append(event)
    match measure:
        case Measure.FRAUD_RATE:
            return _divide(n_fraud, n_window) if n_window else 0.0
        case Measure.KNOWN_FRAUDS:
            return float(n_fraud)
        case Measure.LAST_LABEL:
            return float(labelled[-1][1]) if labelled else math.nan
        case Measure.FRAUD_RUN:
            return float(len(run))
        case Measure.FRAUD_RUN_AGE:
            return _divide(transaction.event_time_us - run[-1].event_time_us, US_PER_DAY) if run else math.nan
        case Measure.AMOUNT_TO_GENUINE_MEAN:
            genuine = [event.amount_minor for event, is_fraud in labelled if not is_fraud]
            return _divide(transaction.amount_minor * len(genuine), sum(genuine))
        case _:
            raise BrokenInvariant(f"the measure {measure} reads no labels")


def _window(events: list[PastTransaction], now_us: int, window_us: int, lag_us: int) -> list[PastTransaction]:
    """Events e with now - lag - window < e <= now - lag: half-open, to the microsecond."""
    return [event for event in events if now_us - lag_us - window_us < event.event_time_us <= now_us - lag_us]


def _twice_median(events: list[PastTransaction], now_us: int) -> int:
    """Twice the median amount before the transaction: the sum of the two middle amounts; 0 without any.

    Twice, so that it is an integer for an even count too; with an odd count both middle amounts are the same one.
    """
    amounts = sorted(event.amount_minor for event in _window(events, now_us, MEDIAN_WINDOW_US, 0))
    count = len(amounts)
    return amounts[(count - 1) // 2] + amounts[count // 2] if count else 0


def _is_outlier(amount: int, twice_median: int) -> bool:
    """Whether an amount lies above 5/2 of the median; never without a median."""
    return twice_median > 0 and 2 * OUTLIER_DENOMINATOR * amount > OUTLIER_NUMERATOR * twice_median


def _divide(numerator: int, denominator: int) -> float:
    """The one division: both sides become binary64 first, as in numpy; NaN by zero."""
    return float(numerator) / float(denominator) if denominator else math.nan
