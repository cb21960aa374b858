"""Scores of models that do not decide, beside decisions and labels, in Postgres. Used by one thread at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shared.adapters.postgres_errors import translated
from shared.adapters.postgres_ledger_statements import STRONGEST_FIRST, VERDICT_CODES
from shared.domain.labels import Verdict
from shared.domain.transaction import ALLOWED_LATENESS_US, FUTURE_TOLERANCE_US
from shared.ports.shadowing import Look, Pair, PairSelection, Place, ShadowScore, Unscored

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession

# The bound on event times lets the planner pass over partitions. Whoever decides may allow transactions to be older
# than the usual; those are found by the next look that begins at no recorded time.
_MISSING: Final = """
SELECT p.event_time_us, p.transaction_id, p.record
FROM tollgate.predictions p
WHERE p.recorded_at_us >= %(recorded_since)s AND p.event_time_us >= %(since)s
    AND (p.event_time_us, p.transaction_id) > (%(after_us)s, %(after_id)s)
    AND p.bundle_digest IN (SELECT m.bundle_digest FROM tollgate.model_versions m WHERE m.feature_view = %(view)s)
    AND NOT EXISTS (
        SELECT FROM tollgate.shadow_scores s WHERE s.bundle_digest = %(digest)s
            AND s.event_time_us = p.event_time_us AND s.transaction_id = p.transaction_id
    )
ORDER BY p.event_time_us, p.transaction_id
LIMIT %(limit)s
"""

_PUT: Final = """
INSERT INTO tollgate.shadow_scores (bundle_digest, event_time_us, transaction_id, raw, score, recorded_at_us)
SELECT %s, given.event_time_us, given.transaction_id, given.raw, given.score, %s
FROM unnest(%s::int8[], %s::text[], %s::float4[], %s::float8[]) AS given(event_time_us, transaction_id, raw, score)
ON CONFLICT (bundle_digest, event_time_us, transaction_id) DO NOTHING
"""

_PAIRS: Final = f"""
SELECT p.event_time_us, p.transaction_id, p.record, s.score, (
    SELECT f.verdict = %(fraud)s FROM tollgate.feedback_labels f
    WHERE f.transaction_id = p.transaction_id AND f.known_at_us <= %(as_of)s
    ORDER BY {STRONGEST_FIRST} LIMIT 1
)
FROM tollgate.shadow_scores s
JOIN tollgate.predictions p ON p.transaction_id = s.transaction_id AND p.event_time_us = s.event_time_us
WHERE s.bundle_digest = %(digest)s AND s.event_time_us >= %(start)s AND s.event_time_us < %(end)s
    AND (s.event_time_us, s.transaction_id) > (%(after_us)s, %(after_id)s) AND p.bundle_digest = %(champion)s
    AND p.event_time_us >= %(start)s AND p.event_time_us < %(end)s
ORDER BY s.event_time_us, s.transaction_id
LIMIT %(limit)s
"""  # noqa: S608 - constants


class PostgresShadowScores:
    """Rows of `tollgate.shadow_scores`, and reads `tollgate.predictions` beside `tollgate.feedback_labels`."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def missing(self, look: Look, after: Place, limit: int) -> Sequence[Unscored]:
        """The next decisions without a score. Cost: a scan of the partitions that the look leaves."""
        recent_us = look.recorded_since_us - ALLOWED_LATENESS_US - FUTURE_TOLERANCE_US
        values = {
            "digest": look.bundle_digest,
            "view": look.view,
            "since": max(look.since_us, recent_us, after.event_time_us),
            "recorded_since": look.recorded_since_us,
            "after_us": after.event_time_us,
            "after_id": after.transaction_id,
            "limit": limit,
        }
        with translated("looking for decisions without a score"), self._session.transaction() as connection:
            rows = connection.execute(_MISSING, values, binary=True)
            return [Unscored(Place(time_us, name), bytes(record)) for time_us, name, record in rows]

    def put(self, bundle_digest: str, scores: Sequence[ShadowScore], recorded_at_us: int) -> int:
        """Keep scores. Cost: one round trip."""
        values = [
            bundle_digest,
            recorded_at_us,
            [score.place.event_time_us for score in scores],
            [score.place.transaction_id for score in scores],
            [score.raw for score in scores],
            [score.probability for score in scores],
        ]
        with translated("keeping scores"), self._session.transaction() as connection:
            return connection.execute(_PUT, values).rowcount

    def pairs(self, selection: PairSelection, after: Place, limit: int) -> Sequence[Pair]:
        """The next decisions beside the other model's scores."""
        values = {
            "digest": selection.bundle_digest,
            "champion": selection.champion,
            "start": selection.start_us,
            "end": selection.end_us,
            "as_of": selection.as_of_us,
            "fraud": VERDICT_CODES[Verdict.FRAUD],
            "after_us": after.event_time_us,
            "after_id": after.transaction_id,
            "limit": limit,
        }
        with translated("reading scores"), self._session.transaction() as connection:
            rows = connection.execute(_PAIRS, values, binary=True)
            return [
                Pair(Place(time_us, name), bytes(record), score, is_fraud)
                for time_us, name, record, score, is_fraud in rows
            ]
