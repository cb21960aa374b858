"""The log in Postgres, as who seals it sees it: the writers' heads, and copies of the seals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from shared.domain.archive import StoredSeal
from shared.domain.canonical import Digest, digest_of
from shared.domain.log_block import Head
from shared.domain.seal import read_seal

if TYPE_CHECKING:
    from shared.adapters.postgres import PostgresConnection

_HEADS: Final = """
SELECT last.writer, last.sequence, last.hash
FROM (SELECT DISTINCT writer FROM tollgate.log_blocks WHERE recorded_at_us >= %s) AS recent
CROSS JOIN LATERAL (
    SELECT b.writer, b.sequence, b.hash FROM tollgate.log_blocks b
    WHERE b.writer = recent.writer ORDER BY b.sequence DESC LIMIT 1
) AS last
ORDER BY last.writer
"""

_LAST: Final = "SELECT seal_id, heads FROM tollgate.log_seals ORDER BY seal_id DESC LIMIT 1"
_RECENT: Final = "SELECT seal_id, heads FROM tollgate.log_seals WHERE sealed_at_us >= %s ORDER BY seal_id"
_MIRROR: Final = """
INSERT INTO tollgate.log_seals (seal_id, sealed_at_us, previous, hash, heads) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (seal_id) DO NOTHING
"""

_FIRST_US: Final = -(1 << 63)


class PostgresSealedLedger:
    """Reads and writes over a connection that is opened for each call: once a minute is not worth keeping one."""

    def __init__(self, where: PostgresConnection, application_name: str) -> None:
        self._where = where
        self._application_name = application_name

    def heads(self, since_us: int | None) -> Sequence[Head]:
        """The last block of each writer that recorded one since then."""
        found = self._all(_HEADS, [_FIRST_US if since_us is None else since_us])
        return [Head(writer, sequence, Digest(hashed)) for writer, sequence, hashed in found]

    def last_seal(self) -> StoredSeal | None:
        """The copy of the last seal."""
        found = self._all(_LAST, [])
        return StoredSeal(*found[0]) if found else None

    def recent_seals(self, since_us: int) -> Sequence[StoredSeal]:
        """The copies of the seals that were made since then."""
        return [StoredSeal(*row) for row in self._all(_RECENT, [since_us])]

    def mirror(self, seal: StoredSeal) -> None:
        """Keep a copy of a seal, unless there is one."""
        read = read_seal(seal.data)
        values = [seal.number, read.sealed_at_us, read.previous, digest_of(seal.data), seal.data]
        self._all(_MIRROR, values)

    def _all(self, statement: str, parameters: list[object]) -> list[tuple[Any, ...]]:
        from shared.adapters.postgres import connect  # noqa: PLC0415 - the driver is paid by those who connect
        from shared.adapters.postgres_errors import translated  # noqa: PLC0415

        with (
            translated("sealing the log"),
            connect(self._where, application_name=self._application_name, autocommit=True) as connection,
        ):
            cursor = connection.execute(statement, parameters, binary=True)
            return cursor.fetchall() if cursor.description else []
