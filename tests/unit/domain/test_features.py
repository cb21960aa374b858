"""The reference: hand-worked values, window edges to the microsecond, null rules, and an independent recomputation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from shared.domain.feature_view import CARD_V1, FEATURE_DTYPE, HANDBOOK_V1, Entity, Null
from shared.domain.features import History, PastTransaction, transform_one
from shared.domain.instants import US_PER_DAY, US_PER_HOUR, parse_instant
from shared.domain.labels import Label
from shared.domain.transaction import ALLOWED_LATENESS_US, Transaction
from tests.unit.domain.worlds import BASE_US, World, label, random_world, transaction, worlds

DAY = US_PER_DAY
NOW = 120 * DAY


def past(item: Transaction, *labels: Label) -> PastTransaction:
    return PastTransaction(item.transaction_id, item.event_time_us, item.amount_minor, labels)


def values(history: History = History(), *, at: int = NOW, amount: int = 1000) -> dict[str, float]:  # noqa: B008  # frozen
    vector = transform_one(CARD_V1, transaction(500, at, amount=amount), history)
    return dict(zip(CARD_V1.names, vector.tolist(), strict=True))


def test_the_view_is_what_bundles_will_rely_on() -> None:
    """Names and order are frozen: a change is a new view."""
    assert CARD_V1.names == (
        "amount", "is_weekend", "is_night",
        "customer_count_1d", "customer_mean_amount_1d", "customer_count_7d", "customer_mean_amount_7d",
        "customer_count_30d", "customer_mean_amount_30d",
        "terminal_count_1d", "terminal_fraud_rate_1d", "terminal_count_7d", "terminal_fraud_rate_7d",
        "terminal_count_30d", "terminal_fraud_rate_30d",
        "terminal_last_label", "terminal_fraud_run", "terminal_fraud_run_age",
        "amount_to_median_30d", "amount_to_genuine_mean_90d",
        "customer_outliers_1d", "customer_outliers_7d", "customer_outliers_14d",
        "customer_largest_to_median_14d", "customer_known_frauds_30d",
    )  # fmt: skip
    assert HANDBOOK_V1.names == CARD_V1.names[:15]
    assert CARD_V1.reach_us(Entity.CUSTOMER) == 97 * DAY
    assert CARD_V1.reach_us(Entity.TERMINAL) == 37 * DAY
    assert CARD_V1.horizon_us(Entity.TERMINAL) == 37 * DAY + ALLOWED_LATENESS_US


def test_a_first_transaction_has_its_own_values_and_nulls() -> None:
    found = values()
    for feature in CARD_V1.features:
        match feature.null:
            case Null.NAN:
                assert math.isnan(found[feature.name])
            case Null.ZERO:
                assert found[feature.name] == 0
            case Null.NEVER:
                assert not math.isnan(found[feature.name])
    assert found["customer_count_30d"] == 1
    assert found["customer_mean_amount_1d"] == 1000


def test_the_vector_is_little_endian_float32() -> None:
    vector = transform_one(CARD_V1, transaction(1, 0), History())
    assert vector.dtype == np.dtype(FEATURE_DTYPE)
    assert vector.shape == (25,)


@pytest.mark.parametrize(
    ("time", "weekend", "night"),
    [
        ("2018-04-06T23:59:59.999999Z", 0, 0),  # a Friday
        ("2018-04-07T00:00:00Z", 1, 1),
        ("2018-04-07T06:59:59.999999Z", 1, 1),
        ("2018-04-07T07:00:00Z", 1, 0),
        ("2018-04-08T23:59:59.999999Z", 1, 0),
        ("2018-04-09T00:00:00Z", 0, 1),
        ("1969-12-31T23:59:59.999999Z", 0, 0),  # a Wednesday
    ],
)
def test_weekend_and_night_to_the_microsecond(time: str, weekend: int, night: int) -> None:
    found = values(at=parse_instant("event_time", time) - BASE_US)
    assert (found["is_weekend"], found["is_night"]) == (weekend, night)


@pytest.mark.parametrize("days", [1, 7, 30])
def test_a_customer_window_leaves_out_its_start(days: int) -> None:
    at_edge = History(customer=[past(transaction(1, NOW - days * DAY, amount=3000))])
    inside = History(customer=[past(transaction(1, NOW - days * DAY + 1, amount=3000))])
    assert values(at_edge)[f"customer_count_{days}d"] == 1
    assert values(inside)[f"customer_count_{days}d"] == 2
    assert values(at_edge)[f"customer_mean_amount_{days}d"] == 1000
    assert values(inside)[f"customer_mean_amount_{days}d"] == 2000


@pytest.mark.parametrize("days", [1, 7, 30])
def test_a_terminal_window_ends_at_the_delay_and_includes_it(days: int) -> None:
    def found(time_us: int) -> tuple[float, float]:
        item = transaction(1, time_us)
        seen = values(History(terminal=[past(item, label(item, fraud=True))]))
        return seen[f"terminal_count_{days}d"], seen[f"terminal_fraud_rate_{days}d"]

    assert found(NOW - 7 * DAY + 1) == (0, 0)
    assert found(NOW - 7 * DAY) == (1, 1)
    assert found(NOW - (7 + days) * DAY + 1) == (1, 1)
    assert found(NOW - (7 + days) * DAY) == (0, 0)


def test_a_label_counts_from_known_at_plus_delay_to_the_microsecond() -> None:
    item = transaction(1, NOW - 20 * DAY)
    exactly = History(terminal=[past(item, label(item, fraud=True, known_after_us=13 * DAY))])
    too_late = History(terminal=[past(item, label(item, fraud=True, known_after_us=13 * DAY + 1))])
    assert values(exactly)["terminal_fraud_rate_30d"] == 1
    assert values(too_late)["terminal_fraud_rate_30d"] == 0
    assert values(too_late)["terminal_count_30d"] == 1


def test_ties_of_the_event_time_are_broken_by_id() -> None:
    before, after = transaction(499, NOW), transaction(501, NOW)
    assert values(History(customer=[past(before)]))["customer_count_1d"] == 2
    assert values(History(customer=[past(after)]))["customer_count_1d"] == 1
    assert values(History(customer=[past(transaction(500, NOW))]))["customer_count_1d"] == 1


def test_the_run_of_known_frauds_skips_what_has_no_label() -> None:
    items = [transaction(number, NOW - (30 - number) * DAY) for number in range(6)]
    verdicts = [True, False, True, None, True, True]
    history = [
        past(item) if verdict is None else past(item, label(item, fraud=verdict))
        for item, verdict in zip(items, verdicts, strict=True)
    ]
    found = values(History(terminal=history))
    assert found["terminal_last_label"] == 1
    assert found["terminal_fraud_run"] == 3
    assert found["terminal_fraud_run_age"] == 28
    assert values(History(terminal=history[:2]))["terminal_last_label"] == 0
    assert values(History(terminal=history[:2]))["terminal_fraud_run"] == 0
    assert math.isnan(values(History(terminal=history[:2]))["terminal_fraud_run_age"])


def test_ages_are_fractions_of_days() -> None:
    item = transaction(1, NOW - 10 * DAY - 6 * US_PER_HOUR)
    found = values(History(terminal=[past(item, label(item, fraud=True))]))
    assert found["terminal_fraud_run_age"] == 10.25


@pytest.mark.parametrize(
    ("amounts", "median"), [([100], 100), ([100, 300], 200), ([300, 100, 101], 101), ([1, 2, 4, 1000], 3)]
)
def test_the_median_is_the_mean_of_the_two_middle_amounts(amounts: list[int], median: int) -> None:
    history = [past(transaction(number, NOW - DAY, amount=amount)) for number, amount in enumerate(amounts)]
    assert values(History(customer=history))["amount_to_median_30d"] == np.float32(1000 / median)


def test_the_median_window_leaves_out_its_start_and_the_transaction() -> None:
    edge = past(transaction(1, NOW - 30 * DAY, amount=7))
    inside = past(transaction(2, NOW - 30 * DAY + 1, amount=500))
    assert math.isnan(values(History(customer=[edge]))["amount_to_median_30d"])
    assert values(History(customer=[edge, inside]))["amount_to_median_30d"] == 2


def test_an_outlier_lies_above_and_not_at_five_halves_of_the_median() -> None:
    steady = [past(transaction(number, NOW - 20 * DAY + number, amount=100)) for number in range(9)]
    recent = past(transaction(20, NOW - 6 * DAY, amount=251))
    at_limit = past(transaction(21, NOW - 6 * DAY, amount=250))
    found = values(History(customer=[*steady, recent, at_limit]), amount=251)
    assert [found[f"customer_outliers_{days}d"] for days in (1, 7, 14)] == [1, 2, 2]
    assert found["customer_largest_to_median_14d"] == np.float32(2.51)


def test_the_genuine_mean_reads_known_genuine_amounts_of_90_days_only() -> None:
    def item(number: int, days: int, amount: int, fraud: bool | None) -> PastTransaction:
        made = transaction(number, NOW - days * DAY, amount=amount)
        return past(made) if fraud is None else past(made, label(made, fraud=fraud))

    history = [
        item(1, 97, 1, False),  # at the start: out
        item(2, 96, 300, False),
        item(3, 7, 500, False),  # at the delay: in
        item(4, 6, 1, False),
        item(5, 50, 1, True),
        item(6, 50, 1, None),
    ]
    found = values(History(customer=history), amount=1000)
    assert found["amount_to_genuine_mean_90d"] == 2.5
    assert found["customer_known_frauds_30d"] == 0


def test_the_stronger_label_holds_from_when_it_counts() -> None:
    item = transaction(1, NOW - 20 * DAY)
    fraud = label(item, fraud=True)
    taken_back = label(item, fraud=False, known_after_us=13 * DAY)
    history = History(terminal=[past(item, taken_back, fraud)])
    assert values(history, at=NOW - 1)["terminal_last_label"] == 1
    assert values(history, at=NOW)["terminal_last_label"] == 0


@settings(max_examples=30, deadline=None)
@given(worlds(max_size=16))
def test_the_handbook_features_equal_exact_rational_arithmetic(world: World) -> None:
    """The definitions once more, in fractions and set comprehensions, rounded only at the end."""
    for row, own in enumerate(world.transactions):
        found = dict(zip(HANDBOOK_V1.names, transform_one(HANDBOOK_V1, own, world.history(row)).tolist(), strict=True))
        now = own.event_time_us
        for days in (1, 7, 30):
            card = [
                item.amount_minor
                for item in world.transactions
                if item.customer_id == own.customer_id
                and now - days * DAY < item.event_time_us
                and item.order <= own.order
            ]
            assert found[f"customer_count_{days}d"] == len(card)
            assert found[f"customer_mean_amount_{days}d"] == np.float32(float(Fraction(sum(card), len(card))))
            there = {
                item.transaction_id
                for item in world.transactions
                if item.terminal_id == own.terminal_id and now - (7 + days) * DAY < item.event_time_us <= now - 7 * DAY
            }
            strongest: dict[str, Label] = {}
            for saying in sorted(world.labels, key=lambda each: each.strength):
                if saying.transaction_id in there and saying.known_at_us + 7 * DAY <= now:
                    strongest[saying.transaction_id] = saying
            frauds = sum(saying.is_fraud for saying in strongest.values())
            rate = Fraction(frauds, len(there)) if there else Fraction(0)
            assert found[f"terminal_count_{days}d"] == len(there)
            assert found[f"terminal_fraud_rate_{days}d"] == np.float32(float(rate))


def test_order_of_the_history_is_irrelevant_and_old_history_is_not_needed() -> None:
    world = random_world(seed=11, n_rows=120)
    for row in (60, 119):
        own = world.transactions[row]
        full = world.history(row)
        needed = History(
            [
                item
                for item in full.customer
                if item.event_time_us > own.event_time_us - CARD_V1.reach_us(Entity.CUSTOMER)
            ][::-1],
            [
                item
                for item in full.terminal
                if item.event_time_us > own.event_time_us - CARD_V1.reach_us(Entity.TERMINAL)
            ][::-1],
        )
        assert transform_one(CARD_V1, own, full).tobytes() == transform_one(CARD_V1, own, needed).tobytes()


def test_a_recorded_vector_never_changes() -> None:
    """Golden: the bits of one row of a fixed history, as every later release must give them."""

    def item(number: int) -> PastTransaction:
        made = transaction(number, NOW - number * 13 * US_PER_HOUR - 1, amount=100 + number * number * 7 % 997)
        delay_us = number % 5 * DAY
        return past(made, label(made, fraud=number % 16 in {0, 14, 15}, known_after_us=delay_us))

    items = [item(number) for number in range(190)]
    vector = transform_one(CARD_V1, transaction(500, NOW, amount=123_457), History(items, items[::2]))
    assert vector.tobytes().hex() == GOLDEN


GOLDEN = (
    "8020f147000000000000803f00004040550521470000604100340f460000644200d027450000803f000000000000c040"
    "abaa2a3e0000e0410000803e0000803f0000803fabaa0a41caed7a43032049430000803f0000803f0000803fcaed7a4300003041"
)
