"""Two ways to send a round of statements to Postgres and wait once for all their answers.

`PsycopgWire` uses psycopg's public interface; `LibpqWire`, in `postgres_wire_libpq`, speaks to libpq itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final, Protocol

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.array import ListBinaryDumper
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.types.string import StrBinaryDumper

from shared.adapters.postgres_errors import is_stale
from shared.adapters.postgres_ledger_statements import ROLLBACK, Statement
from shared.adapters.postgres_session import Connection, PostgresSession

type Step = tuple[Statement, Sequence[Any]]
"""A statement and its parameters: one sequence for each array, one value for each scalar."""

type Row = tuple[Any, ...]


class Wire(Protocol):
    """Sends rounds over one session."""

    @property
    def session(self) -> PostgresSession:
        """The session; whoever opens a new connection starts without anything prepared."""
        ...

    def open(self) -> bool:
        """Be ready to send; returns whether the connection is a new one."""
        ...

    def run(self, steps: Sequence[Step]) -> list[list[Row]]:
        """Send all statements at once, and return the rows of each.

        Raises:
            psycopg.Error: One failed, and none after it was run.
        """
        ...

    def rollback(self) -> None:
        """End the transaction, if there is one, without a trace; at worst by closing the connection."""
        ...


class PsycopgWire:
    """Rounds as pipelines of psycopg, with prepared statements and binary values."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session
        self._connection: Connection | None = None

    @property
    def session(self) -> PostgresSession:
        """The session."""
        return self._session

    def open(self) -> bool:
        """Open a connection if there is none."""
        connection = self._session.connection
        if connection is self._connection:
            return False
        adapters = connection.adapters
        # The dumper registered last is the one taken; these keep one statement to one type, whatever the values.
        for kind, dumper in ((int, Int8BinaryDumper), (str, StrBinaryDumper), (list, ListBinaryDumper)):
            adapters.register_dumper(kind, dumper)
        connection.prepared_max = None
        self._connection = connection
        return True

    def run(self, steps: Sequence[Step]) -> list[list[Row]]:
        """One pipeline."""
        try:
            return self._pipelined(self._session.connection, steps)
        except psycopg.Error as error:
            if is_stale(error):
                self._session.close()
            raise

    def _pipelined(self, connection: Connection, steps: Sequence[Step]) -> list[list[Row]]:
        with ExitStack() as stack:
            cursors = []
            with connection.pipeline():
                for statement, values in steps:
                    cursor = stack.enter_context(psycopg.RawCursor(connection))
                    cursor.execute(statement.sql, values, prepare=True, binary=True)
                    cursors.append(cursor)
            return [
                cursor.fetchall() if statement.columns else []
                for cursor, (statement, _) in zip(cursors, steps, strict=True)
            ]

    def rollback(self) -> None:
        """Roll back, or close what cannot be rolled back."""
        roll_back(self._session)


def roll_back(session: PostgresSession) -> None:
    """End a transaction of a session outside of a pipeline; a connection that cannot is closed."""
    if not session.is_open:
        return
    connection = session.connection
    if connection.info.transaction_status == TransactionStatus.IDLE:
        return
    try:
        connection.execute(_ROLLBACK)
    except psycopg.Error:
        session.close()


_ROLLBACK: Final = ROLLBACK.sql.encode()
