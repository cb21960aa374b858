"""Who buys and who sells: cardholders with habits, merchants with terminals, drawn once when a world is made.

Memory: 83 bytes for each cardholder and 47 for each terminal. Favourite terminals and trips are hashed numbers
and take none.

A category that opens later is drawn after, and apart from, all that is there from the start, so that ordering one does
not change anything before the day on which it opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.categories import CATEGORIES, Category
from simulator.chance import Chance, Stream, Trait
from simulator.config import WorldConfig
from simulator.rhythm import SALARY_DAYS

ONLINE: Final = -1
"""The city of a terminal that has none."""

TRIP_BLOCK_DAYS: Final = 28
"""A cardholder makes at most one trip in such a block of days; blocks start on different days for different people."""

_MOST_FAVOURITES: Final = 4
_FAVOURITE_EDGES: Final = (0.42, 0.66, 0.79, 0.87)
"""Cumulative share of a category's purchases that go to the first, second ... favourite; the rest try something new."""

_POPULARITY: Final = 2.0
"""Exponent of popularity: the first tenth of a category's terminals in a city gets .1**(1/2) of the visits, 32 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Cardholders and terminals as columns; a cardholder and a terminal are row numbers.

    Attributes:
        categories: All categories, those that open later included.
        city: (n_customers,) int16, where each lives.
        level: (n_customers,) float32, natural logarithm of the factor by which a cardholder's amounts differ.
        activity: (n_customers,) float32, mean number of transactions a day, all rhythms aside.
        preference: (n_customers, n_categories) float32, share of each category; those that are there from the start
            add up to one, those that open later come on top.
        shift: (n_customers,) float32, hours by which a cardholder is later than others.
        travels: (n_customers,) float32, probability of a trip within `TRIP_BLOCK_DAYS`.
        salary_day: (n_customers,) int8, day of the month.
        joins: (n_customers,) int32, day from which the cardholder buys, days since 1970; 0 for those of old.
        by_joining: (n_customers,) int32, cardholders sorted by when they join.
        by_city: (n_customers,) int32, cardholders sorted by city, then by when they join.
        city_start: (n_cities + 1,) int64, where each city starts in `by_city`.
        terminal_category: (n_terminals,) int8.
        terminal_city: (n_terminals,) int16; `ONLINE` without a place.
        terminal_price: (n_terminals,) float32, natural logarithm of the merchant's price level.
        terminal_ids: (n_terminals,) text, as on the wire; the terminals of a merchant share all but the end.
        range_start: (n_categories, n_cities) int32, first terminal of a category that is near a city.
        range_count: (n_categories, n_cities) int32, how many there are; never 0.
        city_weight: (n_cities,) float64, share of the population.
    """

    categories: tuple[Category, ...]
    city: NDArray[np.int16]
    level: NDArray[np.float32]
    activity: NDArray[np.float32]
    preference: NDArray[np.float32]
    shift: NDArray[np.float32]
    travels: NDArray[np.float32]
    salary_day: NDArray[np.int8]
    joins: NDArray[np.int32]
    by_joining: NDArray[np.int32]
    by_city: NDArray[np.int32]
    city_start: NDArray[np.int64]
    terminal_category: NDArray[np.int8]
    terminal_city: NDArray[np.int16]
    terminal_price: NDArray[np.float32]
    terminal_ids: NDArray[np.str_]
    range_start: NDArray[np.int32]
    range_count: NDArray[np.int32]
    city_weight: NDArray[np.float64]

    @property
    def n_customers(self) -> int:
        """Number of cardholders, those who join later included."""
        return len(self.city)

    @property
    def n_terminals(self) -> int:
        """Number of terminals."""
        return len(self.terminal_category)

    @classmethod
    def draw(cls, config: WorldConfig, chance: Chance) -> Population:
        """Draw everybody; the same for the same settings and chance."""
        rng = chance.stream(Stream.POPULATION)
        categories = config.categories()
        n_customers, n_cities = config.customers, config.cities
        ranks = np.arange(1, n_cities + 1, dtype=np.float64)
        city_weight = 1 / ranks / np.sum(1 / ranks)
        early = rng.random(n_customers) >= config.joining
        after_days = rng.integers(0, 365, n_customers)
        city = rng.choice(n_cities, n_customers, p=city_weight).astype(np.int16)
        level = rng.normal(0.0, 0.45, n_customers).astype(np.float32)
        activity = (rng.gamma(2.5, 1 / 2.5, n_customers) * config.transactions_per_day).astype(np.float32)
        shift = rng.normal(0.0, 1.1, n_customers).astype(np.float32)
        travels = (rng.beta(1.2, 6.0, n_customers) * (n_cities > 1)).astype(np.float32)
        salary_day = rng.choice(np.array(SALARY_DAYS, dtype=np.int8), n_customers, p=(0.35, 0.2, 0.2, 0.25))
        taste = _taste(CATEGORIES, n_customers, rng)
        total = taste.sum(axis=1, keepdims=True)
        terminals = [_Terminals.draw(CATEGORIES, config.merchants, city_weight, rng)]
        columns = [taste / total]
        for kind in range(len(CATEGORIES), len(categories)):
            own = chance.stream(Stream.POPULATION, kind)
            columns.append(_taste(categories[kind : kind + 1], n_customers, own) / total)
            merchants = max(1, round(config.merchants * categories[kind].merchants / len(CATEGORIES)))
            numbered = config.merchants + sum(part.n_merchants for part in terminals[1:])
            new = categories[kind : kind + 1]
            terminals.append(_Terminals.draw(new, merchants, city_weight, own, first_kind=kind, numbered=numbered))
        joins = np.where(early, 0, config.first_day + after_days).astype(np.int32)
        by_city = np.lexsort((joins, city))
        first = np.cumsum([0] + [len(part.ids) for part in terminals[:-1]])
        return cls(
            categories=categories,
            city=city,
            level=level,
            activity=activity,
            preference=np.concatenate(columns, axis=1).astype(np.float32),
            shift=shift,
            travels=travels,
            salary_day=salary_day,
            joins=joins,
            by_joining=np.argsort(joins, kind="stable").astype(np.int32),
            by_city=by_city.astype(np.int32),
            city_start=np.searchsorted(city[by_city], np.arange(n_cities + 1)),
            terminal_category=np.concatenate([part.category for part in terminals]),
            terminal_city=np.concatenate([part.city for part in terminals]),
            terminal_price=np.concatenate([part.price for part in terminals]),
            terminal_ids=np.concatenate([part.ids for part in terminals]),
            range_start=np.concatenate(
                [part.range_start + offset for part, offset in zip(terminals, first.tolist(), strict=True)]
            ).astype(np.int32),
            range_count=np.concatenate([part.range_count for part in terminals]),
            city_weight=city_weight,
        )

    def city_on(self, chance: Chance, day: int) -> NDArray[np.int16]:
        """Where each cardholder is on a day: at home or on a trip, (n_customers,) int16."""
        people = np.arange(self.n_customers)
        offset = chance.hashed(Trait.TRIP_START, people) % np.uint64(TRIP_BLOCK_DAYS)
        block, within = np.divmod(day + offset.astype(np.int64), TRIP_BLOCK_DAYS)
        trips = block * self.n_customers + people
        travelling = chance.unit(Trait.TRIP, trips) < self.travels
        lot = chance.hashed(Trait.TRIP_PLACE, trips)
        days = 2 + (lot >> np.uint64(32)).astype(np.int64) % 9
        start = (lot >> np.uint64(48)).astype(np.int64) % (TRIP_BLOCK_DAYS - 10)
        travelling &= (start <= within) & (within < start + days)
        place = ((lot & np.uint64(0xFFFFFF)).astype(np.float64) * 2.0**-24)[travelling]
        there = self.city.copy()
        there[travelling] = np.searchsorted(np.cumsum(self.city_weight)[:-1], place, side="right")
        return there

    def visited(
        self,
        chance: Chance,
        customer: NDArray[np.int64],
        category: NDArray[np.int8],
        city: NDArray[np.int16],
        rng: np.random.Generator,
        *,
        roaming: bool = False,
    ) -> NDArray[np.int64]:
        """Draw the terminal of each purchase: mostly one of the cardholder's favourites near the city.

        Args:
            chance: The world's.
            customer: (n,) who buys.
            category: (n,) what.
            city: (n,) where they are; nothing online depends on it.
            rng: Where chance comes from.
            roaming: Whether favourites do not matter: it is not the cardholder who pays.

        Returns:
            (n,) int64 terminals.
        """
        drawn, popularity = rng.random(len(customer)), rng.random(len(customer))
        if not roaming:
            kept = drawn < _FAVOURITE_EDGES[-1]
            slot = np.searchsorted(_FAVOURITE_EDGES, drawn[kept], side="right")
            habit = (customer[kept] * 128 + category[kept]) * _MOST_FAVOURITES + slot
            popularity[kept] = chance.unit(Trait.FAVOURITE, habit)
        start = self.range_start[category, city].astype(np.int64)
        count = self.range_count[category, city]
        return start + (popularity**_POPULARITY * count).astype(np.int64)

    def members(self, day: int, city: int | None = None) -> NDArray[np.int32]:
        """Cardholders who have joined by a day, at least one; of a city, if any of them lives there."""
        count = int(np.searchsorted(self.joins[self.by_joining], day, side="right"))
        everybody = self.by_joining[: max(1, count)]
        if city is None or city < 0:
            return everybody
        residents = self.by_city[self.city_start[city] : self.city_start[city + 1]]
        residents = residents[: np.searchsorted(self.joins[residents], day, side="right")]
        return residents if len(residents) else everybody

    def segment(self, chance: Chance, share: float) -> NDArray[np.bool_]:
        """Whether each cardholder belongs to a share of all, (n_customers,) bool; a larger share holds a smaller."""
        return chance.unit(Trait.SEGMENT, np.arange(self.n_customers)) < share


