"""What is bought: merchant categories, what they cost, when they are visited.

Shares, prices and hours are chosen to look like everyday card spending in a country with two decimals of currency;
they are assumptions of this simulator and were measured nowhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.errors import check


class Hours(IntEnum):
    """A daily rhythm; the places of `HOURLY`."""

    SHOPPING = 0
    MEALS = 1
    COMMUTE = 2
    EVENING = 3
    ONLINE = 4
    NIGHT = 5


HOURLY: Final[NDArray[np.float64]] = np.array(
    [
        # midnight                      noon                          evening
        [0, 0, 0, 0, 0, 0, 1, 3, 6, 9, 11, 11, 9, 8, 8, 9, 10, 11, 10, 6, 3, 1, 0.5, 0.2],
        [1, 0.5, 0.2, 0.1, 0.1, 0.3, 2, 5, 5, 3, 3, 7, 14, 12, 5, 3, 4, 7, 11, 13, 11, 7, 4, 2],
        [1, 0.5, 0.3, 0.3, 0.6, 2, 7, 13, 11, 6, 4, 4, 5, 5, 5, 6, 9, 12, 10, 6, 4, 3, 2, 1.5],
        [3, 1.5, 0.7, 0.3, 0.1, 0.1, 0.3, 1, 1, 2, 2, 3, 4, 4, 4, 5, 6, 8, 11, 14, 14, 11, 8, 5],
        [3, 1.8, 1, 0.6, 0.5, 0.6, 1.2, 2.5, 4, 5, 5.5, 5.5, 6, 5.5, 5, 5, 5, 5.5, 6.5, 8, 9, 9, 7, 5],
        [12, 13, 12, 10, 7, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1.5, 2, 3, 4, 5, 7, 9],
    ],
    dtype=np.float64,
)
"""Weight of each hour of the day, by `Hours`. NIGHT is that of fraudsters who hide from the cardholder's eyes."""


class Ending(StrEnum):
    """How amounts end."""

    ANY = "any"
    PRICED = "priced"
    ROUND = "round"


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of merchant.

    Attributes:
        name: Unique.
        share: Weight among a cardholder's purchases, before habits.
        median_minor: Median amount, minor units.
        spread: Standard deviation of the natural logarithm of the amount, apart from who buys and where.
        hours: When it is visited.
        weekend: Factor of its weight on Saturday and Sunday.
        merchants: Weight among merchants.
        online: Whether it has no place.
        ending: PRICED: two thirds of the amounts end in 99 or 95; ROUND: whole tens of the currency.
    """

    name: str
    share: float
    median_minor: int
    spread: float
    hours: Hours
    weekend: float = 1.0
    merchants: float = 1.0
    online: bool = False
    ending: Ending = Ending.ANY

    def __post_init__(self) -> None:
        check(bool(self.name), "category.name", "must not be empty")
        for field in ("share", "spread", "weekend", "merchants"):
            value = getattr(self, field)
            check(math.isfinite(value) and value > 0, f"category.{field}", "must be greater than zero")
        check(1 <= self.median_minor <= 10_000_000, "category.median_minor", "must lie between 1 and 10,000,000")


CATEGORIES: Final = (
    Category("grocery", 0.24, 2_700, 0.50, Hours.SHOPPING, 1.10, 1.6),
    Category("restaurant", 0.13, 1_900, 0.45, Hours.MEALS, 1.35, 2.2),
    Category("transport", 0.09, 420, 0.40, Hours.COMMUTE, 0.55, 0.7),
    Category("fuel", 0.07, 5_200, 0.30, Hours.COMMUTE, 1.00, 0.6),
    Category("fashion", 0.06, 4_800, 0.55, Hours.SHOPPING, 1.45, 1.2, ending=Ending.PRICED),
    Category("electronics", 0.02, 11_000, 0.65, Hours.SHOPPING, 1.30, 0.5, ending=Ending.PRICED),
    Category("home", 0.04, 5_500, 0.60, Hours.SHOPPING, 1.50, 0.8, ending=Ending.PRICED),
    Category("pharmacy", 0.05, 1_400, 0.45, Hours.SHOPPING, 0.70, 0.7),
    Category("travel", 0.015, 16_000, 0.60, Hours.ONLINE, 0.90, 0.2, online=True),
    Category("entertainment", 0.05, 2_200, 0.50, Hours.EVENING, 1.50, 0.8),
    Category("cash", 0.06, 8_000, 0.45, Hours.EVENING, 1.00, 0.5, ending=Ending.ROUND),
    Category("online-shop", 0.12, 3_800, 0.60, Hours.ONLINE, 1.10, 1.0, online=True, ending=Ending.PRICED),
    Category("digital", 0.095, 799, 0.40, Hours.ONLINE, 1.05, 0.4, online=True, ending=Ending.PRICED),
)
"""The categories of every world; a world may order more (`changes.NewCategory`)."""
