"""Draws the reports that people read, after the verdicts and apart from them.

A verdict is stored by its own timer before this one looks for windows without a report. What goes wrong here is noted
as a run of this pipeline and made up for by the next firing; nothing of it can delay or change a verdict.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from shared.domain.errors import NotFound, TollgateError, Transient
from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_SECOND
from shared.domain.pipeline import Evidence
from shared.ports.clock import Clock
from shared.ports.reports import ComparedWindow, ComparedWindows, Drawing, ReportStore

_log = logging.getLogger(__name__)

PREFIX: Final = "evidently/"
_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"
_DAY: Final = re.compile(PREFIX + r"(\d{4}/\d{2}/\d{2})/")


@dataclass(frozen=True, slots=True)
class ReportRules:
    """What bounds reporting.

    Attributes:
        keep_days: Reports are deleted after so many days; a page has some 4 MB.
        back_us: Windows older than this get no report any more, microseconds.
        most: Reports in one firing: a report takes about 10 s, and the timer fires every ten minutes.
    """

    keep_days: int = 30
    back_us: int = 2 * US_PER_DAY
    most: int = 6


def report_path(start_us: int, ending: str) -> str:
    """Where the report on a window lies.

    >>> report_path(3_600_000_000, "html")
    'evidently/1970/01/01/drift-0100.html'
    """
    return f"{PREFIX}{datetime.fromtimestamp(start_us // US_PER_SECOND, UTC):%Y/%m/%d/drift-%H%M}.{ending}"


@dataclass(frozen=True, slots=True)
class Reporting:
    """Draws what is missing and deletes what is old."""

    windows: ComparedWindows
    store: ReportStore
    drawing: Drawing
    clock: Clock
    rules: ReportRules = ReportRules()

    def run(self) -> Evidence:
        """Draw the reports that are missing, the newest first; safe to fire twice.

        Returns:
            How many were drawn and deleted, and how many windows have none for want of their rows.

        Raises:
            Transient: Something could not be drawn this time; the others were.
        """
        now_us = self.clock.now_us()
        deleted = self._expire(now_us)
        there = set(self.store.paths(PREFIX))
        drawn = gone = 0
        failed: list[TollgateError] = []
        for window in self.windows.archived(now_us - self.rules.back_us):
            # The JSON is written last: what has one is whole.
            if report_path(window.start_us, "json") in there:
                continue
            if drawn + len(failed) >= self.rules.most:
                break
            try:
                self._draw(window)
                drawn += 1
            except NotFound:
                gone += 1
            except TollgateError as error:
                _log.warning("a report could not be drawn: %s", error)
                failed.append(error)
        if failed:
            raise Transient(f"{len(failed)} reports could not be drawn: {failed[0]}") from failed[0]
        return {"drawn": drawn, "deleted": deleted, "gone": gone}

    def _draw(self, window: ComparedWindow) -> None:
        report = self.drawing.draw(window)
        self.store.put(report_path(window.start_us, "html"), report.html, _HTML)
        self.store.put(report_path(window.start_us, "json"), report.json, _JSON)

    def _expire(self, now_us: int) -> int:
        """Delete the reports of days that are over for long enough; the day is in the path."""
        last = now_us - self.rules.keep_days * US_PER_DAY
        oldest = datetime.fromtimestamp(last // US_PER_SECOND, UTC).strftime("%Y/%m/%d")
        old = [path for path in self.store.paths(PREFIX) if (day := _DAY.match(path)) and day.group(1) < oldest]
        return sum(self.store.delete(path) for path in old)


EVERY_US: Final = US_PER_HOUR // 6
"""How often the timer fires."""
