"""A lease that is renewed for as long as something runs, and that says so when it is lost.

Work that takes minutes cannot ask for a lease once and trust it: a process that was stopped for a while wakes up in a
world in which another one has taken over. A thread renews the lease; whether it still holds is told by this process's
own monotonic clock, so a holder that slept through its lease knows it before it asks anybody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

from shared.domain.errors import Transient
from shared.ports.clock import Clock
from shared.ports.pipelines import Leases

_log = logging.getLogger(__name__)

RENEWALS = 4
"""Times that a lease is renewed while it lasts: three may fail."""


class LeaseLost(Transient):
    """Somebody else may hold the lease by now: whatever is under way must not be finished."""


class HeldLease:
    """A lease that this process holds, renewed until it is left; for a `with` statement."""

    def __init__(
        self,
        leases: Leases,
        name: str,
        holder: str,
        clock: Clock,
        duration_us: int,
        *,
        acquired_s: float,
        monotonic_s: Callable[[], float],
    ) -> None:
        """Renew nothing yet; made by `held`.

        Args:
            leases: Used by nobody else meanwhile.
            name: Of the lease.
            holder: Who holds it.
            clock: Dates its end.
            duration_us: How long it lasts unless renewed, microseconds.
            acquired_s: When it was asked for, by the monotonic clock, seconds.
            monotonic_s: Measures how long ago it was renewed, seconds.
        """
        self._leases = leases
        self._name = name
        self._holder = holder
        self._clock = clock
        self._duration_us = duration_us
        self._monotonic_s = monotonic_s
        self._renewed_s = acquired_s
        self._lost = False
        self._turn = Lock()
        self._ended = Event()
        self._thread = Thread(target=self._renew_until_ended, name=f"lease {name}", daemon=True)

    def __enter__(self) -> Self:
        """Start to renew it."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and give it back if it is still this holder's."""
        self._ended.set()
        self._thread.join()
        try:
            self._leases.release(self._name, self._holder)
        except Transient:
            _log.warning("a lease was not given back; it will expire", exc_info=True)

    def check(self) -> None:
        """Go on only while the lease holds.

        Raises:
            LeaseLost: It was taken over, or has not been renewed for as long as it lasts.
        """
        with self._turn:
            if self._lost or self._expired():
                self._lost = True
                raise LeaseLost(f"the lease {self._name} was lost: another process may have taken over")

    def renew(self) -> bool:
        """Renew it once; returns whether it still holds."""
        with self._turn:
            if self._lost or self._expired():
                self._lost = True  # it might be free again by now: taking it back would hide that somebody had it
                return False
        asked_s = self._monotonic_s()
        try:
            held = self._leases.acquire(self._name, self._holder, self._clock.now_us(), self._duration_us)
        except Transient:
            _log.warning("a lease could not be renewed; it will be tried again", exc_info=True)
            return True
        with self._turn:
            if held:
                self._renewed_s = asked_s
            self._lost = not held
        return held

    def _expired(self) -> bool:
        return self._monotonic_s() - self._renewed_s >= self._duration_us / 1e6

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(self._duration_us / 1e6 / RENEWALS):
            if not self.renew():
                _log.error("a lease was lost while work was under way")
                return


def held(
    leases: Leases,
    name: str,
    holder: str,
    clock: Clock,
    duration_us: int,
    *,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> HeldLease | None:
    """Take a lease, to be renewed within a `with` statement; None if somebody else holds it.

    Raises:
        Transient: The store cannot be reached now.
    """
    asked_s = monotonic_s()
    if not leases.acquire(name, holder, clock.now_us(), duration_us):
        return None
    return HeldLease(leases, name, holder, clock, duration_us, acquired_s=asked_s, monotonic_s=monotonic_s)
