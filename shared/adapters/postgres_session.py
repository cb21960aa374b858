"""One connection to Postgres that is opened when needed and again after it was lost; for one thread."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any, Final

import psycopg

from shared.adapters.postgres import PostgresConnection, connect
from shared.adapters.postgres_errors import translated

type Connection = psycopg.Connection[Any]

_log = logging.getLogger(__name__)

TIMEOUTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "lock_timeout": "5s",
        "statement_timeout": "15s",
        "idle_in_transaction_session_timeout": "30s",
    }
)
"""Bounds of every session: a lock is waited for less long than a statement, and a process that stands still in the
middle of a unit of work holds its locks no longer than half a minute."""

_SET: Final = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given(name, value)"


class PostgresSession:
    """A connection in autocommit mode, with bounds on how long anything may take."""

    def __init__(
        self, where: PostgresConnection, application_name: str, settings: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Open nothing yet.

        Args:
            where: What `parse_postgres` returned.
            application_name: Shown in `pg_stat_activity`.
            settings: Session settings of Postgres, beside and above `TIMEOUTS`.
        """
        self._where = where
        self._application_name = application_name
        self._settings = {**TIMEOUTS, **settings}
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """The connection, opened now if there is none.

        Raises:
            ConnectionSettingError: The setting cannot be parsed.
            azure.core.exceptions.AzureError: No token could be had.
            psycopg.OperationalError: The server cannot be reached or refuses the login.
        """
        connection = self._connection
        if connection is None or connection.closed:
            connection = connect(self._where, application_name=self._application_name, autocommit=True)
            try:
                connection.execute(_SET, [list(self._settings), list(self._settings.values())])
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as the client knows."""
        return self._connection is not None and not self._connection.closed

    def close(self) -> None:
        """Close the connection; the next use opens another one. Whatever was not committed is rolled back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except psycopg.Error:
                _log.debug("a connection that is lost cannot be closed", exc_info=True)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, or rolled back if anything is raised.

        A connection that was lost while nobody used it costs nobody anything: it is noticed when the transaction
        begins, which then begins on another one. So nothing of a session but its settings outlives a transaction.
        After an error that leaves the connection in doubt it is closed; the next transaction opens another one.
        """
        try:
            with ExitStack() as begun:
                was_open = self.is_open
                try:
                    connection = self._begun(begun)
                except psycopg.OperationalError:
                    if not was_open or self.is_open:
                        raise
                    connection = self._begun(begun)
                yield connection
        except BaseException:
            held = self._connection
            if held is not None and (held.closed or held.broken or held.info.transaction_status != _IDLE):
                self.close()
            raise

    def _begun(self, stack: ExitStack) -> Connection:
        connection = self.connection
        stack.enter_context(connection.transaction())
        return connection

    def rows(
        self, doing: str, statement: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        """The rows of one statement in a transaction of its own.

        Args:
            doing: What is being done, for the error's message.
            statement: SQL that returns rows.
            values: Its parameters.

        Raises:
            TollgateError: As `postgres_errors.translated` says.
        """
        with translated(doing), self.transaction() as connection:
            return connection.execute(statement.encode(), values).fetchall()


_IDLE: Final = psycopg.pq.TransactionStatus.IDLE
