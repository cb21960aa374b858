"""Natural batching: requests that arrive while a unit of work is in flight form the next one; nobody waits for a timer.

A process decides one unit at a time, because a ledger is for one. While the database works on it, the event loop takes
requests in and sends answers out; the next unit begins before the callers of the last one are woken, so that the
database has work while they are answered. While it stores a unit, there is least to do otherwise: then the answers of
this unit are written, and the last one is counted and logged.

Single transactions go first, because somebody stands at a terminal; what is sent in bulk gets the rest of each unit,
and a quarter of it whatever happens, so that neither can starve the other.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from shared.domain.errors import BrokenInvariant, Overloaded, TollgateError, Transient
from shared.domain.transaction import Transaction
from shared.ports.running import Runs
from shared.services.scoring import Decided, Refused, Verdict
from shared.services.stages import StageTimes

_log = logging.getLogger(__name__)

RETRY_PAUSES_S: Final = (0.01, 0.05, 0.2, 0.5)
"""Pauses before a unit of work is tried again after a transient fault, seconds.

The first meet a lost race or a connection that was closed, the last ones a database that is restarted.
"""

BULK_SHARE: Final = 4
"""One part in this many of a unit is kept for what came in bulk while some of it waits."""


type Foretell = Callable[[list[Decided]], None]
"""Told of decisions that are about to be stored."""


class Decider(Protocol):
    """The deciding use case, used for one unit at a time."""

    def decide(self, transactions: Sequence[Transaction]) -> list[Verdict]:
        """One verdict for each, in their order; raises Transient if nothing or all of it may have been stored."""
        ...


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds on what one process takes in.

    Attributes:
        waiting: Transactions that may wait, those in flight not counted; beyond it a request is refused at once.
        unit: Transactions in one unit of work: what is locked and committed together.
        deadline_s: How long a request may take from its arrival, seconds.
    """

    waiting: int = 2000
    unit: int = 128
    deadline_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request is told.

    Attributes:
        verdicts: One for each transaction, in their order. One that could not be decided in time, or after a transient
            fault that lasted, is refused with Transient; it may have been stored all the same, and asking again tells.
        stages: Seconds by stage: `queue` until the first transaction's unit began, then the stages of deciding, summed
            over the units that the request was part of.
    """

    verdicts: list[Verdict]
    stages: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of work that is over.

    Attributes:
        verdicts: On its transactions.
        latencies_s: For each of them the time from its arrival until its verdict, seconds.
        stages: Seconds by stage of deciding.
    """

    verdicts: Sequence[Verdict]
    latencies_s: Sequence[float]
    stages: Mapping[str, float]


class _Request:
    """A request on its way; `taken`, `left` and `verdicts` belong to whoever decides once pieces are taken."""

    __slots__ = ("arrived", "future", "is_over", "left", "loop", "stages", "taken", "transactions", "verdicts")

    def __init__(self, transactions: Sequence[Transaction], loop: asyncio.AbstractEventLoop, now: float) -> None:
        self.transactions = transactions
        self.loop = loop
        self.arrived = now
        self.future: asyncio.Future[Answered] = loop.create_future()
        self.verdicts: list[Verdict | None] = [None] * len(transactions)
        self.taken = 0
        self.left = len(transactions)
        self.stages: dict[str, float] = {}
        self.is_over = False

    def answered(self, fallback: TollgateError) -> Answered:
        """What is known by now; what is not is refused with `fallback`."""
        return Answered(
            [
                verdict or Refused(transaction.transaction_id, fallback)
                for verdict, transaction in zip(self.verdicts, self.transactions, strict=True)
            ],
            self.stages,
        )


class _Piece:
    """Transactions of one request that are part of one unit."""

    __slots__ = ("request", "start", "stop")

    def __init__(self, request: _Request, start: int, stop: int) -> None:
        self.request = request
        self.start = start
        self.stop = stop


