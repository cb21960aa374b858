"""What arrived, and what checks said of it, in Postgres; used by one thread at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from psycopg.types.json import Jsonb

from shared.adapters.postgres_errors import translated
from shared.domain.data_quality import (
    LARGE_AMOUNT_MINOR,
    LATE_US,
    OLD_LABEL_US,
    FeedFacts,
    Rule,
    RuleCheck,
    letter_kind,
)
from shared.domain.labels import PRECEDENCE, LabelSource

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession

# Imported history has no decision; its rows were all recorded in the hour of the import and say nothing of the feed.
_TRANSACTIONS: Final = """
WITH arrived AS MATERIALIZED (
    SELECT t.customer_id, t.terminal_id, t.amount_minor, t.event_time_us, t.recorded_at_us, t.customer_version,
        t.terminal_version
    FROM tollgate.transactions t
    WHERE t.recorded_at_us >= %(start)s AND t.recorded_at_us < %(end)s AND EXISTS (
        SELECT FROM tollgate.predictions p
        WHERE p.transaction_id = t.transaction_id AND p.event_time_us = t.event_time_us
    )
)
SELECT count(*),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY amount_minor),
    coalesce((SELECT max(times) FROM (SELECT count(*) AS times FROM arrived GROUP BY amount_minor) AS by_amount), 0),
    count(*) FILTER (WHERE amount_minor >= %(large)s),
    count(*) - count(DISTINCT (customer_id, terminal_id, amount_minor, event_time_us)),
    count(*) FILTER (WHERE recorded_at_us - event_time_us >= %(late)s),
    count(*) FILTER (WHERE event_time_us > recorded_at_us),
    count(*) FILTER (WHERE customer_version = 1),
    count(*) FILTER (WHERE terminal_version = 1)
FROM arrived
"""
_LETTERS: Final = """
SELECT coalesce(field, ''), coalesce(rule, reason), count(*) FROM tollgate.dead_letters
WHERE received_at_us >= %(start)s AND received_at_us < %(end)s
GROUP BY 1, 2
"""
_LABELS: Final = """
SELECT count(*), count(*) FILTER (WHERE recorded_at_us - known_at_us >= %(old)s) FROM tollgate.feedback_labels
WHERE recorded_at_us >= %(start)s AND recorded_at_us < %(end)s AND source <> ALL (%(silent)s::smallint[])
"""
_ANNOUNCED: Final = """
SELECT EXISTS (
    SELECT FROM tollgate.announced_changes
    WHERE subject IN (%s, '*') AND start_us < %s AND end_us > %s
)
"""
_RECORD: Final = """
INSERT INTO tollgate.data_quality_log
    (source, rule, passed, observed, window_start_us, window_end_us, details, recorded_at_us)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (source, rule, window_start_us, window_end_us) DO NOTHING
"""
_LAST: Final = """
SELECT max(window_end_us) FROM tollgate.data_quality_log
WHERE source = %s AND rule = %s AND window_end_us <= %s
"""
_OBSERVED: Final = """
SELECT q.rule, q.window_start_us, q.observed
FROM unnest(%s::text[], %s::text[]) AS given (source, rule)
JOIN tollgate.data_quality_log q ON q.source = given.source AND q.rule = given.rule
WHERE q.window_start_us >= %s AND q.window_start_us < %s AND q.observed IS NOT NULL
"""
_FAILURES: Final = """
SELECT source, rule, observed, window_start_us, window_end_us, details FROM tollgate.data_quality_log
WHERE NOT passed AND window_start_us < %s AND window_end_us > %s
ORDER BY window_start_us, rule
"""

_SILENT: Final = [PRECEDENCE.index(LabelSource.MATURITY), PRECEDENCE.index(LabelSource.IMPORT)]


class PostgresFeedWindows:
    """Counts in `transactions`, `dead_letters` and `feedback_labels`, by when rows were recorded."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def facts(self, start_us: int, end_us: int) -> FeedFacts:
        """What was recorded in a window."""
        span = {
            "start": start_us,
            "end": end_us,
            "large": LARGE_AMOUNT_MINOR,
            "late": LATE_US,
            "old": OLD_LABEL_US,
            "silent": _SILENT,
        }
        with translated("reading what arrived"), self._session.transaction() as connection:
            counts = _first(connection.execute(_TRANSACTIONS, span).fetchone())
            letters: Counter[Any] = Counter()
            for field, rule, count in connection.execute(_LETTERS, span):
                letters[letter_kind(field, rule)] += count
            labels = _first(connection.execute(_LABELS, span).fetchone())
        return FeedFacts(
            start_us=start_us,
            end_us=end_us,
            transactions=counts[0],
            median_amount_minor=counts[1],
            most_frequent_amount=counts[2],
            large_amounts=counts[3],
            copies=counts[4],
            late=counts[5],
            ahead=counts[6],
            new_customers=counts[7],
            new_terminals=counts[8],
            letters=dict(letters),
            labels=labels[0],
            old_labels=labels[1],
        )

    def announced(self, subject: str, start_us: int, end_us: int) -> bool:
        """Whether a change was announced for a part of the window."""
        with translated("reading announced changes"), self._session.transaction() as connection:
            return bool(_first(connection.execute(_ANNOUNCED, [subject, end_us, start_us]).fetchone())[0])


class PostgresQualityLog:
    """Rows of `tollgate.data_quality_log`, one for each rule and window."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def record(self, checks: Sequence[RuleCheck], recorded_at_us: int) -> int:
        """Keep results, all or none; one that is there stays."""
        new = 0
        with translated("keeping results of checks"), self._session.transaction() as connection:
            for check in checks:
                details = {**check.details, "words": check.words, "breaks": check.breaks}
                values = [
                    check.source,
                    check.rule,
                    check.passed,
                    check.observed,
                    check.start_us,
                    check.end_us,
                    Jsonb(details),
                    recorded_at_us,
                ]
                new += connection.execute(_RECORD, values).rowcount
        return new

    def last_end_us(self, rule: Rule, until_us: int) -> int | None:
        """The end of the last window that was checked by a rule."""
        with translated("reading results of checks"), self._session.transaction() as connection:
            row = connection.execute(_LAST, [rule.source, rule.name, until_us]).fetchone()
        last_us: int | None = _first(row)[0]
        return last_us

    def observed(self, rules: Sequence[Rule], since_us: int, until_us: int) -> Mapping[str, Mapping[int, float]]:
        """What rules observed in windows that began in a span."""
        values = [[rule.source for rule in rules], [rule.name for rule in rules], since_us, until_us]
        found: dict[str, dict[int, float]] = {rule.name: {} for rule in rules}
        with translated("reading results of checks"), self._session.transaction() as connection:
            for rule, start_us, observed in connection.execute(_OBSERVED, values):
                found[rule][start_us] = observed
        return found

    def failures(self, start_us: int, end_us: int) -> Sequence[RuleCheck]:
        """The failed checks of windows that overlap a span."""
        with translated("reading results of checks"), self._session.transaction() as connection:
            rows = connection.execute(_FAILURES, [end_us, start_us]).fetchall()
        return [_failed(row) for row in rows]


def _failed(row: tuple[Any, ...]) -> RuleCheck:
    source, rule, observed, start_us, end_us, details = row
    words, breaks = details.pop("words"), details.pop("breaks")
    return RuleCheck(source, rule, False, observed, start_us, end_us, breaks, words, details)


def _first(row: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """The one row that an aggregate always gives."""
    return row or (None,)
