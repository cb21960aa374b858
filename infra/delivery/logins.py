"""Logins of the apps' identities in Postgres.

An identity's login is made by a function that only Azure's server has, in the database `postgres`. It comes without any
right: `tollgate db grants --member` makes it a member of its app's role and of nothing else.

Run as `python -m infra.delivery.logins id-score-dev ...` with libpq's variables set; it may be repeated. MLflow's
identity gets a database of its own.

Source: Azure Database for PostgreSQL, "Manage Microsoft Entra users" (`pgaadauth_create_principal`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from psycopg import Connection

ROLE_PREFIX: Final = "tollgate_"
"""An app's role is this and its name."""
REGISTRY: Final = "mlflow"
"""Its identity has a database and no role of the product."""
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{2,62}")


def make_logins(connection: Connection[Any], logins: Sequence[str]) -> list[str]:
    """Make the logins that are missing and return them.

    Args:
        connection: To the database `postgres`, committing by itself.
        logins: Names of identities.

    Raises:
        ValueError: A name that could be anything else than a name; nothing was done.
        psycopg.Error: The server refused.
    """
    for login in logins:
        if not _NAME.fullmatch(login):
            raise ValueError(f"{login!r}: lower-case letters, digits and hyphens only")
    made = []
    for login in logins:
        if connection.execute("select from pg_roles where rolname = %s", [login]).fetchone() is None:
            connection.execute("select pgaadauth_create_principal(%s, false, false)", [login])
            made.append(login)
    return made


def make_registry(connection: Connection[Any], login: str) -> bool:
    """Give MLflow's login a database of its own; return whether it was made now.

    Raises:
        psycopg.Error: The server refused.
    """
    from psycopg import sql  # noqa: PLC0415 - only who logs in pays for it

    if connection.execute("select from pg_database where datname = %s", [REGISTRY]).fetchone() is not None:
        return False
    owner = sql.Identifier(login)
    # To give a database away one has to be a member of the role that gets it.
    connection.execute(sql.SQL("grant {} to current_user").format(owner))
    connection.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(REGISTRY), owner))
    return True


def main(logins: Sequence[str]) -> int:
    """Make logins on the server that libpq's variables name."""
    from psycopg import connect  # noqa: PLC0415

    with connect("", autocommit=True, connect_timeout=30, application_name="tollgate-logins") as connection:
        made = make_logins(connection, logins)
        for login in logins:
            if f"-{REGISTRY}-" in login and make_registry(connection, login):
                made.append(f"database {REGISTRY}")
    print(f"made {', '.join(made)}" if made else "nothing to make")  # noqa: T201 - a command
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
