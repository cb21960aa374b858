"""Running SQL of several statements inside a migration, as it stands in its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection


def run(bind: Connection, script: str) -> None:
    """Run a script in the migration's transaction.

    It goes past SQLAlchemy, which would take colons and percent signs for parameters and refuses several statements.

    Raises:
        psycopg.Error: A statement fails.
    """
    cursor = bind.connection.cursor()
    try:
        cursor.execute(script)
    finally:
        cursor.close()
