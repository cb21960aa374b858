"""Work that is written to block runs on the event loop's own thread, and gives way wherever it would wait.

A thread beside the loop costs more than its work: two busy threads of one interpreter hand its lock to each other at
every system call of either, 25 times for each decision (record 0037). A fibre has a stack of its own, so its code is
what threads run; where it would wait, it switches to the event loop, which goes on with it afterwards.

Source: greenlet's documentation ("Parents and switching"): a switch suspends the current stack and resumes another one
of the same thread; the parent is the one that made it, here that of the event loop.
"""

from __future__ import annotations

import asyncio
import select
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from greenlet import error, getcurrent, greenlet


class Fibres:
    """Runs one piece of work at a time as a fibre of the event loop that it was started on.

    Work whose loop was closed under it is ended, by `GreenletExit` where it waits, before the next one begins.
    """

    def __init__(self) -> None:
        self._loop: AbstractEventLoop | None = None
        self._fibre: greenlet | None = None

    @property
    def is_running(self) -> bool:
        """Whether what was started goes on; not if it ended, or its event loop was closed."""
        return self._loop is not None and not self._loop.is_closed()

    def start(self, work: Callable[[], None]) -> None:
        """Begin a piece of work at the next turn of the running event loop: after all that is ready in this one."""
        self._loop = loop = asyncio.get_running_loop()
        loop.call_soon(self._begin, work, loop)

    def pause(self, seconds: float) -> None:
        """Let the event loop go on for a while."""
        asyncio.get_running_loop().call_later(seconds, getcurrent().switch)
        _give_way()

    def soon(self, work: Callable[[], None]) -> None:
        """Have something done at the next turn of the event loop, which tells what it raises to its handler."""
        asyncio.get_running_loop().call_soon(work)

    def aside[T](self, work: Callable[[], T]) -> T:
        """The outcome of work that cannot give way, done in a thread of the event loop's pool.

        Raises:
            Exception: What the work raised.
        """
        fibre = getcurrent()
        done = asyncio.get_running_loop().run_in_executor(None, work)
        done.add_done_callback(lambda _: fibre.switch())
        _give_way()
        return done.result()

    def ready(self, descriptor: int, events: int, seconds: float) -> int:
        """Wait until a socket is ready for any of some events, and no longer than so many seconds.

        Args:
            descriptor: Of the socket.
            events: `POLLIN`, `POLLOUT` or both.
            seconds: The longest wait.

        Returns:
            An event that it is ready for, which a socket that is lost is for reading; 0 if there was none in time.
        """
        return _Wait(descriptor, events, seconds).over()

    def _begin(self, work: Callable[[], None], loop: AbstractEventLoop) -> None:
        lost, self._fibre = self._fibre, greenlet(partial(self._run, work, loop))
        if lost is not None:
            with suppress(error):  # it was lost with a thread
                lost.throw()
        self._fibre.switch()

    def _run(self, work: Callable[[], None], loop: AbstractEventLoop) -> None:
        try:
            work()
        finally:
            if self._loop is loop:
                self._loop = self._fibre = None


class _Wait:
    """One wait of a fibre for a socket."""

    __slots__ = ("_descriptor", "_events", "_fibre", "_found", "_loop", "_timer")

    def __init__(self, descriptor: int, events: int, seconds: float) -> None:
        self._fibre = getcurrent()
        self._descriptor = descriptor
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._end, 0)
        self._found = 0

    def over(self) -> int:
        """Give way to the event loop until it is over; the events that were found."""
        if self._events & select.POLLIN:
            self._loop.add_reader(self._descriptor, self._end, select.POLLIN)
        if self._events & select.POLLOUT:
            self._loop.add_writer(self._descriptor, self._end, select.POLLOUT)
        try:
            _give_way()
        finally:
            # At once, because whoever closes the socket must find it watched no more.
            self._timer.cancel()
            if not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)
                if self._events & select.POLLOUT:
                    self._loop.remove_writer(self._descriptor)
        return self._found

    def _end(self, found: int) -> None:
        self._found = found
        self._fibre.switch()


def _give_way() -> None:
    """Go on with the event loop, until somebody switches back."""
    parent = getcurrent().parent
    if parent is None:
        raise RuntimeError("only a fibre can give way")
    parent.switch()
