"""What pipelines did, who may do what alone, and the reasons to retrain, in Postgres.

Each method is one statement in a transaction of its own, so no answer depends on what another process does between two
of them. Used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from psycopg.types.json import Jsonb

from shared.adapters.postgres_errors import translated
from shared.domain.pipeline import Cause, Evidence, OpenTrigger, Priority, Run, RunStatus, Trigger

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession

_BEGIN: Final = """
INSERT INTO tollgate.pipeline_execution_log (run_id, pipeline, status, started_at_us, ended_at_us, error, details)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (run_id) DO NOTHING
"""
_END: Final = """
UPDATE tollgate.pipeline_execution_log SET status = %s, ended_at_us = %s, error = %s, details = details || %s
WHERE run_id = %s AND status = 'running'
"""
_NOTE: Final = """
INSERT INTO tollgate.task_metrics (run_id, task, metric, value, recorded_at_us)
SELECT %s, %s, given.metric, given.value, %s
FROM unnest(%s::text[], %s::float8[]) AS given(metric, value)
ON CONFLICT (run_id, task, metric) DO NOTHING
"""
_RUN: Final = "run_id, pipeline, status, started_at_us, ended_at_us, coalesce(error, ''), details"
_FIND: Final = f"SELECT {_RUN} FROM tollgate.pipeline_execution_log WHERE run_id = %s"  # noqa: S608 - constants
_RECENT: Final = f"""
SELECT {_RUN} FROM tollgate.pipeline_execution_log
WHERE pipeline = %s AND (%s::text IS NULL OR status = %s::text)
ORDER BY started_at_us DESC, run_id DESC LIMIT %s
"""  # noqa: S608 - constants

_ACQUIRE: Final = """
INSERT INTO tollgate.leases AS l (name, holder, acquired_at_us, expires_at_us)
VALUES (%(name)s, %(holder)s, %(now)s, %(until)s)
ON CONFLICT (name) DO UPDATE SET
    holder = excluded.holder,
    acquired_at_us = CASE WHEN l.holder = excluded.holder THEN least(l.acquired_at_us, excluded.acquired_at_us)
        ELSE excluded.acquired_at_us END,
    expires_at_us = excluded.expires_at_us
