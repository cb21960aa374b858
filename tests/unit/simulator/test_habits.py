"""Cardholders, prices and incidents one by one: trips, hours, sprees, endings of amounts, how long things go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from simulator.batch import NO_INCIDENT, TransactionBatch
from simulator.categories import CATEGORIES, Ending
from simulator.chance import Chance, Stream, Trait, mix64
from simulator.changes import Scenario
from simulator.config import FraudConfig, WorldConfig
from simulator.incidents import Plan, Planner
from simulator.population import TRIP_BLOCK_DAYS
from simulator.purchases import BIG_TICKET_SHARE, SPREE_FACTOR, SPREE_SHARE, Prices
from simulator.world import World

CONFIG = WorldConfig(customers=2_000, merchants=800, joining=0.0)


@pytest.fixture(scope="module")
def world() -> World:
    return World.create(CONFIG, np.random.default_rng(9))


@pytest.fixture(scope="module")
def honest(world: World) -> list[TransactionBatch]:
    """Two months of what cardholders do themselves."""
    return [batch.take(batch.incident == NO_INCIDENT) for batch in world.days(0, 60)]


def column(batches: list[TransactionBatch], name: str) -> NDArray[np.int64]:
    return np.concatenate([getattr(batch, name) for batch in batches])


def incidents(world: World, scenario: Scenario, overlap: float = 0.2, count: int = 200) -> list[Plan]:
    config = replace(CONFIG, fraud=FraudConfig(overlap=overlap))
    planner = Planner(config, world.population, Prices.of(world.population.categories), world._chance)
    rng = np.random.default_rng(1)
    return [planner.incident(scenario, CONFIG.first_day + 40, number, rng) for number in range(count)]


def test_hashed_numbers_are_a_bijection_and_even(world: World) -> None:
    words = np.arange(200_000, dtype=np.uint64)
    assert len(np.unique(mix64(words))) == len(words)
    chance = world._chance
    assert len(np.unique(chance.hashed(Trait.TRANSACTION, words))) == len(words)
    for trait in (Trait.SPREE, Trait.SEGMENT):
        unit = chance.unit(trait, words)
        assert np.histogram(unit, 20, (0, 1))[0].std() < 4 * np.sqrt(len(words) / 20)
    assert abs(np.corrcoef(chance.unit(Trait.SPREE, words), chance.unit(Trait.SPREE, words, 1))[0, 1]) < 0.02


def test_streams_differ_by_kind_and_place() -> None:
    chance = Chance.of(np.random.default_rng(1))
    drawn = {chance.stream(kind, *place).random() for kind in Stream for place in ((1,), (2,), (1, 0), (1, 1))}
    assert len(drawn) == 20
    assert chance.stream(Stream.FEED, 4).random() == chance.stream(Stream.FEED, 4).random()


def test_trips_are_few_and_last_days(world: World) -> None:
    days = range(CONFIG.first_day, CONFIG.first_day + 5 * TRIP_BLOCK_DAYS)
    away = np.array([world.population.city_on(world._chance, day) != world.population.city for day in days])
    assert 0.005 < away.mean() < 0.1
    begins = ~away[:-1] & away[1:]
    lengths = []
    for person in np.flatnonzero(begins.any(axis=0)):
        run = 0
        for out in [*away[:, person].tolist(), False]:
            if run and not out:
                lengths.append(run)
            run = run + 1 if out else 0
    assert 2 <= np.median(lengths) <= 10
    assert np.mean([2 <= length <= 10 for length in lengths]) > 0.95
    inside = world.population.travels < 0.02
    assert away[:, inside].mean() < away.mean() / 2


def test_people_have_hours_of_their_own(world: World, honest: list[TransactionBatch]) -> None:
    customer = column(honest, "customer")
    hour = column(honest, "event_time_us") % US_PER_DAY / US_PER_HOUR
    daytime = (hour >= 8) & (hour <= 22)
    count = np.bincount(customer[daytime], minlength=CONFIG.customers)
    mean = np.bincount(customer[daytime], hour[daytime], CONFIG.customers) / np.maximum(1, count)
    busy = count > 60
    assert np.corrcoef(mean[busy], world.population.shift[busy])[0, 1] > 0.5


def test_a_spree_is_a_day_of_several_times_as_many(world: World, honest: list[TransactionBatch]) -> None:
    people = np.arange(CONFIG.customers)
    on_spree, usual = [], []
    for batch in honest:
        count = np.bincount(batch.customer, minlength=CONFIG.customers)
        spree = world._chance.unit(Trait.SPREE, people, batch.day) < SPREE_SHARE
        on_spree.append(count[spree])
        usual.append(count[~spree])
    factor = np.concatenate(on_spree).mean() / np.concatenate(usual).mean()
    assert factor == pytest.approx(SPREE_FACTOR, rel=0.15)


def test_some_honest_amounts_are_far_above_the_usual(world: World, honest: list[TransactionBatch]) -> None:
    prices = Prices.of(world.population.categories)
    customer, terminal = column(honest, "customer"), column(honest, "terminal")
    typical = prices.typical_log(world.population, customer, terminal)
    spread = prices.spread[world.population.terminal_category[terminal]]
    odd = (np.log(column(honest, "amount_minor")) - typical) / spread
    assert abs(np.median(odd)) < 0.1
    assert 0.1 * BIG_TICKET_SHARE < (odd > 4).mean() < BIG_TICKET_SHARE


def test_amounts_end_as_their_category_does(honest: list[TransactionBatch]) -> None:
    amount, category = column(honest, "amount_minor"), column(honest, "category")
    for place, kind in enumerate(CATEGORIES):
        own = amount[category == place]
        priced = np.isin(own % 100, (95, 99)).mean()
        match kind.ending:
            case Ending.PRICED:
                assert 0.6 < priced < 0.9
            case Ending.ROUND:
                assert (own % 1_000 == 0).all()
            case Ending.ANY:
                assert priced < 0.05


def test_fraudsters_who_do_not_hide_work_by_night(world: World) -> None:
    def by_night(overlap: float) -> float:
        times = np.concatenate([plan.event_time_us for plan in incidents(world, Scenario.ACCOUNT_TAKEOVER, overlap)])
        return float((times % US_PER_DAY < 5 * US_PER_HOUR).mean())

    assert by_night(1.0) < 0.15
    assert by_night(0.0) > by_night(1.0) + 0.15


def test_a_stolen_card_is_blocked_after_a_day(world: World) -> None:
    spans = [
        plan.event_time_us[-1] - plan.event_time_us[0] for plan in incidents(world, Scenario.STOLEN_CARD, count=2_000)
    ]
    assert max(spans) < US_PER_DAY
    assert max(spans) > US_PER_DAY - US_PER_HOUR
    assert np.median(spans) > 6 * US_PER_HOUR


def test_tested_cards_are_tried_with_little_money_at_one_merchant(world: World) -> None:
    for plan in incidents(world, Scenario.CARD_TESTING, count=50):
        terminal = np.bincount(plan.terminal).argmax()
        tests = plan.amount_minor[plan.terminal == terminal]
        assert len(tests) > len(plan.terminal) / 2
        assert np.median(tests) < 1_000


def test_incidents_go_on_for_weeks(world: World) -> None:
    """What began long ago is still at work: no day depends on the plans of the last few days alone."""
    begun = 1 << 20
    ages = np.concatenate(
        [batch.day - batch.incident[batch.incident != NO_INCIDENT] // begun for batch in world.days(0, 90)]
    )
    assert ages.min() >= 0
    assert ages.max() > 45
