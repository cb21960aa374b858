"""Brings a database to a revision of the schema and tells where it is; Alembic without its command line and its files.

All of a call happens in one transaction under an advisory lock: several callers come one after the other, and a
migration that fails leaves nothing behind. Alembic's environment script is not needed for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import NullPool, create_engine, text

from shared.adapters.postgres import connect
from shared.adapters.postgres_readiness import SCHEMA, revision_problem
from shared.adapters.schema.tables import METADATA

if TYPE_CHECKING:
    import psycopg
    from alembic.runtime.migration import RevisionStep
    from sqlalchemy import Connection
    from sqlalchemy.sql.schema import SchemaItem

    from shared.adapters.postgres import PostgresConnection

HEAD: Final = "head"
BASE: Final = "base"

_FOLDER: Final = Path(__file__).parent
_LOCK: Final = 0x746F6C6C73636865
"""Key of the advisory lock of the one who migrates ("tollsche" in ASCII)."""

_LOCK_TIMEOUT: Final = "60s"
"""How long a migration waits for another one. Deciding queues behind whoever waits for a table, so a migration that
needs a strong lock on a busy one sets a shorter time itself."""

_VERSION_TABLE: Final = "alembic_version"


class Migration(NamedTuple):
    """One migration.

    Attributes:
        revision: Four digits.
        title: The first line of its module.
        contracts: Why it takes something away; empty if it only adds.
    """

    revision: str
    title: str
    contracts: str


def history() -> list[Migration]:
    """All migrations, the oldest first."""
    scripts = list(_scripts().walk_revisions())
    return [
        Migration(script.revision, script.doc, str(getattr(script.module, "CONTRACT", "")))
        for script in reversed(scripts)
    ]


def head() -> str:
    """The newest revision."""
    return history()[-1].revision


def current(where: PostgresConnection) -> str | None:
    """The revision that a database is at; None before the first.

    Raises:
        sqlalchemy.exc.DBAPIError, psycopg.Error: The database cannot be used.
    """
    with _connected(where) as connection:
        return _context(connection).get_current_revision()


def upgrade(where: PostgresConnection, revision: str = HEAD) -> list[str]:
    """Apply what is missing up to a revision; returns the revisions applied, none if there was nothing to do.

    A release that is taken back finds a schema with revisions it has never heard of. Asked for its newest, it has
    nothing to do as long as that schema still serves it.

    Raises:
        alembic.util.CommandError: There is no such revision, or the schema is newer and does not serve this release.
        sqlalchemy.exc.DBAPIError, psycopg.Error: The database cannot be used or a migration fails; nothing has changed.
    """
    scripts = _scripts()
    own = head()

    def steps(held: Any, connection: Connection) -> Any:
        newest = max(held, default="")
        if revision != HEAD or newest <= own:
            return scripts._upgrade_revs(revision, held)  # noqa: SLF001 - as Alembic's command does
        oldest = connection.execute(text(f"SELECT {SCHEMA}.oldest_release()")).scalar_one()
        problem = revision_problem(newest, oldest, own)
        if problem:
            raise CommandError(problem)
        return []

    return _run(where, steps)


def downgrade(where: PostgresConnection, revision: str) -> list[str]:
    """Take back what lies above a revision, with its data; returns the revisions taken back. Raises as `upgrade`."""
    scripts = _scripts()
    return _run(where, lambda held, _: scripts._downgrade_revs(revision, held))  # noqa: SLF001 - as Alembic's command does


def differences(where: PostgresConnection) -> list[Any]:
    """What Alembic finds different between a database and the metadata; partitions are not looked at."""
    with _connected(where) as connection:
        options = {
            "include_schemas": True,
            "include_object": _is_ours,
            "compare_type": True,
            "compare_server_default": True,
        }
        return list(compare_metadata(_context(connection, **options), METADATA))


def _is_ours(item: SchemaItem, name: str | None, kind: str, reflected: bool, compared: SchemaItem | None) -> bool:
    del item, compared
    return not (kind == "table" and reflected and name is not None and is_partition(name))


def is_partition(name: str) -> bool:
    """Whether a table is a partition, by its name."""
    stem, _, tail = name.rpartition("_")
    return f"{SCHEMA}.{stem}" in METADATA.tables and tail[:1] in {"p", "h"} and tail[1:].isdigit()


def _run(where: PostgresConnection, steps: Any) -> list[str]:
    done: list[str] = []

    def plan(held: Any, context: MigrationContext) -> list[RevisionStep]:
        del context
        found: list[RevisionStep] = list(steps(held, connection))
        done.extend(str(step.revision.revision) for step in found)
        return found

    with _connected(where) as connection, connection.begin():
        connection.execute(text("SELECT set_config('lock_timeout', :timeout, true)"), {"timeout": _LOCK_TIMEOUT})
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        context = _context(connection, fn=plan)
        with Operations.context(context):
            context.run_migrations()
    return done


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_FOLDER), version_locations=[str(_FOLDER / "versions")])


def _context(connection: Connection, **options: Any) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA, **options})


def _opened(where: PostgresConnection) -> psycopg.Connection[Any]:
    """A connection on which names mean the same whoever logs in: the schema is found first by a role of its name."""
    connection = connect(where, application_name="tollgate-schema", autocommit=True)
    connection.execute("SET search_path = public")
    connection.autocommit = False
    return connection


@contextmanager
def _connected(where: PostgresConnection) -> Iterator[Connection]:
    """A connection of SQLAlchemy, opened as every other one is: with a token where the setting names an identity."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: _opened(where), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
