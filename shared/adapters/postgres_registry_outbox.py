"""Records that wait for the model registry, in Postgres; used by one thread at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from psycopg.types.json import Jsonb

from shared.adapters.postgres_errors import translated
from shared.domain.registry import RegistryRecord, record_key, write_record
from shared.ports.registry import WaitingRecord

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession
    from shared.ports.clock import Clock

_ENQUEUE: Final = """
INSERT INTO tollgate.registry_outbox (run_id, record, created_at_us, next_at_us)
VALUES (%(key)s, %(record)s, %(now)s, %(now)s)
ON CONFLICT (run_id) DO NOTHING
"""
_DUE: Final = """
SELECT entry_id, record, attempts FROM tollgate.registry_outbox WHERE next_at_us <= %s ORDER BY entry_id LIMIT %s
"""
_SETTLE: Final = "DELETE FROM tollgate.registry_outbox WHERE entry_id = %s"
_PUT_OFF: Final = """
UPDATE tollgate.registry_outbox SET attempts = attempts + 1, next_at_us = %s, error = %s WHERE entry_id = %s
"""
_COUNT: Final = "SELECT count(*) FROM tollgate.registry_outbox"


class PostgresRunRecords:
    """Rows of `tollgate.registry_outbox`."""

    def __init__(self, session: PostgresSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    def enqueue(self, record: RegistryRecord) -> bool:
        """Leave a record. Cost: one statement."""
        values = {
            "key": record_key(record),
            "record": Jsonb(dict(write_record(record))),
            "now": self._clock.now_us(),
        }
        with translated("queueing a record"), self._session.transaction() as connection:
            return connection.execute(_ENQUEUE, values).rowcount == 1

    def due(self, now_us: int, limit: int) -> Sequence[WaitingRecord]:
        """Records whose time has come. Cost: one statement, which looks at the whole queue."""
        with translated("reading queued records"), self._session.transaction() as connection:
            rows: list[tuple[Any, ...]] = connection.execute(_DUE, [now_us, limit]).fetchall()
        return [WaitingRecord(*row) for row in rows]

    def settle(self, number: int) -> None:
        """Delete a record."""
        with translated("settling a record"), self._session.transaction() as connection:
            connection.execute(_SETTLE, [number])

    def put_off(self, number: int, next_at_us: int, error: str) -> None:
        """Count an attempt, and say why it failed."""
        with translated("putting a record off"), self._session.transaction() as connection:
            connection.execute(_PUT_OFF, [next_at_us, error, number])

    def count(self) -> int:
        """How many wait."""
        with translated("counting records"), self._session.transaction() as connection:
            (count,) = connection.execute(_COUNT).fetchone() or (0,)
        return int(count)


class NoRunRecords:
    """The queue of an installation without a registry: nothing is kept."""

    def enqueue(self, record: RegistryRecord) -> bool:
        """Keep nothing."""
        del record
        return False
