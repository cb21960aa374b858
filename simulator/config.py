"""The settings of a world, each with its unit; a world is a function of them and of its generator."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from shared.domain.instants import US_PER_DAY
from simulator.categories import CATEGORIES, Category
from simulator.changes import AmountChange, Change, NewCategory, Scenario, Season, day_number
from simulator.errors import check

FIRST_DATE: Final = date(1971, 1, 1)
LAST_DATE: Final = date(2199, 12, 31)


@dataclass(frozen=True, slots=True)
class FraudConfig:
    """How much fraud there is, of which kind, and how well it hides.

    Attributes:
        rate: Frauds as a share of all transactions, in the long run.
        mix: Share of each scenario among the frauds; they need not add up to one.
        overlap: Share of the frauds whose amount and hour are drawn as if the cardholder had paid.
    """

    rate: float = 0.006
    mix: tuple[tuple[Scenario, float], ...] = (
        (Scenario.CARD_TESTING, 0.22),
        (Scenario.STOLEN_CARD, 0.20),
        (Scenario.COMPROMISED_TERMINAL, 0.33),
        (Scenario.ACCOUNT_TAKEOVER, 0.25),
    )
    overlap: float = 0.2

    def __post_init__(self) -> None:
        check(0 <= self.rate <= 0.1, "fraud.rate", "must lie in 0 to .1")
        check(0 <= self.overlap <= 1, "fraud.overlap", "must lie in 0 to 1")
        scenarios = [scenario for scenario, _ in self.mix]
        check(len(set(scenarios)) == len(scenarios), "fraud.mix", "must name each scenario once")
        known = {Scenario.CARD_TESTING, Scenario.STOLEN_CARD, Scenario.COMPROMISED_TERMINAL, Scenario.ACCOUNT_TAKEOVER}
        check(set(scenarios) <= known, "fraud.mix", "must hold the four lasting scenarios only; order a NewPattern")
        weights = [weight for _, weight in self.mix]
        sound = all(math.isfinite(weight) and weight >= 0 for weight in weights) and sum(weights) > 0
        check(sound, "fraud.mix", "must hold weights from 0 up, one of them above")

    def shares(self) -> dict[Scenario, float]:
        """Share of each scenario among the frauds, adding up to one."""
        total = sum(weight for _, weight in self.mix)
        return {scenario: weight / total for scenario, weight in self.mix}


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """Who finds out about fraud, when, and how often they are wrong. Shares are probabilities, delays are days.

    Medians and spreads are those of lognormal delays; the spread is the standard deviation of the logarithm.

    Attributes:
        silent: Frauds that nobody ever notices.
        review_genuine: Reviews of genuine transactions that look like any other.
        review_fraud: Reviews of frauds that look like any other; what looks suspicious is reviewed more often.
        analyst_days: Median and spread of the delay of an analyst's label.
        analyst_error: Wrong analyst labels.
        customer_fraud: Frauds that the cardholder reports.
        customer_days: Median and spread of the delay of such a report.
        customer_mistake: Genuine transactions that a cardholder reports by mistake, and takes back.
        chargeback_fraud: Frauds that end in a chargeback.
        chargeback_days: Median and spread of the delay of a chargeback.
        friendly_fraud: Genuine transactions that their cardholder disputes against better knowledge.
        won_back_friendly: Such chargebacks that the merchant wins back.
        won_back_fraud: Chargebacks of real fraud that the merchant wins back all the same.
    """

    silent: float = 0.06
    review_genuine: float = 0.0012
    review_fraud: float = 0.30
    analyst_days: tuple[float, float] = (0.7, 0.8)
    analyst_error: float = 0.03
    customer_fraud: float = 0.62
    customer_days: tuple[float, float] = (3.0, 1.0)
    customer_mistake: float = 0.00006
    chargeback_fraud: float = 0.72
    chargeback_days: tuple[float, float] = (24.0, 0.5)
    friendly_fraud: float = 0.0003
    won_back_friendly: float = 0.45
    won_back_fraud: float = 0.03

    def __post_init__(self) -> None:
        for name in (
            "silent",
            "review_genuine",
            "review_fraud",
            "analyst_error",
            "customer_fraud",
            "customer_mistake",
            "chargeback_fraud",
            "friendly_fraud",
            "won_back_friendly",
            "won_back_fraud",
        ):
            check(0 <= getattr(self, name) <= 1, f"labels.{name}", "must lie in 0 to 1")
        for name in ("analyst_days", "customer_days", "chargeback_days"):
            median, spread = getattr(self, name)
            check(0 < median <= 60 and 0 <= spread <= 2, f"labels.{name}", "must be a median to 60 and a spread to 2")


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """A world.

    Attributes:
        first_date: The first day that can be drawn, UTC.
        customers: Cardholders, those who join later included.
        merchants: Merchants of the categories of `CATEGORIES`; each has one terminal or more.
        cities: Places where people live and shops are; one sells online as well.
        transactions_per_day: Mean number of transactions of a cardholder a day, all rhythms aside.
        growth_per_year: Growth of that number; .1 is ten percent.
        joining: Share of the cardholders who join during the first 365 days.
        currency: ISO 4217 code of all amounts.
        fraud: How much fraud there is.
        labels: Who finds out.
        changes: Drift, seasons and faults to order.
    """

    first_date: date = date(2026, 1, 1)
    customers: int = 5_000
    merchants: int = 2_000
    cities: int = 12
    transactions_per_day: float = 1.9
    growth_per_year: float = 0.08
    joining: float = 0.10
    currency: str = "EUR"
    fraud: FraudConfig = field(default_factory=FraudConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    changes: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        check(FIRST_DATE <= self.first_date <= LAST_DATE, "first_date", f"must lie in {FIRST_DATE} to {LAST_DATE}")
        check(1 <= self.customers <= 9_999_999, "customers", "must lie in 1 to 9,999,999")
        check(len(CATEGORIES) <= self.merchants <= 999_999, "merchants", f"must lie in {len(CATEGORIES)} to 999,999")
        check(1 <= self.cities <= 1_000, "cities", "must lie in 1 to 1,000")
        check(0 < self.transactions_per_day <= 100, "transactions_per_day", "must lie in 0 to 100")
        check(-0.9 <= self.growth_per_year <= 2, "growth_per_year", "must lie in -.9 to 2")
        check(0 <= self.joining < 1, "joining", "must lie in 0 to 1, without 1")
        sound = len(self.currency) == 3 and self.currency.isascii() and self.currency.isalpha()
        check(sound and self.currency.isupper(), "currency", "must be three capital letters")
        names = [category.name for category in self.categories()]
        check(len(names) <= 100, "changes", "must not bring more than 100 categories together with those there are")
        check(len(set(names)) == len(names), "changes", "must not name a new category like one there is")
        for change in self.changes:
            check_names(change, names)

    @property
    def first_day(self) -> int:
        """`first_date` as days since 1970."""
        return day_number(self.first_date)

    @property
    def first_us(self) -> int:
        """Start of the first day, microseconds since 1970 UTC."""
        return self.first_day * US_PER_DAY

    def categories(self) -> tuple[Category, ...]:
        """All categories, those that open later at the end."""
        return CATEGORIES + tuple(change.category for change in self.changes if isinstance(change, NewCategory))


def check_names(change: Change, names: list[str]) -> None:
    """Refuse a change of a category that is not there.

    Raises:
        BadOrder: It names one.
    """
    match change:
        case Season(categories=categories):
            named = categories
        case AmountChange(segment=segment):
            named = segment.categories
        case _:
            named = ()
    for name in named:
        check(name in names, "changes", f"name a category {name!r} that is not there")
