"""Feature views: each feature's name, place, type, window and null rule, written down once for every form of it.

`features.transform_one` (per transaction) and `feature_columns.transform_many` (whole columns) both read these
definitions and must agree in every bit. A definition that was used in production is never edited: it gets a new name.

Windows are half-open and behind a lag: a feature with window w and lag d looks at the entity's events e with
`t - d - w < e.event_time <= t - d`, to the microsecond, where t is the event time of the transaction. An event counts
only if it comes before the transaction in the order (event time, id); the transaction itself is part of windows
without lag, except of the median's.

Source of the first fifteen: Le Borgne, Siblini, Lebichot, Bontempi, "Reproducible Machine Learning for Credit Card
Fraud Detection - Practical Handbook", section 3.3 "Baseline feature transformation". Sources of the others are in
docs/features.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from shared.domain.instants import US_PER_DAY
from shared.domain.labels import LABEL_DELAY_US
from shared.domain.transaction import ALLOWED_LATENESS_US

NIGHT_UNTIL_HOUR: Final = 6
"""Last hour of the night, UTC: 00:00:00.000000 to 06:59:59.999999 (Handbook, section 3.3)."""

FIRST_WEEKEND_DAY: Final = 5
"""Saturday, where Monday is 0 (Handbook, section 3.3)."""

EPOCH_WEEKDAY: Final = 3
"""1970-01-01 was a Thursday."""

MEDIAN_WINDOW_US: Final = 30 * US_PER_DAY
"""The card's median amount is that of its transactions in this window, the scored one left out."""

OUTLIER_NUMERATOR: Final = 5
OUTLIER_DENOMINATOR: Final = 2
"""An amount is an outlier above 5/2 of the median: a compromised card's amounts are a multiple of its usual ones."""

FEATURE_DTYPE: Final = "<f4"
"""All features are IEEE binary32, little-endian: what the ONNX graph reads, so the stored vector is what was scored."""


class Entity(StrEnum):
    """What state is kept for."""

    CUSTOMER = "customer"
    TERMINAL = "terminal"


class Measure(StrEnum):
    """How a feature is computed from the transaction and the events in its window."""

    AMOUNT = "amount"
    WEEKEND = "weekend"
    NIGHT = "night"
    COUNT = "count"
    MEAN_AMOUNT = "mean_amount"
    FRAUD_RATE = "fraud_rate"
    KNOWN_FRAUDS = "known_frauds"
    LAST_LABEL = "last_label"
    FRAUD_RUN = "fraud_run"
    FRAUD_RUN_AGE = "fraud_run_age"
    AMOUNT_TO_MEDIAN = "amount_to_median"
    AMOUNT_TO_GENUINE_MEAN = "amount_to_genuine_mean"
    OUTLIERS = "outliers"
    LARGEST_TO_MEDIAN = "largest_to_median"


LABEL_MEASURES: Final = frozenset(
    {
        Measure.FRAUD_RATE,
        Measure.KNOWN_FRAUDS,
        Measure.LAST_LABEL,
        Measure.FRAUD_RUN,
        Measure.FRAUD_RUN_AGE,
        Measure.AMOUNT_TO_GENUINE_MEAN,
    }
)
"""Those that read labels."""


class Null(StrEnum):
    """What a feature is when there is nothing to compute it from."""

    NEVER = "never"
    ZERO = "zero"
    NAN = "nan"


@dataclass(frozen=True, slots=True)
class Feature:
    """One model input.

    Attributes:
        name: Unique in its view.
        measure: How it is computed.
        unit: What one of it is.
        null: What it is when there is nothing to compute it from.
        entity: Whose events; None if the transaction alone suffices.
        window_us: Length of the window, microseconds; 0 without an entity.
        lag_us: How far behind the transaction the window ends, microseconds; the label delay for all that reads labels.
    """

    name: str
    measure: Measure
    unit: str
    null: Null = Null.NEVER
    entity: Entity | None = None
    window_us: int = 0
    lag_us: int = 0

    @property
    def reach_us(self) -> int:
        """How far back it looks, microseconds; what is compared with the median also looks at the median's window."""
        beside_median = self.measure in {Measure.AMOUNT_TO_MEDIAN, Measure.OUTLIERS, Measure.LARGEST_TO_MEDIAN}
        return max(self.lag_us + self.window_us, MEDIAN_WINDOW_US if beside_median else 0)


