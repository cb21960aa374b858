"""The archive in Postgres: one read-only transaction with one snapshot, and streams through cursors of the server.

The snapshot is kept for as long as verification takes, and with it every row version that was dead by then: verify a
large ledger on a replica, or a part of it at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from shared.adapters import postgres_archive_rows as rows
from shared.adapters.postgres import PostgresConnection, connect
from shared.adapters.postgres_errors import translated
from shared.domain.archive import (
    Extent,
    HistoryPart,
    Selection,
    StoredBlock,
    StoredDecision,
    StoredSeal,
    Stray,
)
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import Entity
from shared.domain.identifiers import TransactionId

FETCH_ROWS: Final = 2_000
"""Rows that travel at a time: some 2 MB."""

_SETTINGS: Final = """
SELECT set_config('statement_timeout', '0', true), set_config('work_mem', '64MB', true),
    set_config('cursor_tuple_fraction', '1', true)
"""
"""Sorts of all decisions need memory, and cursors that are read to their end need no plan for a quick first row."""

_FIRST_US: Final = -(1 << 63)
_LAST_US: Final = (1 << 63) - 1

type Parameters = Sequence[object] | Mapping[str, object]


class PostgresArchive:
    """Reads over a connection that is opened for each snapshot."""

    def __init__(self, where: PostgresConnection, application_name: str) -> None:
        self._where = where
        self._application_name = application_name

    @contextmanager
    def snapshot(self) -> Iterator[PostgresSnapshot]:
        """What the database holds at this moment."""
        with translated("opening the archive"):
            connection = connect(self._where, application_name=self._application_name)
        try:
            with translated("opening the archive"):
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
                connection.execute(_SETTINGS)
            yield PostgresSnapshot(connection)
        finally:
            connection.close()


class PostgresSnapshot:
    """One moment of the database."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._cursors = 0

    def decision(self, transaction_id: TransactionId) -> StoredDecision | None:
        """One decision."""
        with translated("reading a decision"):
            row = self._connection.execute(rows.DECISION, [transaction_id], binary=True).fetchone()
        return None if row is None else _read(rows.decision_of, row)

    def histories(self, entity: Entity, selection: Selection) -> Iterator[HistoryPart]:
        """All rows of the selected entities, entity by entity."""
        parameters = {
            "all_entities": selection.share >= 1.0,
            "seed": selection.seed,
            "threshold": selection.threshold,
            "all_times": selection.since_us is None and selection.until_us is None,
            **_bounds(selection.since_us, selection.until_us),
        }
        for part in self._parts(rows.HISTORIES[entity], parameters):
            transactions = tuple([_read(rows.transaction_of, row) for row in part])
            ids = [row.transaction.transaction_id for row in transactions]
            with translated("reading labels"):
                found = self._connection.execute(rows.LABELS, [ids], binary=True).fetchall()
            yield HistoryPart(transactions, tuple([_read(rows.label_of, row) for row in found]))

    def strays(self) -> Iterator[Stray]:
        """Rows whose transaction is not there."""
        for part in self._parts(rows.STRAYS, ()):
            for what, transaction_id in part:
                yield Stray(what, TransactionId(transaction_id))

    def extents(self, since_us: int | None, until_us: int | None) -> Sequence[Extent]:
        """The parts of the chains in a range of recorded times."""
        with translated("reading the log"):
            found = self._connection.execute(rows.EXTENTS, _bounds(since_us, until_us)).fetchall()
        return [Extent(*row) for row in found]

    def blocks(self, extents: Sequence[Extent] | None) -> Iterator[StoredBlock]:
        """Blocks, by writer and falling sequence."""
        statement = rows.BLOCKS if extents is None else rows.BLOCKS_WITHIN
        for part in self._parts(statement, _extent_columns(extents)):
            for row in part:
                yield _read(rows.block_of, row)

    def logged(self, extents: Sequence[Extent] | None) -> Iterator[StoredDecision]:
        """Decisions, by writer, falling sequence and leaf."""
        statement = rows.LOGGED if extents is None else rows.LOGGED_WITHIN
        for part in self._parts(statement, _extent_columns(extents)):
            for row in part:
                yield _read(rows.decision_of, row)

    def seals(self) -> Iterator[StoredSeal]:
        """Copies of the seals, by number."""
        for part in self._parts(rows.SEALS, ()):
            for number, data in part:
                yield StoredSeal(number, data)

    def _parts(self, statement: str, parameters: Parameters) -> Iterator[list[rows.Row]]:
        """The rows of a statement, `FETCH_ROWS` at a time."""
        self._cursors += 1
        with self._connection.cursor(f"archive_{self._cursors}", binary=True) as cursor:
            with translated("reading the archive"):
                cursor.execute(statement, parameters)
            while True:
                with translated("reading the archive"):
                    part = cursor.fetchmany(FETCH_ROWS)
                if not part:
                    return
                yield part


def _read[Value](read: Callable[[rows.Row], Value], row: rows.Row) -> Value:
    try:
        return read(row)
    except (IndexError, ValueError) as error:
        raise BrokenInvariant("the database holds a code that this release does not know") from error


def _bounds(since_us: int | None, until_us: int | None) -> dict[str, int]:
    return {
        "since_us": _FIRST_US if since_us is None else since_us,
        "until_us": _LAST_US if until_us is None else until_us,
    }


def _extent_columns(extents: Sequence[Extent] | None) -> dict[str, object]:
    if extents is None:
        return {}
    return {
        "writers": [item.writer for item in extents],
        "firsts": [item.first for item in extents],
        "lasts": [item.last for item in extents],
    }
