"""Deletes what has expired, by the index of its time. Used by one thread at a time.

A unit of work takes an advisory lock and does nothing if another one has it, so two of them never wait for each other's
rows. Rows are named by their place and asked once more whether they have expired: one that somebody changes at this
moment is judged by what it is then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.adapters.postgres_errors import translated
from shared.adapters.postgres_tallies import LETTERS_MARK, RUNS_GONE
from shared.domain.instants import US_PER_HOUR
from shared.domain.retention import Expiring
from shared.ports.retention import Expired
from shared.services.metering import LAYOUT

if TYPE_CHECKING:
    from shared.adapters.postgres_session import Connection, PostgresSession

LOCK: Final = 0x746F6C6C6B656570
"""Key of the advisory lock of the one who deletes ("tollkeep" in ASCII)."""

_TRY: Final = "SELECT pg_try_advisory_xact_lock(%s)"

_OLD: Final = """
DELETE FROM tollgate.{table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM tollgate.{table} WHERE {condition} ORDER BY {time} LIMIT %(limit)s
)) AND {condition}
"""


def _old(table: str, time: str, condition: str = "true") -> tuple[str, str]:
    return table, _OLD.format(table=table, time=time, condition=f"({time} < %(before)s AND {condition})")


# The models first, one after the other along the key: their number is small, the table is not.
_SHADOW: Final = """
WITH RECURSIVE models AS (
    SELECT min(bundle_digest) AS digest FROM tollgate.shadow_scores
    UNION ALL
    SELECT (SELECT min(s.bundle_digest) FROM tollgate.shadow_scores s WHERE s.bundle_digest > models.digest)
    FROM models WHERE models.digest IS NOT NULL
)
DELETE FROM tollgate.shadow_scores WHERE event_time_us < %(before)s AND ctid = ANY(ARRAY(
    SELECT old.place FROM models CROSS JOIN LATERAL (
        SELECT s.ctid AS place FROM tollgate.shadow_scores s
        WHERE s.bundle_digest = models.digest AND s.event_time_us < %(before)s ORDER BY s.event_time_us LIMIT %(limit)s
    ) AS old LIMIT %(limit)s
))
"""

STATEMENTS: Final[dict[Expiring, tuple[str, str]]] = {
    Expiring.NOTICES: _old("notifications", "ended_at_us"),
    Expiring.COUNTS: _old("app_meters", "updated_at_us", "layout <> %(layout)s"),
    Expiring.ANNOUNCEMENTS: _old("announced_changes", "end_us"),
    Expiring.QUALITY: _old("data_quality_log", "recorded_at_us"),
    Expiring.PERFORMANCE: _old("performance_metrics", "recorded_at_us"),
    Expiring.DRIFT: _old("drift_metrics", "recorded_at_us"),
    # What was not added up yet would be missing in the counter.
    Expiring.TAKEN_LETTERS: _old("dead_letters", "replayed_at_us", f"dead_letter_id <= ({LETTERS_MARK})"),
    Expiring.LETTERS: _old(
        "dead_letters", "received_at_us", f"replayed_at_us IS NULL AND dead_letter_id <= ({LETTERS_MARK})"
    ),
    Expiring.SHADOW_SCORES: ("shadow_scores", _SHADOW),
}
"""Table, and what deletes some of its rows; runs have their own."""

# The last run of a pipeline in each state stays: cooldown, marks and ages are read from it.
OLDEST_RUN: Final = """
SELECT r.started_at_us FROM tollgate.pipeline_execution_log r
WHERE r.started_at_us < %(before)s AND EXISTS (
    SELECT FROM tollgate.pipeline_execution_log later WHERE later.pipeline = r.pipeline AND later.status = r.status
        AND later.started_at_us >= (r.started_at_us / %(hour)s + 1) * %(hour)s
) ORDER BY r.started_at_us LIMIT 1
"""


class PostgresExpiringRows:
    """Deletes rows of the tables that `STATEMENTS` names, and runs with their metrics."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def delete(self, what: Expiring, before_us: int, limit: int) -> Expired:
        """Delete some of the oldest rows of a kind."""
        with translated("deleting what has expired"), self._session.transaction() as connection:
            row = connection.execute(_TRY, [LOCK]).fetchone()
            if row is None or not row[0]:
                return Expired({}, more=False)
            if what is Expiring.RUNS:
                return _runs(connection, before_us)
            table, statement = STATEMENTS[what]
            values = {"before": before_us, "limit": limit, "layout": LAYOUT}
            count = connection.execute(statement.encode(), values).rowcount
            return Expired({table: count}, more=count == limit)


def _runs(connection: Connection, before_us: int) -> Expired:
    """Delete the runs of the oldest hour; whole hours, because attempts at one hour are added up once."""
    values = {"before": before_us // US_PER_HOUR * US_PER_HOUR, "hour": US_PER_HOUR}
    oldest = connection.execute(OLDEST_RUN, values).fetchone()
    if oldest is None:
        return Expired({}, more=False)
    start_us = oldest[0] // US_PER_HOUR * US_PER_HOUR
    ((runs, metrics),) = connection.execute(RUNS_GONE, {"start": start_us, "until": start_us + US_PER_HOUR})
    return Expired({"pipeline_execution_log": runs, "task_metrics": metrics}, more=True)
