"""The migrations, run both ways on a real server, and what they make beside the metadata."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.util import CommandError
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError

from shared.adapters.postgres import PostgresConnection, parse_postgres
from shared.adapters.postgres_readiness import REVISION
from shared.adapters.schema import migrations
from shared.adapters.schema.tables import HASH_PARTITIONS, METADATA, STORAGE
from tests.conftest import MigratedDatabase
from twin.services.postgres import admin_dsn
from twin.services.settings import DATABASE_USER, TwinSettings

VERSIONS = Path(migrations.__file__).parent / "versions"
TAKES_AWAY = re.compile(
    r"\b(DROP|RENAME|TRUNCATE|ALTER\s+COLUMN\s+\w+\s+(TYPE|SET\s+NOT\s+NULL)|DELETE\s+FROM)\b", re.I
)


@pytest.fixture
def empty(database: TwinSettings) -> Iterator[MigratedDatabase]:
    """A database with nothing in it."""
    name = "tollgate_empty"
    with psycopg.connect(admin_dsn(database), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name} OWNER {DATABASE_USER}")
        yield MigratedDatabase(name, database.postgres)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_up_down_and_up_again(empty: MigratedDatabase) -> None:
    where = empty.connection
    assert migrations.current(where) is None
    every = [item.revision for item in migrations.history()]
    assert migrations.upgrade(where) == every
    assert migrations.upgrade(where) == []
    assert migrations.current(where) == REVISION == migrations.head()
    assert migrations.differences(where) == []
    empty.make_partitions(0, 1)
    assert migrations.differences(where) == []
    assert migrations.downgrade(where, migrations.BASE) == every[::-1]
    with psycopg.connect(empty.dsn) as connection:
        left = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'tollgate'::regnamespace AND relkind <> 'i'"
            " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'tollgate'::regnamespace"
        ).fetchall()
    assert left == [("alembic_version",)]
    assert migrations.upgrade(where) == every
    assert migrations.differences(where) == []


def test_a_difference_is_found(empty: MigratedDatabase) -> None:
    migrations.upgrade(empty.connection)
    with psycopg.connect(empty.dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE tollgate.outbox ADD COLUMN extra text")
        connection.execute("ALTER TABLE tollgate.forgotten ALTER COLUMN reason DROP NOT NULL")
    found = [item[0] if isinstance(item, tuple) else item[0][0] for item in migrations.differences(empty.connection)]
    assert sorted(found) == ["modify_nullable", "remove_column"]


def test_two_who_migrate_at_once_come_one_after_the_other(empty: MigratedDatabase) -> None:
    with ThreadPoolExecutor(max_workers=3) as pool:
        applied = list(pool.map(migrations.upgrade, [empty.connection] * 3))
    assert sorted(applied) == [[], [], [item.revision for item in migrations.history()]]


def test_a_migration_that_fails_leaves_nothing_behind(empty: MigratedDatabase) -> None:
    with psycopg.connect(empty.dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tollgate")
        connection.execute("CREATE VIEW tollgate.v_predictions AS SELECT 1")  # made last, so all before it had worked
        with pytest.raises(psycopg.errors.DuplicateTable):
            migrations.upgrade(empty.connection)
        rows = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'tollgate'::regnamespace AND relname <> 'v_predictions'"
        )
        assert rows.fetchone() == (0,)


def test_a_release_that_is_taken_back_has_nothing_to_apply_while_the_schema_serves_it(empty: MigratedDatabase) -> None:
    migrations.upgrade(empty.connection)
    with psycopg.connect(empty.dsn, autocommit=True) as connection:
        connection.execute("UPDATE tollgate.alembic_version SET version_num = '9998'")
        assert migrations.upgrade(empty.connection) == []
        with pytest.raises(CommandError, match="9998"):
            migrations.upgrade(empty.connection, REVISION)
        connection.execute(
            "CREATE OR REPLACE FUNCTION tollgate.oldest_release() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE"
            " AS $$ SELECT '9998' $$"
        )
        with pytest.raises(CommandError, match="serves releases from 9998"):
            migrations.upgrade(empty.connection)
    assert migrations.current(empty.connection) == "9998"


CATALOG = {
    "columns": """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text, l.collname,
    pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'tollgate'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname <> 'alembic_version'
""",
    "constraints": """
SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid AND NOT c.relispartition
WHERE c.relnamespace = 'tollgate'::regnamespace AND c.relname <> 'alembic_version'
""",
    "indexes": """
