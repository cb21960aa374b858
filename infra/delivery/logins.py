"""Logins of the apps' identities in Postgres: each becomes a member of its app's role, and of nothing else.

An identity's login is made by a function that only Azure's server has, in the database `postgres`; roles are the
server's, so grants and memberships hold in every database. All of it may be repeated.

Run as `python -m infra.delivery.logins score=id-score-dev ...` with libpq's variables set; it needs psycopg, so it
runs in the checkout's own environment.

Source: Azure Database for PostgreSQL, "Manage Microsoft Entra users" (`pgaadauth_create_principal`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Final

ROLE_PREFIX: Final = "tollgate_"
REGISTRY: Final = "mlflow"
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{2,62}")


def login_statements(logins: Mapping[str, str]) -> list[str]:
    """Return the SQL that lets identities in.

    Args:
        logins: App -> name of its identity. `mlflow` gets a database of its own instead of a role of the product.

    Raises:
        ValueError: A name that could be anything else than a name.

    >>> login_statements({"score": "id-score-dev"})[1]
    'grant "tollgate_score" to "id-score-dev"'
    """
    statements = []
    for app, login in sorted(logins.items()):
        if not _NAME.fullmatch(login) or not _NAME.fullmatch(app):
            raise ValueError(f"{app}={login}: lower-case letters, digits and hyphens only")
        statements.append(
            f"select pgaadauth_create_principal('{login}', false, false) "  # noqa: S608 - both names were checked
            f"where not exists (select from pg_roles where rolname = '{login}')"
        )
        if app != REGISTRY:
            statements.append(f'grant "{ROLE_PREFIX}{app}" to "{login}"')
    return statements


def registry_statement(login: str, *, exists: bool) -> str:
    """Return the SQL that gives MLflow its database; making one cannot be done conditionally in SQL."""
    return f'alter database mlflow owner to "{login}"' if exists else f'create database mlflow owner "{login}"'


def main(arguments: list[str]) -> int:
    """Run the statements on the server that libpq's variables name; each in a transaction of its own."""
    import psycopg  # noqa: PLC0415 - only who logs in pays for it

    logins = dict(argument.split("=", 1) for argument in arguments)
    with psycopg.connect("", autocommit=True, connect_timeout=30, application_name="tollgate-logins") as connection:
        for statement in login_statements(logins):
            connection.execute(statement)
        if REGISTRY in logins:
            row = connection.execute("select 1 from pg_database where datname = 'mlflow'").fetchone()
            connection.execute(f'grant "{logins[REGISTRY]}" to current_user')
            connection.execute(registry_statement(logins[REGISTRY], exists=row is not None))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
