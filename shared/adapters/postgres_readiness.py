"""Whether the database is one that this release can work with: its schema's revision, and partitions around now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from shared.domain.errors import BrokenInvariant
from shared.services.partitioning import NEEDED_DAYS, around, names

if TYPE_CHECKING:
    from psycopg import Connection

    from shared.adapters.postgres import PostgresConnection
    from shared.ports.clock import Clock

SCHEMA: Final = "tollgate"
"""The Postgres schema that holds everything."""

REVISION: Final = "0002"
"""The schema that this release was written for: the last of `shared.adapters.schema.versions`.

Four digits, so that revisions are ordered as text. A database may be ahead of the code while a release is rolled out or
taken back: migrations expand first, and `tollgate.oldest_release()` says how old code may be.
"""

_CONNECT_TIMEOUT_S: Final = 3
_STATEMENT_TIMEOUT: Final = "3s"

_THERE: Final = "SELECT to_regclass('tollgate.alembic_version') IS NOT NULL"
_REVISION: Final = "SELECT version_num FROM tollgate.alembic_version"
_OLDEST: Final = "SELECT tollgate.oldest_release()"
_MISSING: Final = """
SELECT wanted.name FROM unnest(%s::text[]) WITH ORDINALITY AS wanted(name, place)
WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'tollgate' AND c.relname = wanted.name AND c.relispartition)
ORDER BY wanted.place
"""


class PostgresSchemaDependency:
    """The database as something an app needs; each check opens a connection, so that a login is part of it."""

    name = "database"

    def __init__(self, where: PostgresConnection, application_name: str, clock: Clock) -> None:
        self._where = where
        self._application_name = application_name
        self._clock = clock

    def check(self) -> None:
        """Return if the schema fits this release and the partitions around now are there.

        Raises:
            Transient: The database cannot be reached now.
            BrokenInvariant: What is missing, with the command that mends it.
        """
        from shared.adapters.postgres import connect  # noqa: PLC0415 - the driver is paid by those who connect
        from shared.adapters.postgres_errors import translated  # noqa: PLC0415

        with (
            translated("asking the database"),
            connect(
                self._where,
                application_name=self._application_name,
                autocommit=True,
                connect_timeout=_CONNECT_TIMEOUT_S,
            ) as connection,
        ):
            connection.execute("SELECT set_config('statement_timeout', %s, false)", [_STATEMENT_TIMEOUT])
            problem = revision_problem(*revisions(connection)) or partition_problem(connection, self._clock.now_us())
        if problem:
            raise BrokenInvariant(problem)


def revisions(connection: Connection[Any]) -> tuple[str | None, str]:
    """The revision that the database is at, None for none, and the oldest that code may have been written for."""
    there = connection.execute(_THERE).fetchone()
    # A database that was taken back to the beginning has the table, without a row and without the function.
    revision = connection.execute(_REVISION).fetchone() if there and there[0] else None
    if revision is None:
        return None, ""
    oldest = connection.execute(_OLDEST).fetchone()
    return str(revision[0]), str(oldest[0]) if oldest else ""


def revision_problem(revision: str | None, oldest: str, own: str = REVISION) -> str:
    """Why code written for `own` cannot work with a database; empty if it can."""
    if revision is None:
        return f"the schema is missing, this release needs {own}: run `tollgate db upgrade`"
    if revision < own:
        return f"the schema is at {revision}, this release needs {own}: run `tollgate db upgrade`"
    if own < oldest:
        return f"the schema is at {revision} and serves releases from {oldest}, this one is {own}: deploy a newer one"
    return ""


def partition_problem(connection: Connection[Any], now_us: int) -> str:
    """Which partitions are missing around now; empty if none is."""
    wanted = names(around(now_us, behind_days=NEEDED_DAYS, ahead_days=NEEDED_DAYS))
    missing = [row[0] for row in connection.execute(_MISSING, [wanted])]
    return f"missing partitions {', '.join(missing)}: run `tollgate db partitions`" if missing else ""
