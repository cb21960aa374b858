"""Worlds: the same seed gives the same bytes, every row is what it must be, and the statistics lie in their bands."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.domain.feature_columns import transform_many
from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.transaction import MAX_AMOUNT_MINOR, Acceptance, parse_transaction
from simulator import incidents, labelling
from simulator.batch import NO_INCIDENT, LabelBatch, TransactionBatch, key_of, transaction_id
from simulator.changes import Scenario
from simulator.config import FraudConfig, WorldConfig
from simulator.errors import BadOrder
from simulator.history import history_of
from simulator.incidents import PER_INCIDENT, Planner
from simulator.purchases import Prices
from simulator.rhythm import SALARY_DAYS
from simulator.world import World

SMALL = WorldConfig(customers=300, merchants=120, cities=4)
BIG = WorldConfig(customers=4_000, merchants=1_500, joining=0.0, growth_per_year=0.0)


def world_of(config: WorldConfig = SMALL, seed: int = 7) -> World:
    return World.create(config, np.random.default_rng(seed))


def same(one: TransactionBatch | LabelBatch, other: TransactionBatch | LabelBatch) -> bool:
    """Equal in every byte of every column."""
    for field in fields(one):
        mine, yours = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            if mine.dtype != yours.dtype or mine.tobytes() != yours.tobytes():
                return False
        elif mine != yours:
            return False
    return True


@pytest.fixture(scope="module")
def quarter() -> list[TransactionBatch]:
    """Thirteen weeks of a larger world, without growth."""
    return list(world_of(BIG).days(0, 91))


def column(batches: list[TransactionBatch], name: str) -> NDArray[np.int64]:
    return np.concatenate([getattr(batch, name) for batch in batches])


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    start=st.integers(0, 400),
    cuts=st.lists(st.integers(0, 6), max_size=3),
    peek=st.booleans(),
)
def test_a_day_does_not_depend_on_how_it_was_reached(seed: int, start: int, cuts: list[int], peek: bool) -> None:
    whole = list(world_of(seed=seed).days(start, 7))
    other = world_of(seed=seed)
    if peek:
        list(other.days(start + 90, 1))
        other.labels_known_between(other.config.first_us, other.config.first_us + 3 * US_PER_DAY)
    edges = [0, *sorted(cuts), 7]
    pieces = [batch for low, high in pairwise(edges) for batch in other.days(start + low, high - low)]
    assert len(pieces) == 7
    assert all(same(one, two) for one, two in zip(whole, pieces, strict=True))


def test_seeds_give_different_worlds_and_a_generator_gives_the_next() -> None:
    rng = np.random.default_rng(7)
    first, second = World.create(SMALL, rng), World.create(SMALL, rng)
    one, two, again = (next(world.days(3, 1)) for world in (first, second, world_of()))
    assert same(one, again)
    assert not set(one.key.tolist()) & set(two.key.tolist())


def test_labels_do_not_depend_on_how_they_are_asked_for() -> None:
    world, begin = world_of(), SMALL.first_us
    whole = world.labels_known_between(begin, begin + 60 * US_PER_DAY)
    other = world_of()
    daily = [
        other.labels_known_between(begin + d * US_PER_DAY, begin + (d + 1) * US_PER_DAY) for d in reversed(range(60))
    ]
    assert len(whole) > 100
    assert same(whole, LabelBatch.joined(daily))
    drawn = world_of()
    list(drawn.days(0, 60))
    by_day = LabelBatch.joined([drawn.labels_of(day) for day in range(60)])
    assert same(whole, by_day.known_between(begin, begin + 60 * US_PER_DAY))


def test_labels_are_sorted_and_half_open() -> None:
    world, begin = world_of(), SMALL.first_us
    labels = world.labels_known_between(begin, begin + 40 * US_PER_DAY)
    known_us = labels.known_at_us
    assert (np.diff(known_us) >= 0).all()
    middle = int(known_us[len(labels) // 2])
    before, after = (
        world.labels_known_between(begin, middle),
        world.labels_known_between(middle, begin + 40 * US_PER_DAY),
    )
    assert before.known_at_us.max() < middle == after.known_at_us.min()
    assert same(labels, LabelBatch.joined([before, after]))


CONFIGS = st.builds(
    WorldConfig,
    customers=st.integers(1, 400),
    merchants=st.integers(13, 300),
    cities=st.integers(1, 40),
    joining=st.floats(0, 0.99),
    fraud=st.builds(FraudConfig, rate=st.floats(0, 0.1), overlap=st.floats(0, 1)),
)


@settings(max_examples=25, deadline=None)
@given(config=CONFIGS, seed=st.integers(0, 2**32), day=st.integers(0, 2_000))
def test_invariants_of_any_world(config: WorldConfig, seed: int, day: int) -> None:
    world = world_of(config, seed)
    for batch in world.days(day, 2):
        start_us = batch.day * US_PER_DAY
        assert batch.first_us == start_us
        assert (np.diff(batch.event_time_us) >= 0).all()
        if len(batch):
            assert start_us <= batch.event_time_us[0] <= batch.event_time_us[-1] < start_us + US_PER_DAY
            assert 1 <= batch.amount_minor.min() <= batch.amount_minor.max() <= MAX_AMOUNT_MINOR
            assert 0 <= batch.customer.min() <= batch.customer.max() < config.customers
            assert 0 <= batch.terminal.min() <= batch.terminal.max() < world.population.n_terminals
        assert len(np.unique(batch.key)) == len(batch)
        assert not (batch.is_fraud & (batch.incident == NO_INCIDENT)).any()
        assert config.fraud.rate or not batch.is_fraud.any()
        by_habit = batch.customer[batch.incident == NO_INCIDENT]
        assert (world.population.joins[by_habit] <= batch.day).all()


def test_every_transaction_is_one_that_the_product_accepts() -> None:
    for batch in world_of().days(30, 2):
        acceptance = Acceptance("EUR", batch.first_us + US_PER_DAY)
        for row, transaction in enumerate(batch.transactions()):
            assert parse_transaction(transaction.to_fields(), acceptance) == transaction
            assert key_of(transaction.transaction_id) == int(batch.key[row])


@given(one=st.integers(0, 2**64 - 1), other=st.integers(0, 2**64 - 1))
def test_identifiers_sort_as_keys_do(one: int, other: int) -> None:
    assert (transaction_id(one) < transaction_id(other)) == (one < other)
    assert key_of(transaction_id(one)) == one


@pytest.mark.parametrize("name", ["simulator.batch", "simulator.population"])
def test_examples_in_docstrings_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_ids_never_repeat_over_days(quarter: list[TransactionBatch]) -> None:
    keys = column(quarter, "key")
    assert len(np.unique(keys)) == len(keys) > 500_000


def test_volume_is_what_was_ordered_over_a_year() -> None:
    config = replace(BIG, customers=1_000)
    per_customer = sum(len(batch) for batch in world_of(config).days(0, 364)) / 364 / config.customers
    assert per_customer == pytest.approx(BIG.transactions_per_day, rel=0.06)


def test_fraud_rate_and_mix_are_what_was_ordered() -> None:
    world = world_of(BIG)
    planner = Planner(BIG, world.population, Prices.of(world.population.categories), world._chance)
    day = BIG.first_day
    expected = {scenario: rate * PER_INCIDENT[scenario] for scenario, rate in planner.rates(day).items()}
    transactions = BIG.customers * BIG.transactions_per_day
    assert sum(expected.values()) == pytest.approx(transactions * BIG.fraud.rate)
    for scenario, share in BIG.fraud.shares().items():
        assert expected[scenario] == pytest.approx(transactions * BIG.fraud.rate * share)


@pytest.mark.parametrize("scenario", list(PER_INCIDENT), ids=lambda scenario: scenario.name)
def test_an_incident_makes_as_many_frauds_as_is_written_down(scenario: Scenario) -> None:
    world = world_of()
    planner = Planner(SMALL, world.population, Prices.of(world.population.categories), world._chance)
    rng = np.random.default_rng(11)
    day = SMALL.first_day + 50
    frauds, customers = [], set()
    for number in range(600):
        plan = planner.incident(scenario, day, number, rng)
        assert (np.diff(plan.event_time_us) >= 0).all()
        assert plan.event_time_us[0] >= day * US_PER_DAY
        assert plan.event_time_us[-1] < (day + incidents.HORIZON_DAYS) * US_PER_DAY
        assert set(plan.incident.tolist()) == {number}
        assert set(plan.scenario.tolist()) <= {Scenario.GENUINE, scenario}
        frauds.append(int((plan.scenario == scenario).sum()))
        customers |= set(plan.customer.tolist())
    error = np.std(frauds) / np.sqrt(len(frauds))
    assert abs(np.mean(frauds) - PER_INCIDENT[scenario]) < 4 * error
    assert len(customers) > 200


def test_a_copied_card_was_used_honestly_at_the_till_before() -> None:
    world = world_of()
    planner = Planner(SMALL, world.population, Prices.of(world.population.categories), world._chance)
    rng = np.random.default_rng(3)
    elsewhere = 0
    for number in range(40):
        plan = planner.incident(Scenario.COMPROMISED_TERMINAL, SMALL.first_day + 50, number, rng)
        honest = plan.scenario == Scenario.GENUINE
        till = plan.terminal[honest][0] if honest.any() else -1
        for row in np.flatnonzero(~honest & (plan.terminal != till) & honest.any()):
            visits = plan.event_time_us[honest & (plan.customer == plan.customer[row])]
            assert visits.size
            assert visits.min() < plan.event_time_us[row]
            elsewhere += 1
    assert elsewhere > 300


def test_fraud_is_spread_over_scenarios_and_hides_among_usual_amounts(quarter: list[TransactionBatch]) -> None:
    scenario, amount = column(quarter, "scenario"), column(quarter, "amount_minor")
    rate = (scenario != 0).mean()
    assert 0.003 < rate < 0.010
    low, high = np.percentile(amount[scenario == 0], [5, 95])
    for kind in BIG.fraud.shares():
        own = amount[scenario == kind]
        assert len(own) > 150
        assert np.mean((low <= own) & (own <= high)) > 0.2


def test_the_overlap_decides_how_well_fraud_hides() -> None:
    def raised(overlap: float) -> float:
        world = world_of(replace(BIG, fraud=FraudConfig(rate=0.03, overlap=overlap)))
        batches = list(world.days(0, 20))
        scenario, amount = column(batches, "scenario"), column(batches, "amount_minor")
        takeovers = np.median(amount[scenario == Scenario.ACCOUNT_TAKEOVER])
        online = np.isin(column(batches, "category"), (8, 11, 12))
        return float(takeovers / np.median(amount[(scenario == 0) & online]))

    assert raised(1.0) < 2.5
    assert raised(0.0) > 2.5 * raised(1.0)


def test_no_single_feature_finds_the_fraud() -> None:
    """A guard; `python -m benchmarks simulator` measures more features' worth, and a model's."""
    history = history_of(world_of(replace(BIG, customers=2_000)), 0, 75)
    late = history.transactions.event_time_us >= BIG.first_us + 45 * US_PER_DAY
    truth = history.is_fraud[late]
    values = transform_many(CARD_V1, history.transactions, history.labels)[late]
    precision = {}
    for place, name in enumerate(CARD_V1.names):
        most = np.argsort(-np.nan_to_num(values[:, place], nan=-1.0), kind="stable")[: truth.sum()]
        precision[name] = truth[most].mean()
    assert max(precision.values()) < 0.45
    assert max(precision.values()) > 5 * truth.mean()  # nor is it hopeless


def test_days_hours_and_weekdays_have_a_rhythm(quarter: list[TransactionBatch]) -> None:
    counts = np.array([len(batch) for batch in quarter])
    weekday = np.array([(batch.day + 3) % 7 for batch in quarter])
    assert counts[weekday == 5].mean() > 1.15 * counts[weekday == 1].mean()
    hours = column(quarter, "event_time_us") // US_PER_HOUR % 24
    share = np.bincount(hours, minlength=24) / len(hours)
    assert share[2:6].sum() < 0.06
    assert share[10:20].sum() > 0.55
    assert share.min() > 0


def test_salaries_are_spent_and_holidays_are_quiet(quarter: list[TransactionBatch]) -> None:
    per_day = {date(1970, 1, 1) + timedelta(days=batch.day): len(batch) for batch in quarter}
    assert per_day[date(2026, 1, 1)] < 0.7 * per_day[date(2026, 1, 8)]
    after_salary = [count for day, count in per_day.items() if day.day in SALARY_DAYS and day != date(2026, 1, 1)]
    assert np.mean(after_salary) > 1.02 * np.mean(list(per_day.values()))


def test_people_have_habits(quarter: list[TransactionBatch]) -> None:
    """A cardholder's purchases fall on few terminals, in a home city, at a level of their own."""
    population = world_of(BIG).population
    customer, terminal = column(quarter, "customer"), column(quarter, "terminal")
    honest = column(quarter, "incident") == NO_INCIDENT
    customer, terminal = customer[honest], terminal[honest]
    pair, visits = np.unique(customer * population.n_terminals + terminal, return_counts=True)
    repeated = visits[visits > 1].sum() / visits.sum()
    assert repeated > 0.6
    city = population.terminal_city[terminal]
    at_home = (city == population.city[customer])[city >= 0]
    assert 0.7 < at_home.mean() < 0.99
    amounts = np.log(column(quarter, "amount_minor")[honest])
    mean = np.bincount(customer, amounts, BIG.customers) / np.maximum(1, np.bincount(customer, minlength=BIG.customers))
    assert np.corrcoef(mean, population.level)[0, 1] > 0.7
    assert len(pair) > BIG.customers