WHERE l.holder = excluded.holder OR l.expires_at_us <= %(now)s
"""
_RELEASE: Final = "DELETE FROM tollgate.leases WHERE name = %s AND holder = %s"
_HOLDER: Final = "SELECT holder FROM tollgate.leases WHERE name = %s AND expires_at_us > %s"

_OPEN: Final = """
INSERT INTO tollgate.retraining_triggers (cause, subject, priority, evidence, created_at_us)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (cause, subject) WHERE status IN ('open', 'claimed') DO NOTHING
RETURNING trigger_id
"""
TRIGGER: Final = "trigger_id, cause, subject, priority, evidence, created_at_us, coalesce(claimed_by, '')"
"""The columns of a trigger, from which `open_trigger` reads it."""

# Who is slower passes over the locked row and takes the next one.
_CLAIM: Final = f"""
UPDATE tollgate.retraining_triggers SET status = 'claimed', claimed_by = %s, claimed_at_us = %s
WHERE trigger_id = (
    SELECT trigger_id FROM tollgate.retraining_triggers WHERE status = 'open'
    ORDER BY priority, created_at_us, trigger_id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING {TRIGGER}
"""  # noqa: S608 - constants
_CLOSE: Final = """
UPDATE tollgate.retraining_triggers SET status = %s, closed_at_us = %s, outcome = %s
WHERE trigger_id = %s AND status IN ('open', 'claimed')
"""
_UNFINISHED: Final = f"""
SELECT {TRIGGER} FROM tollgate.retraining_triggers WHERE status IN ('open', 'claimed')
ORDER BY priority, created_at_us, trigger_id
"""  # noqa: S608 - constants
_REOPEN: Final = """
UPDATE tollgate.retraining_triggers SET status = 'open', claimed_by = NULL, claimed_at_us = NULL
WHERE trigger_id = %s AND status = 'claimed'
"""


class PostgresPipelineLog:
    """Rows of `tollgate.pipeline_execution_log` and `tollgate.task_metrics`."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def begin(self, run: Run) -> bool:
        """Note that a run starts, unless one of its id is noted already."""
        values = [
            run.run_id,
            run.pipeline,
            run.status,
            run.started_at_us,
            run.ended_at_us,
            run.error or None,
            Jsonb(dict(run.details)),
        ]
        return _changed(self._session, "noting that a run starts", _BEGIN, values)

    def end(self, run_id: str, status: RunStatus, ended_at_us: int, error: str, details: Evidence) -> bool:
        """Note how a run ended, once; details are added to those of its start."""
        values = [status, ended_at_us, error or None, Jsonb(dict(details)), run_id]
        return _changed(self._session, "noting how a run ended", _END, values)

    def note(self, run_id: str, task: str, metrics: Mapping[str, float], recorded_at_us: int) -> None:
        """Keep what a task measured."""
        values = [run_id, task, recorded_at_us, list(metrics), [float(value) for value in metrics.values()]]
        _changed(self._session, "noting what a task measured", _NOTE, values)

    def find(self, run_id: str) -> Run | None:
        """A run by its id."""
        rows = self._session.rows("reading a run", _FIND, [run_id])
        return _run(rows[0]) if rows else None

    def recent(self, pipeline: str, limit: int, status: RunStatus | None = None) -> Sequence[Run]:
        """The last runs of a pipeline, newest first."""
        return [_run(row) for row in self._session.rows("reading runs", _RECENT, [pipeline, status, status, limit])]


class PostgresLeases:
    """Rows of `tollgate.leases`."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def acquire(self, name: str, holder: str, now_us: int, duration_us: int) -> bool:
        """Take a lease, or renew it."""
        values = {"name": name, "holder": holder, "now": now_us, "until": now_us + duration_us}
        return _changed(self._session, "taking a lease", _ACQUIRE, values)

    def release(self, name: str, holder: str) -> bool:
        """Give a lease back."""
        return _changed(self._session, "giving a lease back", _RELEASE, [name, holder])

    def holder(self, name: str, now_us: int) -> str | None:
        """Who holds it now."""
        rows = self._session.rows("reading a lease", _HOLDER, [name, now_us])
        return str(rows[0][0]) if rows else None


class PostgresTriggers:
    """Rows of `tollgate.retraining_triggers`."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def open(self, trigger: Trigger) -> int | None:
        """Keep a trigger, unless one of its cause and subject is open or claimed."""
        values = [
            trigger.cause,
            trigger.subject,
            int(trigger.priority),
            Jsonb(dict(trigger.evidence)),
            trigger.created_at_us,
        ]
        rows = self._session.rows("opening a trigger", _OPEN, values)
        return int(rows[0][0]) if rows else None

    def claim(self, run_id: str, now_us: int) -> OpenTrigger | None:
        """Take the most urgent open one."""
        rows = self._session.rows("claiming a trigger", _CLAIM, [run_id, now_us])
        return open_trigger(rows[0]) if rows else None

    def close(self, trigger_id: int, *, done: bool, outcome: str, now_us: int) -> bool:
        """Close one that is open or claimed."""
        values = ["done" if done else "dismissed", now_us, outcome, trigger_id]
        return _changed(self._session, "closing a trigger", _CLOSE, values)

    def unfinished(self) -> Sequence[OpenTrigger]:
        """Those that are open or claimed."""
        return [open_trigger(row) for row in self._session.rows("reading triggers", _UNFINISHED)]

    def reopen(self, trigger_id: int) -> bool:
        """Give a claimed one back."""
        return _changed(self._session, "giving a trigger back", _REOPEN, [trigger_id])


type _Values = Sequence[object] | Mapping[str, object]


def _changed(session: PostgresSession, doing: str, statement: str, values: _Values) -> bool:
    """Whether a statement changed a row."""
    with translated(doing), session.transaction() as connection:
        return connection.execute(statement, values).rowcount > 0


def _run(row: tuple[Any, ...]) -> Run:
    run_id, pipeline, status, started_at_us, ended_at_us, error, details = row
    return Run(run_id, pipeline, RunStatus(status), started_at_us, ended_at_us, error, details)


def open_trigger(row: Sequence[Any]) -> OpenTrigger:
    """A trigger from its columns `TRIGGER`."""
    trigger_id, cause, subject, priority, evidence, created_at_us, claimed_by = row
    return OpenTrigger(
        trigger_id, Trigger(Cause(cause), subject, Priority(priority), evidence, created_at_us), claimed_by
    )
