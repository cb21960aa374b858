"""How a connection waits: with its thread, or giving way to an event loop (`fibres`)."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Final, Protocol


class Waits(Protocol):
    """How a connection waits."""

    def aside[T](self, work: Callable[[], T]) -> T:
        """The outcome of work that waits in its own way, such as for a connection to be made."""
        ...

    def ready(self, descriptor: int, events: int, seconds: float) -> int:
        """What a socket is ready for, a lost one for reading or an error; 0 if nothing came in time."""
        ...


class Blocking:
    """Waits with the thread that asks."""

    def aside[T](self, work: Callable[[], T]) -> T:
        """The outcome of the work, done here."""
        return work()

    def ready(self, descriptor: int, events: int, seconds: float) -> int:
        """The events that a socket is ready for."""
        poll = select.poll()
        poll.register(descriptor, events)
        found = poll.poll(max(0.0, seconds) * 1000)
        return found[0][1] if found else 0


BLOCKING: Final = Blocking()
"""Waits with the thread that asks; what everything uses that has a thread to wait with."""