class Batching:
    """Decides for all requests of a process, in units of whoever waits. Safe to use from several event loops.

    Nothing starts before the first request: the decider and so its connection are made by the process that uses them.
    """

    def __init__(
        self,
        make: Callable[[StageTimes, Foretell], Decider],
        limits: BatchLimits,
        *,
        runs: Runs,
        clock: Callable[[], float] = time.monotonic,
        prepare: Callable[[list[Decided]], None] | None = None,
        observe: Callable[[Unit], None] | None = None,
    ) -> None:
        """Set up.

        Args:
            make: Makes the decider, which marks its stages and foretells; called again after a fault that nobody
                classified.
            limits: Bounds.
            runs: Runs the deciding.
            clock: Monotonic, seconds.
            prepare: Told of decisions while they are being stored; nobody else may learn of them yet.
            observe: Told of each unit that is over, after its callers: while the next one is being stored, or when
                there is none.
        """
        self._make = make
        self._limits = limits
        self._clock = clock
        self._runs = runs
        self._prepare = prepare
        self._observe = observe
        self._untold: Unit | None = None
        self._lock = threading.Lock()
        self._is_stopping = False
        self._is_deciding = False
        self._singles: deque[_Request] = deque()
        self._bulk: deque[_Request] = deque()
        self._waiting = 0
        self._in_flight = 0
        self._stages = StageTimes()
        self._decider: Decider | None = None

    @property
    def waiting(self) -> int:
        """Transactions that wait now."""
        return self._waiting

    @property
    def in_flight(self) -> int:
        """Transactions of the unit that is being decided now."""
        return self._in_flight

    async def decide(self, transactions: Sequence[Transaction]) -> Answered:
        """Decide transactions; returns once every decision among the verdicts is durable, or at the deadline.

        A caller that is cancelled leaves no trace of what has not begun; what has begun is finished and stored.

        Raises:
            Overloaded: Too much waits; nothing was begun.
            Transient: The process is stopping; nothing was begun.
        """
        if not transactions:
            return Answered([], {})
        loop = asyncio.get_running_loop()
        request = _Request(transactions, loop, self._clock())
        self._enqueue(request)
        timer = loop.call_later(self._limits.deadline_s, self._expire, request)
        try:
            return await request.future
        finally:
            timer.cancel()
            if request.left:
                self._withdraw(request)

    def stop(self) -> None:
        """Refuse what waits and all further requests; the unit in flight is finished, but not waited for."""
        with self._lock:
            self._is_stopping = True
            requests = [*self._singles, *self._bulk]
            self._singles.clear()
            self._bulk.clear()
            self._waiting = 0
        _tell(requests, Transient("the process is stopping"))

    # On the event loop

    def _enqueue(self, request: _Request) -> None:
        count = len(request.transactions)
        with self._lock:
            if self._is_stopping:
                raise Transient("the process is stopping")
            if self._waiting + count > self._limits.waiting:
                raise Overloaded(f"{self._waiting} transactions wait already", self._retry_after_s())
            (self._singles if count == 1 else self._bulk).append(request)
            self._waiting += count
            if self._is_deciding and not self._runs.is_running:
                self._decider = None  # lost in the middle of a unit, and its connection with it
                self._is_deciding = False
            if not self._is_deciding:
                self._is_deciding = True
                self._runs.start(self._run)

    def _retry_after_s(self) -> int:
        """At worst, everybody who waits now is gone by their deadline."""
        return max(1, round(self._limits.deadline_s))

    def _expire(self, request: _Request) -> None:
        if not request.future.done():
            request.future.set_result(
                request.answered(Transient(f"no decision within {self._limits.deadline_s:g} s; it may be stored"))
            )

    def _withdraw(self, request: _Request) -> None:
        """Nobody waits for this request any more."""
        request.is_over = True
        with self._lock:
            lane = self._singles if len(request.transactions) == 1 else self._bulk
            if request in lane:
                lane.remove(request)
                self._waiting -= len(request.transactions) - request.taken

    # While deciding

    def _run(self) -> None:
        while pieces := self._next_unit():
            self._serve(pieces)
        self._tell_observer()

    def _next_unit(self) -> list[_Piece]:
        """Whoever waits, up to a unit; empty if nobody does, and then the next request starts the deciding again."""
        with self._lock:
            if not self._waiting:
                self._is_deciding = False
                return []
            pieces: list[_Piece] = []
            room = self._limits.unit
            kept = room // BULK_SHARE if self._bulk else 0
            while self._singles and room > kept:
                pieces.append(_piece(self._singles.popleft(), 1))
                room -= 1
            while self._bulk and room:
                piece = _piece(self._bulk[0], room)
                pieces.append(piece)
                room -= piece.stop - piece.start
                if piece.stop == len(piece.request.transactions):
                    self._bulk.popleft()
            self._in_flight = self._limits.unit - room
            self._waiting -= self._in_flight
            return pieces

    def _serve(self, pieces: list[_Piece]) -> None:
        """Decide one unit, repeated after transient faults, and tell everybody in it."""
        began = self._clock()
        for piece in pieces:
            if not piece.start:
                piece.request.stages["queue"] = began - piece.request.arrived
        transactions: list[Transaction] = []
        error: TollgateError | None = None
        verdicts: list[Verdict] = []
        for pause_s in (*RETRY_PAUSES_S, None):
            pieces = [piece for piece in pieces if not piece.request.is_over]
            if not pieces:
                break
            transactions = [
                transaction for piece in pieces for transaction in piece.request.transactions[piece.start : piece.stop]
            ]
            try:
                verdicts, error = self._decide(transactions), None
                break
            except Transient as fault:
                error = fault
                if pause_s is not None:
                    self._runs.pause(pause_s)
                if pause_s is None or self._is_stopping:
                    _log.warning("a unit of work was given up: %s", type(fault).__name__, exc_info=fault)
                    break
            except TollgateError as fault:
                _log.exception("a unit of work failed")
                if len(transactions) == 1:
                    error = fault
                else:
                    verdicts, error = self._one_by_one(transactions), None
                break
        taken = self._stages.taken()
        self._in_flight = 0
        if error is not None:
            verdicts = [Refused(transaction.transaction_id, error) for transaction in transactions]
        _deal(pieces, verdicts, taken)
        if self._observe is not None and pieces:
            now = self._clock()
            latencies = [now - piece.request.arrived for piece in pieces for _ in range(piece.start, piece.stop)]
            self._tell_observer()  # of the one before, if nothing of this one was stored
            self._untold = Unit(verdicts, latencies, taken)

    def _foretold(self, decisions: list[Decided]) -> None:
        """The decider is about to wait for its commit: the answers come first, because somebody waits for them."""
        if self._prepare is not None:
            self._runs.soon(partial(self._prepare, decisions))
        self._tell_observer()

    def _tell_observer(self) -> None:
        unit, self._untold = self._untold, None
        if unit is not None and self._observe is not None:
            self._runs.soon(partial(self._observe, unit))

    def _one_by_one(self, transactions: list[Transaction]) -> list[Verdict]:
        """Decide each on its own, so that one at fault costs the others nothing but time."""
        verdicts: list[Verdict] = []
        for transaction in transactions:
            try:
                verdicts += self._decide([transaction])
            except TollgateError as fault:
                verdicts.append(Refused(transaction.transaction_id, fault))
        return verdicts

    def _decide(self, transactions: list[Transaction]) -> list[Verdict]:
        """One attempt; whatever is not in the tree of errors becomes part of it, and costs the decider."""
        try:
            if self._decider is None:
                self._stages = StageTimes()
                self._decider = self._make(self._stages, self._foretold)
            verdicts = self._decider.decide(transactions)
        except TollgateError:
            raise
        except Exception as error:  # the outermost line: callers must be told, and the deciding must go on
            self._decider = None
            raise BrokenInvariant(f"{type(error).__name__} while deciding") from error
        if len(verdicts) != len(transactions):
            raise BrokenInvariant(f"{len(verdicts)} verdicts for {len(transactions)} transactions")
        return verdicts


