"""The outbox in Postgres: decisions wait in the table into which deciding wrote them, and leave through one drainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from shared.adapters.postgres_errors import translated
from shared.domain.ledger import OutboxEntry

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession

LOCK: Final = 0x746F6C6C676F7574
"""Key of the advisory lock of the one who drains ("tollgout" in ASCII)."""

_OLDEST: Final = """
SELECT o.outbox_id, p.record
FROM tollgate.outbox o
JOIN tollgate.predictions p ON p.transaction_id = o.transaction_id AND p.event_time_us = o.event_time_us
ORDER BY o.outbox_id LIMIT %s
"""


class PostgresOutbox:
    """Drains `tollgate.outbox`; used by one thread at a time.

    The ids of one customer's decisions rise in the order of their commits, because each is drawn while the customer's
    row is locked. Between customers a smaller id may become visible after a larger one; it is sent with the next batch.
    """

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def drain(self, limit: int, send: Callable[[Sequence[OutboxEntry]], None]) -> int:
        """Send the oldest entries under the lock, remove them, and commit; no table is locked while they are sent."""
        with translated("draining the outbox"), self._session.transaction() as connection:
            held = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK]).fetchone()
            if held is None or not held[0]:
                return 0
            # Rolled back to the savepoint, so that nothing is locked that a migration wants while the stream is slow.
            with connection.transaction(force_rollback=True):
                entries = [OutboxEntry(*row) for row in connection.execute(_OLDEST, [limit], binary=True)]
            if entries:
                send(entries)
                connection.execute(
                    "DELETE FROM tollgate.outbox WHERE outbox_id = ANY(%s)", [[entry.outbox_id for entry in entries]]
                )
        return len(entries)
