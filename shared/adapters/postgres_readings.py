"""What the database knows, read for those who watch: what grows with every decision is never read as a whole.

Tables that grow with traffic have no index for a question like "the newest": the log's blocks have one by recorded
time, of labels the last pages of the table are looked at (labels are only ever added), and of hourly tables the rows
with the highest numbers. Dead letters are added up as they come; runs and notices are counted, as many as are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from shared.adapters import postgres_tallies as tallies
from shared.domain.drift_record import VERDICT, State
from shared.domain.pipeline import Cause
from shared.services.metering import REPLAYS, Sample
from shared.services.readings import (
    CHAMPION,
    CHAMPION_AGE,
    DEAD_LETTERS,
    DEAD_WAITING,
    DECISION_AGE,
    DRIFT,
    DRIFT_ALERT,
    GATE,
    LABEL_DELAY,
    NOTICES,
    OUTBOX_AGE,
    OUTBOX_WAITING,
    PERFORMANCE,
    QUALITY,
    RUN_AGE,
    RUNS,
    TRIGGERS,
    ReadingKind,
)

if TYPE_CHECKING:
    from psycopg import Connection

    from shared.adapters.postgres import PostgresConnection

type _Rows = Sequence[tuple[Any, ...]]

US: Final = 1_000_000
_HOUR_US: Final = 3_600 * US
_DAY_US: Final = 24 * _HOUR_US

SETTLED_US: Final = 600 * US
"""After so long no dead letter can appear before those that are there: units of work end within 45 s (the time limits
of `postgres_session`), and clocks are seconds apart."""

MOST_FOLDED: Final = 50_000
"""Dead letters that are added up at once: a minute of 800 a second."""

MOST_FIELDS: Final = 20
"""Offending fields that are told apart: each is a series."""

_NEWEST: Final = "SELECT max(recorded_at_us) FROM tollgate.log_blocks WHERE recorded_at_us >= %s"
_WAITING: Final = "SELECT count(*) FROM (SELECT FROM tollgate.outbox LIMIT 10000) AS waiting"
_OLDEST: Final = "SELECT recorded_at_us FROM tollgate.outbox ORDER BY outbox_id LIMIT 1"
_DRIFT: Final = """
SELECT DISTINCT ON (subject, statistic, window_end_us - window_start_us)
    subject, statistic, (window_end_us - window_start_us) / 3600000000.0, value, details ->> 'state'
FROM tollgate.drift_metrics WHERE metric_id > (SELECT max(metric_id) - 20000 FROM tollgate.drift_metrics)
ORDER BY subject, statistic, window_end_us - window_start_us, window_end_us DESC, metric_id DESC
"""
_TRIGGERS: Final = """
SELECT cause, count(*) FROM tollgate.retraining_triggers WHERE status IN ('open', 'claimed') GROUP BY 1
"""
# The size of the table is asked for in brackets: a volatile function is evaluated for every row otherwise. OFFSET keeps
# the planner from joining with all transactions there are: it cannot know that the pages hold few labels.
_LABELS: Final = """
SELECT percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY (l.known_at_us - t.event_time_us) / 86400000000.0)
FROM (
    SELECT transaction_id, known_at_us FROM tollgate.feedback_labels WHERE ctid >= (
        SELECT format('(%%s,0)', greatest(pg_relation_size('tollgate.feedback_labels') / 8192 - 16, 0))::tid
    ) LIMIT 2000
) AS l
JOIN LATERAL (
    SELECT event_time_us FROM tollgate.transaction_ids AS ids WHERE ids.transaction_id = l.transaction_id OFFSET 0
) AS t ON t.event_time_us IS NOT NULL
"""
_QUALITY: Final = """
SELECT DISTINCT ON (source, rule) source, rule, passed
FROM tollgate.data_quality_log WHERE check_id > (SELECT max(check_id) - 5000 FROM tollgate.data_quality_log)
ORDER BY source, rule, window_end_us DESC, check_id DESC
"""
_GATE: Final = "SELECT passed, count(*) FROM tollgate.promotion_verdicts GROUP BY 1"
_CHAMPION: Final = """
SELECT bundle_digest, changed_at_us FROM tollgate.promotions WHERE role = 'champion' ORDER BY number DESC LIMIT 1
"""
_PERFORMANCE: Final = """
SELECT DISTINCT ON (metric) metric, value FROM tollgate.performance_metrics
WHERE segment = 'all' AND bundle_digest = %s
    AND metric_id > (SELECT max(metric_id) - 20000 FROM tollgate.performance_metrics)
