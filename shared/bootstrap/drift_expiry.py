"""Builds what deletes rows that have expired; it connects for each firing, because that is once an hour."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from shared.domain.retention import Keeping
from shared.entrypoints.expiry_timers import ExpiryParts
from shared.services.expiring import Expiry

if TYPE_CHECKING:
    from shared.adapters.postgres import PostgresConnection
    from shared.domain.pipeline import Evidence
    from shared.ports.clock import Clock
    from shared.services.timed_runs import TimedRuns


def expiry_parts(where: PostgresConnection, keeping: Keeping, clock: Clock, runs: TimedRuns) -> ExpiryParts:
    """What the timer needs."""

    def expire() -> Evidence:
        from shared.adapters.postgres_expiry import PostgresExpiringRows  # noqa: PLC0415 - paid by those who connect
        from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

        with closing(PostgresSession(where, "drift-expiry")) as session:
            return Expiry(PostgresExpiringRows(session), keeping, clock).expire()

    return ExpiryParts(expire, runs)
