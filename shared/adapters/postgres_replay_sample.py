"""Decisions drawn from those recorded lately, in Postgres. Used by one thread at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shared.adapters.postgres_errors import translated
from shared.domain.transaction import ALLOWED_LATENESS_US, FUTURE_TOLERANCE_US
from shared.ports.archive import SampledDecision

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession

# The bounds on event times leave two or three partitions, each with a BRIN index on the recorded time. A table is not
# sampled by its pages (TABLESAMPLE): that draws from all of it, and decisions that lie together were made together.
_DRAW: Final = """
SELECT p.transaction_id, p.record
FROM tollgate.predictions p
WHERE p.recorded_at_us >= %(since)s AND p.recorded_at_us < %(until)s
    AND p.event_time_us >= %(earliest)s AND p.event_time_us <= %(latest)s
ORDER BY hashtextextended(p.transaction_id, %(seed)s), p.transaction_id
LIMIT %(limit)s
"""


class PostgresReplaySample:
    """Reads `tollgate.predictions`."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def draw(self, since_us: int, until_us: int, *, seed: int, limit: int) -> Sequence[SampledDecision]:
        """Draw decisions by a hash of their ids."""
        values = {
            "since": since_us,
            "until": until_us,
            "earliest": since_us - ALLOWED_LATENESS_US,
            "latest": until_us + FUTURE_TOLERANCE_US,
            "seed": seed,
            "limit": limit,
        }
        with translated("drawing decisions"), self._session.transaction() as connection:
            rows = connection.execute(_DRAW, values, binary=True)
            return [SampledDecision(name, bytes(record)) for name, record in rows]