SELECT c.relname, pg_get_indexdef(c.oid) FROM pg_class c
WHERE c.relnamespace = 'tollgate'::regnamespace AND c.relkind IN ('i', 'I') AND NOT c.relispartition
    AND c.relname NOT LIKE 'alembic%'
""",
    "tables": """
SELECT c.relname, c.relkind::text, pg_get_partkeydef(c.oid), obj_description(c.oid) FROM pg_class c
WHERE c.relnamespace = 'tollgate'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname <> 'alembic_version'
""",
}


def test_migrations_make_what_the_metadata_says(migrated_database: MigratedDatabase, empty: MigratedDatabase) -> None:
    with psycopg.connect(empty.dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tollgate")
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(empty.dsn), poolclass=NullPool)
    METADATA.create_all(engine)
    engine.dispose()
    for part in CATALOG:
        assert catalog(empty.dsn, part) == catalog(migrated_database.dsn, part), part


def catalog(dsn: str, part: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(CATALOG[part].encode()).fetchall()
    assert rows
    return sorted(rows, key=repr)


def test_storage_is_as_listed(migrated_database: MigratedDatabase) -> None:
    with psycopg.connect(migrated_database.dsn) as connection:
        rows = connection.execute(
            "SELECT relname, reloptions FROM pg_class"
            " WHERE relnamespace = 'tollgate'::regnamespace AND reloptions IS NOT NULL AND relkind = 'r'"
        ).fetchall()
        external = connection.execute(
            "SELECT attstorage::text FROM pg_attribute"
            " WHERE attrelid = 'tollgate.entity_tiles'::regclass AND attname = 'data'"
        ).fetchone()
        hashed = connection.execute(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tollgate.transaction_ids'::regclass"
        ).fetchone()
    there = {name: dict(option.split("=", 1) for option in options) for name, options in rows}
    assert there == {name: dict(options) for name, options in STORAGE.items()}
    assert external == ("e",)
    assert hashed == (HASH_PARTITIONS,)


def test_revisions_are_numbered_without_a_gap_and_the_release_knows_the_last() -> None:
    found = [item.revision for item in migrations.history()]
    assert found == [f"{number:04d}" for number in range(1, len(found) + 1)]
    assert found[-1] == REVISION


def takes_away(source: str) -> list[str]:
    """What the function `upgrade` of a migration, or a script beside it, takes away from code that still runs."""
    tree = ast.parse(source)
    (upgrade,) = [item for item in tree.body if isinstance(item, ast.FunctionDef) and item.name == "upgrade"]
    texts = [item.value for item in ast.walk(upgrade) if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    calls = [item.attr for item in ast.walk(upgrade) if isinstance(item, ast.Attribute)]
    dropped = [name for name in calls if name.startswith(("drop_", "rename_")) or name == "alter_column"]
    return dropped + [match.group(0) for text in texts for match in TAKES_AWAY.finditer(text)]


def marked(source: str) -> bool:
    """Whether a migration says why it contracts."""
    return bool(re.search(r'^CONTRACT\b.*= "[^"]+"', source, re.M))


@pytest.mark.parametrize("path", sorted(VERSIONS.glob("r*.py")), ids=lambda path: path.stem)
def test_what_takes_away_says_so(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    script = path.with_suffix(".sql")
    found = takes_away(source)
    if script.exists():
        text = re.sub(r"--.*", "", script.read_text(encoding="utf-8"))
        found += [match.group(0) for match in TAKES_AWAY.finditer(text)]
    assert not found or marked(source)


@pytest.mark.parametrize(
    "body",
    [
        'op.execute("ALTER TABLE tollgate.outbox DROP COLUMN a")',
        'op.drop_column("outbox", "a")',
        'op.rename_table("a", "b")',
    ],
)
def test_the_test_above_sees_what_takes_away(body: str) -> None:
    source = f"def upgrade():\n    {body}\n\n\ndef downgrade():\n    pass\n"
    assert takes_away(source)
    assert not marked(source)
    assert marked('CONTRACT: Final = "nobody reads the column since 0004"\n' + source)
    assert not takes_away('def upgrade():\n    op.execute("SELECT 1")\n\n\ndef downgrade():\n    op.drop_table("a")\n')


def test_a_setting_that_names_nothing_reachable_is_an_error_of_the_driver() -> None:
    where: PostgresConnection = parse_postgres("DATABASE", {"DATABASE": "postgresql://a:b@127.0.0.1:1/none"})
    with pytest.raises(OperationalError):
        migrations.current(where)
