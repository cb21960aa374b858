"""Decisions by event time, drift's numbers, and announced changes, in Postgres. Used by one thread at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg

from shared.adapters.postgres_errors import translated
from shared.adapters.postgres_ledger_statements import STRONGEST_FIRST, VERDICT_CODES
from shared.domain.drift_counts import DecidedRows, skim
from shared.domain.drift_performance import MaturedRows, joined
from shared.domain.drift_policy import Clusters, Usual, usuals
from shared.domain.drift_record import OUTCOME, PSI, VERDICT, DriftMetric
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import FEATURE_DTYPE
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.labels import Verdict
from shared.domain.transaction import FUTURE_TOLERANCE_US
from shared.ports.drift import Announcement

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession

PIECE: Final = 20_000
"""Decisions held at once: 16 MB with their records."""

SESSION: Final = {"statement_timeout": "120s"}
"""An hour of a million decisions is one statement; the bound of other sessions would cut it off."""

_FRAUD: Final = VERDICT_CODES[Verdict.FRAUD]

_FIRST: Final = "SELECT min(event_time_us) FROM tollgate.predictions WHERE event_time_us >= %s"

# Nothing is recorded long before it happens: the condition on the time of recording excludes no row, and lets the index
# on it leave out all that was recorded before the window.
_DECIDED: Final = """
SELECT event_time_us, record, score, outcome, bundle_digest = %s
FROM tollgate.predictions WHERE event_time_us >= %s AND event_time_us < %s AND recorded_at_us >= %s
"""

_CLUSTERS: Final = """
WITH recent AS MATERIALIZED (
    SELECT customer_id, terminal_id, event_time_us FROM tollgate.transactions
    WHERE event_time_us >= %(start)s AND event_time_us < %(end)s AND recorded_at_us >= %(recorded)s
)
SELECT coalesce(c.n, 0)::bigint, coalesce(c.squares, 0)::bigint, coalesce(t.squares, 0)::bigint
FROM unnest(%(starts)s::bigint[], %(ends)s::bigint[]) WITH ORDINALITY AS w (start_us, end_us, place)
CROSS JOIN LATERAL (
    SELECT sum(n) AS n, sum(n * n) AS squares FROM (
        SELECT count(*) AS n FROM recent r
        WHERE r.event_time_us >= w.start_us AND r.event_time_us < w.end_us GROUP BY r.customer_id
    ) AS each_customer
) AS c
CROSS JOIN LATERAL (
    SELECT sum(n * n) AS squares FROM (
        SELECT count(*) AS n FROM recent r
        WHERE r.event_time_us >= w.start_us AND r.event_time_us < w.end_us GROUP BY r.terminal_id
    ) AS each_terminal
) AS t
ORDER BY w.place
"""

_MATURED: Final = f"""
SELECT p.score, l.verdict, hashtextextended(t.customer_id, 0), hashtextextended(t.terminal_id, 0)
FROM tollgate.predictions p
JOIN tollgate.transactions t ON t.transaction_id = p.transaction_id AND t.event_time_us = p.event_time_us
CROSS JOIN LATERAL (
    SELECT f.verdict FROM tollgate.feedback_labels f
    WHERE f.transaction_id = p.transaction_id AND f.known_at_us <= %(as_of)s
    ORDER BY {STRONGEST_FIRST} LIMIT 1
) AS l
WHERE p.event_time_us >= %(start)s AND p.event_time_us < %(end)s AND p.bundle_digest = %(digest)s
    AND t.event_time_us >= %(start)s AND t.event_time_us < %(end)s
"""  # noqa: S608 - constants

_RECORD: Final = """
INSERT INTO tollgate.drift_metrics (bundle_digest, subject, statistic, value, window_start_us, window_end_us,
    reference_rows, current_rows, details, recorded_at_us)
SELECT %s, given.subject, given.statistic, given.value, given.start_us, given.end_us, given.reference_rows,
    given.current_rows, given.details::jsonb, %s
