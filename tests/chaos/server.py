"""A Postgres of a chaos run's own, that can be killed and comes back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psycopg

from tests.conftest import twin_settings
from twin.services.orchestra import bring_up, take_down
from twin.services.postgres import admin_dsn, postgres_service
from twin.services.processes import Records
from twin.services.settings import DATABASE_PASSWORD, HOST


class Server:
    """One server in a folder; databases are made from a migrated template."""

    def __init__(self, home: Path) -> None:
        self.settings = twin_settings(home)
        self._records = Records(self.settings.root / "run")
        self._layers = [[postgres_service(self.settings)]]

    def up(self) -> None:
        """Start it, or what is left of it after a kill."""
        bring_up(self._layers, self._records, lambda *_: None, timeout_s=60)

    def down(self) -> None:
        """Stop it."""
        take_down(self._layers, self._records, lambda *_: None)

    def kill(self) -> None:
        """Kill the server's first process, with no chance to write anything; its children notice and end."""
        lock = self.settings.root / "postgres" / "data" / "postmaster.pid"
        os.kill(int(lock.read_text(encoding="utf-8").split()[0]), signal.SIGKILL)

    def dsn(self, database: str = "postgres") -> str:
        """The connection string of the superuser."""
        return admin_dsn(self.settings, database)

    def login_dsn(self, login: str, database: str) -> str:
        """The connection string of a login."""
        return f"postgresql://{login}:{DATABASE_PASSWORD}@{HOST}:{self.settings.postgres}/{database}"

    def copy(self, template: str, name: str) -> None:
        """Make a database from a template."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def end_sessions(self, database: str, share: float, seed: int) -> int:
        """Break a share of the connections to a database; returns how many."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute("SELECT setseed(%s)", [seed % 1000 / 1000])
            row = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = %s AND pid <> pg_backend_pid() AND random() < %s",
                [database, share],
            ).fetchone()
        return int(row[0]) if row else 0
