"""Drift to order does what it says from its day on, and leaves every day before it as it was."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from shared.domain.instants import US_PER_HOUR
from shared.domain.labels import PRECEDENCE, LabelSource
from simulator.batch import LabelBatch, TransactionBatch
from simulator.categories import CATEGORIES, Category, Hours
from simulator.changes import (
    AmountChange,
    Change,
    Fault,
    FeedFault,
    FraudChange,
    NewCategory,
    NewPattern,
    Scenario,
    Season,
    Segment,
    Span,
    date_of,
    day_number,
)
from simulator.config import FraudConfig, LabelConfig, WorldConfig
from simulator.errors import BadOrder
from simulator.history import history_of
from simulator.rhythm import yearly_seasons
from simulator.world import World

FROM = date(2026, 1, 22)
UNTIL = date(2026, 2, 5)
FIRST, DAYS = 14, 28  # the change holds on days 21 to 34
PARCELS = Category("parcels", 0.08, 2_100, 0.4, Hours.EVENING, online=True)


def drawn(*changes: Change, start: int = FIRST, n_days: int = DAYS) -> tuple[World, list[TransactionBatch]]:
    world = World.create(
        WorldConfig(customers=1_500, merchants=500, cities=5, changes=changes), np.random.default_rng(3)
    )
    return world, list(world.days(start, n_days))


@pytest.fixture(scope="module")
def plain() -> list[TransactionBatch]:
    return drawn()[1]


def holds(batch: TransactionBatch) -> bool:
    return FROM <= date_of(batch.day) < UNTIL


EVERY_CHANGE = [
    AmountChange(Span(FROM, UNTIL), 1.5),
    AmountChange(Span(FROM, UNTIL), 1.2, Segment(("grocery", "fuel"))),
    AmountChange(Span(FROM, UNTIL), 2.0, Segment(customer_share=0.3)),
    FraudChange(Span(FROM, UNTIL), 5.0),
    FraudChange(Span(FROM, UNTIL), 0.0, Scenario.STOLEN_CARD),
    NewPattern(Span(FROM, UNTIL), 2.0),
    NewCategory(Span(FROM), PARCELS),
    FeedFault(Span(FROM, UNTIL), Fault.MISSING_HOURS, hours=(9, 10, 11)),
    FeedFault(Span(FROM, UNTIL), Fault.DUPLICATED_IDS, share=0.1),
    FeedFault(Span(FROM, UNTIL), Fault.CONSTANT_AMOUNTS, share=0.5, amount_minor=999),
    Season("fair", Span(FROM, UNTIL), 1.6, ("restaurant",), date(2026, 1, 2)),
    Season("strike", Span(FROM, UNTIL), 0.4),
]


@pytest.mark.parametrize("change", EVERY_CHANGE, ids=str)
def test_days_before_a_change_stay_as_they_were(change: Change, plain: list[TransactionBatch]) -> None:
    _, changed = drawn(change)
    differing = 0
    for one, two in zip(plain, changed, strict=True):
        columns = ("key", "customer", "terminal", "amount_minor", "event_time_us", "scenario")
        equal = all(np.array_equal(getattr(one, name), getattr(two, name)) for name in columns)
        ids = [batch.terminal_ids[batch.terminal].tolist() for batch in (one, two)]
        if date_of(one.day) < FROM:
            assert equal
            assert ids[0] == ids[1]
        elif holds(one):
            differing += not equal
    assert differing >= (1 if isinstance(change, FraudChange) else 10)


@pytest.mark.parametrize(
    "change", [item for item in EVERY_CHANGE if not isinstance(item, NewCategory | FraudChange | NewPattern)], ids=str
)
def test_days_after_the_last_are_as_before(change: Change, plain: list[TransactionBatch]) -> None:
    _, changed = drawn(change)
    for one, two in zip(plain, changed, strict=True):
        if date_of(one.day) >= UNTIL:
            assert np.array_equal(one.amount_minor, two.amount_minor)
            assert np.array_equal(one.key, two.key)


def test_amounts_are_multiplied_for_all(plain: list[TransactionBatch]) -> None:
    _, changed = drawn(AmountChange(Span(FROM, UNTIL), 1.5))
    for one, two in zip(plain, changed, strict=True):
        factor = 1.5 if holds(one) else 1.0
        assert np.array_equal(two.amount_minor, np.rint(one.amount_minor * factor).astype(np.int64))


def test_amounts_are_multiplied_for_a_segment_of_categories_and_customers(plain: list[TransactionBatch]) -> None:
    segment = Segment(("grocery",), customer_share=0.4)
    _, changed = drawn(AmountChange(Span(FROM), 3.0, segment))
    concerned: dict[int, set[bool]] = {}
    for one, two in zip(plain, changed, strict=True):
        hit = one.amount_minor != two.amount_minor
        if date_of(one.day) < FROM:
            assert not hit.any()
            continue
        assert np.array_equal(two.amount_minor[hit], 3 * one.amount_minor[hit])
        assert set(one.category[hit].tolist()) == {0}
        for customer, changed_here in zip(one.customer[one.category == 0], hit[one.category == 0], strict=True):
            concerned.setdefault(int(customer), set()).add(bool(changed_here))
    assert all(len(seen) == 1 for seen in concerned.values())  # always the same customers
    share = np.mean([True in seen for seen in concerned.values()])
    assert 0.35 < share < 0.45


def test_fraud_grows_or_stops_from_a_day() -> None:
    begin, end = date(2026, 1, 1) + timedelta(days=60), date(2026, 1, 1) + timedelta(days=120)

    def frauds(*changes: Change) -> dict[Scenario, int]:
        _, batches = drawn(*changes, start=60, n_days=60)
        counts = np.bincount(np.concatenate([batch.scenario for batch in batches]), minlength=6)
        return {scenario: int(counts[scenario]) for scenario in Scenario}

    usual, more = frauds(), frauds(FraudChange(Span(begin, end), 4.0, Scenario.STOLEN_CARD))
    assert 2.5 < more[Scenario.STOLEN_CARD] / usual[Scenario.STOLEN_CARD] < 6
    assert all(more[other] == usual[other] for other in Scenario if other not in {Scenario.STOLEN_CARD, 0})
    none = frauds(FraudChange(Span(date(2025, 1, 1)), 0.0))
    assert sum(count for scenario, count in none.items() if scenario) == 0


def test_a_new_pattern_begins_on_its_day_and_looks_like_everyday_life() -> None:
    begin = date(2026, 1, 1) + timedelta(days=40)
    _, batches = drawn(NewPattern(Span(begin), 2.0), start=0, n_days=110)
    gift_days = [batch.day for batch in batches if (batch.scenario == Scenario.GIFT_CARDS).any()]
    assert gift_days
    assert min(gift_days) >= day_number(begin)
    after = [batch for batch in batches if batch.day >= day_number(begin)]
    scenario = np.concatenate([batch.scenario for batch in after])
    amount = np.concatenate([batch.amount_minor for batch in after])
    gifts = scenario == Scenario.GIFT_CARDS
    assert gifts.sum() > 300
    low, high = np.percentile(amount[scenario == 0], [5, 98])
    assert ((low < amount[gifts]) & (amount[gifts] < high)).all()
    assert len(np.unique(amount[gifts])) == 3
    hours = np.concatenate([batch.event_time_us for batch in after])[gifts] // US_PER_HOUR % 24
    assert hours.min() >= 9
    assert hours.max() <= 20


def test_a_new_category_opens_on_its_day() -> None:
    world, batches = drawn(NewCategory(Span(FROM), PARCELS))
    kind = len(CATEGORIES)
    assert world.population.categories[kind] == PARCELS
    shares = [float((batch.category == kind).mean()) for batch in batches]
    assert all((share > 0) == (date_of(batch.day) >= FROM) for share, batch in zip(shares, batches, strict=True))
    assert 0.05 < max(shares) < 0.12
    assert len(set(world.population.terminal_ids.tolist())) == world.population.n_terminals


def test_hours_go_missing(plain: list[TransactionBatch]) -> None:
    _, changed = drawn(FeedFault(Span(FROM, UNTIL), Fault.MISSING_HOURS, hours=(9, 10)))
    for one, two in zip(plain, changed, strict=True):
        missing = np.isin(one.event_time_us // US_PER_HOUR % 24, (9, 10)) & holds(one)
        assert np.array_equal(two.key, one.key[~missing])
        assert missing.any() == holds(one)


def test_ids_are_given_twice(plain: list[TransactionBatch]) -> None:
    world, changed = drawn(FeedFault(Span(FROM, UNTIL), Fault.DUPLICATED_IDS, share=0.2))
    for day, (one, two) in enumerate(zip(plain, changed, strict=True), start=FIRST):
        assert np.array_equal(one.event_time_us, two.event_time_us)
        repeated = 1 - len(np.unique(two.key)) / len(two)
        assert 0.15 < repeated < 0.25 if holds(one) else repeated == 0
        labels = world.labels_of(day)
        assert set(labels.key.tolist()) <= set(two.key.tolist())


def test_a_transaction_whose_id_was_taken_has_no_labels_and_no_place_in_history() -> None:
    fault = FeedFault(Span(FROM, UNTIL), Fault.DUPLICATED_IDS, share=0.4)
    everything = LabelConfig(
        silent=0.0, chargeback_fraud=1.0, review_genuine=0.5, won_back_fraud=0.0, friendly_fraud=0.0
    )
    config = WorldConfig(
        customers=600, merchants=200, fraud=FraudConfig(rate=0.05), labels=everything, changes=(fault,)
    )
    world = World.create(config, np.random.default_rng(3))
    history = history_of(world, FIRST, DAYS, 2**60)
    first: dict[int, int] = {}
    for batch in world.days(FIRST, DAYS):
        for key, scenario in zip(batch.key.tolist(), batch.scenario.tolist(), strict=True):
            first.setdefault(key, scenario)
    keys = history.transactions.transaction_id
    assert keys.tolist() == list(first)
    assert history.scenario.tolist() == list(first.values())
    labels = LabelBatch.joined([world.labels_of(day) for day in range(FIRST, FIRST + DAYS)])
    assert keys[history.labels.row].tolist() == labels.key.tolist()
    charged_back = labels.key[labels.source == PRECEDENCE.index(LabelSource.CHARGEBACK)].tolist()
    assert sorted(charged_back) == sorted(key for key, scenario in first.items() if scenario)


def test_two_new_categories_keep_out_of_each_others_way() -> None:
    other = Category("charging", 0.05, 1_500, 0.4, Hours.COMMUTE)
    world, batches = drawn(NewCategory(Span(FROM), PARCELS), NewCategory(Span(UNTIL), other))
    ids = world.population.terminal_ids.tolist()
    assert len(set(ids)) == len(ids)
    merchants = [name.rsplit("-", 1)[0] for name in ids]
    owners = set(zip(merchants, world.population.terminal_category.tolist(), strict=True))
    assert len(owners) == len(set(merchants))  # a merchant has one category
    for batch in batches:
        found = np.unique(batch.category)
        assert (len(CATEGORIES) in found) == (date_of(batch.day) >= FROM)
        assert (len(CATEGORIES) + 1 in found) == (date_of(batch.day) >= UNTIL)


def test_amounts_become_constant(plain: list[TransactionBatch]) -> None:
    _, changed = drawn(FeedFault(Span(FROM, UNTIL), Fault.CONSTANT_AMOUNTS, share=0.5, amount_minor=123_456))
    for one, two in zip(plain, changed, strict=True):
        constant = (two.amount_minor == 123_456).mean()
        assert 0.4 < constant < 0.6 if holds(one) else constant < 0.01


def test_a_season_moves_volume_and_is_announced(plain: list[TransactionBatch]) -> None:
    season = Season("fair", Span(FROM, UNTIL), 2.5, ("restaurant",), date(2026, 1, 10))
    world, changed = drawn(season)
    place = [category.name for category in CATEGORIES].index("restaurant")
    before, after = (
        sum(int((batch.category == place).sum()) for batch in batches if holds(batch)) for batches in (plain, changed)
    )
    assert 2.2 < after / before < 2.8
    others = [
        sum(int((batch.category != place).sum()) for batch in batches if holds(batch)) for batches in (plain, changed)
    ]
    assert others[1] / others[0] == pytest.approx(1.0, abs=0.03)
    day_us = 86_400_000_000
    announced = [season in world.announcements(day_number(date(2026, 1, day)) * day_us) for day in (9, 10, 11)]
    assert announced == [False, True, True]


def test_everybody_knows_the_holidays_of_this_and_next_year() -> None:
    world, _ = drawn(n_days=1)
    known = world.announcements(world.config.first_us)
    assert {season.name for season in known} == {season.name for season in yearly_seasons(2026)}
    assert {season.span.first.year for season in known} == {2026, 2027}
    sales = next(season for season in yearly_seasons(2026) if season.name == "sales weekend")
    assert sales.span.first == date(2026, 11, 27)  # the day after the fourth Thursday


@pytest.mark.parametrize(
    "make",
    [
        lambda: Span(FROM, FROM),
        lambda: AmountChange(Span(FROM), 0.0),
        lambda: AmountChange(Span(FROM), float("inf")),
        lambda: FraudChange(Span(FROM), -1.0),
        lambda: FraudChange(Span(FROM), 1.0, Scenario.GENUINE),
        lambda: NewPattern(Span(FROM), 0.0),
        lambda: Segment(customer_share=0.0),
        lambda: Season("", Span(FROM), 1.0),
        lambda: Season("late", Span(FROM), 1.0, announced_on=UNTIL),
        lambda: FeedFault(Span(FROM), Fault.MISSING_HOURS),
        lambda: FeedFault(Span(FROM), Fault.MISSING_HOURS, hours=(24,)),
        lambda: FeedFault(Span(FROM), Fault.CONSTANT_AMOUNTS, hours=(1,)),
        lambda: FeedFault(Span(FROM), Fault.CONSTANT_AMOUNTS, amount_minor=0),
        lambda: Category("", 0.1, 100, 0.5, Hours.MEALS),
        lambda: Category("free", 0.1, 0, 0.5, Hours.MEALS),
        lambda: WorldConfig(changes=(Season("x", Span(FROM), 2.0, ("submarines",)),)),
        lambda: WorldConfig(changes=(AmountChange(Span(FROM), 2.0, Segment(("submarines",))),)),
        lambda: WorldConfig(changes=(NewCategory(Span(FROM), CATEGORIES[0]),)),
    ],
)
def test_orders_that_make_no_sense_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(BadOrder):
        make()
