"""Everybody gets their own answer exactly once, whatever arrives, fails, leaves or waits beside them."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.errors import BrokenInvariant, Conflict, Overloaded, Transient
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.transaction import Transaction
from shared.services.batching import Answered, Batching, BatchLimits, Foretell, Unit
from shared.services.scoring import Refused, Verdict
from shared.services.stages import StageTimes
from tests.fakes.threads import Threaded

DEADLINE_S = 60.0
"""So long that only `pass_time` lets it pass, however busy the machine is."""


def patient(**bounds: int) -> BatchLimits:
    """Limits of which the deadline is none."""
    return BatchLimits(deadline_s=DEADLINE_S, **bounds)


def pass_time(seconds: float) -> None:
    """Put the clock of the running loop forward: timers that are due by then go off now."""
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]  # a loop has no other way to be told


def transaction(name: str) -> Transaction:
    return Transaction(TransactionId(name), CustomerId("c"), TerminalId("m"), 100, "EUR", 0)


class Recorder:
    """A decider that refuses everything with a conflict, which is as good an answer as any; `faults` come first."""

    def __init__(self, faults: Sequence[Exception] = (), gate: threading.Event | None = None) -> None:
        self.faults = list(faults)
        self.gate = gate
        self.entered = threading.Event()
        self.units: list[list[str]] = []
        self.threads: set[int] = set()

    def decide(self, transactions: Sequence[Transaction]) -> list[Verdict]:
        self.threads.add(threading.get_ident())
        self.units.append([item.transaction_id for item in transactions])
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(60)
        if self.faults:
            raise self.faults.pop(0)
        return [Refused(item.transaction_id, Conflict("transaction_id", "seen")) for item in transactions]


@contextmanager
def batching(recorder: Recorder | Callable[..., Recorder], limits: BatchLimits | None = None) -> Iterator[Batching]:
    make = recorder if callable(recorder) else lambda *_: recorder
    with closing(Threaded()) as runs:
        made = Batching(make, limits or patient(), runs=runs)
        try:
            yield made
        finally:
            if isinstance(recorder, Recorder) and recorder.gate is not None:
                recorder.gate.set()
            made.stop()


def names(answered: Answered) -> list[str]:
    assert all(isinstance(verdict, Refused) for verdict in answered.verdicts)
    return [verdict.transaction_id for verdict in answered.verdicts if isinstance(verdict, Refused)]


def errors(answered: Answered) -> list[Exception]:
    return [verdict.error for verdict in answered.verdicts if isinstance(verdict, Refused)]


async def began(recorder: Recorder) -> None:
    assert await asyncio.to_thread(recorder.entered.wait, 60)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=25),
    unit=st.integers(1, 16),
    cancelled=st.sets(st.integers(0, 24)),
    faults=st.lists(st.sampled_from(["transient", "broken", "unknown"]), max_size=2),
    data=st.data(),
)
def test_every_request_gets_its_own_answer(
    sizes: list[int], unit: int, cancelled: set[int], faults: list[str], data: st.DataObject
) -> None:
    kinds = {"transient": Transient("lost"), "broken": BrokenInvariant("broken"), "unknown": RuntimeError("bug")}
    recorder = Recorder([kinds[fault] for fault in faults])
    requests = [[transaction(f"{place}-{item}") for item in range(size)] for place, size in enumerate(sizes)]
    order = data.draw(st.permutations(range(len(requests))))

    async def run(queue: Batching) -> dict[int, Answered]:
        tasks = {place: asyncio.create_task(queue.decide(requests[place])) for place in order}
        await asyncio.sleep(0)
        for place in cancelled & set(tasks):
            tasks[place].cancel()
        ended = await asyncio.gather(*tasks.values(), return_exceptions=True)
        return {place: end for place, end in zip(tasks, ended, strict=True) if isinstance(end, Answered)}

    with batching(recorder, patient(unit=unit)) as queue:
        answers = asyncio.run(run(queue))
        assert queue.waiting == 0
    assert set(answers) >= set(range(len(requests))) - cancelled
    for place, answered in answers.items():
        assert names(answered) == [item.transaction_id for item in requests[place]]
    assert all(len(found) <= unit for found in recorder.units)
    assert len(recorder.threads) <= 1
    if "broken" not in faults and "unknown" not in faults:
        asked_again = Counter(name for found in recorder.units for name in found)
        assert all(count <= 1 + len(faults) for count in asked_again.values())
        assert all(isinstance(error, Conflict) for answered in answers.values() for error in errors(answered))


def test_who_arrives_while_a_unit_is_in_flight_forms_the_next_one() -> None:
    recorder = Recorder(gate=threading.Event())

    async def run(queue: Batching) -> None:
        first = asyncio.create_task(queue.decide([transaction("a")]))
        await began(recorder)
        others = [asyncio.create_task(queue.decide([transaction(name)])) for name in "bcd"]
        await asyncio.sleep(0)
        assert (queue.in_flight, queue.waiting) == (1, 3)
        assert recorder.gate is not None
        recorder.gate.set()
        await asyncio.gather(first, *others)

    with batching(recorder) as queue:
        asyncio.run(run(queue))
    assert recorder.units == [["a"], ["b", "c", "d"]]


def test_bulk_neither_delays_single_ones_nor_starves() -> None:
    recorder = Recorder(gate=threading.Event())

    async def run(queue: Batching) -> None:
        first = asyncio.create_task(queue.decide([transaction("first")]))
        await began(recorder)
        bulk = asyncio.create_task(queue.decide([transaction(f"bulk-{place}") for place in range(6)]))
        await asyncio.sleep(0)
        singles = [asyncio.create_task(queue.decide([transaction(f"single-{place}")])) for place in range(10)]
        await asyncio.sleep(0)
        assert recorder.gate is not None
        recorder.gate.set()
        await asyncio.gather(first, bulk, *singles)

    with batching(recorder, patient(unit=8)) as queue:
        asyncio.run(run(queue))
    assert recorder.units[1] == [*(f"single-{place}" for place in range(6)), "bulk-0", "bulk-1"]
    assert recorder.units[2] == [*(f"single-{place}" for place in range(6, 10)), *(f"bulk-{n}" for n in range(2, 6))]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    recorder = Recorder(gate=threading.Event())

    async def run(queue: Batching) -> None:
        tasks = [asyncio.create_task(queue.decide([transaction("a")]))]
        await began(recorder)
        tasks += [asyncio.create_task(queue.decide([transaction(name)])) for name in "bc"]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await queue.decide([transaction("d")])
        assert caught.value.retry_after_s >= 1
        assert recorder.gate is not None
        recorder.gate.set()
        await asyncio.gather(*tasks)
        assert names(await queue.decide([transaction("d")])) == ["d"]

    with batching(recorder, patient(waiting=2)) as queue:
        asyncio.run(run(queue))
    assert recorder.units == [["a"], ["b", "c"], ["d"]]


def test_a_lasting_transient_fault_is_told_to_all_after_some_attempts() -> None:
    recorder = Recorder([Transient("down") for _ in range(5)])

    async def run(queue: Batching) -> tuple[Answered, Answered]:
        failed = await queue.decide([transaction("a")])
        return failed, await queue.decide([transaction("b")])

    with batching(recorder) as queue:
        failed, served = asyncio.run(run(queue))
    assert isinstance(errors(failed)[0], Transient)
    assert isinstance(errors(served)[0], Conflict)
    assert recorder.units == [["a"]] * 5 + [["b"]]


def test_the_deadline_is_kept_and_what_was_under_way_goes_on() -> None:
    recorder = Recorder(gate=threading.Event())

    async def run(queue: Batching) -> None:
        slow = asyncio.create_task(queue.decide([transaction("a")]))
        await began(recorder)
        waiting = asyncio.create_task(queue.decide([transaction("b")]))
        await asyncio.sleep(0)
        pass_time(DEADLINE_S - 1)
        await asyncio.sleep(0)
        assert (queue.in_flight, queue.waiting, slow.done(), waiting.done()) == (1, 1, False, False)
        pass_time(2)
        for answered in await asyncio.gather(slow, waiting):
            assert isinstance(errors(answered)[0], Transient)
        assert queue.waiting == 0
        assert recorder.gate is not None
        recorder.gate.set()  # only now: all were answered while the first was still under way
        assert isinstance(errors(await queue.decide([transaction("c")]))[0], Conflict)

    with batching(recorder) as queue:
        asyncio.run(run(queue))
    assert recorder.units == [["a"], ["c"]]


def test_a_deadline_leaves_what_is_decided_already() -> None:
    gate, reached = threading.Event(), threading.Event()
    recorder = Recorder()

    class Second(Recorder):
        def decide(self, transactions: Sequence[Transaction]) -> list[Verdict]:
            if recorder.units:
                reached.set()
                assert gate.wait(60)
            return recorder.decide(transactions)

    async def run(queue: Batching) -> Answered:
        request = asyncio.create_task(queue.decide([transaction(name) for name in "abc"]))
        assert await asyncio.to_thread(reached.wait, 60)
        pass_time(DEADLINE_S + 1)
        return await request

    with batching(lambda *_: Second(), patient(unit=2)) as queue:
        answered = asyncio.run(run(queue))
        gate.set()
    assert [type(error) for error in errors(answered)] == [Conflict, Conflict, Transient]


def test_who_leaves_is_not_decided_for() -> None:
    recorder = Recorder(gate=threading.Event())

    async def run(queue: Batching) -> None:
        first = asyncio.create_task(queue.decide([transaction("a")]))
        await began(recorder)
        gone = [asyncio.create_task(queue.decide([transaction("b")])) for _ in range(3)]
        stays = asyncio.create_task(queue.decide([transaction("c")]))
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.sleep(0)
        assert queue.waiting == 1
        assert recorder.gate is not None
        recorder.gate.set()
        await asyncio.gather(first, stays)

    with batching(recorder) as queue:
        asyncio.run(run(queue))
    assert recorder.units == [["a"], ["c"]]


def test_an_unknown_fault_costs_the_decider_and_is_no_fault_of_the_next() -> None:
    made: list[Recorder] = []

    def make(*_: object) -> Recorder:
        made.append(Recorder([RuntimeError("bug")] if not made else []))
        return made[-1]

    async def run(queue: Batching) -> tuple[Answered, Answered]:
        return await queue.decide([transaction("a")]), await queue.decide([transaction("b")])

    with batching(make) as queue:
        failed, served = asyncio.run(run(queue))
    assert isinstance(errors(failed)[0], BrokenInvariant)
    assert isinstance(errors(served)[0], Conflict)
    assert len(made) == 2


def test_one_at_fault_costs_its_neighbours_nothing() -> None:
    class Picky(Recorder):
        def decide(self, transactions: Sequence[Transaction]) -> list[Verdict]:
            if any(item.transaction_id == "poison" for item in transactions):
                raise RuntimeError("a bug that this one meets")
            return super().decide(transactions)

    with batching(lambda *_: Picky()) as queue:
        answered = asyncio.run(queue.decide([transaction(name) for name in ("a", "poison", "b")]))
    assert [type(error) for error in errors(answered)] == [Conflict, BrokenInvariant, Conflict]


def test_a_decider_that_cannot_be_made_yet_is_made_later() -> None:
    faults: list[Exception] = [Transient("no database yet"), OSError("nor a name for it")]

    def make(*_: object) -> Recorder:
        if faults:
            raise faults.pop(0)
        return Recorder()

    async def run(queue: Batching) -> tuple[Answered, Answered]:
        return await queue.decide([transaction("a")]), await queue.decide([transaction("b")])

    with batching(make) as queue:
        failed, served = asyncio.run(run(queue))
    assert isinstance(errors(failed)[0], BrokenInvariant)
    assert isinstance(errors(served)[0], Conflict)


def test_nothing_starts_before_the_first_request_and_nothing_after_the_stop() -> None:
    recorder = Recorder(gate=threading.Event())
    before = set(threading.enumerate())
    runs = Threaded()
    queue = Batching(lambda *_: recorder, patient(), runs=runs)
    assert set(threading.enumerate()) <= before

    async def run() -> None:
        first = asyncio.create_task(queue.decide([transaction("a")]))
        await began(recorder)
        waiting = asyncio.create_task(queue.decide([transaction("b")]))
        await asyncio.sleep(0)
        queue.stop()
        (refused,) = errors(await waiting)
        assert isinstance(refused, Transient)
        assert "is stopping" in str(refused)
        assert recorder.gate is not None
        recorder.gate.set()  # only now: while it stops, something is still in flight
        assert isinstance(errors(await first)[0], Conflict)  # what was in flight is finished
        with pytest.raises(Transient):
            await queue.decide([transaction("c")])

    asyncio.run(run())
    runs.close()
    assert recorder.units == [["a"]]


def test_several_loops_are_served() -> None:
    recorder = Recorder()
    with batching(recorder) as queue:
        for name in "ab":
            assert names(asyncio.run(queue.decide([transaction(name)]))) == [name]
    assert len(recorder.threads) == 1


def test_stages_and_units_are_told() -> None:
    told: list[Unit] = []
    marked: list[StageTimes] = []

    class Staged(Recorder):
        def decide(self, transactions: Sequence[Transaction]) -> list[Verdict]:
            for stage in ("", "claim", "write"):
                marked[0].mark(stage)
            return super().decide(transactions)

    def make(stages: StageTimes, _: Foretell) -> Recorder:
        marked.append(stages)
        return Staged()

    with closing(Threaded()) as runs:
        queue = Batching(make, patient(unit=2), runs=runs, observe=told.append)
        answered = asyncio.run(queue.decide([transaction(name) for name in "abc"]))
        assert asyncio.run(queue.decide([])) == Answered([], {})
    assert list(answered.stages) == ["queue", "claim", "write"]
    assert all(seconds >= 0 for seconds in answered.stages.values())
    assert [list(unit.stages) for unit in told] == [["claim", "write"]] * 2
    assert [verdict.transaction_id for unit in told for verdict in unit.verdicts if isinstance(verdict, Refused)] == [
        *"abc"
    ]
    assert [len(unit.latencies_s) for unit in told] == [2, 1]
    assert told[1].latencies_s[0] >= max(told[0].latencies_s) >= sum(told[0].stages.values())