def _piece(request: _Request, room: int) -> _Piece:
    start = request.taken
    request.taken = min(len(request.transactions), start + room)
    return _Piece(request, start, request.taken)


def _deal(pieces: list[_Piece], verdicts: list[Verdict], stages: Mapping[str, float]) -> None:
    """Hand each request its verdicts, and wake those that have all of theirs."""
    finished: list[_Request] = []
    place = 0
    for piece in pieces:
        request, count = piece.request, piece.stop - piece.start
        request.verdicts[piece.start : piece.stop] = verdicts[place : place + count]
        place += count
        request.left -= count
        for stage, seconds in stages.items():
            request.stages[stage] = request.stages.get(stage, 0.0) + seconds
        if not request.left:
            finished.append(request)
    _tell(finished, BrokenInvariant("a transaction was left out"))


def _tell(requests: Sequence[_Request], fallback: TollgateError) -> None:
    """Wake the callers of requests, with one call for each event loop but the one this runs on."""
    here = _loop_of_this_thread()
    by_loop: dict[asyncio.AbstractEventLoop, list[_Request]] = {}
    for request in requests:
        by_loop.setdefault(request.loop, []).append(request)
    for loop, waiting in by_loop.items():
        if loop is here:
            _settle(waiting, fallback)
        elif not loop.is_closed():  # a loop that is gone has no callers
            loop.call_soon_threadsafe(_settle, waiting, fallback)


def _loop_of_this_thread() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _settle(requests: list[_Request], fallback: TollgateError) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_result(request.answered(fallback))
