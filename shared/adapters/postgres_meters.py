"""Counts of all processes in `tollgate.app_meters`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from shared.ports.metering import AppCounts, CountsRow

if TYPE_CHECKING:
    from psycopg import Cursor

    from shared.adapters.postgres import PostgresConnection

GONE: Final = "gone"
"""The writer that holds the sum of those that were folded."""

_INSERT: Final = """
INSERT INTO tollgate.app_meters (app, writer, layout, cells, started_at_us, updated_at_us)
VALUES (%(app)s, %(writer)s, %(layout)s, %(cells)s, %(started)s, %(updated)s)
ON CONFLICT (app, writer, layout) DO UPDATE SET cells = excluded.cells, updated_at_us = excluded.updated_at_us
"""

_UPDATE: Final = """
UPDATE tollgate.app_meters SET cells = %(cells)s, updated_at_us = %(updated)s
WHERE app = %(app)s AND writer = %(writer)s AND layout = %(layout)s
"""

_SUMS: Final = """
SELECT app, array_agg(total ORDER BY place) FROM (
    SELECT app, place, sum(cell) AS total
    FROM tollgate.app_meters CROSS JOIN LATERAL unnest(cells) WITH ORDINALITY AS counted (cell, place)
    WHERE layout = %s GROUP BY app, place
) AS summed GROUP BY app ORDER BY app
"""

# One statement: a writer that writes at this moment either keeps its row, or finds it gone and takes another name.
_FOLD: Final = """
WITH gone AS (
    DELETE FROM tollgate.app_meters WHERE updated_at_us < %(before)s AND writer <> %(gone)s
    RETURNING app, layout, cells
), summed AS (
    SELECT app, layout, place, sum(cell) AS total
    FROM gone CROSS JOIN LATERAL unnest(cells) WITH ORDINALITY AS counted (cell, place)
    GROUP BY app, layout, place
), kept AS (
    INSERT INTO tollgate.app_meters AS held (app, writer, layout, cells, started_at_us, updated_at_us)
    SELECT app, %(gone)s, layout, array_agg(total ORDER BY place), %(now)s, %(now)s
    FROM summed GROUP BY app, layout
    ON CONFLICT (app, writer, layout) DO UPDATE SET updated_at_us = excluded.updated_at_us, cells = (
        SELECT array_agg(old + new ORDER BY place)
        FROM unnest(held.cells, excluded.cells) WITH ORDINALITY AS both_of (old, new, place)
    )
)
SELECT count(*) FROM gone
"""


class PostgresMeters:
    """Counts in Postgres, over a connection that is opened for each call.

    A process writes a row of some hundred numbers every ten seconds: a connection that is kept would double what the
    database has to hold open (record 0017).
    """

    def __init__(self, where: PostgresConnection, application_name: str) -> None:
        self._where = where
        self._application_name = application_name

    def put(self, row: CountsRow, *, known: bool) -> bool:
        """Replace a writer's counts; False if a known writer is not there any more."""
        values = {
            "app": row.app,
            "writer": row.writer,
            "layout": row.layout,
            "cells": list(row.cells),
            "started": row.started_at_us,
            "updated": row.updated_at_us,
        }
        return self._run(_UPDATE if known else _INSERT, values, lambda cursor: cursor.rowcount == 1)

    def sums(self, layout: str) -> Sequence[AppCounts]:
        """The sum over the writers of each app."""
        return self._run(_SUMS, [layout], lambda cursor: [AppCounts(app, cells) for app, cells in cursor])

    def fold(self, before_us: int, now_us: int) -> int:
        """Add up the writers that wrote last before a time; returns how many there were."""
        values = {"before": before_us, "now": now_us, "gone": GONE}
        return self._run(_FOLD, values, lambda cursor: int(next(cursor)[0]))

    def _run[T](self, statement: str, values: Any, read: Callable[[Cursor[Any]], T]) -> T:
        from shared.adapters.postgres_errors import translated  # noqa: PLC0415 - the driver is paid by those who connect
        from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

        with translated("counting"):
            session = PostgresSession(self._where, self._application_name)
            try:
                return read(session.connection.execute(statement, values, binary=True))
            finally:
                session.close()
