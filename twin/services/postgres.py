"""Postgres from a Python wheel, in its own folder, on a loopback port."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import psutil
import psycopg
from psycopg import sql

from shared.adapters.schema import grants
from twin.services import database
from twin.services.postgres_account import own, programs, unprivileged
from twin.services.service import Problem, Service, base_environment
from twin.services.settings import DATABASE, DATABASE_PASSWORD, DATABASE_USER, HOST, LOGINS, TwinSettings

ADMIN: Final = "postgres"
_MAJOR: Final = "16"
"""The major version that infrastructure deploys; the wheel brings a newer one as well."""
_CHILDREN_GRACE_S: Final = 10


def postgres_service(settings: TwinSettings, logins: Mapping[str, str] = MappingProxyType({})) -> Service:
    """Postgres with database, schema, owner and logins of the twin.

    The wheel's server is built without TLS; a keyless twin has a TLS listener of `twin.identity` in front of it.

    Args:
        settings: Port and folder.
        logins: Further logins without a password, each with the group role whose rights it has.
    """
    folder = settings.root / "postgres"
    options = {
        "listen_addresses": HOST,
        "port": str(settings.postgres),
        "unix_socket_directories": "",  # a socket's path may have 107 bytes; a checkout's is often longer
        "max_connections": "100",
        "log_min_messages": "warning",
        "timezone": "UTC",
    }
    arguments = [item for name, value in options.items() for item in ("-c", f"{name}={value}")]
    return Service(
        name="postgres",
        ports={"postgres": settings.postgres},
        command=[*unprivileged(), str(programs() / "postgres"), "-D", str(folder / "data"), *arguments],
        environment=base_environment() | {"LC_ALL": "C"},
        probe=lambda: _problem(settings),
        log=settings.root / "logs" / "postgres.log",
        cwd=settings.root,
        prepare=lambda: _prepare(folder),
        furnish=lambda: _furnish(settings, logins),
        urls={"postgres": settings.database_dsn()},
        gentle=signal.SIGINT,  # fast shutdown: SIGTERM would wait for clients to leave
        attempts=4,  # after kill -9 it may refuse while its last children still hold shared memory
    )


def admin_dsn(settings: TwinSettings, database: str = "postgres") -> str:
    """The connection string of the superuser."""
    return f"postgresql://{ADMIN}:{DATABASE_PASSWORD}@{HOST}:{settings.postgres}/{database}"


def _prepare(folder: Path) -> None:
    """Create the cluster, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    own(folder)
    if not (folder / "data").exists():
        partial = folder / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        password = folder / "password"
        password.write_text(DATABASE_PASSWORD + "\n", encoding="utf-8")
        own(password)
        options = ["-U", ADMIN, "--pwfile", str(password), "--auth", "scram-sha-256", "-E", "UTF8", "--no-locale"]
        command = [*unprivileged(), str(programs() / "initdb"), "-D", str(partial), *options]
        made = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=base_environment())
        password.unlink()
        if made.returncode != 0:
            raise OSError(f"initdb failed: {made.stderr.strip()[-500:]}")
        version = (partial / "PG_VERSION").read_text(encoding="utf-8").strip()
        if version != _MAJOR:
            raise OSError(f"Postgres {_MAJOR} is needed, not {version}")
        partial.rename(folder / "data")
    _forget_dead_server(folder / "data")


def _forget_dead_server(data: Path) -> None:
    """Remove the lock file of a server that was killed, once its last children are gone too.

    Postgres does so itself, except where the dead process is still listed because nobody collected its exit status: in
    a container whose first process does not collect, that is forever.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text(encoding="utf-8").split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return
    if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        return
    deadline = time.monotonic() + _CHILDREN_GRACE_S
    while any(_works_in(process, data) for process in psutil.process_iter()) and time.monotonic() < deadline:
        time.sleep(0.1)
    lock.unlink(missing_ok=True)


def _works_in(process: psutil.Process, data: Path) -> bool:
    try:
        return process.name() == "postgres" and process.cwd() == str(data)
    except psutil.Error:
        return False


def _problem(settings: TwinSettings) -> Problem:
    try:
        with psycopg.connect(admin_dsn(settings), connect_timeout=2, autocommit=True) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ""


def _furnish(settings: TwinSettings, logins: Mapping[str, str]) -> None:
    """Create what is missing: the owner and its database, the schema with its roles, the logins of the apps.

    Raises:
        OSError: Postgres refuses.
    """
    try:
        with psycopg.connect(admin_dsn(settings), connect_timeout=5, autocommit=True) as connection:
            # The owner makes the group roles, as the administrator of a server in the cloud does; it is no superuser.
            _make_login(connection, DATABASE_USER, DATABASE_PASSWORD)
            connection.execute(f"ALTER ROLE {DATABASE_USER} CREATEROLE")
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(f"CREATE DATABASE {DATABASE} OWNER {DATABASE_USER}")
        database.bring_up_to_date(settings.database_dsn(), int(time.time()) * 1_000_000)
        with psycopg.connect(admin_dsn(settings), connect_timeout=5, autocommit=True) as connection:
            for login, group in LOGINS.items():
                make_member(connection, login, group, DATABASE_PASSWORD)
            for login, group in logins.items():
                make_member(connection, login, group)
    except psycopg.Error as error:
        raise OSError(f"the database cannot be furnished: {error}") from error


def make_member(connection: psycopg.Connection[Any], login: str, group: str, password: str | None = None) -> None:
    """Make a login with the rights of one group role, if it is not there; the connection is the superuser's."""
    _make_login(connection, login, password)
    grants.join(connection, login, group)


def _make_login(connection: psycopg.Connection[Any], login: str, password: str | None) -> None:
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [login]).fetchone():
        return
    statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(login), sql.Literal(password))
    connection.execute(statement)