FROM unnest(%s::text[], %s::text[], %s::float8[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[])
    AS given (subject, statistic, value, start_us, end_us, reference_rows, current_rows, details)
ON CONFLICT (bundle_digest, subject, statistic, window_start_us, window_end_us) DO NOTHING
"""

_LAST: Final = "SELECT max(window_end_us) FROM tollgate.drift_metrics WHERE bundle_digest = %s AND statistic = %s"

_READ: Final = """
SELECT subject, statistic, value, window_start_us, window_end_us, reference_rows, current_rows, details
FROM tollgate.drift_metrics
WHERE bundle_digest = %(digest)s AND window_end_us > %(start)s AND window_end_us <= %(end)s
    AND (statistic IN (%(psi)s, %(verdict)s) OR (subject = %(outcome)s AND statistic = 'alert_rate'))
ORDER BY window_end_us, metric_id
"""

_USUALS: Final = """
SELECT subject, window_end_us, (details ->> 'distance')::float8 - (details ->> 'chance')::float8,
    (details ->> 'level')::float8
FROM tollgate.drift_metrics
WHERE bundle_digest = %(digest)s AND statistic = %(psi)s AND window_end_us - window_start_us = %(width)s
    AND window_end_us >= %(since)s AND window_end_us <= %(end)s - %(day)s AND (%(end)s - window_end_us) %% %(day)s = 0
    AND details -> 'usual' = 'true'::jsonb
ORDER BY window_end_us
"""

_ANNOUNCE: Final = """
INSERT INTO tollgate.announced_changes (subject, start_us, end_us, author, reason, recorded_at_us)
VALUES (%s, %s, %s, %s, %s, %s) RETURNING change_id
"""
_ANNOUNCED: Final = """
SELECT subject, start_us, end_us, author, reason FROM tollgate.announced_changes
WHERE start_us < %s AND end_us > %s ORDER BY start_us, change_id
"""


class PostgresDecidedWindows:
    """Windows of `tollgate.predictions`, with labels and transactions."""

    def __init__(self, session: PostgresSession) -> None:
        """Open nothing yet.

        Args:
            session: With the settings of `SESSION`.
        """
        self._session = session

    def first_us(self, since_us: int) -> int | None:
        """The event time of the first decision. Cost: a scan of the partitions since then."""
        found: int | None = self._session.rows("looking for the first decision", _FIRST, [since_us])[0][0]
        return found

    def decided(self, bundle_digest: str, view: str, width: int, start_us: int, end_us: int) -> Iterator[DecidedRows]:
        """The decisions of a window, `PIECE` at a time over one cursor. Cost: a scan of the window's partition."""
        wanted, n_bytes = view.encode(), width * np.dtype(FEATURE_DTYPE).itemsize
        with (
            translated("reading decisions"),
            self._session.transaction() as connection,
            psycopg.ServerCursor(connection, "drift_decided") as cursor,
        ):
            cursor.execute(_DECIDED, [bundle_digest, start_us, end_us, start_us - FUTURE_TOLERANCE_US], binary=True)
            while rows := cursor.fetchmany(PIECE):
                yield _decided(rows, wanted, n_bytes)

    def clusters(self, windows: Sequence[tuple[int, int]]) -> Sequence[Clusters]:
        """How transactions cluster. Cost: a scan of the partitions of all windows together."""
        starts, ends = [start for start, _ in windows], [end for _, end in windows]
        values: dict[str, object] = {"start": min(starts), "end": max(ends), "starts": starts, "ends": ends}
        values["recorded"] = min(starts) - FUTURE_TOLERANCE_US
        return [Clusters(*row) for row in self._session.rows("counting clusters", _CLUSTERS, values)]

    def matured(self, bundle_digest: str, start_us: int, end_us: int, as_of_us: int) -> MaturedRows:
        """A bundle's decisions whose label is known, read `PIECE` at a time and kept as columns, 25 bytes for each.

        Cost: a scan of the window's partition, a look-up for each.
        """
        values = {"digest": bundle_digest, "start": start_us, "end": end_us, "as_of": as_of_us}
        pieces = [_matured([])]
        with (
            translated("reading matured decisions"),
            self._session.transaction() as connection,
            psycopg.ServerCursor(connection, "drift_matured") as cursor,
        ):
            # All of it is read: the plan is not to be the one that has its first rows soonest.
            connection.execute("SET LOCAL cursor_tuple_fraction = 1")
            cursor.execute(_MATURED, values, binary=True)
            while rows := cursor.fetchmany(PIECE):
                pieces.append(_matured(rows))
        return joined(*pieces)


class PostgresDriftMetrics:
    """Rows of `tollgate.drift_metrics`."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def record(self, bundle_digest: str, metrics: Iterable[DriftMetric], recorded_at_us: int) -> int:
        """Keep numbers in one statement."""
        given = list(metrics)
        columns: list[list[Any]] = [
            [one.subject for one in given],
            [one.statistic for one in given],
            [one.value for one in given],
            [one.start_us for one in given],
            [one.end_us for one in given],
            [one.reference_rows for one in given],
            [one.current_rows for one in given],
            [json.dumps(dict(one.details), allow_nan=False) for one in given],
        ]
        with translated("keeping drift"), self._session.transaction() as connection:
            return connection.execute(_RECORD, [bundle_digest, recorded_at_us, *columns]).rowcount

    def last_end_us(self, bundle_digest: str) -> int | None:
        """The end of the last window with a verdict."""
        found: int | None = self._session.rows("reading the last verdict", _LAST, [bundle_digest, VERDICT])[0][0]
        return found

    def read(self, bundle_digest: str, start_us: int, end_us: int) -> Sequence[DriftMetric]:
        """What windows have that end in a span."""
        values = {
            "digest": bundle_digest,
            "start": start_us,
            "end": end_us,
            "psi": PSI,
            "verdict": VERDICT,
            "outcome": OUTCOME,
        }
        return [DriftMetric(*row) for row in self._session.rows("reading drift", _READ, values)]

    def usuals(self, bundle_digest: str, hours: int, end_us: int, since_us: int) -> Mapping[str, Usual]:
        """What usual windows were like."""
        values = {
            "digest": bundle_digest,
            "psi": PSI,
            "width": hours * US_PER_HOUR,
            "since": since_us,
            "end": end_us,
            "day": US_PER_DAY,
        }
        return usuals(self._session.rows("reading usual windows", _USUALS, values), hours, end_us)


class PostgresAnnouncements:
    """Rows of `tollgate.announced_changes`."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def announce(self, change: Announcement, now_us: int) -> int:
        """Keep one."""
        number: int = self._session.rows("announcing a change", _ANNOUNCE, [*change, now_us])[0][0]
        return number

    def announced(self, start_us: int, end_us: int) -> Sequence[Announcement]:
        """Those that concern a part of a window."""
        return [
            Announcement(*row)
            for row in self._session.rows("reading announced changes", _ANNOUNCED, [end_us, start_us])
        ]


def _matured(rows: Sequence[tuple[Any, ...]]) -> MaturedRows:
    """Rows of the cursor as columns."""
    score, verdict, customer, terminal = zip(*rows, strict=True) if rows else ((), (), (), ())
    return MaturedRows(
        np.array(score, dtype=np.float64),
        np.array(verdict, dtype=np.int64) == _FRAUD,
        np.array(customer, dtype=np.int64),
        np.array(terminal, dtype=np.int64),
    )


def _decided(rows: Sequence[tuple[Any, ...]], view: bytes, n_bytes: int) -> DecidedRows:
    """Rows of the cursor as columns; decisions on another view are left out."""
    kept = [(row, skimmed) for row in rows if (skimmed := skim(row[1])).view == view]
    if any(len(skimmed.vector) != n_bytes for _, skimmed in kept):
        raise BrokenInvariant(f"a vector of {view.decode()} has another length than the bundle says")
    vectors = np.frombuffer(b"".join(skimmed.vector for _, skimmed in kept), dtype=FEATURE_DTYPE)
    return DecidedRows(
        event_time_us=np.array([row[0] for row, _ in kept], dtype=np.int64),
        vectors=vectors.reshape(len(kept), n_bytes // vectors.itemsize),
        raw=np.array([skimmed.raw for _, skimmed in kept], dtype=np.float32),
        score=np.array([row[2] for row, _ in kept], dtype=np.float64),
        outcome=np.array([row[3] for row, _ in kept], dtype=np.int8),
        is_champions=np.array([row[4] for row, _ in kept], dtype=np.bool_),
    )