ORDER BY metric, window_end_us DESC, metric_id DESC
"""
_NOTICES: Final = "SELECT channel, status, count(*) FROM tollgate.notifications GROUP BY 1, 2"


LOCK: Final = 0x746F6C6C74616C79
"""Key of the advisory lock of the one who adds up ("tolltaly" in ASCII)."""


class PostgresReadings:
    """Readings over a connection that is opened for each call, in one transaction."""

    def __init__(self, where: PostgresConnection, application_name: str) -> None:
        self._where = where
        self._application_name = application_name

    def read(self, now_us: int) -> Sequence[Sample]:
        """The readings of this moment, of one state of the database."""
        with self._transaction("reading what is watched") as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return [sample for part in _PARTS for sample in part(connection, now_us)]

    def fold(self, now_us: int) -> int:
        """Add up dead letters, so that a reading counts the last ten minutes of them alone."""
        values = {"settled": now_us - SETTLED_US, "limit": MOST_FOLDED}
        with self._transaction("adding up dead letters") as connection:
            # One at a time: the statement after this one sees what the other has added up.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            ((count,),) = connection.execute(tallies.LETTERS_FOLD, values)
            return int(count)

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[Connection[Any]]:
        from shared.adapters.postgres_errors import translated  # noqa: PLC0415 - the driver is paid by those who connect
        from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

        session = PostgresSession(self._where, self._application_name)
        try:
            with translated(doing), session.transaction() as connection:
                yield connection
        finally:
            session.close()


def _rows(connection: Connection[Any], statement: str, *parameters: object) -> _Rows:
    return connection.execute(statement, parameters, binary=True).fetchall()


def _one(kind: ReadingKind, value: float, **labels: str) -> Sample:
    return Sample(kind.name, tuple(labels.items()), float(value))


def _lag(connection: Connection[Any], now_us: int) -> Iterator[Sample]:
    newest = None
    # Near blocks first: a day of them is too many to look at where there is traffic.
    for span_us in (120 * US, _HOUR_US, _DAY_US):
        ((newest,),) = _rows(connection, _NEWEST, now_us - span_us)
        if newest is not None:
            break
    yield _one(DECISION_AGE, _age(now_us, newest if newest is not None else now_us - _DAY_US))
    ((waiting,),) = _rows(connection, _WAITING)
    yield _one(OUTBOX_WAITING, waiting)
    oldest = _rows(connection, _OLDEST)
    yield _one(OUTBOX_AGE, _age(now_us, oldest[0][0]) if oldest else 0)


def _dead_letters(connection: Connection[Any], _now_us: int) -> Iterator[Sample]:
    waiting_by = {(hub, field): waiting for hub, field, waiting in _rows(connection, tallies.LETTERS_WAITING)}
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for place, (hub, field, count) in enumerate(_rows(connection, tallies.LETTERS)):
        key = hub, (field or "event") if place < MOST_FIELDS else "other"
        before = sums.get(key, (0, 0))
        sums[key] = before[0] + count, before[1] + waiting_by.get((hub, field), 0)
    for (hub, field), (count, waiting) in (sums or {("transactions", "event"): (0, 0)}).items():
        yield _one(DEAD_LETTERS, count, hub=hub, field=field)
        yield _one(DEAD_WAITING, waiting, hub=hub, field=field)


def _drift(connection: Connection[Any], _now_us: int) -> Iterator[Sample]:
    for subject, statistic, hours, value, state in _rows(connection, _DRIFT):
        if value is not None:
            yield _one(DRIFT, value, subject=subject, statistic=statistic, hours=f"{float(hours):g}")
        if statistic == VERDICT:
            yield _one(DRIFT_ALERT, state == State.DRIFT)
    counts: dict[str, int] = dict(_rows(connection, _TRIGGERS))
    for cause in Cause:
        yield _one(TRIGGERS, counts.get(cause.value, 0), cause=cause.value)


def _labels(connection: Connection[Any], _now_us: int) -> Iterator[Sample]:
    ((delays,),) = _rows(connection, _LABELS)
    if delays is not None:
        for quantile, delay in zip(("0.5", "0.95"), delays, strict=True):
            yield _one(LABEL_DELAY, delay, quantile=quantile)


def _quality(connection: Connection[Any], _now_us: int) -> Iterator[Sample]:
    for source, rule, passed in _rows(connection, _QUALITY):
        yield _one(QUALITY, not passed, source=source, rule=rule)


def _pipelines(connection: Connection[Any], now_us: int) -> Iterator[Sample]:
    for pipeline, status, count, last_us in _rows(connection, tallies.RUNS):
        if status != "running":  # a run that goes on will be counted as what it becomes: a counter never falls
            yield _one(RUNS, count, pipeline=pipeline, status=status)
        if status == "done" and last_us is not None:
            yield _one(RUN_AGE, _age(now_us, last_us), pipeline=pipeline)


def _replays(connection: Connection[Any], _now_us: int) -> Iterator[Sample]:
    sums: dict[str, int] = dict(_rows(connection, tallies.REPLAYED))
    for verdict in REPLAYS.labels["verdict"]:
        yield Sample(REPLAYS.name, (("app", "retrain"), ("verdict", verdict)), float(sums.get(verdict, 0)))


def _models(connection: Connection[Any], now_us: int) -> Iterator[Sample]:
    verdicts: dict[bool, int] = dict(_rows(connection, _GATE))
    for passed, result in ((True, "passed"), (False, "refused")):
        yield _one(GATE, verdicts.get(passed, 0), result=result)
    champion = _rows(connection, _CHAMPION)
    digest, since_us = champion[0] if champion else (None, 0)
    yield _one(CHAMPION, digest is not None)
    if digest is not None:
        yield _one(CHAMPION_AGE, _age(now_us, since_us))
        for metric, value in _rows(connection, _PERFORMANCE, digest):
            if value is not None:
                yield _one(PERFORMANCE, value, metric=metric)


def _notices(connection: Connection[Any], _now_us: int) -> Iterator[Sample]:
    for channel, status, count in _rows(connection, _NOTICES):
        yield _one(NOTICES, count, channel=channel, status=status)


def _age(now_us: int, then_us: int) -> float:
    """Seconds; never below nought, because clocks differ."""
    return max(0, now_us - then_us) / US


type _Part = Callable[[Connection[Any], int], Iterator[Sample]]

_PARTS: Final[tuple[_Part, ...]] = (
    _lag,
    _dead_letters,
    _drift,
    _labels,
    _quality,
    _pipelines,
    _replays,
    _models,
    _notices,
)
