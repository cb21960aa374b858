"""The commands `tollgate db`: migrations, rights and partitions of the product's database.

Which database: `--database`; else what `DATABASE` or `DATABASE__<part>` in the environment say, as for an app; else
that of the twin, as its owner. A connection string without a password takes it from libpq's `PGPASSWORD`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console

from twin.feed_connections import database_of

app = typer.Typer(help="The database: migrations, rights, partitions.", no_args_is_help=True)
_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)

type DatabaseOption = Annotated[
    str | None, typer.Option("--database", help="Connection string of the owner; the twin's by default.")
]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@app.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="A revision of `tollgate db history`.")] = "head",
    *,
    database: DatabaseOption = None,
) -> None:
    """Apply what is missing up to a revision; the newest by default. Idempotent."""
    from shared.adapters.schema import migrations  # noqa: PLC0415 - Alembic takes a quarter of a second

    with _told():
        applied = migrations.upgrade(database_of(database), revision)
    _say(f"applied {', '.join(applied)}" if applied else "nothing to apply")


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="A revision of `tollgate db history`, or `base`.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    database: DatabaseOption = None,
) -> None:
    """Take back what lies above a revision, with the data in it."""
    from shared.adapters.schema import migrations  # noqa: PLC0415

    if not yes:
        typer.confirm(f"Take the database back to {revision}? What newer revisions added is lost", abort=True)
    with _told():
        taken = migrations.downgrade(database_of(database), revision)
    _say(f"took back {', '.join(taken)}" if taken else "nothing to take back")


@app.command()
def current(*, database: DatabaseOption = None) -> None:
    """Print the revision; the exit code is 1 if this release cannot work with it or partitions are missing."""
    from shared.adapters.postgres import connect  # noqa: PLC0415
    from shared.adapters.postgres_readiness import (  # noqa: PLC0415
        partition_problem,
        revision_problem,
        revisions,
    )

    with _told(), connect(database_of(database), application_name="tollgate-db", autocommit=True) as connection:
        revision, oldest = revisions(connection)
        problem = revision_problem(revision, oldest) or partition_problem(connection, _now_us())
    _say(revision or "none")
    if problem:
        _fail(problem)


@app.command()
def history() -> None:
    """List all migrations, the oldest first."""
    from shared.adapters.schema import migrations  # noqa: PLC0415

    for item in migrations.history():
        _say(f"{item.revision}  {item.title}" + (f"  [contracts: {item.contracts}]" if item.contracts else ""))


@app.command(name="grants")
def grant(
    *,
    member: Annotated[
        list[str] | None, typer.Option("--member", help="LOGIN=ROLE: make a login a member of one role and no other.")
    ] = None,
    database: DatabaseOption = None,
) -> None:
    """Make the roles and bring their rights to what this release wants. Idempotent."""
    from shared.adapters.postgres import connect  # noqa: PLC0415
    from shared.adapters.schema import grants  # noqa: PLC0415

    pairs = [_pair(text, [str(role) for role in grants.Role]) for text in member or []]
    with _told(), connect(database_of(database), application_name="tollgate-db") as connection:
        changes = grants.apply(connection)
        joined = [login for login, role in pairs if grants.join(connection, login, role)]
    for verb, rights in (("given", changes.given), ("taken", changes.taken)):
        for right in rights:
            column = f"({right.column})" if right.column else ""
            _say(f"{verb} {right.privilege}{column} {right.kind} {right.item} {right.role}".replace("  ", " "))
    for login in joined:
        _say(f"member {login}")
    if not (changes.given or changes.taken or joined):
        _say("nothing to change")


@app.command()
def partitions(
    *,
    start: Annotated[str | None, typer.Option("--from", help="First day, such as 2018-04-01; 14 days ago.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last day; in 28 days by default.")] = None,
    database: DatabaseOption = None,
) -> None:
    """Make the time partitions that are missing for these event times. Idempotent."""
    from shared.adapters.postgres_partitions import PostgresPartitions  # noqa: PLC0415
    from shared.domain.errors import TollgateError  # noqa: PLC0415
    from shared.services.partitioning import AHEAD_DAYS, BEHIND_DAYS, around  # noqa: PLC0415

    usual = around(_now_us(), behind_days=BEHIND_DAYS, ahead_days=AHEAD_DAYS)
    start_us = usual.start_us if start is None else _day_us("--from", start)
    end_us = usual.end_us if end is None else _day_us("--to", end, after=1)
    try:
        with _told():
            made = PostgresPartitions(database_of(database), "tollgate-db").make(start_us, end_us)
    except TollgateError as error:
        _fail(str(error))
    _say(f"made {made} partitions")


@contextmanager
def _told() -> Iterator[None]:
    """Turn what the database or the setting refuses into one line; a traceback would quote statements, not help."""
    from alembic.util import CommandError  # noqa: PLC0415
    from psycopg import Error  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    from shared.adapters.connections import ConnectionSettingError  # noqa: PLC0415

    try:
        yield
    except SQLAlchemyError as error:
        _fail(str(getattr(error, "orig", None) or error))
    except (CommandError, Error, ConnectionSettingError) as error:
        _fail(str(error) or type(error).__name__)


def _pair(text: str, roles: list[str]) -> tuple[str, str]:
    login, _, role = text.partition("=")
    if not login or role not in roles:
        _fail(f"--member {text}: wanted LOGIN=ROLE with a role of {', '.join(roles)}")
    return login, role


def _day_us(option: str, text: str, *, after: int = 0) -> int:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=after)
    except (ValueError, OverflowError):
        _fail(f"{option} {text}: wanted a day such as 2018-04-01")
    return (day - _EPOCH) // timedelta(microseconds=1)


def _now_us() -> int:
    return time.time_ns() // 1000


def _say(text: str) -> None:
    _out.print(text, markup=False, soft_wrap=True)


def _fail(message: str) -> NoReturn:
    lines = message.strip().splitlines()
    _err.print(f"tollgate: {lines[0] if lines else 'failed'}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1)
