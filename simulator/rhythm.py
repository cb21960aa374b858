"""When people buy: days of the week, salary days, holidays, seasons, growth, and the hours of a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from simulator.categories import HOURLY, Category
from simulator.changes import NewCategory, Season, Span, date_of
from simulator.config import WorldConfig

WEEKDAYS: Final = (0.93, 0.92, 0.95, 1.00, 1.16, 1.20, 0.84)
"""Factor of the number of purchases, Monday first; the mean is one."""

SALARY_FACTORS: Final = (1.30, 1.22, 1.12)
"""Factor on a cardholder's salary day and the two days after it; other days have 1."""

SALARY_DAYS: Final = (1, 15, 25, 28)
"""Days of the month on which salaries are paid."""

_GIFTS: Final = ("fashion", "electronics", "home", "online-shop")
_CUMULATIVE: Final[NDArray[np.float64]] = np.concatenate(
    [np.zeros((len(HOURLY), 1)), np.cumsum(HOURLY, axis=1) / HOURLY.sum(axis=1, keepdims=True)], axis=1
)


def yearly_seasons(year: int) -> tuple[Season, ...]:
    """The holidays of every year: known to everybody, and part of every world."""
    thanksgiving = date(year, 11, 1) + timedelta(days=(3 - date(year, 11, 1).weekday()) % 7 + 21)
    sales = thanksgiving + timedelta(days=1)
    return (
        Season("new year", Span(date(year, 1, 1), date(year, 1, 2)), 0.55),
        Season("summer travel", Span(date(year, 7, 1), date(year, 9, 1)), 1.5, ("travel", "entertainment")),
        Season("sales weekend", Span(sales, sales + timedelta(days=4)), 1.8, _GIFTS),
        Season("before christmas", Span(date(year, 12, 1), date(year, 12, 24)), 1.3, (*_GIFTS, "grocery")),
        Season("christmas", Span(date(year, 12, 25), date(year, 12, 27)), 0.5),
    )


@dataclass(frozen=True, slots=True)
class DayRhythm:
    """What a day does to purchases.

    Attributes:
        day: Days since 1970.
        volume: Factor of the number of purchases of everybody.
        categories: (n_categories,) float64, factor of each category's weight; 0 where it is not open.
        late: Hours by which a weekend day starts and ends later.
    """

    day: int
    volume: float
    categories: NDArray[np.float64]
    late: float


def rhythm_of(config: WorldConfig, categories: tuple[Category, ...], day: int) -> DayRhythm:
    """The rhythm of a day."""
    today = date_of(day)
    weekend = today.weekday() >= 5
    names = [category.name for category in categories]
    factors = np.array([category.weekend if weekend else 1.0 for category in categories], dtype=np.float64)
    years = (day - config.first_day) / 365.25
    volume = WEEKDAYS[today.weekday()] * float((1 + config.growth_per_year) ** years)
    ordered = tuple(change for change in config.changes if isinstance(change, Season))
    for season in yearly_seasons(today.year) + ordered:
        if not season.span.holds(day):
            continue
        if season.categories:
            concerned = [names.index(name) for name in season.categories]
            factors[concerned] *= season.factor
        else:
            volume *= season.factor
    for change in config.changes:
        if isinstance(change, NewCategory) and not change.span.holds(day):
            factors[names.index(change.category.name)] = 0.0
    return DayRhythm(day, volume, factors, 1.2 if weekend else 0.0)


def salary_factor(day: int, salary_day: NDArray[np.int8]) -> NDArray[np.float64]:
    """Factor of each cardholder's purchases on a day.

    Args:
        day: Days since 1970.
        salary_day: (n,) day of the month on which each is paid.

    Returns:
        (n,) float64.
    """
    factors = np.ones(len(salary_day), dtype=np.float64)
    for after, factor in enumerate(SALARY_FACTORS):
        factors[salary_day == date_of(day - after).day] = factor
    return factors


def times_of_day(
    hours: NDArray[np.int8], shift_hours: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw times of day.

    Args:
        hours: (n,) a rhythm of `Hours` for each.
        shift_hours: (n,) by how much later than that; what passes midnight comes back at the start of the same day.
        rng: Where chance comes from.

    Returns:
        (n,) int64, microseconds since midnight, 0 to a day without its end.
    """
    drawn = rng.random(len(hours))
    clock = np.empty(len(hours), dtype=np.float64)
    edges = np.arange(25, dtype=np.float64)
    for kind in range(len(_CUMULATIVE)):
        mask = hours == kind
        if mask.any():
            clock[mask] = np.interp(drawn[mask], _CUMULATIVE[kind], edges)
    times_us = ((clock + shift_hours) * US_PER_HOUR).astype(np.int64)
    return times_us % US_PER_DAY
