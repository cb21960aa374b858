"""The use case that deletes what has expired, in small units of work and within a time of its own.

It runs each hour, so there is little to do each time; after a long pause it takes several firings. Deleting is
idempotent, so a run that is killed or fired twice does no harm.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from shared.domain.instants import US_PER_HOUR
from shared.domain.pipeline import Evidence
from shared.domain.retention import Expiring, Keeping
from shared.ports.clock import Clock
from shared.ports.retention import ExpiringRows

PIPELINE: Final = "expiry"

EVERY_US: Final = US_PER_HOUR
"""How often the timer fires."""

BATCH: Final = 5_000
"""Rows of one unit of work: it holds their locks for some ten milliseconds."""

BUDGET_S: Final = 120.0
"""After how long a run stops where it is; the host ends it after 15 minutes."""


class Expiry:
    """Deletes what has expired; one per thread, because its store is."""

    def __init__(
        self,
        rows: ExpiringRows,
        keeping: Keeping,
        clock: Clock,
        *,
        batch: int = BATCH,
        budget_s: float = BUDGET_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Delete nothing yet.

        Args:
            rows: Where they are.
            keeping: How long they are kept.
            clock: Our clock.
            batch: Rows of one unit of work.
            budget_s: After how long a run stops, seconds.
            monotonic_s: Measures it.
        """
        self._rows = rows
        self._keeping = keeping
        self._clock = clock
        self._batch = batch
        self._budget_s = budget_s
        self._monotonic_s = monotonic_s

    def expire(self) -> Evidence:
        """Delete until nothing is left that has expired, or the time is up.

        Returns:
            Rows that were deleted by table, `rows` in all, and `behind`: kinds of rows that were not done with.

        Raises:
            Transient: The database cannot be reached now; what was deleted stays so, and the next hour goes on.
        """
        stop_s = self._monotonic_s() + self._budget_s
        now_us = self._clock.now_us()
        deleted: Counter[str] = Counter()
        behind = 0
        for what in Expiring:
            more = True
            while more and self._monotonic_s() < stop_s:
                rows, more = self._rows.delete(what, self._keeping.until_us(what, now_us), self._batch)
                deleted.update(rows)
            behind += more
        return {**deleted, "rows": deleted.total(), "behind": behind}
