"""Which transactions a model may learn from, be chosen, calibrated and tested on: ordered by time, apart by the delay.

    train | gap | validation | gap | calibration | gap | test | maturity | as of

The validation span decides when growing stops and which parameters are taken, so that the rows that calibrate were used
for nothing else. Bundles of earlier releases have none: there the calibration span decided when growing stopped.

A gap is the label delay: what a span learned from was known before the next one begins. A transaction is used only if a
label for it is known and it is mature; silence is never read as genuine here (a timer records that as a label of its
own), and without maturity the young end would consist of fast frauds only (record 0005).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_manifest import Span
from shared.domain.errors import InvalidInput
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import LABEL_DELAY_US, MATURITY_US

TRAIN: Final = "train"
VALIDATION: Final = "validation"
CALIBRATION: Final = "calibration"
TEST: Final = "test"
SPANS: Final = (TRAIN, VALIDATION, CALIBRATION, TEST)
"""By time."""

MIN_FRAUDS: Final = 10
"""Frauds that a span must hold; with fewer, no figure of it means anything."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How history is cut.

    Attributes:
        as_of_us: Labels known by then are used, microseconds since 1970 UTC.
        train_days: At most so many days to learn from (docs/quality.md, on the Handbook's weeks before those reported).
        validation_days: Days to stop by and to choose parameters on.
        calibration_days: Days to calibrate on.
        test_days: Days to test on.
        gap_us: Between spans; the label delay.
        maturity_us: How old a transaction must be at `as_of_us`.
    """

    as_of_us: int
    train_days: int = 75
    validation_days: int = 7
    calibration_days: int = 14
    test_days: int = 14
    gap_us: int = LABEL_DELAY_US
    maturity_us: int = MATURITY_US

    def __post_init__(self) -> None:
        """Refuse spans of no length.

        Raises:
            InvalidInput: Names the field.
        """
        for name in ("train_days", "validation_days", "calibration_days", "test_days"):
            if getattr(self, name) < 1:
                raise InvalidInput(name, "must be at least 1")
        for name in ("gap_us", "maturity_us"):
            if getattr(self, name) < 0:
                raise InvalidInput(name, "must not be negative")

    @property
    def length_us(self) -> int:
        """From the start of the longest train span to the end of the test span, microseconds."""
        days = self.train_days + self.validation_days + self.calibration_days + self.test_days
        return days * US_PER_DAY + (len(SPANS) - 1) * self.gap_us


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What is known of transactions at some time.

    Attributes:
        known: (n,) bool, whether a label is known.
        is_fraud: (n,) bool, what the strongest known label says; False without one.
    """

    known: NDArray[np.bool_]
    is_fraud: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows by span.

    Attributes:
        rows: By span's name, the rows in the order of event time and id.
        spans: By span's name, its times and counts.
    """

    rows: Mapping[str, NDArray[np.intp]]
    spans: Mapping[str, Span]


def targets_as_of(n_rows: int, labels: LabelColumns, as_of_us: int) -> Targets:
    """The outcome of each transaction by the labels known at a time; the conflict rule is `labels.Label.strength`."""
    usable = np.flatnonzero(labels.known_at_us <= as_of_us)
    row, is_fraud = labels.row[usable], labels.is_fraud[usable]
    order = np.lexsort(
        (is_fraud, labels.confidence[usable], labels.known_at_us[usable], labels.source[usable], row),
    )
    known = np.zeros(n_rows, dtype=np.bool_)
    fraud = np.zeros(n_rows, dtype=np.bool_)
    row, is_fraud = row[order], is_fraud[order]
    strongest = np.append(row[1:] != row[:-1], True) if len(row) else np.empty(0, dtype=np.bool_)
    known[row[strongest]] = True
    fraud[row[strongest]] = is_fraud[strongest]
    return Targets(known, fraud)


def split_by_time(transactions: TransactionColumns, targets: Targets, plan: TrainingPlan) -> Split:
    """Cut history into spans that end at midnight UTC, the test span last.

    Raises:
        InvalidInput: History is too short, or a span holds too few frauds or nothing else.
    """
    time_us = transactions.event_time_us
    if not targets.known.any():
        raise InvalidInput("labels", "must be known for some transactions")
    newest_us = min(int(time_us[targets.known].max()), plan.as_of_us - plan.maturity_us) + 1
    end_us = newest_us // US_PER_DAY * US_PER_DAY
    bounds = {}
    for name, days in (
        (TEST, plan.test_days),
        (CALIBRATION, plan.calibration_days),
        (VALIDATION, plan.validation_days),
        (TRAIN, plan.train_days),
    ):
        bounds[name] = (end_us - days * US_PER_DAY, end_us)
        end_us = bounds[name][0] - plan.gap_us
    oldest_us = int(time_us.min())
    bounds[TRAIN] = (max(bounds[TRAIN][0], oldest_us), bounds[TRAIN][1])
    rows, spans = {}, {}
    for name in SPANS:
        start, end = bounds[name]
        inside = np.flatnonzero(targets.known & (time_us >= start) & (time_us < end))
        inside = inside[np.lexsort((transactions.transaction_id[inside], time_us[inside]))]
        n_frauds = int(targets.is_fraud[inside].sum())
        if n_frauds < MIN_FRAUDS or n_frauds == len(inside):
            raise InvalidInput(
                "history",
                f"must hold at least {MIN_FRAUDS} frauds and some genuine transactions in the {name} span; "
                f"it has {n_frauds} frauds among {len(inside)}",
            )
        rows[name] = inside
        spans[name] = Span(start, end, len(inside), n_frauds)
    return Split(rows, spans)