def test_growth_and_joining_bring_more() -> None:
    growing = replace(SMALL, customers=2_000, growth_per_year=0.5, joining=0.3)
    world = world_of(growing)
    first, later = (sum(len(batch) for batch in world.days(start, 28)) for start in (7, 7 + 52 * 7))
    assert 1.5 < later / first < 2.6


def test_labels_stay_within_the_horizon_and_come_after_their_transaction() -> None:
    world = world_of(BIG)
    for day in (0, 40):
        batch = next(world.days(day, 1))
        labels = world.labels_of(day)
        assert set(labels.key.tolist()) <= set(batch.key.tolist())
        time_us = dict(zip(batch.key.tolist(), batch.event_time_us.tolist(), strict=True))
        happened_us = np.array([time_us[key] for key in labels.key.tolist()])
        assert (happened_us < labels.event_time_us).all()
        assert (labels.event_time_us <= labels.known_at_us).all()
        assert labels.known_at_us.max() < batch.first_us + labelling.HORIZON_DAYS * US_PER_DAY


def test_a_history_joins_labels_to_their_rows() -> None:
    world = world_of(BIG)
    until_us = BIG.first_us + 12 * US_PER_DAY
    history = history_of(world, 2, 20, until_us)
    keys = history.transactions.transaction_id
    assert len(keys) == sum(len(batch) for batch in world.days(2, 20))
    assert history.labels.known_at_us.max() < until_us
    expected = LabelBatch.joined([world.labels_of(day) for day in range(2, 22)])
    expected = expected.take(expected.known_at_us < until_us)
    assert keys[history.labels.row].tolist() == expected.key.tolist()
    agreement = (history.is_fraud[history.labels.row] == history.labels.is_fraud).mean()
    assert agreement > 0.8
    assert len(history_of(world, 2, 20).labels.row) > len(expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: WorldConfig(customers=0),
        lambda: WorldConfig(merchants=3),
        lambda: WorldConfig(currency="eur"),
        lambda: WorldConfig(first_date=date(1969, 1, 1)),
        lambda: WorldConfig(joining=1.0),
        lambda: WorldConfig(transactions_per_day=float("nan")),
        lambda: FraudConfig(rate=0.5),
        lambda: FraudConfig(overlap=1.5),
        lambda: FraudConfig(mix=((Scenario.GENUINE, 1.0),)),
        lambda: FraudConfig(mix=((Scenario.STOLEN_CARD, 0.0),)),
        lambda: world_of().days(-1, 2),  # at once, not when the first day is taken
        lambda: world_of().days(0, -1),
        lambda: world_of().days(90_000, 1),
        lambda: world_of().labels_known_between(0, 2**62),
        lambda: world_of().labels_of(-1),
        lambda: history_of(world_of(), 0, 0),
    ],
)
def test_what_makes_no_sense_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(BadOrder):
        make()


def test_a_world_needs_no_more_memory_for_more_days() -> None:
    world = world_of()

    def sizes() -> Iterator[int]:
        for _ in world.days(0, 400):
            yield len(world._plans) + len(world._labels)

    assert max(sizes()) <= incidents.HORIZON_DAYS + 1 + labelling.HORIZON_DAYS + 31