@dataclass(frozen=True, slots=True)
class FeatureView:
    """A named, ordered set of features.

    Attributes:
        name: With the version in it; a bundle names the view it was trained on.
        features: In the order of the feature vector.
        label_delay_us: How long after it was known a label counts, microseconds.
        names: Names of the features, in order; follows from the features.
    """

    name: str
    features: tuple[Feature, ...]
    label_delay_us: int = LABEL_DELAY_US
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Name the features once: every decision asks for their names."""
        object.__setattr__(self, "names", tuple(feature.name for feature in self.features))

    def reach_us(self, entity: Entity) -> int:
        """How far back any feature looks at this entity's events, microseconds."""
        return max((feature.reach_us for feature in self.features if feature.entity is entity), default=0)

    def horizon_us(self, entity: Entity, lateness_us: int = ALLOWED_LATENESS_US) -> int:
        """How far behind its greatest event time an entity's state must be kept, microseconds.

        A late event may lie `lateness_us` behind the greatest event time and itself looks back `reach_us`.
        """
        return self.reach_us(entity) + lateness_us


def _days(count: int) -> int:
    return count * US_PER_DAY


_WINDOWS: Final = (1, 7, 30)

_TRANSACTION: Final = (
    Feature("amount", Measure.AMOUNT, "minor units"),
    Feature("is_weekend", Measure.WEEKEND, "0 or 1"),
    Feature("is_night", Measure.NIGHT, "0 or 1"),
)
_CUSTOMER: Final = tuple(
    feature
    for days in _WINDOWS
    for feature in (
        Feature(
            f"customer_count_{days}d", Measure.COUNT, "transactions", entity=Entity.CUSTOMER, window_us=_days(days)
        ),
        Feature(
            f"customer_mean_amount_{days}d",
            Measure.MEAN_AMOUNT,
            "minor units",
            entity=Entity.CUSTOMER,
            window_us=_days(days),
        ),
    )
)
_TERMINAL: Final = tuple(
    Feature(f"terminal_{measure}_{days}d", measure, unit, Null.ZERO, Entity.TERMINAL, _days(days), LABEL_DELAY_US)
    for days in _WINDOWS
    for measure, unit in ((Measure.COUNT, "transactions"), (Measure.FRAUD_RATE, "share"))
)
_TERMINAL_LABELS: Final = tuple(
    Feature(name, measure, unit, null, Entity.TERMINAL, _days(30), LABEL_DELAY_US)
    for name, measure, unit, null in (
        ("terminal_last_label", Measure.LAST_LABEL, "0 or 1", Null.NAN),
        ("terminal_fraud_run", Measure.FRAUD_RUN, "transactions", Null.ZERO),
        ("terminal_fraud_run_age", Measure.FRAUD_RUN_AGE, "days", Null.NAN),
    )
)
_CARD_LEVEL: Final = (
    Feature(
        "amount_to_median_30d", Measure.AMOUNT_TO_MEDIAN, "ratio", Null.NAN, Entity.CUSTOMER, window_us=MEDIAN_WINDOW_US
    ),
    Feature(
        "amount_to_genuine_mean_90d",
        Measure.AMOUNT_TO_GENUINE_MEAN,
        "ratio",
        Null.NAN,
        Entity.CUSTOMER,
        _days(90),
        LABEL_DELAY_US,
    ),
    *(
        Feature(f"customer_outliers_{days}d", Measure.OUTLIERS, "transactions", Null.ZERO, Entity.CUSTOMER, _days(days))
        for days in (1, 7, 14)
    ),
    Feature("customer_largest_to_median_14d", Measure.LARGEST_TO_MEDIAN, "ratio", Null.NAN, Entity.CUSTOMER, _days(14)),
    Feature(
        "customer_known_frauds_30d",
        Measure.KNOWN_FRAUDS,
        "transactions",
        Null.ZERO,
        Entity.CUSTOMER,
        _days(30),
        LABEL_DELAY_US,
    ),
)

HANDBOOK_V1: Final = FeatureView("handbook-v1", (*_TRANSACTION, *_CUSTOMER, *_TERMINAL))
"""The Handbook's fifteen, for comparison with its published results."""

CARD_V1: Final = FeatureView("card-v1", (*HANDBOOK_V1.features, *_TERMINAL_LABELS, *_CARD_LEVEL))
"""The view that card payments are scored on: 25 features."""

VIEWS: Final = {view.name: view for view in (HANDBOOK_V1, CARD_V1)}
"""Every view this release can compute, by name."""
