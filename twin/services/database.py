"""Brings the product's database to what this checkout needs: schema, rights, partitions; quick when all is there."""

from __future__ import annotations

import psycopg

from shared.adapters.postgres import PostgresConnection, parse_postgres
from shared.adapters.postgres_partitions import PostgresPartitions
from shared.adapters.postgres_readiness import REVISION, revisions
from shared.adapters.schema import grants
from shared.domain.errors import TollgateError
from shared.services.partitioning import AHEAD_DAYS, BEHIND_DAYS, around

APPLICATION_NAME = "tollgate-db"


def bring_up_to_date(dsn: str, now_us: int) -> None:
    """Migrate, grant and make partitions around now; the login of `dsn` owns the database. Idempotent.

    Raises:
        psycopg.Error: The database cannot be used, or refuses.
        OSError: A migration fails, or partitions cannot be made.
    """
    where = parse_postgres("DATABASE", {"DATABASE": dsn})
    with psycopg.connect(dsn, connect_timeout=5) as connection:
        revision, _ = revisions(connection)
    if revision is None or revision < REVISION:
        _migrate(where)
    with psycopg.connect(dsn, connect_timeout=5) as connection:
        grants.apply(connection)
    span = around(now_us, behind_days=BEHIND_DAYS, ahead_days=AHEAD_DAYS)
    try:
        PostgresPartitions(where, APPLICATION_NAME).make(*span)
    except TollgateError as error:
        raise OSError(str(error)) from error


def _migrate(where: PostgresConnection) -> None:
    from alembic.util import CommandError  # noqa: PLC0415 - a quarter of a second that most calls need not spend
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    from shared.adapters.schema import migrations  # noqa: PLC0415

    try:
        migrations.upgrade(where)
    except (CommandError, SQLAlchemyError) as error:
        raise OSError(f"the schema cannot be migrated: {error}") from error
