"""The soak's own arithmetic: what it sends, and how it cuts a run into quarters."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks.bench_soak import (
    LABEL_DELAY_US,
    LABELLED_EVERY,
    QUARTERS,
    SPAN_US,
    Sent,
    Traffic,
    by_quarter,
    growth,
)
from shared.domain.entity_state_layout import BASE_LAYOUT
from shared.domain.event import parse_object
from shared.domain.feature_view import Entity
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import parse_label
from shared.domain.transaction import Acceptance, Transaction, parse_transaction

NOW_US = 1_790_000_000_000_000
COUNT = 2_000
TRAFFIC = Traffic(NOW_US - SPAN_US - US_PER_DAY, COUNT, 100)


def transactions() -> list[Transaction]:
    acceptance = Acceptance("EUR", NOW_US, lateness_us=366 * US_PER_DAY)
    return [parse_transaction(parse_object(body), acceptance) for _, body in TRAFFIC.bodies()]


def test_event_time_rises_evenly_through_the_span_within_what_an_app_accepts() -> None:
    made = transactions()
    times = [item.event_time_us for item in made]
    assert len({item.transaction_id for item in made}) == COUNT
    assert times == sorted(times)
    assert times[0] == TRAFFIC.start_us
    assert times[-1] + SPAN_US // COUNT == pytest.approx(TRAFFIC.start_us + SPAN_US, abs=2)


def test_half_a_run_is_longer_than_any_state_is_kept() -> None:
    assert max(BASE_LAYOUT.of(entity).horizon_us for entity in Entity) + SPAN_US / QUARTERS / 3 < SPAN_US / 2


def test_labels_come_once_each_when_event_time_has_reached_them() -> None:
    times = {item.transaction_id: item.event_time_us for item in transactions()}
    seen: set[str] = set()
    for first in range(0, COUNT, 50):
        now_us = TRAFFIC.event_time_us(first + 50)
        for body in TRAFFIC.labels(first, first + 50):
            label = parse_label(parse_object(body), NOW_US)
            assert label.event_time_us == times[label.transaction_id]
            assert label.known_at_us <= now_us + SPAN_US // COUNT
            assert label.transaction_id not in seen
            seen.add(label.transaction_id)
    last_us = TRAFFIC.start_us + SPAN_US - LABEL_DELAY_US
    known = [name for name, time_us in times.items() if time_us < last_us - SPAN_US // COUNT]
    assert seen >= {name for name in known if int(name.rpartition("-")[2]) % LABELLED_EVERY == 0}
    assert len(seen) == pytest.approx(len(known) / LABELLED_EVERY, abs=2)


def test_the_customer_that_is_named_is_the_one_in_the_body() -> None:
    assert all(json.loads(body)["customer_id"] == f"c-{customer}" for customer, body in TRAFFIC.bodies())


def test_a_transaction_was_sent_with_its_tick() -> None:
    sent = Sent([0, 10, 10, 25], [100, 200, 300, 400])
    assert [sent.when_us(number) for number in (0, 9, 10, 24, 25, 99)] == [100, 100, 300, 300, 400, 400]


@pytest.mark.parametrize("count", [4, 5, 7, 160])
def test_quarters_hold_everything_in_order(count: int) -> None:
    parts = by_quarter(list(range(count)))
    assert len(parts) == QUARTERS
    assert [item for part in parts for item in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_growth_is_the_last_quarter_over_the_third() -> None:
    assert growth([1, 2, 4, 5]) == 1.25
    assert math.isnan(growth([1, 2, 0, 5]))
