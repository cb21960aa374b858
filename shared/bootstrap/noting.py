"""Builds what notes the firings of an app's timers."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from shared.services.timed_runs import TimedRuns

if TYPE_CHECKING:
    from shared.adapters.postgres import PostgresConnection
    from shared.ports.clock import Clock


def timed_runs(where: PostgresConnection, app: str, clock: Clock) -> TimedRuns:
    """What notes the firings of an app's timers; its connection is open only while something is noted."""
    from shared.adapters.postgres_pipelines import PostgresPipelineLog  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

    session = PostgresSession(where, f"{app}-runs")
    return TimedRuns(PostgresPipelineLog(session), clock, uuid.uuid4().hex[:12], release=session.close)
