"""A world of card payments, drawn day by day.

Each day is a function of the world and the day alone: which days were drawn before, in what pieces, and whether labels
were asked for in between changes no byte. What a day costs does not grow with its distance from the start.

Memory: the population, one day, the plans of `incidents.HORIZON_DAYS` days and the labels of `labelling.HORIZON_DAYS`
days; the latter are kept because they are asked for again and again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from simulator import incidents, labelling
from simulator.batch import NO_INCIDENT, LabelBatch, TransactionBatch
from simulator.chance import Chance, Stream, Trait
from simulator.changes import AmountChange, Fault, FeedFault, Scenario, Season, date_of, day_number
from simulator.config import LAST_DATE, WorldConfig
from simulator.errors import check
from simulator.incidents import Plan, Planner
from simulator.labelling import labels_of
from simulator.population import Population
from simulator.purchases import MAX_DRAWN_MINOR, Prices, purchases_of
from simulator.rhythm import rhythm_of, yearly_seasons

MAX_CHANGED_MINOR: Final = 100 * MAX_DRAWN_MINOR
"""Largest amount after all changes of amounts, minor units; below what a transaction may have."""

_KEPT_LABEL_DAYS: Final = labelling.HORIZON_DAYS + 31
"""Enough for one pass over the labels of a month, and for many over those of a day."""


class World:
    """A synthetic world; make one with `create`.

    Attributes:
        config: Its settings.
        population: Its cardholders and terminals.
    """

    def __init__(self, config: WorldConfig, chance: Chance) -> None:
        self.config = config
        self.population = Population.draw(config, chance)
        self._chance = chance
        self._prices = Prices.of(self.population.categories)
        self._planner = Planner(config, self.population, self._prices, chance)
        self._plans: OrderedDict[int, Plan] = OrderedDict()
        self._labels: OrderedDict[int, LabelBatch] = OrderedDict()

    @classmethod
    def create(cls, config: WorldConfig, rng: np.random.Generator) -> World:
        """Make a world.

        Args:
            config: Its settings.
            rng: Where its chance comes from; a generator in the same state gives the same world, with the same numpy.
        """
        return cls(config, Chance.of(rng))

    def days(self, start: int, n_days: int) -> Iterator[TransactionBatch]:
        """The transactions of some days, one batch for each.

        Args:
            start: The first day; 0 is `WorldConfig.first_date`.
            n_days: How many.

        Raises:
            BadOrder: A day before the first, or after `config.LAST_DATE`.
        """
        check(start >= 0, "start", "must not lie before the first day of the world")
        check(n_days >= 0, "n_days", "must not be negative")
        check(self.config.first_day + start + n_days <= day_number(LAST_DATE), "n_days", f"must end by {LAST_DATE}")
        return (self._drawn(self.config.first_day + day) for day in range(start, start + n_days))

    def labels_known_between(self, from_us: int, until_us: int) -> LabelBatch:
        """All labels that become known from a time on and before another, sorted by when.

        Costs drawing every day of the last `labelling.HORIZON_DAYS` that was not drawn lately.

        Args:
            from_us: Microseconds since 1970 UTC.
            until_us: Microseconds since 1970 UTC.

        Raises:
            BadOrder: A time after `config.LAST_DATE`.
        """
        check(until_us <= day_number(LAST_DATE) * US_PER_DAY, "until_us", f"must not lie after {LAST_DATE}")
        first = max(self.config.first_day, from_us // US_PER_DAY - labelling.HORIZON_DAYS)
        parts = [
            self._labels_of(day).known_between(from_us, until_us) for day in range(first, -(-until_us // US_PER_DAY))
        ]
        return LabelBatch.joined(parts)

    def labels_of(self, day: int) -> LabelBatch:
        """All labels that the transactions of a day will ever have; day 0 is `WorldConfig.first_date`."""
        check(day >= 0, "day", "must not lie before the first day of the world")
        return self._labels_of(self.config.first_day + day)

    def announcements(self, known_by_us: int) -> tuple[Season, ...]:
        """The seasons of this and the next year that a watch may know of at a time, ordered ones included."""
        day = known_by_us // US_PER_DAY
        year = date_of(day).year
        ordered = (change for change in self.config.changes if isinstance(change, Season))
        return (
            *yearly_seasons(year),
            *yearly_seasons(year + 1),
            *(season for season in ordered if season.announced_on is None or season.announced_on <= date_of(day)),
        )

    def _drawn(self, day: int) -> TransactionBatch:
        """A day, drawn; its labels are drawn with it."""
        rhythm = rhythm_of(self.config, self.population.categories, day)
        bought = purchases_of(
            self.population, self._prices, self._chance, rhythm, self._chance.stream(Stream.PURCHASES, day)
        )
        fraud = Plan.joined([self._plan(begun).on(day) for begun in range(day - incidents.HORIZON_DAYS, day + 1)])
        n_bought = len(bought.customer)
        time_us = np.concatenate([bought.event_time_us, fraud.event_time_us])
        order = np.argsort(time_us, kind="stable")
        terminal = np.concatenate([bought.terminal, fraud.terminal])[order]
        numbers = (day << 32) + np.arange(len(order), dtype=np.int64)
        batch = TransactionBatch(
            day=day,
            currency=self.config.currency,
            terminal_ids=self.population.terminal_ids,
            key=self._chance.hashed(Trait.TRANSACTION, numbers),
            customer=np.concatenate([bought.customer, fraud.customer])[order],
            terminal=terminal,
            amount_minor=np.concatenate([bought.amount_minor, fraud.amount_minor])[order],
            event_time_us=time_us[order],
            scenario=np.concatenate([np.full(n_bought, Scenario.GENUINE, dtype=np.int8), fraud.scenario])[order],
            incident=np.concatenate([np.full(n_bought, NO_INCIDENT), fraud.incident])[order],
            category=self.population.terminal_category[terminal],
        )
        batch = self._fed(self._repriced(batch))
        if day not in self._labels:
            rng = self._chance.stream(Stream.LABELS, day)
            self._keep(
                self._labels,
                day,
                labels_of(self.config.labels, batch, self.population, self._prices, rng),
                _KEPT_LABEL_DAYS,
            )
        return batch

    def _plan(self, day: int) -> Plan:
        plan = self._plans.get(day)
        if plan is None:
            plan = self._planner.plan(day)
            self._keep(self._plans, day, plan, incidents.HORIZON_DAYS + 1)
        return plan

    def _labels_of(self, day: int) -> LabelBatch:
        if day not in self._labels:
            self._drawn(day)
        return self._labels[day]

    @staticmethod
    def _keep[T](kept: OrderedDict[int, T], day: int, value: T, most: int) -> None:
        """Keep a value, and forget the one that was made first where there are too many."""
        kept[day] = value
        while len(kept) > most:
            kept.popitem(last=False)

    def _repriced(self, batch: TransactionBatch) -> TransactionBatch:
        """The day with the ordered changes of its amounts."""
        amounts = batch.amount_minor.astype(np.float64)
        names = [category.name for category in self.population.categories]
        changed = False
        for change in self.config.changes:
            if not isinstance(change, AmountChange) or not change.span.holds(batch.day):
                continue
            concerned = np.ones(len(batch), dtype=np.bool_)
            if change.segment.categories:
                kinds = [names.index(name) for name in change.segment.categories]
                concerned &= np.isin(batch.category, kinds)
            if change.segment.customer_share < 1:
                members = self.population.segment(self._chance, change.segment.customer_share)
                concerned &= members[batch.customer]
            amounts[concerned] *= change.factor
            changed = True
        if not changed:
            return batch
        minor = np.clip(np.rint(amounts), 1, MAX_CHANGED_MINOR).astype(np.int64)
        return replace(batch, amount_minor=minor)

    def _fed(self, batch: TransactionBatch) -> TransactionBatch:
        """The day as a broken feed leaves it."""
        for number, change in enumerate(self.config.changes):
            if not isinstance(change, FeedFault) or not change.span.holds(batch.day):
                continue
            rng = self._chance.stream(Stream.FEED, batch.day, number)
            hit = rng.random(len(batch)) < change.share
            match change.fault:
                case Fault.MISSING_HOURS:
                    hours = batch.event_time_us // US_PER_HOUR % 24
                    batch = batch.take(~np.isin(hours, change.hours))
                case Fault.CONSTANT_AMOUNTS:
                    batch = replace(batch, amount_minor=np.where(hit, change.amount_minor, batch.amount_minor))
                case Fault.DUPLICATED_IDS:
                    own = np.maximum.accumulate(np.where(hit, 0, np.arange(len(batch))))
                    batch = replace(batch, key=batch.key[own])  # that of the last one which kept its own, or the first
        return batch
