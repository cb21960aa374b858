"""Dead letters in Postgres, the authority; a copy may go elsewhere as well (design decision 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.adapters.postgres_errors import translated
from shared.domain.event import DeadLetter

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession

_INSERT: Final = """
INSERT INTO tollgate.dead_letters
    (source, partition_id, event_offset, reason, field, rule, body, received_at_us)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (source, partition_id, event_offset) DO NOTHING
"""


class PostgresDeadLetters:
    """Rows of `tollgate.dead_letters`, one per event however often it is delivered; used by one thread at a time.

    `event_offset` is the offset, an at sign, and when the stream accepted the event, microseconds since 1970 UTC: a hub
    that was made anew counts from zero again, and its letters are not those of the old one.
    """

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def put(self, letter: DeadLetter) -> None:
        """Keep a dead letter with its body as it came."""
        event = letter.event
        values = (
            event.hub,
            event.partition,
            f"{event.offset}@{event.enqueued_at_us}",
            f"{letter.field or 'the input'} {letter.rule}",
            letter.field,
            letter.rule,
            event.body,
            letter.recorded_at_us,
        )
        with translated("writing a dead letter"), self._session.transaction() as connection:
            connection.execute(_INSERT, values)
