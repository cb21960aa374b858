"""How every timer's firings are noted: the pipeline log says when what ran, how long it took, and why it failed.

A firing is about a slot of time, and its run's id follows from the slot (`slot_of`). The log only watches: the work is
done at every firing, so it has to be idempotent itself, and a log that cannot be reached stops no work. A slot that is
done already is not noted again; a slot that failed, or whose run was killed, is noted as another attempt beside it.

A timer that fires every few seconds would fill the table with rows that say nothing. Its firings are sampled: the first
of each hour is noted as a run, each process adds one sum of the hour before, and failures are noted, at most one for
`FAILURE_SLOT_US`. A process that ends takes the sum of its last hour with it; its failures are in the log already.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from shared.domain.errors import TollgateError
from shared.domain.instants import US_PER_HOUR, US_PER_MINUTE
from shared.domain.pipeline import Evidence, Run, RunStatus, error_words, slot_of
from shared.ports.clock import Clock
from shared.ports.pipelines import PipelineLog

_log = logging.getLogger(__name__)

FAILURE_SLOT_US: Final = 5 * US_PER_MINUTE
"""Of a timer that is sampled, one failure is noted in so long: a hub that is down for an hour makes 12 rows and not
720, and the sum of the hour has their number."""

MAX_ATTEMPTS: Final = 20
"""Runs of one slot that are noted; a timer that fails is fired again by hand a few times at most."""

TASK: Final = "run"
"""The task under which a run's own numbers are kept."""


@dataclass(slots=True)
class _Sum:
    """What one process did for one timer in one hour."""

    slot_us: int
    metrics: dict[str, float] = field(default_factory=lambda: {"firings": 0.0, "failures": 0.0, "longest_s": 0.0})

    def add(self, seconds: float, details: Evidence, *, failed: bool) -> None:
        self.metrics["firings"] += 1
        self.metrics["failures"] += failed
        self.metrics["longest_s"] = max(self.metrics["longest_s"], seconds)
        for name, value in (("seconds", seconds), *_numbers(details).items()):
            self.metrics[name] = self.metrics.get(name, 0.0) + value


