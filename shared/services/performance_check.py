"""The use case that measures what decisions were worth, each day, once their labels are mature.

A window is a week of event times that ended `MATURITY_US` and a day ago: the day is for the timer that turns silence
into labels. Windows end at midnight, UTC, a day apart, so each decision is in seven of them and a trend is smooth. What
becomes known after a window was measured changes nothing in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from shared.domain.instants import US_PER_DAY
from shared.domain.labels import MATURITY_US
from shared.domain.performance import ALL, NO_LABELS, Measured, Metric, measure
from shared.domain.pipeline import Evidence
from shared.ports.clock import Clock
from shared.ports.performance import KeptFigure, LabelledWindows, PerformanceLog

PIPELINE: Final = "performance"

EVERY_US: Final = US_PER_DAY
"""How often the timer fires."""

WINDOW_DAYS: Final = 7
"""A day alone has too few frauds for an interval that says anything, and its weekday shows."""

SETTLING_US: Final = US_PER_DAY
"""How long after maturity a window waits for its labels to be recorded."""

MAX_CATCH_UP: Final = 7
"""Windows of one run."""

BUDGET_S: Final = 240.0
"""After so many seconds a run begins no further window, so that the host never ends it: the last one reads twice, and a
statement is given `READ_S`."""

READ_S: Final = 300
"""How long a statement may read a week of decisions beside their labels, seconds: minutes where there are millions."""

NOTHING: Final = "0" * 64
"""Stands for a model where there was no decision, so that an empty window is known to be measured."""


class PerformanceCheck:
    """Measures windows; one per thread, because its stores are."""

    def __init__(
        self,
        windows: LabelledWindows,
        log: PerformanceLog,
        clock: Clock,
        *,
        maturity_us: int = MATURITY_US,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Do nothing yet.

        Args:
            windows: Decisions and what became known of them.
            log: Where figures are kept.
            clock: Our clock.
            maturity_us: After how long labels are mature, microseconds.
            monotonic_s: Seconds of a clock that never goes back.
        """
        self._windows = windows
        self._log = log
        self._clock = clock
        self._maturity_us = maturity_us
        self._monotonic_s = monotonic_s

    def check_due(self) -> Evidence:
        """Measure all windows that are mature and were not measured yet, the last week of them at most.

        Idempotent, also when several do it at once.

        Returns:
            `windows`, `models` and `rows` (decisions) that were measured, `figures` that are new, and how many windows
            are `behind`, because time was up.

        Raises:
            Transient: The database cannot be reached now; the next run makes up for it.
        """
        end_us = (self._clock.now_us() - self._maturity_us - SETTLING_US) // US_PER_DAY * US_PER_DAY
        last_us = self._log.last_end_us()
        first_us = end_us if last_us is None else max(last_us + US_PER_DAY, end_us - (MAX_CATCH_UP - 1) * US_PER_DAY)
        due = range(first_us, end_us + 1, US_PER_DAY)
        counts = {"windows": 0, "models": 0, "rows": 0, "figures": 0}
        stop_s = self._monotonic_s() + BUDGET_S
        for window_end_us in due:
            if self._monotonic_s() >= stop_s:
                break
            models, rows, figures = self._check(window_end_us - WINDOW_DAYS * US_PER_DAY, window_end_us)
            counts["windows"] += 1
            counts["models"] += models
            counts["rows"] += rows
            counts["figures"] += figures
        return {**counts, "behind": len(due) - counts["windows"]}

    def _check(self, start_us: int, end_us: int) -> tuple[int, int, int]:
        """Measure a window: how many models and decisions it had, and how many figures are new."""
        decided = self._windows.decided(start_us, end_us)
        # A model that decided some of the transactions and scored others in shadow is judged by its decisions.
        judged = {**self._windows.in_shadow(start_us, end_us), **decided}
        found = []
        for digest, rows in sorted(judged.items()):
            # The window seeds chance, so that whoever measures it again gets the same ends of intervals.
            rng = np.random.default_rng([end_us // US_PER_DAY, int(digest[:8], 16)])
            found += [KeptFigure(digest, start_us, end_us, one) for one in measure(rows, rng)]
        if not found:
            empty = Measured(ALL, Metric.LABELLED, None, None, None, 0, 0, NO_LABELS)
            found = [KeptFigure(NOTHING, start_us, end_us, empty)]
        n_new = self._log.record(found, self._clock.now_us())
        return len(judged), sum(len(rows) for rows in decided.values()), n_new