def customer_id(customer: int) -> str:
    """A cardholder's identifier on the wire.

    >>> customer_id(17)
    'c-0000017'
    """
    return f"c-{customer:07d}"


def _taste(categories: tuple[Category, ...], n_customers: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How much each cardholder likes each category, (n_customers, n_categories); the mean is the category's share."""
    share = np.array([category.share for category in categories])
    taste: NDArray[np.float64] = rng.gamma(2.2, 1 / 2.2, (n_customers, len(categories))) * share
    return taste


@dataclass(frozen=True, slots=True, eq=False)
class _Terminals:
    """The terminals of some categories, sorted by category and city: those of a category near a city are neighbours."""

    n_merchants: int
    category: NDArray[np.int8]
    city: NDArray[np.int16]
    price: NDArray[np.float32]
    ids: NDArray[np.str_]
    range_start: NDArray[np.int32]
    range_count: NDArray[np.int32]

    @classmethod
    def draw(
        cls,
        categories: tuple[Category, ...],
        n_merchants: int,
        city_weight: NDArray[np.float64],
        rng: np.random.Generator,
        *,
        first_kind: int = 0,
        numbered: int = 0,
    ) -> _Terminals:
        """Draw so many merchants, at least one of each category, numbered from a number on."""
        weight = np.array([category.merchants for category in categories])
        online = np.array([category.online for category in categories])
        others = rng.choice(len(categories), n_merchants - len(categories), p=weight / weight.sum())
        category = np.concatenate([np.arange(len(categories)), others])
        city = np.where(online[category], ONLINE, rng.choice(len(city_weight), n_merchants, p=city_weight))
        price = rng.normal(0.0, 0.3, n_merchants)
        # Shuffled, so that an id tells nothing about its merchant's category or place.
        number = numbered + rng.permutation(n_merchants)
        tills = np.minimum(rng.geometric(0.5, n_merchants), 8)
        order = np.lexsort((number, city, category))
        merchant = np.repeat(order, tills[order])
        till = np.arange(len(merchant)) - np.repeat(np.cumsum(tills[order]) - tills[order], tills[order])
        ids = [f"m-{number[one]:06d}-{nth}" for one, nth in zip(merchant.tolist(), till.tolist(), strict=True)]
        start, count = _ranges(category[merchant], city[merchant], len(city_weight), online)
        return cls(
            n_merchants=n_merchants,
            category=(category[merchant] + first_kind).astype(np.int8),
            city=city[merchant].astype(np.int16),
            price=price[merchant].astype(np.float32),
            ids=np.array(ids, dtype=np.str_),
            range_start=start,
            range_count=count,
        )


def _ranges(
    category: NDArray[np.int64], city: NDArray[np.int64], n_cities: int, online: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each category and city, the range of terminals that people there use.

    Where a city has none of a category, people use that of the city with most of them.
    """
    start = np.empty((len(online), n_cities), dtype=np.int32)
    count = np.empty((len(online), n_cities), dtype=np.int32)
    for kind in range(len(online)):
        low, high = (int(edge) for edge in np.searchsorted(category, [kind, kind + 1]))
        if online[kind]:
            start[kind], count[kind] = low, high - low
            continue
        edges = low + np.searchsorted(city[low:high], np.arange(n_cities + 1))
        counts = np.diff(edges)
        most = int(np.argmax(counts))
        start[kind] = np.where(counts > 0, edges[:-1], edges[most])
        count[kind] = np.where(counts > 0, counts, counts[most])
    return start, count
