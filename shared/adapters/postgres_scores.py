"""What a model said of the transactions that were decided, from Postgres; for one thread at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from shared.adapters.postgres_errors import translated
from shared.ports.scores import ScoredTransactions

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession

SESSION: Final = {"statement_timeout": "120s"}
"""For this session: a month is read in one statement."""

_CHUNK: Final = 20_000

_SCORED: Final = b"""
SELECT p.event_time_us, t.amount_minor, CASE WHEN p.bundle_digest = %(digest)s THEN p.score ELSE s.score END
FROM tollgate.predictions p
JOIN tollgate.transactions t ON t.transaction_id = p.transaction_id AND t.event_time_us = p.event_time_us
    AND t.event_time_us >= %(start)s AND t.event_time_us < %(end)s
LEFT JOIN tollgate.shadow_scores s ON s.bundle_digest = %(digest)s AND s.event_time_us = p.event_time_us
    AND s.transaction_id = p.transaction_id
WHERE p.event_time_us >= %(start)s AND p.event_time_us < %(end)s
"""


class PostgresModelScores:
    """Reads `predictions` beside `transactions` and `shadow_scores`, in one pass of chunks."""

    def __init__(self, session: PostgresSession) -> None:
        """Read nothing yet; the session should have `SESSION`."""
        self._session = session

    def scored(self, bundle_digest: str, start_us: int, end_us: int) -> ScoredTransactions:
        """All decided transactions of a window. Cost: a scan of its partitions; 24 bytes per transaction stay."""
        chunks = [np.empty((0, 3), dtype=np.float64)]
        with (
            translated("reading a model's scores"),
            self._session.transaction() as connection,
            connection.cursor(name="scores") as cursor,
        ):
            cursor.execute(_SCORED, {"digest": bundle_digest, "start": start_us, "end": end_us}, binary=True)
            while rows := cursor.fetchmany(_CHUNK):
                # Times and amounts are whole numbers below 2**53, so nothing is lost; a missing score becomes NaN.
                chunks.append(np.array(rows, dtype=np.float64))
        time_us, amount_minor, probability = np.concatenate(chunks).T
        return ScoredTransactions(time_us.astype(np.int64), amount_minor.astype(np.int64), probability.copy())
