"""Stored decisions, looked up by the id of their transaction: one connection for whoever asks, one after the other."""

from __future__ import annotations

import threading
from typing import Final

from shared.adapters.postgres import PostgresConnection
from shared.adapters.postgres_session import PostgresSession
from shared.domain.identifiers import TransactionId

# By way of the id's event time, so that only one partition is looked into.
_FIND: Final = """
SELECT predictions.record FROM tollgate.transaction_ids AS ids
JOIN tollgate.predictions ON predictions.transaction_id = ids.transaction_id
    AND predictions.event_time_us = ids.event_time_us
WHERE ids.transaction_id = %s
"""


class PostgresDecisions:
    """Decisions in Postgres; safe to use from several threads."""

    def __init__(self, where: PostgresConnection, application_name: str) -> None:
        """Connect nothing yet."""
        self._session = PostgresSession(where, application_name)
        self._lock = threading.Lock()

    def find(self, transaction_id: TransactionId) -> bytes | None:
        """Canonical bytes of a decision; None if there is none.

        Raises:
            Transient: The database cannot be reached now.
        """
        with self._lock:
            rows = self._session.rows("looking a decision up", _FIND, [transaction_id])
        return bytes(rows[0][0]) if rows else None
