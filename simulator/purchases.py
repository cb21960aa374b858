"""What cardholders buy on a day, and how an amount and a time are drawn: by the cardholder, or by whoever plays him."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.instants import US_PER_DAY
from simulator.categories import Category, Ending
from simulator.chance import Chance, Trait
from simulator.population import Population
from simulator.rhythm import DayRhythm, salary_factor, times_of_day

SPREE_SHARE: Final = 0.008
"""Share of a cardholder's days on which much more is bought than usual: honest bursts look like tested cards."""

SPREE_FACTOR: Final = 3.0

MEAN_VOLUME: Final = 1.14
"""What sprees, salary days, weekends and the seasons of a year multiply the number of purchases by; divided out."""

BIG_TICKET_SHARE: Final = 0.008
"""Share of honest purchases far above the usual: what an outlier of a stolen card must be told from."""

BIG_TICKET_SCALE: Final = 0.8
"""Mean of the exponential that is added to the logarithm of such an amount."""

MAX_DRAWN_MINOR: Final = 2_000_000
"""Largest amount that is drawn, minor units; beyond it nobody pays by card."""

_PRICED_ENDINGS: Final = np.array([99, 95, 99], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Purchases:
    """Purchases as columns of one length, in no order.

    Attributes:
        customer: (n,) int64.
        terminal: (n,) int64.
        amount_minor: (n,) int64, minor units.
        event_time_us: (n,) int64, microseconds since 1970 UTC.
    """

    customer: NDArray[np.int64]
    terminal: NDArray[np.int64]
    amount_minor: NDArray[np.int64]
    event_time_us: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """The categories as columns, for drawing amounts and hours.

    Attributes:
        log_median: (n_categories,) float64.
        spread: (n_categories,) float64.
        hours: (n_categories,) int8, `Hours`.
        priced: (n_categories,) bool, amounts end in 99 or 95.
        tens: (n_categories,) bool, amounts are whole tens of the currency.
    """

    log_median: NDArray[np.float64]
    spread: NDArray[np.float64]
    hours: NDArray[np.int8]
    priced: NDArray[np.bool_]
    tens: NDArray[np.bool_]

    @classmethod
    def of(cls, categories: tuple[Category, ...]) -> Prices:
        """The columns of the categories."""
        return cls(
            np.log([category.median_minor for category in categories]),
            np.array([category.spread for category in categories]),
            np.array([category.hours for category in categories], dtype=np.int8),
            np.array([category.ending is Ending.PRICED for category in categories]),
            np.array([category.ending is Ending.ROUND for category in categories]),
        )

    def typical_log(
        self, population: Population, customer: NDArray[np.int64], terminal: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Natural logarithm of what a cardholder pays at a terminal in the middle, (n,) float64."""
        category = population.terminal_category[terminal]
        return self.log_median[category] + population.level[customer] + population.terminal_price[terminal]

    def amounts(
        self,
        population: Population,
        customer: NDArray[np.int64],
        terminal: NDArray[np.int64],
        rng: np.random.Generator,
        raised: NDArray[np.float64] | float = 0.0,
    ) -> NDArray[np.int64]:
        """Draw what is paid.

        Args:
            population: Who and where.
            customer: (n,) who pays, or is made to.
            terminal: (n,) where.
            rng: Where chance comes from.
            raised: Natural logarithm of the factor by which it is more than the cardholder would pay.

        Returns:
            (n,) int64 minor units, 1 to `MAX_DRAWN_MINOR`.
        """
        n_rows = len(customer)
        category = population.terminal_category[terminal]
        logs = self.typical_log(population, customer, terminal) + self.spread[category] * rng.standard_normal(n_rows)
        big = rng.random(n_rows) < BIG_TICKET_SHARE
        logs += raised + np.where(big, rng.exponential(BIG_TICKET_SCALE, n_rows), 0.0)
        minor = np.rint(np.exp(np.minimum(logs, np.log(MAX_DRAWN_MINOR)))).astype(np.int64)
        ending = rng.integers(0, 3 + 1, n_rows)
        priced = self.priced[category] & (ending < 3) & (minor >= 100)
        minor[priced] = minor[priced] // 100 * 100 + _PRICED_ENDINGS[ending[priced] % 3]
        tens = self.tens[category]
        minor[tens] = np.maximum(1, (minor[tens] + 500) // 1000) * 1000
        return np.clip(minor, 1, MAX_DRAWN_MINOR)

    def times_us(
        self,
        population: Population,
        customer: NDArray[np.int64],
        terminal: NDArray[np.int64],
        late: float,
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Draw when on a day a cardholder would pay at a terminal, (n,) int64 microseconds since midnight."""
        hours = self.hours[population.terminal_category[terminal]]
        return times_of_day(hours, population.shift[customer].astype(np.float64) + late, rng)


def purchases_of(
    population: Population, prices: Prices, chance: Chance, rhythm: DayRhythm, rng: np.random.Generator
) -> Purchases:
    """Draw what cardholders themselves buy on a day.

    Args:
        population: Who and where.
        prices: What it costs.
        chance: The world's, for habits.
        rhythm: The day's.
        rng: The day's.
    """
    day = rhythm.day
    people = np.arange(population.n_customers)
    taste = np.cumsum(population.preference * rhythm.categories, axis=1)
    rate = population.activity * (rhythm.volume / MEAN_VOLUME) * taste[:, -1]
    rate *= salary_factor(day, population.salary_day)
    spree = chance.unit(Trait.SPREE, people, day) < SPREE_SHARE
    rate = np.where(spree, rate * SPREE_FACTOR, rate) * (population.joins <= day)
    customer = np.repeat(people, rng.poisson(rate))
    category = _drawn(taste, customer, rng)
    city = population.city_on(chance, day)[customer]
    terminal = population.visited(chance, customer, category, city, rng)
    return Purchases(
        customer,
        terminal,
        prices.amounts(population, customer, terminal, rng),
        day * US_PER_DAY + prices.times_us(population, customer, terminal, rhythm.late, rng),
    )


def _drawn(taste: NDArray[np.float64], customer: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int8]:
    """Draw what each buys, (n,) int8, from the cumulative weights of each cardholder's categories."""
    drawn = rng.random(len(customer)) * taste[customer, -1]
    # The last edge is left out: rounding may put the drawn number on it.
    found: NDArray[np.int64] = np.sum(taste[customer, :-1] <= drawn[:, np.newaxis], axis=1)
    return found.astype(np.int8)
