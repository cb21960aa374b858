"""How long the stages of a unit of work take; for answers to callers and for benchmarks, never for what is stored."""

from __future__ import annotations

import time
from collections.abc import Callable


class StageTimes:
    """Adds up the time between marks by the name of the stage that a mark ends; used by one thread.

    Stages of deciding: `claim` (ids, locks and state), `features` (read and fold), `model` (output and contributions),
    `record` (calibration, rules, policy, reasons, canonical bytes, log block), `write` (all rows and the commit).

    >>> times = iter([1.0, 1.5, 3.0])
    >>> stages = StageTimes(lambda: next(times))
    >>> for stage in ("", "claim", "write"):
    ...     stages.mark(stage)
    >>> stages.taken()
    {'claim': 0.5, 'write': 1.5}
    """

    __slots__ = ("_clock", "_last", "_seconds")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last = 0.0
        self._seconds: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """The stage ends now; an empty name starts anew without counting what was before."""
        now = self._clock()
        if stage:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def taken(self) -> dict[str, float]:
        """Seconds per stage since the last call, in the order in which stages first ended."""
        taken, self._seconds = self._seconds, {}
        return taken
