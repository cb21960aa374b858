"""Reasons: a stable code and a text for every feature, and the ranking of what raised a score.

Codes are part of the interface: integrators store and translate them. A code is never reused for another meaning; when
a view gives a feature up, its code stays here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import FeatureView

MAX_REASONS: Final = 4
"""How many reasons a decision carries: more are unlikely to help (official commentary on 12 CFR 1002.9(b)(2))."""

CATALOGUE: Final = {
    "amount": ("A01", "The amount itself is unusual."),
    "is_weekend": ("T01", "The day of the week matters here."),
    "is_night": ("T02", "The time of day matters here."),
    "customer_count_1d": ("C01", "The number of the card's transactions within a day is unusual."),
    "customer_mean_amount_1d": ("C02", "The card's mean amount within a day is unusual."),
    "customer_count_7d": ("C03", "The number of the card's transactions within a week is unusual."),
    "customer_mean_amount_7d": ("C04", "The card's mean amount within a week is unusual."),
    "customer_count_30d": ("C05", "The number of the card's transactions within 30 days is unusual."),
    "customer_mean_amount_30d": ("C06", "The card's mean amount within 30 days is unusual."),
    "terminal_count_1d": ("M01", "The terminal's traffic on one day is unusual."),
    "terminal_fraud_rate_1d": ("M02", "The terminal had known fraud on one day."),
    "terminal_count_7d": ("M03", "The terminal's traffic in one week is unusual."),
    "terminal_fraud_rate_7d": ("M04", "The terminal had known fraud in one week."),
    "terminal_count_30d": ("M05", "The terminal's traffic in 30 days is unusual."),
    "terminal_fraud_rate_30d": ("M06", "The terminal had known fraud in 30 days."),
    "terminal_last_label": ("M07", "The terminal's latest transaction with a known label matters here."),
    "terminal_fraud_run": ("M08", "The terminal's latest known transactions were fraud."),
    "terminal_fraud_run_age": ("M09", "The time since the terminal's known frauds began matters here."),
    "amount_to_median_30d": ("A02", "The amount is unusual beside the card's median amount."),
    "amount_to_genuine_mean_90d": ("A03", "The amount is unusual beside the card's known genuine amounts."),
    "customer_outliers_1d": ("C07", "The card had unusually high amounts within a day."),
    "customer_outliers_7d": ("C08", "The card had unusually high amounts within a week."),
    "customer_outliers_14d": ("C09", "The card had unusually high amounts within 14 days."),
    "customer_largest_to_median_14d": ("C10", "The card's largest amount within 14 days is unusual."),
    "customer_known_frauds_30d": ("C11", "The card had known fraud within 30 days."),
}
"""Feature name to code and text. A: amount, T: time, C: card, M: terminal (merchant)."""

TEXTS: Final = dict(CATALOGUE.values())
"""Code to text."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a score is as high as it is.

    Attributes:
        code: Stable identifier, see `CATALOGUE`.
        contribution: How much the feature raised the model's raw output, in log-odds; greater than 0.
    """

    code: str
    contribution: float


def ranked_reasons(
    view: FeatureView, contributions: Sequence[float], max_reasons: int = MAX_REASONS
) -> tuple[Reason, ...]:
    """The features that raised the score most, strongest first.

    Features that lowered it are no reasons. Of equal contributions the feature that comes first in the view comes
    first, so that the ranking is a function of the numbers alone.

    Args:
        view: The view the model was trained on.
        contributions: (n_features,) exact contributions, in the order of the view.
        max_reasons: At most how many.

    Raises:
        BrokenInvariant: Another number of contributions, one that is not finite, or a feature without a code.
    """
    codes = _codes(view.names)
    values = [float(value) for value in contributions]
    if len(values) != len(codes):
        raise BrokenInvariant(f"{len(values)} contributions for {len(codes)} features")
    if not all(map(math.isfinite, values)):
        raise BrokenInvariant("a contribution is not finite")
    # Sorting is stable, also in reverse: of equal contributions the first feature comes first.
    raising = sorted([place for place, value in enumerate(values) if value > 0], key=values.__getitem__, reverse=True)
    return tuple([Reason(codes[place], values[place]) for place in raising[:max_reasons]])


@cache
def _codes(names: tuple[str, ...]) -> tuple[str, ...]:
    """The codes of a view's features."""
    missing = [name for name in names if name not in CATALOGUE]
    if missing:
        raise BrokenInvariant(f"no reason code for {missing[0]}")
    return tuple(CATALOGUE[name][0] for name in names)
