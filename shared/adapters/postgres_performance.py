"""Decisions with what became known of them, and the figures that are kept, in Postgres; for one thread at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shared.adapters.postgres_errors import translated
from shared.adapters.postgres_ledger_statements import STRONGEST_FIRST, VERDICT_CODES
from shared.domain.labels import Verdict
from shared.domain.performance import NO_DECISION, LabelledRows, Measured, Metric
from shared.ports.performance import KeptFigure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shared.adapters.postgres_session import PostgresSession

# Of several labels the strongest holds; any of them makes a transaction a known one.
_ROWS: Final = """
SELECT {digest}, p.event_time_us, t.customer_id, t.amount_minor, {outcome}, {score}, t.customer_version - 1,
    l.verdict, coalesce(l.first_known_us <= p.recorded_at_us, false)
FROM tollgate.predictions p
JOIN tollgate.transactions t ON t.transaction_id = p.transaction_id AND t.event_time_us = p.event_time_us
    AND t.event_time_us >= %(start)s AND t.event_time_us < %(end)s
{shadow}
LEFT JOIN LATERAL (
    SELECT f.verdict, min(f.known_at_us) OVER () AS first_known_us FROM tollgate.feedback_labels f
    WHERE f.transaction_id = p.transaction_id
    ORDER BY {strongest} LIMIT 1
) l ON true
WHERE p.event_time_us >= %(start)s AND p.event_time_us < %(end)s
"""
_DECIDED: Final = _ROWS.format(
    digest="p.bundle_digest", outcome="p.outcome", score="p.score", shadow="", strongest=STRONGEST_FIRST
)
_IN_SHADOW: Final = _ROWS.format(
    digest="s.bundle_digest",
    outcome=str(NO_DECISION),
    score="s.score",
    shadow="JOIN tollgate.shadow_scores s ON s.event_time_us = p.event_time_us AND s.transaction_id = p.transaction_id",
    strongest=STRONGEST_FIRST,
)
_RECORD: Final = """
INSERT INTO tollgate.performance_metrics (bundle_digest, segment, metric, value, low, high, note, n_rows, n_frauds,
    window_start_us, window_end_us, recorded_at_us)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (bundle_digest, segment, metric, window_start_us, window_end_us) DO NOTHING
"""
_LAST: Final = "SELECT max(window_end_us) FROM tollgate.performance_metrics"
_TREND: Final = """
SELECT bundle_digest, window_start_us, window_end_us, segment, metric, value, low, high, n_rows, n_frauds, note
FROM tollgate.performance_metrics
WHERE segment = %(segment)s AND window_end_us >= %(since)s
    AND (%(digest)s::text IS NULL OR bundle_digest = %(digest)s::text)
ORDER BY window_end_us, window_start_us, bundle_digest, metric
"""

_CHUNK: Final = 50_000
_FRAUD: Final = VERDICT_CODES[Verdict.FRAUD]

_TYPES: Final[Mapping[str, Any]] = {
    "event_time_us": np.int64,
    "customer": np.int64,
    "amount_minor": np.int64,
    "outcome": np.int8,
    "score": np.float64,
    "events_known": np.int64,
    "is_labelled": np.bool_,
    "is_fraud": np.bool_,
    "known_first": np.bool_,
}


class PostgresLabelledWindows:
    """Reads `predictions` beside `transactions`, `feedback_labels` and `shadow_scores`, in one pass of chunks."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def decided(self, start_us: int, end_us: int) -> Mapping[str, LabelledRows]:
        """Decisions of a window by the model that decided."""
        return self._rows(_DECIDED, start_us, end_us)

    def in_shadow(self, start_us: int, end_us: int) -> Mapping[str, LabelledRows]:
        """The same transactions by the models that scored them in shadow."""
        return self._rows(_IN_SHADOW, start_us, end_us)

    def _rows(self, statement: str, start_us: int, end_us: int) -> Mapping[str, LabelledRows]:
        numbers: dict[str, int] = {}
        parts: dict[str, list[LabelledRows]] = {}
        with (
            translated("reading decisions and their labels"),
            self._session.transaction() as connection,
            connection.cursor(name="performance") as cursor,
        ):
            cursor.execute(statement.encode(), {"start": start_us, "end": end_us})
            while chunk := cursor.fetchmany(_CHUNK):
                for digest, rows in _by_model(chunk, numbers).items():
                    parts.setdefault(digest, []).append(rows)
        return {digest: _joined(found) for digest, found in parts.items()}


class PostgresPerformanceLog:
    """Rows of `tollgate.performance_metrics`."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def record(self, figures: Sequence[KeptFigure], recorded_at_us: int) -> int:
        """Keep figures, all or none; returns how many are new."""
        new = 0
        with translated("keeping figures of performance"), self._session.transaction() as connection:
            for digest, start_us, end_us, one in figures:
                values = [
                    digest,
                    one.segment,
                    one.metric,
                    one.value,
                    one.low,
                    one.high,
                    one.note,
                    one.n_rows,
                    one.n_frauds,
                    start_us,
                    end_us,
                    recorded_at_us,
                ]
                new += connection.execute(_RECORD, values).rowcount
        return new

    def last_end_us(self) -> int | None:
        """The end of the last window of which anything is kept."""
        with translated("reading figures of performance"), self._session.transaction() as connection:
            row = connection.execute(_LAST).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def trend(self, segment: str, since_us: int, bundle_digest: str | None = None) -> Sequence[KeptFigure]:
        """The figures of a segment, oldest first."""
        values = {"segment": segment, "since": since_us, "digest": bundle_digest}
        with translated("reading figures of performance"), self._session.transaction() as connection:
            rows = connection.execute(_TREND, values).fetchall()
        return [
            KeptFigure(digest, start_us, end_us, Measured(name, Metric(metric), *figures))
            for digest, start_us, end_us, name, metric, *figures in rows
        ]


def _by_model(chunk: Sequence[tuple[Any, ...]], numbers: dict[str, int]) -> dict[str, LabelledRows]:
    """Rows of the statement as columns; `numbers` gives customers their numbers, whatever the chunk."""
    digests, time_us, customers, amounts, outcomes, scores, events, verdicts, known_first = zip(*chunk, strict=True)
    whole = LabelledRows(
        event_time_us=_column("event_time_us", time_us),
        customer=_column("customer", [numbers.setdefault(name, len(numbers)) for name in customers]),
        amount_minor=_column("amount_minor", amounts),
        outcome=_column("outcome", outcomes),
        score=_column("score", scores),
        events_known=_column("events_known", events),
        is_labelled=_column("is_labelled", [verdict is not None for verdict in verdicts]),
        is_fraud=_column("is_fraud", [verdict == _FRAUD for verdict in verdicts]),
        known_first=_column("known_first", known_first),
    )
    names, code = np.unique(np.array(digests), return_inverse=True)
    return {str(name): whole.take(code == place) for place, name in enumerate(names)}


def _column(name: str, values: Sequence[Any]) -> NDArray[Any]:
    return np.array(values, dtype=_TYPES[name])


def _joined(parts: Sequence[LabelledRows]) -> LabelledRows:
    return LabelledRows(
        **{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(LabelledRows)}
    )
