"""What the report page tells, read from Postgres in one read-only transaction, each statement bounded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.postgres_errors import translated
from shared.adapters.postgres_pipelines import TRIGGER, open_trigger
from shared.adapters.postgres_session import Connection, PostgresSession
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.pipeline import Notice, Run, RunStatus, Severity
from shared.ports.notifying import PAGE, KeptNotice, NoticeStatus
from shared.ports.reports import ComparedWindow, GateRow, PageFacts, QualityRow, Series, VerdictRow

if TYPE_CHECKING:
    from shared.adapters.postgres import PostgresConnection

TREND_US: Final = 14 * US_PER_DAY
"""How far back trends go."""

MAX_VERDICTS: Final = 48
MAX_ROWS: Final = 20
"""Of each other table of the page."""

_ARCHIVED: Final = """
SELECT DISTINCT ON (window_start_us) window_start_us, bundle_digest FROM tollgate.drift_metrics
WHERE subject = 'all' AND statistic = 'verdict' AND window_start_us >= %s AND details ->> 'archived' = 'true'
ORDER BY window_start_us DESC, metric_id DESC
"""
_VERDICTS: Final = """
SELECT window_start_us, window_end_us, bundle_digest, current_rows, details
FROM tollgate.drift_metrics WHERE subject = 'all' AND statistic = 'verdict' AND window_end_us > %s
ORDER BY window_end_us DESC, metric_id DESC LIMIT %s
"""
_DRIFT: Final = """
SELECT subject, window_end_us, value FROM tollgate.drift_metrics
WHERE statistic = 'psi' AND window_end_us > %s AND window_end_us - window_start_us = %s
ORDER BY subject, window_end_us, metric_id
"""
_PERFORMANCE: Final = """
SELECT metric, window_end_us, value FROM tollgate.performance_metrics
WHERE segment = 'all' AND window_end_us > %s ORDER BY metric, window_end_us, metric_id
"""
_QUALITY: Final = """
SELECT DISTINCT ON (source, rule) source, rule, passed, observed, window_end_us,
    count(*) FILTER (WHERE NOT passed) OVER (PARTITION BY source, rule)
FROM tollgate.data_quality_log WHERE window_end_us > %s
ORDER BY source, rule, window_end_us DESC, check_id DESC
"""
_GATE: Final = """
SELECT verdict_digest, challenger_digest, passed, decided_at_us FROM tollgate.promotion_verdicts
ORDER BY decided_at_us DESC, verdict_digest LIMIT %s
"""
_TRIGGERS: Final = f"""
SELECT {TRIGGER} FROM tollgate.retraining_triggers WHERE status IN ('open', 'claimed')
ORDER BY priority, created_at_us, trigger_id LIMIT %s
"""  # noqa: S608 - constants
_NOTICES: Final = """
WITH last AS (
    SELECT * FROM tollgate.notifications WHERE channel = %s ORDER BY created_at_us DESC, notification_id DESC LIMIT %s
)
SELECT l.dedup_key, l.severity, l.title, l.evidence, l.link, l.created_at_us,
    ARRAY(SELECT ARRAY[n.channel, n.status] FROM tollgate.notifications n
          WHERE n.dedup_key = l.dedup_key AND n.channel <> l.channel ORDER BY n.channel)
FROM last l ORDER BY l.created_at_us DESC, l.notification_id DESC
"""
_RUNS: Final = """
SELECT DISTINCT ON (pipeline) run_id, pipeline, status, started_at_us, ended_at_us, coalesce(error, '')
FROM tollgate.pipeline_execution_log WHERE started_at_us > %s
ORDER BY pipeline, started_at_us DESC, run_id DESC
"""


class PostgresReports:
    """Reads over a connection that is opened for each call: a page is looked at now and then."""

    def __init__(self, where: PostgresConnection, application_name: str) -> None:
        self._where = where
        self._application_name = application_name

    def archived(self, since_us: int) -> Sequence[ComparedWindow]:
        """Windows that have a verdict and whose rows were archived; of several bundles the last verdict counts."""
        with self._reading("looking for windows without a report") as connection:
            return [ComparedWindow(*row) for row in _rows(connection, _ARCHIVED, since_us)]

    def read(self, now_us: int) -> PageFacts:
        """The page's facts."""
        since_us = now_us - TREND_US
        with self._reading("reading the report page") as connection:
            quality = [QualityRow(*row) for row in _rows(connection, _QUALITY, now_us - US_PER_DAY)]
            return PageFacts(
                now_us=now_us,
                since_us=since_us,
                verdicts=tuple(map(_verdict, _rows(connection, _VERDICTS, since_us, MAX_VERDICTS))),
                drift=_series(_rows(connection, _DRIFT, since_us, US_PER_HOUR)),
                performance=_series(_rows(connection, _PERFORMANCE, since_us)),
                quality=tuple(sorted(quality, key=lambda row: (row.passed, -row.failures, row.source, row.rule))),
                gate=tuple(GateRow(*row) for row in _rows(connection, _GATE, MAX_ROWS)),
                triggers=tuple(map(open_trigger, _rows(connection, _TRIGGERS, MAX_ROWS))),
                notices=tuple(map(_notice, _rows(connection, _NOTICES, PAGE, MAX_ROWS))),
                runs=tuple(map(_run, _rows(connection, _RUNS, since_us))),
            )

    @contextmanager
    def _reading(self, doing: str) -> Iterator[Connection]:
        """A read-only transaction that sees one state of the database."""
        session = PostgresSession(self._where, self._application_name)
        try:
            with translated(doing), session.transaction() as connection:
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield connection
        finally:
            session.close()


def _rows(connection: Connection, statement: str, *values: object) -> Iterable[Sequence[Any]]:
    return connection.execute(statement.encode(), values).fetchall()


def _series(rows: Iterable[Sequence[Any]]) -> tuple[Series, ...]:
    points: dict[str, dict[int, float | None]] = defaultdict(dict)
    for name, end_us, value in rows:
        points[name][end_us] = value  # of two bundles that were watched in one hour, the later row
    return tuple(Series(name, tuple(found.items())) for name, found in points.items())


def _verdict(row: Sequence[Any]) -> VerdictRow:
    start_us, end_us, digest, n_rows, details = row
    findings = {str(one.get("subject")): one.get("psi") for one in details.get("findings", ())}
    return VerdictRow(
        start_us,
        end_us,
        digest,
        n_rows,
        str(details.get("state", "unknown")),
        tuple((name, float(psi) if isinstance(psi, int | float) else None) for name, psi in findings.items()),
        str(details.get("withheld") or ""),
    )


def _notice(row: Sequence[Any]) -> KeptNotice:
    key, severity, title, evidence, link, created_at_us, channels = row
    return KeptNotice(
        Notice(key, Severity(severity), title, evidence, link, created_at_us),
        tuple((name, NoticeStatus(status)) for name, status in channels),
    )


def _run(row: Sequence[Any]) -> Run:
    run_id, pipeline, status, started_at_us, ended_at_us, error = row
    return Run(run_id, pipeline, RunStatus(status), started_at_us, ended_at_us, error)
