"""Runs deciding in a thread, so that a test can hold a decider while it looks at the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Threaded:
    """One thread, made with the first work."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "deciding")
        self._aside: list[Callable[[], None]] = []

    @property
    def is_running(self) -> bool:
        """A thread is never lost."""
        return True

    def start(self, work: Callable[[], None]) -> None:
        """Begin the work."""
        self._pool.submit(self._run, work)

    def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def soon(self, work: Callable[[], None]) -> None:
        """Do it once the work has ended."""
        self._aside.append(work)

    def close(self) -> None:
        """Wait for what runs, and end the thread."""
        self._pool.shutdown()

    def _run(self, work: Callable[[], None]) -> None:
        work()
        while self._aside:
            self._aside.pop(0)()
