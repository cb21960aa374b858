"""Partitions in Postgres, made by a function that runs with its owner's rights: no app may create tables itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.services.partitioning import Span, pieces

if TYPE_CHECKING:
    from shared.adapters.postgres import PostgresConnection

_MAKE: Final = "SELECT tollgate.make_partitions(%s, %s)"


class PostgresPartitions:
    """Makes partitions over a connection that is opened for each call: once a day is not worth keeping one."""

    def __init__(self, where: PostgresConnection, application_name: str) -> None:
        self._where = where
        self._application_name = application_name

    def make(self, start_us: int, end_us: int) -> int:
        """Make the partitions that are missing for event times of a span, its end not included; returns how many.

        Idempotent, also when several do it at once; takes no lock that deciding waits for.

        Raises:
            InvalidInput: The span is empty, or not between 1970 and 9999.
            Transient: The database cannot do it now.
            BrokenInvariant: The function or the right to call it is missing.
        """
        from shared.adapters.postgres import connect  # noqa: PLC0415 - the driver is paid by those who connect
        from shared.adapters.postgres_errors import translated  # noqa: PLC0415

        made = 0
        parts = pieces(Span(start_us, end_us))
        with (
            translated("making partitions"),
            connect(self._where, application_name=self._application_name, autocommit=True) as connection,
        ):
            for part in parts:
                row = connection.execute(_MAKE, part).fetchone()
                made += int(row[0]) if row else 0
        return made
