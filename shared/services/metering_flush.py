"""How a process's counts reach the store that all instances share: cumulative, from a thread of their own.

A count is lost only with its process: what could not be written is in the next write too. Nothing that serves waits
for it, and nothing fails because of it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import uuid
from collections.abc import Sequence
from math import floor
from typing import Final

from shared.domain.errors import TollgateError
from shared.ports.clock import Clock
from shared.ports.metering import CountsRow, CountsStore
from shared.services.metering import LAYOUT, Cells

_log = logging.getLogger(__name__)

_STEPS: Final = float(1 << 20)
"""Counts are written in whole steps of about a microsecond: sums of such numbers are exact up to 2^33, so they do not
depend on the order of the rows. Prometheus takes a sum that falls by one bit for a restart."""


class MeterFlush:
    """Writes the counts of this process."""

    def __init__(self, app: str, cells: Cells, store: CountsStore, clock: Clock, layout: str = LAYOUT) -> None:
        """Write nothing yet.

        Args:
            app: The app.
            cells: The counts.
            store: Used by one thread at a time.
            clock: The time of day.
            layout: What the cells mean.
        """
        self._app = app
        self._cells = cells
        self._store = store
        self._clock = clock
        self._layout = layout
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._failing = False
        self._written: Sequence[float] = ()
        self._start_anew((0.0,) * len(cells.own()))

    def start(self, interval_s: float) -> None:
        """Write every so often from now on, and once when the process ends."""
        threading.Thread(target=self._run, args=(interval_s,), name="meter-flush", daemon=True).start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Write a last time; later calls do nothing."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._attempt()

    def flush(self) -> bool:
        """Write what was counted, if anything was since the last time; returns whether it was written."""
        with self._turn:
            try:
                return self._flush()
            except TollgateError as error:
                # Said once, not every ten seconds for as long as the database is away.
                _log.log(
                    logging.DEBUG if self._failing else logging.WARNING, "counts cannot be written", exc_info=error
                )
                self._failing = True
                return False

    def _flush(self) -> bool:
        counted = tuple(floor(cell * _STEPS) / _STEPS for cell in self._cells.own())
        if counted == self._written:
            return False
        now_us = self._clock.now_us()
        if not self._put(counted, now_us):
            _log.info("counts go on under another writer")
            self._start_anew(self._written)
            self._put(counted, now_us)
        self._written = counted
        self._known, self._failing = True, False
        return True

    def _put(self, counted: Sequence[float], now_us: int) -> bool:
        own = [cell - folded for cell, folded in zip(counted, self._folded, strict=True)]
        row = CountsRow(self._app, self._writer, self._layout, own, self._started_at_us, now_us)
        return self._store.put(row, known=self._known)

    def _start_anew(self, folded: Sequence[float]) -> None:
        """Take another name: what was written under the last one was added up and stays counted."""
        self._writer = uuid.uuid4().hex
        self._started_at_us = self._clock.now_us()
        self._folded, self._written = folded, folded
        self._known = False

    def _run(self, interval_s: float) -> None:
        while not self._stopping.wait(interval_s):
            self._attempt()

    def _attempt(self) -> None:
        try:
            self.flush()
        except Exception:  # noqa: BLE001 - the outermost line of a thread and of the end of the process
            _log.exception("counts cannot be written")
