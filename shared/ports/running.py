"""Running code that is written to block, beside an event loop that must not wait for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Runs(Protocol):
    """Runs one piece of work after another."""

    @property
    def is_running(self) -> bool:
        """Whether what was started goes on; not if it ended, or was lost with its event loop or thread."""
        ...

    def start(self, work: Callable[[], None]) -> None:
        """Begin a piece of work soon, and return; called on an event loop, and only while nothing runs."""
        ...

    def pause(self, seconds: float) -> None:
        """Wait inside the work; whoever else uses its thread goes on meanwhile."""
        ...

    def soon(self, work: Callable[[], None]) -> None:
        """Have something else done once the work waits or ends, in the order of these calls; its errors are logged."""
        ...