class TimedRuns:
    """Notes the firings of all timers of a process; several threads may use it at once."""

    def __init__(
        self,
        log: PipelineLog,
        clock: Clock,
        process: str,
        *,
        release: Callable[[], None] = lambda: None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Note nothing yet.

        Args:
            log: Where runs are noted; used by one thread at a time.
            clock: Says which slot it is.
            process: Tells this process from others; part of the ids of its sums.
            release: Called after each use of the log, so that no connection is kept between two firings.
            monotonic_s: Measures how long work takes, seconds.
        """
        self._log = log
        self._clock = clock
        self._process = process
        self._release = release
        self._monotonic_s = monotonic_s
        self._turn = Lock()
        self._sums: dict[str, _Sum] = {}

    def run(self, pipeline: str, every_us: int, work: Callable[[], Evidence]) -> Evidence:
        """Do the work of one firing, and note it.

        Args:
            pipeline: Its name.
            every_us: How long a slot is: how often the timer fires, microseconds.
            work: Does it, and returns what came of it; numbers are kept as metrics, such as `rows`.

        Returns:
            What the work returned.

        Raises:
            Exception: Whatever the work raises; it is noted as the run's error.
        """
        now_us = self._clock.now_us()
        run_id = self._begin(pipeline, slot_of(pipeline, now_us // every_us * every_us), now_us)
        started_s = self._monotonic_s()
        try:
            details = work()
        except Exception as error:
            self._end(run_id, RunStatus.FAILED, started_s, {}, error_words(error))
            raise
        self._end(run_id, RunStatus.DONE, started_s, details)
        return details

    def sample(self, pipeline: str, work: Callable[[], Evidence]) -> Evidence:
        """Do the work of one firing of a timer that fires every few seconds or minutes, and note the hour's first.

        Args:
            pipeline: Its name.
            work: As for `run`.

        Returns:
            What the work returned.

        Raises:
            Exception: Whatever the work raises; noted as a run of its own, at most once in `FAILURE_SLOT_US`.
        """
        now_us = self._clock.now_us()
        slot_us = now_us // US_PER_HOUR * US_PER_HOUR
        begun, before = self._open(pipeline, slot_us)
        if before is not None:
            self._add_up(pipeline, before, now_us)
        run_id = self._begin(pipeline, slot_of(pipeline, slot_us), now_us, attempts=1) if begun else ""
        started_s = self._monotonic_s()
        try:
            details = work()
        except Exception as error:
            self._count(pipeline, slot_us, started_s, {}, failed=True)
            if not run_id:
                failed_us = now_us // FAILURE_SLOT_US * FAILURE_SLOT_US
                run_id = self._begin(pipeline, f"{slot_of(pipeline, failed_us)}/failed", now_us, attempts=1)
            self._end(run_id, RunStatus.FAILED, started_s, {}, error_words(error))
            raise
        self._count(pipeline, slot_us, started_s, details, failed=False)
        self._end(run_id, RunStatus.DONE, started_s, details)
        return details

    def _open(self, pipeline: str, slot_us: int) -> tuple[bool, _Sum | None]:
        """Whether this is the process's first firing of the hour, and the sum of an earlier hour that ended with it."""
        with self._turn:
            known = self._sums.get(pipeline)
            if known is not None and known.slot_us == slot_us:
                return False, None
            self._sums[pipeline] = _Sum(slot_us)
            return True, known

    def _count(self, pipeline: str, slot_us: int, started_s: float, details: Evidence, *, failed: bool) -> None:
        with self._turn:
            known = self._sums.get(pipeline)
            if known is not None and known.slot_us == slot_us:  # else a firing of the next hour was faster
                known.add(self._monotonic_s() - started_s, details, failed=failed)

    def _add_up(self, pipeline: str, one: _Sum, now_us: int) -> None:
        """Note what the process did in an hour that is over."""
        run_id = f"{slot_of(pipeline, one.slot_us)}/{self._process}"

        def note() -> None:
            if self._log.begin(Run(run_id, pipeline, RunStatus.RUNNING, one.slot_us)):
                self._log.note(run_id, TASK, one.metrics, now_us)
                self._log.end(run_id, RunStatus.DONE, one.slot_us + US_PER_HOUR, "", {"sum": True, **one.metrics})

        self._noting(note)

    def _begin(self, pipeline: str, run_id: str, now_us: int, attempts: int = MAX_ATTEMPTS) -> str:
        """Note that a run begins; returns the id to end it by, empty if it is not noted."""
        noted: list[str] = []

        def note() -> None:
            for attempt in range(1, attempts + 1):
                name = run_id if attempt == 1 else f"{run_id}/{attempt}"
                if self._log.begin(Run(name, pipeline, RunStatus.RUNNING, now_us)):
                    noted.append(name)
                    return
                earlier = self._log.find(name)
                if earlier is not None and earlier.status in {RunStatus.DONE, RunStatus.SKIPPED}:
                    return

        self._noting(note)
        return noted[0] if noted else ""

    def _end(self, run_id: str, status: RunStatus, started_s: float, details: Evidence, error: str = "") -> None:
        if not run_id:
            return
        ended_at_us = self._clock.now_us()
        metrics = {**_numbers(details), "seconds": self._monotonic_s() - started_s}

        def note() -> None:
            self._log.note(run_id, TASK, metrics, ended_at_us)
            self._log.end(run_id, status, ended_at_us, error, details)

        self._noting(note)

    def _noting(self, note: Callable[[], None]) -> None:
        """Use the log; whatever is wrong with it is said and stops no timer."""
        with self._turn:
            try:
                note()
            except TollgateError:
                _log.warning("a run could not be noted", exc_info=True)
            finally:
                self._release()


def _numbers(details: Evidence) -> Mapping[str, float]:
    return {name: float(value) for name, value in details.items() if isinstance(value, int | float)}
