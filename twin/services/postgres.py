"""Postgres from a Python wheel, in its own folder, on a loopback port."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import psutil
import psycopg

from twin.services.postgres_account import own, programs, unprivileged
from twin.services.service import Problem, Service, base_environment
from twin.services.settings import DATABASE, DATABASE_PASSWORD, DATABASE_USER, HOST, TwinSettings

ADMIN: Final = "postgres"
_MAJOR: Final = "16"
"""The major version that infrastructure deploys; the wheel brings a newer one as well."""
_CHILDREN_GRACE_S: Final = 10


def postgres_service(settings: TwinSettings) -> Service:
    """Postgres with database, user and password of the twin.

    The wheel's server is built without TLS; a keyless twin has a TLS listener of `twin.identity` in front of it.
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
        furnish=lambda: _furnish(settings),
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


def _furnish(settings: TwinSettings) -> None:
    """Create the product's user and database if they are not there."""
    with psycopg.connect(admin_dsn(settings), connect_timeout=5, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [DATABASE_USER]).fetchone():
            connection.execute(f"CREATE ROLE {DATABASE_USER} LOGIN PASSWORD '{DATABASE_PASSWORD}'")
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {DATABASE_USER}")
