"""Fraud: incidents that start on a day, each with every transaction it will make.

An incident is drawn as a whole on the day on which it starts, so a day's fraud is what the incidents of the last
`HORIZON_DAYS` days do on it. Of each scenario there are as many as its share of the wanted fraud rate asks for, given
how many frauds one incident makes in the mean (`PER_INCIDENT`).

To hide, a share of the frauds (`FraudConfig.overlap`) is drawn by the cardholder's own law of amounts and hours; the
others are a multiple of it and keep the fraudster's hours in half of the cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE
from simulator.categories import Hours
from simulator.chance import Chance, Stream
from simulator.changes import FraudChange, NewPattern, Scenario
from simulator.config import WorldConfig
from simulator.population import Population
from simulator.purchases import Prices
from simulator.rhythm import times_of_day

HORIZON_DAYS: Final = 75
"""No incident does anything so many days after the day on which it started."""

PER_INCIDENT: Final = {
    Scenario.CARD_TESTING: 95.7,
    Scenario.STOLEN_CARD: 7.7,
    Scenario.COMPROMISED_TERMINAL: 157.0,
    Scenario.ACCOUNT_TAKEOVER: 21.8,
    Scenario.GIFT_CARDS: 5.25,
}
"""Frauds of one incident in the mean; a test draws many incidents and holds these numbers against them."""

_INCIDENTS_PER_DAY: Final = 1 << 20
"""Incident numbers are day times this, plus scenario and ordinal."""

_SHOPS: Final = ("electronics", "fashion", "fuel", "grocery", "home", "cash")
_TILLS: Final = ("fuel", "restaurant", "cash", "grocery", "transport")
_GIFT_SHOPS: Final = ("grocery", "pharmacy", "electronics", "fashion")
_GIFT_VALUES: Final = (5_000, 10_000, 15_000)
_DISTANCE: Final = ("online-shop", "digital", "travel")


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All that the incidents which start on one day will do, sorted by event time, as columns of one length.

    Attributes:
        customer: (n,) int64, whose card.
        terminal: (n,) int64.
        amount_minor: (n,) int64, minor units.
        event_time_us: (n,) int64, microseconds since 1970 UTC.
        scenario: (n,) int8; GENUINE where the cardholder paid himself and his card was copied.
        incident: (n,) int64.
    """

    customer: NDArray[np.int64]
    terminal: NDArray[np.int64]
    amount_minor: NDArray[np.int64]
    event_time_us: NDArray[np.int64]
    scenario: NDArray[np.int8]
    incident: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: list[Plan]) -> Plan:
        """Several plans as one, sorted by event time; plans of equal time keep their order."""
        whole = cls(
            np.concatenate([np.empty(0, dtype=np.int64), *(part.customer for part in parts)]),
            np.concatenate([np.empty(0, dtype=np.int64), *(part.terminal for part in parts)]),
            np.concatenate([np.empty(0, dtype=np.int64), *(part.amount_minor for part in parts)]),
            np.concatenate([np.empty(0, dtype=np.int64), *(part.event_time_us for part in parts)]),
            np.concatenate([np.empty(0, dtype=np.int8), *(part.scenario for part in parts)]),
            np.concatenate([np.empty(0, dtype=np.int64), *(part.incident for part in parts)]),
        )
        return whole.take(np.argsort(whole.event_time_us, kind="stable"))

    def take(self, rows: NDArray[np.int64] | slice) -> Plan:
        """Some of the rows."""
        return Plan(
            self.customer[rows],
            self.terminal[rows],
            self.amount_minor[rows],
            self.event_time_us[rows],
            self.scenario[rows],
            self.incident[rows],
        )

    def on(self, day: int) -> Plan:
        """The rows of one day."""
        low, high = np.searchsorted(self.event_time_us, [day * US_PER_DAY, (day + 1) * US_PER_DAY])
        return self.take(slice(int(low), int(high)))


