"""Dead letters in Postgres, the authority; a copy may go elsewhere as well (design decision 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.postgres_errors import translated
from shared.domain.dead_letter import MAX_PAGE, KeptLetter, LetterId, LetterSelection
from shared.domain.event import DeadLetter

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession

_INSERT: Final = """
INSERT INTO tollgate.dead_letters
    (source, partition_id, event_offset, reason, field, rule, body, received_at_us)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (source, partition_id, event_offset) DO NOTHING
"""

_COLUMNS: Final = """
dead_letter_id, source, partition_id, event_offset, coalesce(field, ''), coalesce(rule, reason), octet_length(body),
    received_at_us, replayed_at_us
"""

_PAGE: Final = f"""
SELECT {_COLUMNS} FROM tollgate.dead_letters
WHERE dead_letter_id > %(after)s
    AND (%(reason)s::text IS NULL OR position(%(reason)s::text in reason) > 0)
    AND (%(hub)s::text IS NULL OR source = %(hub)s::text)
    AND (%(since)s::int8 IS NULL OR received_at_us >= %(since)s::int8)
    AND (%(until)s::int8 IS NULL OR received_at_us < %(until)s::int8)
    AND (NOT %(waiting_only)s OR replayed_at_us IS NULL)
ORDER BY dead_letter_id LIMIT %(limit)s
"""  # noqa: S608 - made of constants

_FIND: Final = f"SELECT {_COLUMNS}, body FROM tollgate.dead_letters WHERE dead_letter_id = %s"  # noqa: S608

_MARK: Final = """
UPDATE tollgate.dead_letters SET replayed_at_us = %s WHERE dead_letter_id = %s AND replayed_at_us IS NULL
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

    def page(self, selection: LetterSelection, after: LetterId, limit: int) -> Sequence[KeptLetter]:
        """The next letters of a selection by number; bodies stay in the database."""
        values = {
            "after": after,
            "reason": selection.reason,
            "hub": selection.hub,
            "since": selection.since_us,
            "until": selection.until_us,
            "waiting_only": selection.waiting_only,
            "limit": min(limit, MAX_PAGE),
        }
        with translated("listing dead letters"), self._session.transaction() as connection:
            return [_letter(row) for row in connection.execute(_PAGE, values)]

    def find(self, letter_id: LetterId) -> tuple[KeptLetter, bytes] | None:
        """A letter and its body as it came."""
        with translated("reading a dead letter"), self._session.transaction() as connection:
            row = connection.execute(_FIND, [letter_id]).fetchone()
        return None if row is None else (_letter(row[:-1]), bytes(row[-1]))

    def mark_replayed(self, letter_id: LetterId, replayed_at_us: int) -> bool:
        """Note that a letter was taken after all."""
        with translated("marking a dead letter"), self._session.transaction() as connection:
            return connection.execute(_MARK, [replayed_at_us, letter_id]).rowcount == 1


def _letter(row: Sequence[Any]) -> KeptLetter:
    letter_id, hub, partition, place, field, rule, size, recorded_at_us, replayed_at_us = row
    offset, _, enqueued = place.rpartition("@")
    return KeptLetter(
        LetterId(letter_id), hub, partition, offset, int(enqueued), field, rule, size, recorded_at_us, replayed_at_us
    )
