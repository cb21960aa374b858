"""Changes to order: drift of amounts, fraud that grows or is new, a new category, a broken feed, an announced season.

Days are dates in UTC. A change holds from its first day up to and without its last; without a last day, for good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from enum import IntEnum, StrEnum
from typing import Final

from simulator.categories import Category
from simulator.errors import check

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()


def day_number(day: date) -> int:
    """Days from 1970-01-01 to a date: what the event time, divided by a day, gives."""
    return day.toordinal() - _EPOCH_ORDINAL


def date_of(day: int) -> date:
    """The inverse of `day_number`."""
    return date.fromordinal(day + _EPOCH_ORDINAL)


class Scenario(IntEnum):
    """What a transaction really was; the truth that no label need agree with."""

    GENUINE = 0
    CARD_TESTING = 1
    STOLEN_CARD = 2
    COMPROMISED_TERMINAL = 3
    ACCOUNT_TAKEOVER = 4
    GIFT_CARDS = 5


@dataclass(frozen=True, slots=True)
class Span:
    """A range of days: `first` up to and without `last`; None for good."""

    first: date
    last: date | None = None

    def __post_init__(self) -> None:
        check(self.last is None or self.first < self.last, "span.last", "must lie after span.first")

    def holds(self, day: int) -> bool:
        """Whether a day, as days since 1970, lies in it."""
        return day_number(self.first) <= day and (self.last is None or day < day_number(self.last))


@dataclass(frozen=True, slots=True)
class Segment:
    """Whom a change concerns; all conditions must hold, and one that is not given does.

    Attributes:
        categories: Names of categories.
        customer_share: This share of the customers, always the same ones.
    """

    categories: tuple[str, ...] = ()
    customer_share: float = 1.0

    def __post_init__(self) -> None:
        check(0 < self.customer_share <= 1, "segment.customer_share", "must be greater than 0 and at most 1")


@dataclass(frozen=True, slots=True)
class AmountChange:
    """Amounts times a factor."""

    span: Span
    factor: float
    segment: Segment = Segment()

    def __post_init__(self) -> None:
        check(
            math.isfinite(self.factor) and 0.001 <= self.factor <= 1_000, "amount.factor", "must lie in .001 to 1,000"
        )


@dataclass(frozen=True, slots=True)
class FraudChange:
    """New incidents of one scenario, or of all, come at a factor of their rate; 0 stops them."""

    span: Span
    factor: float
    scenario: Scenario | None = None

    def __post_init__(self) -> None:
        check(math.isfinite(self.factor) and 0 <= self.factor <= 100, "fraud.factor", "must lie in 0 to 100")
        check(self.scenario is not Scenario.GENUINE, "fraud.scenario", "must be a fraud")


@dataclass(frozen=True, slots=True)
class NewPattern:
    """A fraud nobody has seen: gift cards.

    Copied cards buy gift cards of one round value in everyday shops by day. A model that never saw it finds little of
    it, because amount, hour and place are nothing special one by one; one that was trained on it finds most.

    Attributes:
        span: When cards begin to be used like that.
        share: These frauds as a share of all frauds that the other scenarios make, 0 to 10.
    """

    span: Span
    share: float = 0.4

    def __post_init__(self) -> None:
        check(math.isfinite(self.share) and 0 < self.share <= 10, "pattern.share", "must lie in 0 to 10")


@dataclass(frozen=True, slots=True)
class NewCategory:
    """A category that opens on a day: its terminals do not occur before."""

    span: Span
    category: Category


@dataclass(frozen=True, slots=True)
class Season:
    """More or less of some categories, known beforehand.

    Attributes:
        name: What it is called.
        span: When.
        factor: Factor of the number of purchases.
        categories: Names of the categories it concerns; empty for all.
        announced_on: From when a watch may know of it; None for a season that everybody always knew.
    """

    name: str
    span: Span
    factor: float
    categories: tuple[str, ...] = ()
    announced_on: date | None = None

    def __post_init__(self) -> None:
        check(bool(self.name), "season.name", "must not be empty")
        check(math.isfinite(self.factor) and 0 < self.factor <= 20, "season.factor", "must lie in 0 to 20")
        check(
            self.announced_on is None or self.announced_on <= self.span.first,
            "season.announced_on",
            "must not lie after its first day",
        )


class Fault(StrEnum):
    """How a feed breaks."""

    MISSING_HOURS = "missing-hours"
    DUPLICATED_IDS = "duplicated-ids"
    CONSTANT_AMOUNTS = "constant-amounts"


@dataclass(frozen=True, slots=True)
class FeedFault:
    """A broken feed.

    Attributes:
        span: When it is broken.
        fault: How.
        share: The share of transactions concerned, for duplicated ids and constant amounts.
        hours: The hours of the day that are missing, UTC, for missing hours.
        amount_minor: The constant, for constant amounts.
    """

    span: Span
    fault: Fault
    share: float = 1.0
    hours: tuple[int, ...] = ()
    amount_minor: int = 100

    def __post_init__(self) -> None:
        check(0 < self.share <= 1, "feed.share", "must be greater than 0 and at most 1")
        check(all(0 <= hour < 24 for hour in self.hours), "feed.hours", "must lie in 0 to 23")
        check(bool(self.hours) == (self.fault is Fault.MISSING_HOURS), "feed.hours", "belong to missing hours alone")
        check(1 <= self.amount_minor <= 10_000_000, "feed.amount_minor", "must lie in 1 to 10,000,000")


type Change = AmountChange | FraudChange | NewPattern | NewCategory | Season | FeedFault
"""Anything that can be ordered."""
