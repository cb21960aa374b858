"""How a process's counts reach the store that all instances share: cumulative, from a thread of their own.

What could not be written is in the next write too. What a process had not written when it was killed is written by
another one of its host: it finds the cells and a note that says under which name they were written so far. Rows are
cumulative, so it does no harm if two of them do, or if the process had just written it itself. A count is lost only
with its host. Nothing that serves waits for it, and nothing fails because of it.
"""

from __future__ import annotations

import atexit
import json
import logging
import threading
import uuid
from collections.abc import Sequence
from math import floor
from typing import Final

from shared.domain.errors import TollgateError
from shared.ports.clock import Clock
from shared.ports.metering import CountsRow, CountsStore, Estate, Left
from shared.services.metering import LAYOUT, Cells

_log = logging.getLogger(__name__)

_STEPS: Final = float(1 << 20)
"""Counts are written in whole steps of about a microsecond: sums of such numbers are exact up to 2^33, so they do not
depend on the order of the rows. Prometheus takes a sum that falls by one bit for a restart."""


class MeterFlush:
    """Writes the counts of this process."""

    def __init__(
        self,
        app: str,
        cells: Cells,
        store: CountsStore,
        clock: Clock,
        layout: str = LAYOUT,
        *,
        estate: Estate | None = None,
    ) -> None:
        """Write nothing yet.

        Args:
            app: The app.
            cells: The counts.
            store: Used by one thread at a time.
            clock: The time of day.
            layout: What the cells mean.
            estate: What processes of this host leave to one another; None to leave and take nothing.
        """
        self._estate = estate
        self._app = app
        self._cells = cells
        self._store = store
        self._clock = clock
        self._layout = layout
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._failing = self._known = False
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
        """Write what was counted, if anything was since the last time; returns whether it was written.

        What others left that are gone is written as well.
        """
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
        written = self._write()
        self._inherit()
        return written

    def _write(self) -> bool:
        counted = _in_steps(self._cells.own())
        if counted == self._written:
            return False
        now_us = self._clock.now_us()
        if not self._put(counted, now_us):
            _log.info("counts go on under another writer")
            self._start_anew(self._written)
            self._put(counted, now_us)
        self._written, self._failing = counted, False
        if not self._known:
            self._known = True
            self._note()
        return True

    def _inherit(self) -> None:
        """Write what others had counted in the end.

        A row that is known and not there was added up with those that are gone: what came after it is lost.
        """
        if self._estate is None:
            return
        for left in self._estate.left():
            try:
                row, known = _row_of(self._app, left, self._clock.now_us())
            except (ValueError, TypeError):  # of another release, whose notes say something else
                _log.warning("counts of a process that is gone cannot be read")
            else:
                if any(row.cells):
                    self._store.put(row, known=known)
                _log.info("counts of a process that is gone were written", extra={"writer": row.writer})
            self._estate.settle(left)

    def _note(self) -> None:
        """Say how to write the cells that are left if this process is killed."""
        if self._estate is not None:
            said = [self._writer, self._layout, self._started_at_us, self._known, list(self._folded)]
            self._estate.note(json.dumps(said))

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
        self._note()

    def _run(self, interval_s: float) -> None:
        while not self._stopping.wait(interval_s):
            self._attempt()

    def _attempt(self) -> None:
        try:
            self.flush()
        except Exception:  # noqa: BLE001 - the outermost line of a thread and of the end of the process
            _log.exception("counts cannot be written")


def _in_steps(cells: Sequence[float]) -> tuple[float, ...]:
    return tuple(floor(cell * _STEPS) / _STEPS for cell in cells)


def _row_of(app: str, left: Left, now_us: int) -> tuple[CountsRow, bool]:
    """The row of a process that is gone, by its note, and whether it was written before."""
    writer, layout, started_at_us, known, folded = json.loads(left.note)
    own = [cell - before for cell, before in zip(_in_steps(left.cells), folded, strict=True)]
    return CountsRow(app, writer, layout, own, started_at_us, now_us), known
