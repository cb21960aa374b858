"""Builds what checks what arrives and measures what decisions were worth; each connects for each use, hours apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.entrypoints.quality_timers import QualityParts
from shared.services.performance_check import READ_S, PerformanceCheck
from shared.services.quality_check import QualityCheck

if TYPE_CHECKING:
    from shared.adapters.postgres import PostgresConnection
    from shared.domain.pipeline import Evidence
    from shared.ports.clock import Clock
    from shared.services.timed_runs import TimedRuns


@contextmanager
def quality_check(where: PostgresConnection, clock: Clock) -> Iterator[QualityCheck]:
    """A check over a connection of its own, which is closed in the end."""
    from shared.adapters.postgres_notices import PostgresNotices  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_quality import PostgresFeedWindows, PostgresQualityLog  # noqa: PLC0415
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

    with closing(PostgresSession(where, "drift-quality", {"statement_timeout": "120s"})) as session:
        yield QualityCheck(PostgresFeedWindows(session), PostgresQualityLog(session), PostgresNotices(session), clock)


@dataclass(frozen=True, slots=True)
class PostgresFeedHealth:
    """Asks the checks of the database whether a feed is broken; any thread may."""

    where: PostgresConnection
    clock: Clock

    def broken(self, start_us: int, end_us: int) -> str:
        """Why the feed of a window is broken; windows that are due are checked first."""
        with quality_check(self.where, self.clock) as check:
            return check.broken(start_us, end_us)


def quality_parts(where: PostgresConnection, clock: Clock, runs: TimedRuns) -> QualityParts:
    """What the timers need."""

    def check_due() -> Evidence:
        with quality_check(where, clock) as check:
            return check.check_due()

    def measure_due() -> Evidence:
        from shared.adapters.postgres_performance import (  # noqa: PLC0415 - paid by those who connect
            PostgresLabelledWindows,
            PostgresPerformanceLog,
        )
        from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

        with closing(PostgresSession(where, "drift-performance", {"statement_timeout": f"{READ_S}s"})) as session:
            return PerformanceCheck(
                PostgresLabelledWindows(session), PostgresPerformanceLog(session), clock
            ).check_due()

    return QualityParts(check_due, measure_due, runs)
