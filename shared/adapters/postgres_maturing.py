"""Approved transactions without a label, from decisions and labels in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shared.adapters.postgres_errors import translated
from shared.domain.decision import STRICTNESS, Outcome
from shared.domain.transaction import FUTURE_TOLERANCE_US
from shared.ports.maturing import Silent

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession

SESSION: Final = {"statement_timeout": "90s"}
"""The first look at a table of years may take longer than a statement of the deciding path; the sum of `BUDGET_S` of
`services.maturing` and of this stays well below what the host gives a firing."""

_FIRST: Final = "SELECT min(recorded_at_us) FROM tollgate.predictions"

# No decision is about an event time later than the tolerance allows, so partitions after that are not looked at.
_SILENT: Final = """
SELECT p.transaction_id, p.event_time_us
FROM tollgate.predictions p
WHERE p.recorded_at_us >= %(start)s AND p.recorded_at_us < %(end)s AND p.event_time_us < %(end)s + %(tolerance)s
    AND p.outcome = %(approve)s
    AND NOT EXISTS (SELECT FROM tollgate.feedback_labels l WHERE l.transaction_id = p.transaction_id)
ORDER BY p.recorded_at_us, p.transaction_id
LIMIT %(limit)s
"""


class PostgresSilentTransactions:
    """Reads `tollgate.predictions` beside `tollgate.feedback_labels`; used by one thread at a time."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def first_us(self) -> int | None:
        """When the first decision that is kept was recorded."""
        with translated("looking for the first decision"), self._session.transaction() as connection:
            row = connection.execute(_FIRST).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def recorded(self, start_us: int, end_us: int, limit: int) -> Sequence[Silent]:
        """Approved transactions whose decision was recorded in a span and that have no label."""
        values = {
            "start": start_us,
            "end": end_us,
            "tolerance": FUTURE_TOLERANCE_US,
            "approve": STRICTNESS.index(Outcome.APPROVE),
            "limit": limit,
        }
        with translated("looking for transactions without a label"), self._session.transaction() as connection:
            return [Silent(*row) for row in connection.execute(_SILENT, values)]
