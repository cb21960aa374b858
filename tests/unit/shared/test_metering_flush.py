"""Counts on their way to the store that all instances share."""

from __future__ import annotations

import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import Transient
from shared.services.metering_flush import MeterFlush
from tests.fakes.counts import FakeCells, FakeCounts
from tests.fakes.probes import FakeClock


def total(store: FakeCounts) -> list[float]:
    return [cell for row in store.sums("L") for cell in row.cells]


def flush_of(cells: FakeCells, store: FakeCounts, clock: FakeClock) -> MeterFlush:
    return MeterFlush("score", cells, store, clock, layout="L")


def test_what_was_counted_is_written_once() -> None:
    cells, store, clock = FakeCells(2), FakeCounts(), FakeClock()
    flush = flush_of(cells, store, clock)
    assert not flush.flush(), "nothing was counted"
    cells.add(0, 2.0)
    assert flush.flush()
    assert not flush.flush()
    cells.add(1, 0.5)
    assert flush.flush()
    assert total(store) == [2.0, 0.5]
    assert len(store.rows) == 1


def test_a_store_that_is_away_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    cells, store, clock = FakeCells(2), FakeCounts(), FakeClock()
    flush = flush_of(cells, store, clock)
    cells.add(0, 1.0)
    store.error = Transient("away")
    with caplog.at_level(logging.WARNING):
        assert not flush.flush()
        assert not flush.flush()
    assert len(caplog.records) == 1, "said once"
    store.error = None
    cells.add(0, 1.0)
    assert flush.flush()
    assert total(store) == [2.0, 0.0]


def test_the_thread_writes_and_stopping_writes_a_last_time() -> None:
    cells, store, clock = FakeCells(2), FakeCounts(), FakeClock()
    flush = flush_of(cells, store, clock)
    flush.start(0.01)
    cells.add(0, 1.0)
    deadline = time.monotonic() + 10
    while total(store) != [1.0, 0.0]:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    flush.stop()
    cells.add(0, 1.0)
    flush.stop()
    assert total(store) == [1.0, 0.0], "what has stopped writes nothing"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 2), st.integers(0, 1), st.floats(0, 1e6)),
            st.tuples(st.just("flush"), st.integers(0, 2)),
            st.tuples(st.just("fold")),
            st.tuples(st.just("fail"), st.integers(0, 2)),
        ),
        max_size=40,
    )
)
def test_sums_never_fall_and_miss_nothing_that_was_written(steps: list[tuple[object, ...]]) -> None:
    store, clock = FakeCounts(), FakeClock()
    writers = [FakeCells(2) for _ in range(3)]
    flushes = [flush_of(cells, store, clock) for cells in writers]
    last = [0.0, 0.0]
    for kind, *values in steps:
        clock.time_us += 1
        match kind, values:
            case "add", [int(who), int(place), float(amount)]:
                writers[who].add(place, amount)
            case "flush", [int(who)]:
                flushes[who].flush()
            case "fold", []:
                store.fold(clock.time_us, clock.time_us)
            case "fail", [int(who)]:
                store.error = Transient("away")
                flushes[who].flush()
                store.error = None
        now = total(store) or [0.0, 0.0]
        assert all(after >= before for after, before in zip(now, last, strict=True)), "not by a single bit"
        last = now
    for flush in flushes:
        flush.flush()
    counted = [sum(cells.cells[place] for cells in writers) for place in range(2)]
    assert (total(store) or [0.0, 0.0]) == pytest.approx(counted, abs=1e-5)
