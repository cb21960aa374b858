"""Counts on their way to the store that all instances share."""

from __future__ import annotations

import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import Transient
from shared.ports.metering import Left
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
    deadline = time.monotonic() + 60
    while total(store) != [1.0, 0.0]:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    flush.stop()
    cells.add(0, 1.0)
    flush.stop()
    assert total(store) == [1.0, 0.0], "what has stopped writes nothing"


class Machine:
    """What processes leave to one another; `died` are those that are gone."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self.cells: dict[str, FakeCells] = {}
        self.died: set[str] = set()

    def process(self, name: str, store: FakeCounts, clock: FakeClock) -> tuple[FakeCells, MeterFlush]:
        cells = self.cells[name] = FakeCells(2)
        return cells, MeterFlush("score", cells, store, clock, layout="L", estate=Place(self, name))


class Place:
    """One process's place there."""

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine, self._name = machine, name

    def note(self, text: str) -> None:
        self._machine.notes[self._name] = text

    def left(self) -> list[Left]:
        machine = self._machine
        return [Left(name, machine.notes[name], machine.cells[name].own()) for name in sorted(machine.died)]

    def settle(self, left: Left) -> None:
        self._machine.died.discard(left.name)


@pytest.mark.parametrize("wrote", [0, 1, 2])
def test_what_a_killed_process_had_counted_is_written_by_another_once(wrote: int) -> None:
    machine, store, clock = Machine(), FakeCounts(), FakeClock()
    cells, flush = machine.process("a", store, clock)
    _, other = machine.process("b", store, clock)
    for _ in range(wrote):
        cells.add(0, 1.0)
        flush.flush()
    cells.add(0, 10.0)
    cells.add(1, 0.25)
    machine.died.add("a")
    assert not other.flush(), "it has counted nothing itself"
    assert total(store) == [wrote + 10.0, 0.25]
    machine.died.add("a")  # as if two of them had found it
    other.flush()
    assert total(store) == [wrote + 10.0, 0.25]
    assert len(store.rows) == 1


def test_what_was_added_up_meanwhile_is_not_counted_again() -> None:
    machine, store, clock = Machine(), FakeCounts(), FakeClock()
    cells, flush = machine.process("a", store, clock)
    _, other = machine.process("b", store, clock)
    cells.add(0, 3.0)
    flush.flush()
    cells.add(0, 1.0)
    store.fold(clock.time_us + 1, clock.time_us)
    machine.died.add("a")
    other.flush()
    assert total(store) == [3.0, 0.0]


def test_a_process_that_took_another_name_leaves_what_came_since() -> None:
    machine, store, clock = Machine(), FakeCounts(), FakeClock()
    cells, flush = machine.process("a", store, clock)
    _, other = machine.process("b", store, clock)
    cells.add(0, 3.0)
    flush.flush()
    store.fold(clock.time_us + 1, clock.time_us)
    cells.add(0, 1.0)
    flush.flush()
    cells.add(0, 0.5)
    machine.died.add("a")
    other.flush()
    assert total(store) == [4.5, 0.0]


@pytest.mark.parametrize("note", ["", "{", "[]", '["w", "L", 1, true, [0.0]]', '["w", "L", 1, true, 7]'])
def test_a_note_of_another_release_is_passed_over(note: str) -> None:
    machine, store, clock = Machine(), FakeCounts(), FakeClock()
    cells, _ = machine.process("a", store, clock)
    own, other = machine.process("b", store, clock)
    cells.add(0, 3.0)
    own.add(0, 1.0)
    machine.notes["a"] = note
    machine.died.add("a")
    assert other.flush()
    assert total(store) == [1.0, 0.0]
    assert not machine.died


def test_a_store_that_is_away_leaves_it_to_the_next_time() -> None:
    machine, store, clock = Machine(), FakeCounts(), FakeClock()
    cells, _ = machine.process("a", store, clock)
    _, other = machine.process("b", store, clock)
    cells.add(0, 3.0)
    machine.died.add("a")
    store.error = Transient("away")
    other.flush()
    store.error = None
    assert total(store) == []
    other.flush()
    assert total(store) == [3.0, 0.0]


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
