"""Work that waits lets its event loop go on, on every kind of loop, and nothing is lost when a wait or a loop ends."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
import uvloop

from shared.adapters.fibres import Fibres
from shared.domain.errors import Conflict
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.transaction import Transaction
from shared.services.batching import Batching, BatchLimits, Foretell, Unit
from shared.services.scoring import Refused, Verdict

type Run = Callable[[Coroutine[Any, Any, None]], None]

PATIENT_S = 60.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def to_its_end(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(main, PATIENT_S))

    return to_its_end


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection, which can be reset, as a pair of Unix sockets cannot."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs:
            ours.setblocking(False)
            yield ours, theirs


async def ended(fibres: Fibres) -> None:
    while fibres.is_running:  # noqa: ASYNC110  # nobody tells when
        await asyncio.sleep(0.001)


def test_the_loop_goes_on_until_the_socket_is_ready(run: Run, ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    fibres, told = Fibres(), list[str]()

    def work() -> None:
        told.append("waits")
        assert fibres.ready(ours.fileno(), select.POLLIN, PATIENT_S) & select.POLLIN
        told.append(ours.recv(9).decode())

    async def main() -> None:
        fibres.start(work)
        assert not told  # at the next turn, not at once
        await asyncio.sleep(0)
        told.append("meanwhile")
        assert fibres.is_running
        theirs.sendall(b"data")
        await ended(fibres)

    run(main())
    assert told == ["waits", "meanwhile", "data"]


def test_who_can_send_does_not_wait_for_an_answer(run: Run, ends: tuple[socket.socket, socket.socket]) -> None:
    fibres, found = Fibres(), list[int]()
    both = select.POLLIN | select.POLLOUT

    async def main() -> None:
        fibres.start(lambda: found.append(fibres.ready(ends[0].fileno(), both, PATIENT_S)))
        await ended(fibres)

    run(main())
    assert found == [select.POLLOUT]


def test_a_wait_ends_in_time(run: Run, ends: tuple[socket.socket, socket.socket]) -> None:
    fibres, found = Fibres(), list[int]()

    def work() -> None:
        for seconds in (0.0, 0.02, 0.15):
            began = time.monotonic()
            found.append(fibres.ready(ends[0].fileno(), select.POLLIN, seconds))
            assert time.monotonic() - began >= seconds * 0.9  # the loop's clock has whole milliseconds

    async def main() -> None:
        fibres.start(work)
        await ended(fibres)

    run(main())
    assert found == [0, 0, 0]


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_peer_that_is_gone_is_noticed(run: Run, ends: tuple[socket.socket, socket.socket], *, is_reset: bool) -> None:
    ours, theirs = ends
    fibres, found = Fibres(), list[int]()

    async def main() -> None:
        fibres.start(lambda: found.append(fibres.ready(ours.fileno(), select.POLLIN, PATIENT_S * 10)))
        await asyncio.sleep(0.01)
        if is_reset:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        await ended(fibres)

    run(main())  # which ends long before the wait would
    assert found[0]
    with pytest.raises(ConnectionResetError) if is_reset else pytest.raises(BlockingIOError):
        assert ours.recv(1) == b""
        raise BlockingIOError


def test_a_descriptor_that_is_used_again_is_watched_again(run: Run) -> None:
    """As after a lost connection, whose successor gets the same number."""
    fibres, found = Fibres(), list[bytes]()

    def work() -> None:
        for number in range(3):
            ours, theirs = socket.socketpair()
            with ours:
                threading.Timer(0.02, theirs.sendall, [b"%d" % number]).start()
                assert fibres.ready(ours.fileno(), select.POLLIN, PATIENT_S)
                found.append(ours.recv(9))
            theirs.close()

    async def main() -> None:
        fibres.start(work)
        await ended(fibres)

    run(main())
    assert found == [b"0", b"1", b"2"]


def test_what_cannot_give_way_is_done_aside(run: Run) -> None:
    fibres, threads = Fibres(), list[int]()
    release = threading.Event()

    def blocks() -> str:
        assert release.wait(PATIENT_S)
        threads.append(threading.get_ident())
        return "done"

    def work() -> None:
        assert fibres.aside(blocks) == "done"
        with pytest.raises(ZeroDivisionError):
            fibres.aside(lambda: 1 // 0)
        threads.append(threading.get_ident())

    async def main() -> None:
        fibres.start(work)
        await asyncio.sleep(0.01)
        release.set()  # by the loop, which was not held up
        await ended(fibres)

    run(main())
    assert threads[0] != threads[1] == threading.get_ident()


def test_a_pause_lets_the_loop_go_on(run: Run) -> None:
    fibres, told = Fibres(), list[str]()

    def work() -> None:
        fibres.pause(0.05)
        told.append("after")

    async def main() -> None:
        fibres.start(work)
        await asyncio.sleep(0.001)
        told.append("meanwhile")
        await ended(fibres)

    run(main())
    assert told == ["meanwhile", "after"]


def test_outside_of_a_fibre_nothing_gives_way(run: Run, ends: tuple[socket.socket, socket.socket]) -> None:
    fibres = Fibres()

    async def main() -> None:
        for wait in (
            lambda: fibres.ready(ends[0].fileno(), select.POLLIN, PATIENT_S),
            lambda: fibres.aside(threading.get_ident),
            lambda: fibres.pause(PATIENT_S),
        ):
            with pytest.raises(RuntimeError, match="only a fibre"):
                wait()

    run(main())


def test_work_that_fails_is_told_to_the_loop(run: Run) -> None:
    fibres, told = Fibres(), list[object]()

    def fails() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        fibres.start(fails)
        await ended(fibres)

    run(main())
    assert [type(error) for error in told] == [ZeroDivisionError]


def test_work_whose_loop_ends_is_ended_in_order(run: Run, ends: tuple[socket.socket, socket.socket]) -> None:
    fibres, told = Fibres(), list[str]()

    def work() -> None:
        try:
            fibres.ready(ends[0].fileno(), select.POLLIN, PATIENT_S)
            told.append("never")
        finally:
            told.append("tidied")

    async def main() -> None:
        fibres.start(work)
        await asyncio.sleep(0.001)

    async def another() -> None:
        fibres.start(lambda: told.append("next"))
        await ended(fibres)

    run(main())
    assert not fibres.is_running
    run(another())
    assert told == ["tidied", "next"]


class Waiting:
    """A decider that waits for a socket in each unit, and refuses everything, which is as good an answer as any."""

    def __init__(self, fibres: Fibres, descriptor: int) -> None:
        self.fibres = fibres
        self.descriptor = descriptor
        self.units: list[list[str]] = []

    def decide(self, transactions: Sequence[Transaction]) -> list[Verdict]:
        self.units.append([item.transaction_id for item in transactions])
        assert self.fibres.ready(self.descriptor, select.POLLIN, PATIENT_S)
        return [Refused(item.transaction_id, Conflict("transaction_id", "seen")) for item in transactions]


def transaction(name: str) -> Transaction:
    return Transaction(TransactionId(name), CustomerId("c"), TerminalId("m"), 100, "EUR", 0)


def test_the_next_unit_begins_before_the_last_one_is_answered(
    run: Run, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    fibres = Fibres()
    decider = Waiting(fibres, ours.fileno())
    queue = Batching(lambda *_: decider, BatchLimits(deadline_s=PATIENT_S), runs=fibres)

    async def main() -> None:
        first = [asyncio.create_task(queue.decide([transaction(name)])) for name in "ab"]
        await asyncio.sleep(0.001)
        assert decider.units == [["a", "b"]]  # who asks in the same turn is in the same unit
        second = [asyncio.create_task(queue.decide([transaction(name)])) for name in "cd"]
        await asyncio.sleep(0.001)
        assert (queue.in_flight, queue.waiting) == (2, 2)
        began: list[int] = []
        first[0].add_done_callback(lambda _: began.append(len(decider.units)))
        theirs.sendall(b"x")
        await asyncio.gather(*first, *second)
        assert began == [2]
        assert not fibres.is_running

    run(main())
    assert decider.units == [["a", "b"], ["c", "d"]]


def test_a_unit_whose_loop_was_lost_costs_the_decider_alone(
    run: Run, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    fibres, made = Fibres(), list[Waiting]()

    def make(*_: object) -> Waiting:
        made.append(Waiting(fibres, ours.fileno()))
        return made[-1]

    queue = Batching(make, BatchLimits(deadline_s=PATIENT_S), runs=fibres)

    async def lost() -> None:
        asked = asyncio.create_task(queue.decide([transaction("a")]))
        await asyncio.sleep(0.001)
        assert not asked.done()

    async def served() -> None:
        theirs.sendall(b"x")
        answered = await queue.decide([transaction("b")])
        assert [type(verdict) for verdict in answered.verdicts] == [Refused]

    run(lost())
    run(served())
    assert [decider.units for decider in made] == [[["a"]], [["b"]]]


def test_what_nobody_waits_for_is_done_while_a_unit_is_stored(
    run: Run, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    fibres, told = Fibres(), list[str]()

    class Storing(Waiting):
        def __init__(self, foretell: Foretell) -> None:
            super().__init__(fibres, ours.fileno())
            self.foretell = foretell

        def decide(self, transactions: Sequence[Transaction]) -> list[Verdict]:
            if transactions[0].transaction_id != "c":  # of which nothing is stored
                self.foretell([])
            told.append("stores")
            return super().decide(transactions)

    def observe(unit: Unit) -> None:
        told.append(f"told of {','.join([verdict.transaction_id for verdict in unit.verdicts])}")  # type: ignore[union-attr]  # all are refused

    queue = Batching(
        lambda _, foretell: Storing(foretell),
        BatchLimits(unit=1, deadline_s=PATIENT_S),
        runs=fibres,
        prepare=lambda _: told.append("prepared"),
        observe=observe,
    )

    async def ask(name: str) -> None:
        await queue.decide([transaction(name)])
        told.append(f"answered {name}")

    async def main() -> None:
        asked = [asyncio.create_task(ask(name)) for name in "abcd"]
        while len(told) < 2:  # noqa: ASYNC110  # nobody tells when
            await asyncio.sleep(0.001)
        theirs.sendall(b"x")
        await asyncio.gather(*asked)
        await ended(fibres)

    run(main())
    # The end of c, which stored nothing, is when b is told of at last; d is, because nothing follows it.
    assert told == [
        *("stores", "prepared"),
        *("stores", "answered a", "prepared", "told of a"),
        *("stores", "answered b"),
        *("stores", "answered c", "told of b", "prepared", "told of c"),
        *("answered d", "told of d"),
    ]


def test_what_is_told_of_a_unit_may_fail(run: Run, ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.sendall(b"x")
    fibres, told = Fibres(), list[object]()

    def observe(_: object) -> None:
        raise ZeroDivisionError

    made = Waiting(fibres, ours.fileno())
    queue = Batching(lambda *_: made, BatchLimits(deadline_s=PATIENT_S), runs=fibres, observe=observe)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        for name in "ab":
            answered = await queue.decide([transaction(name)])
            assert [type(verdict) for verdict in answered.verdicts] == [Refused]

    run(main())
    assert [type(error) for error in told] == [ZeroDivisionError] * 2