@dataclass(frozen=True, slots=True)
class Planner:
    """Draws the incidents of a world."""

    config: WorldConfig
    population: Population
    prices: Prices
    chance: Chance

    def plan(self, day: int) -> Plan:
        """All incidents that start on a day."""
        parts: list[Plan] = []
        for scenario, rate in self.rates(day).items():
            rng = self.chance.stream(Stream.INCIDENTS, day, int(scenario))
            for ordinal in range(int(rng.poisson(rate))):
                number = day * _INCIDENTS_PER_DAY + int(scenario) * (_INCIDENTS_PER_DAY // 8) + ordinal
                parts.append(self.incident(scenario, day, number, rng))
        return Plan.joined(parts)

    def rates(self, day: int) -> dict[Scenario, float]:
        """Mean number of incidents of each scenario that start on a day."""
        members = len(self.population.members(max(day, self.config.first_day)))
        volume = members * self.config.transactions_per_day
        volume *= (1 + self.config.growth_per_year) ** ((day - self.config.first_day) / 365.25)
        frauds = volume * self.config.fraud.rate
        rates = {
            scenario: frauds * share / PER_INCIDENT[scenario] for scenario, share in self.config.fraud.shares().items()
        }
        rates[Scenario.GIFT_CARDS] = sum(
            frauds * change.share / PER_INCIDENT[Scenario.GIFT_CARDS]
            for change in self.config.changes
            if isinstance(change, NewPattern) and change.span.holds(day)
        )
        for change in self.config.changes:
            if isinstance(change, FraudChange) and change.span.holds(day):
                for scenario in rates:
                    if change.scenario in {None, scenario}:
                        rates[scenario] *= change.factor
        return rates

    def incident(self, scenario: Scenario, day: int, number: int, rng: np.random.Generator) -> Plan:
        """Draw one incident that starts on a day."""
        draw: Callable[[_Incident], None] = {
            Scenario.CARD_TESTING: _card_testing,
            Scenario.STOLEN_CARD: _stolen_card,
            Scenario.COMPROMISED_TERMINAL: _compromised_terminal,
            Scenario.ACCOUNT_TAKEOVER: _account_takeover,
            Scenario.GIFT_CARDS: _gift_cards,
        }[scenario]
        incident = _Incident(self, scenario, day, number, rng, [])
        draw(incident)
        return Plan.joined(incident.parts)


@dataclass(frozen=True, slots=True)
class _Incident:
    """One incident while it is drawn."""

    planner: Planner
    scenario: Scenario
    day: int
    number: int
    rng: np.random.Generator
    parts: list[Plan]

    def customers(self, count: int, city: int | None = None) -> NDArray[np.int64]:
        """Draw cardholders who have joined; the same one may come twice."""
        known = self.planner.population.members(max(self.day, self.planner.config.first_day), city)
        return known[self.rng.integers(0, len(known), count)].astype(np.int64)

    def terminals(self, categories: tuple[str, ...], city: NDArray[np.int16]) -> NDArray[np.int64]:
        """Draw a terminal of one of the categories for each city: as popular ones as people go to."""
        planner = self.planner
        names = [category.name for category in planner.population.categories]
        kinds = np.array([names.index(name) for name in categories], dtype=np.int8)
        drawn = kinds[self.rng.integers(0, len(kinds), len(city))]
        nobody = np.zeros(len(city), dtype=np.int64)
        return planner.population.visited(planner.chance, nobody, drawn, city, self.rng, roaming=True)

    def quiet_terminal(self, categories: tuple[str, ...], city: int) -> int:
        """Draw a terminal of one of the categories near a city, each with equal chance: most have few visitors."""
        population = self.planner.population
        names = [category.name for category in population.categories]
        kind = names.index(categories[int(self.rng.integers(0, len(categories)))])
        start, count = population.range_start[kind, city], population.range_count[kind, city]
        return int(start) + int(self.rng.integers(0, count))

    def hidden(self, count: int) -> NDArray[np.bool_]:
        """Which of the frauds are drawn by the cardholder's own law."""
        return self.rng.random(count) < self.planner.config.fraud.overlap

    def raised(self, hidden: NDArray[np.bool_], factor: float, spread: float) -> NDArray[np.float64]:
        """Logarithms of the factors by which amounts are raised where they do not hide."""
        drawn = self.rng.normal(np.log(factor), spread, len(hidden))
        return np.where(hidden, 0.0, drawn)

    def moments_us(
        self,
        days: NDArray[np.int64],
        customer: NDArray[np.int64],
        terminal: NDArray[np.int64],
        hidden: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Draw event times on given days: the cardholder's hours, or half of the time those of the night."""
        planner, rng = self.planner, self.rng
        hours = planner.prices.hours[planner.population.terminal_category[terminal]]
        by_night = ~hidden & (rng.random(len(days)) < 0.5)
        hours = np.where(by_night, np.int8(Hours.NIGHT), hours).astype(np.int8)
        shift = np.where(by_night, 0.0, planner.population.shift[customer])
        return days * US_PER_DAY + times_of_day(hours, shift, rng)

    def pay(
        self,
        customer: NDArray[np.int64],
        terminal: NDArray[np.int64],
        moments_us: NDArray[np.int64],
        raised: NDArray[np.float64] | float,
    ) -> None:
        """Add frauds whose amounts follow from whose card it is, where, and by how much they are raised."""
        planner = self.planner
        amounts = planner.prices.amounts(planner.population, customer, terminal, self.rng, raised)
        self.add(customer, terminal, moments_us, amounts)

    def add(
        self,
        customer: NDArray[np.int64],
        terminal: NDArray[np.int64],
        moments_us: NDArray[np.int64],
        amounts: NDArray[np.int64],
        scenario: Scenario | None = None,
    ) -> None:
        """Add rows."""
        kind = self.scenario if scenario is None else scenario
        n_rows = len(customer)
        self.parts.append(
            Plan(
                customer,
                terminal,
                amounts,
                moments_us,
                np.full(n_rows, kind, dtype=np.int8),
                np.full(n_rows, self.number, dtype=np.int64),
            )
        )


def _card_testing(incident: _Incident) -> None:
    """Stolen numbers are tried with small amounts at one online merchant, in bursts over five weeks.

    Two in five of the cards turn out good and are used for more within four days.
    """
    rng = incident.rng
    bursts = 1 + int(rng.poisson(2))
    terminal = incident.quiet_terminal(("digital", "online-shop"), 0)
    for burst in range(bursts):
        day = incident.day + (int(rng.integers(1, 36)) if burst else 0)
        cards = incident.customers(int(rng.integers(2, 7)))
        customer = np.repeat(cards, 4 + rng.binomial(6, 0.5, len(cards)))
        begin_us = day * US_PER_DAY + int(rng.integers(0, 20 * US_PER_HOUR))
        moments_us = begin_us + rng.integers(0, int(rng.integers(20, 120)) * US_PER_MINUTE, len(customer))
        amounts = np.rint(np.exp(rng.uniform(np.log(100), np.log(1_500), len(customer)))).astype(np.int64)
        incident.add(customer, np.full(len(customer), terminal), moments_us, amounts)
        good = cards[rng.random(len(cards)) < 0.4]
        buyer = np.repeat(good, 1 + rng.binomial(3, 0.4, len(good)))
        _use_elsewhere(incident, buyer, day + rng.integers(1, 5, len(buyer)), _DISTANCE, 5.0)


def _stolen_card(incident: _Incident) -> None:
    """A card is taken and spent in shops of its city, until it is blocked after a day."""
    rng, population = incident.rng, incident.planner.population
    victim = incident.customers(1)
    count = 3 + int(rng.poisson(5))
    customer = np.repeat(victim, count)
    hidden = incident.hidden(count)
    at_distance = rng.random(count) < 0.12
    city = population.city[customer]
    shops = incident.terminals(_SHOPS, city)
    terminal = np.where(at_distance, incident.terminals(_DISTANCE, city), shops)
    first_us = incident.moments_us(np.array([incident.day]), victim, terminal[:1], hidden[:1])[0]
    moments_us = first_us + np.cumsum(rng.exponential(2 * US_PER_HOUR, count)).astype(np.int64)
    in_time = moments_us < first_us + US_PER_DAY
    raised = incident.raised(hidden, 4.5, 0.5)
    incident.pay(customer[in_time], terminal[in_time], moments_us[in_time], raised[in_time])


def _compromised_terminal(incident: _Incident) -> None:
    """Criminals sit in a till: copied cards are charged there for three to seven weeks, or used elsewhere later."""
    rng, population = incident.rng, incident.planner.population
    till = incident.quiet_terminal(_TILLS, int(rng.choice(len(population.city_weight), p=population.city_weight)))
    here = int(population.terminal_city[till])
    length = int(rng.integers(20, 50))
    count = int(rng.poisson(4.0 * length))
    customer = incident.customers(count, here)
    terminal = np.full(count, till)
    hidden = incident.hidden(count)
    days = incident.day + rng.integers(0, length, count)
    moments_us = incident.moments_us(days, customer, terminal, hidden)
    incident.pay(customer, terminal, moments_us, incident.raised(hidden, 1.8, 0.4))

    planner = incident.planner
    copied = incident.customers(int(rng.poisson(7)), here)
    visited = incident.day + rng.integers(0, length, len(copied))
    terminal = np.full(len(copied), till)
    all_hidden = np.ones(len(copied), dtype=np.bool_)
    visits_us = incident.moments_us(visited, copied, terminal, all_hidden)
    amounts = planner.prices.amounts(population, copied, terminal, rng)
    incident.add(copied, terminal, visits_us, amounts, Scenario.GENUINE)
    uses = 1 + rng.binomial(4, 0.4, len(copied))
    later = np.repeat(visited + rng.integers(2, 15, len(copied)), uses)
    _use_elsewhere(incident, np.repeat(copied, uses), later, (*_SHOPS, *_DISTANCE), 5.0)


def _account_takeover(incident: _Incident) -> None:
    """Somebody shops online in another's name for one to three weeks, more boldly each day."""
    rng, population = incident.rng, incident.planner.population
    length = int(rng.integers(5, 22))
    per_day = rng.poisson(1.6, length)
    per_day[0] += 1
    days = np.repeat(np.arange(length), per_day)
    customer = np.repeat(incident.customers(1), len(days))
    hidden = incident.hidden(len(days))
    terminal = incident.terminals(_DISTANCE, population.city[customer])
    moments_us = incident.moments_us(incident.day + days, customer, terminal, hidden)
    raised = incident.raised(hidden, 4.5, 0.5) + np.where(hidden, 0.0, 0.5 * days / length)
    incident.pay(customer, terminal, moments_us, raised)


def _gift_cards(incident: _Incident) -> None:
    """Copied cards buy gift cards of one value, a few in a few hours by day, in the shops where their owner lives."""
    rng, population = incident.rng, incident.planner.population
    victim = incident.customers(1)
    value = int(_GIFT_VALUES[int(rng.integers(0, len(_GIFT_VALUES)))])
    for later in range(1 + int(rng.random() < 0.5)):
        count = 2 + int(rng.binomial(3, 0.5))
        customer = np.repeat(victim, count)
        terminal = incident.terminals(_GIFT_SHOPS, population.city[customer])
        begin_us = (incident.day + later) * US_PER_DAY + int(rng.integers(9 * US_PER_HOUR, 17 * US_PER_HOUR))
        moments_us = begin_us + rng.integers(0, 3 * US_PER_HOUR, count)
        incident.add(customer, terminal, moments_us, np.full(count, value))


def _use_elsewhere(
    incident: _Incident,
    customer: NDArray[np.int64],
    days: NDArray[np.int64],
    categories: tuple[str, ...],
    factor: float,
) -> None:
    """Use copied cards at terminals of some categories on given days."""
    hidden = incident.hidden(len(customer))
    terminal = incident.terminals(categories, incident.planner.population.city[customer])
    moments_us = incident.moments_us(days, customer, terminal, hidden)
    incident.pay(customer, terminal, moments_us, incident.raised(hidden, factor, 0.5))
