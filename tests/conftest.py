"""Fixtures that all suites share: real servers, started once for a test session on free ports."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as drawing

from shared.adapters.postgres import PostgresConnection, parse_postgres
from shared.adapters.postgres_partitions import PostgresPartitions
from shared.adapters.schema.grants import Role
from twin.services import database as product_database
from twin.services.azurite import azurite_service
from twin.services.orchestra import bring_up, take_down
from twin.services.postgres import admin_dsn, make_member, postgres_service
from twin.services.processes import Records
from twin.services.service import port_owner
from twin.services.settings import DATABASE_PASSWORD, DATABASE_USER, HOST, TwinSettings

# By their clock, examples would fail on a machine that was busy for a moment. Every run draws the same ones, so that
# what fails can be repeated; `--hypothesis-profile explore` looks for others.
drawing.register_profile("patient", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
drawing.register_profile("explore", drawing.get_profile("patient"), derandomize=False)
drawing.load_profile("patient")

_candidates = itertools.count(os.getpid())


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now, all different.

    Below the range from which the kernel serves outgoing connections, and each test process from its own part of it, so
    that nobody takes a port between its being found and its being used.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    found: list[int] = []
    while len(found) < count:
        port = 16_000 + 1_000 * (worker % 16) + next(_candidates) % 1_000
        if port_owner(port) is None and port not in found:
            found.append(port)
    return found


def twin_settings(home: Path) -> TwinSettings:
    """Settings of a twin of its own, on free ports."""
    names = list(TwinSettings().ports())
    ports = free_ports(len(names))
    environment = {f"TWIN_PORT_{name.upper()}": str(port) for name, port in zip(names, ports, strict=True)}
    return TwinSettings.read({"TOLLGATE_HOME": str(home), **environment})


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of an Azurite with the product's containers."""
    settings = twin_settings(tmp_path_factory.mktemp("azurite"))
    records = Records(settings.root / "run")
    layers = [[azurite_service(settings)]]
    bring_up(layers, records, lambda *_: None, timeout_s=60)
    yield settings.storage_connection()
    take_down(layers, records, lambda *_: None)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwinSettings]:
    """Settings of a twin whose Postgres runs, with the product's user and database."""
    settings = twin_settings(tmp_path_factory.mktemp("postgres"))
    records = Records(settings.root / "run")
    layers = [[postgres_service(settings)]]
    bring_up(layers, records, lambda *_: None, timeout_s=60)
    yield settings
    take_down(layers, records, lambda *_: None)


@dataclass(frozen=True, slots=True)
class MigratedDatabase:
    """A database with the product's schema and nothing in it but partitions around now.

    Attributes:
        name: Its name.
        port: Of its server.
    """

    name: str
    port: int

    @property
    def dsn(self) -> str:
        """The owner's connection string."""
        return self._dsn(DATABASE_USER)

    def role_dsn(self, role: Role) -> str:
        """The connection string of a login that has the rights of one group role and no others."""
        return self._dsn(f"test-{role}")

    @property
    def connection(self) -> PostgresConnection:
        """The owner's connection, as an app's setting would describe it."""
        return parse_postgres("DATABASE", {"DATABASE": self.dsn})

    def role_connection(self, role: Role) -> PostgresConnection:
        """A role's connection, as an app's setting would describe it."""
        return parse_postgres("DATABASE", {"DATABASE": self.role_dsn(role)})

    def make_partitions(self, start_us: int, end_us: int) -> None:
        """Make the partitions for other event times than those around now; the end is not included."""
        PostgresPartitions(self.connection, "tests").make(start_us, end_us)

    def _dsn(self, user: str) -> str:
        return f"postgresql://{user}:{DATABASE_PASSWORD}@{HOST}:{self.port}/{self.name}"


_TEMPLATE: Final = "tollgate_template"


@pytest.fixture(scope="session")
def database_template(database: TwinSettings) -> str:
    """The name of a migrated database that nobody is connected to."""
    with psycopg.connect(admin_dsn(database), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {_TEMPLATE} OWNER {DATABASE_USER}")
        product_database.bring_up_to_date(MigratedDatabase(_TEMPLATE, database.postgres).dsn, time.time_ns() // 1000)
        for role in Role:
            make_member(connection, f"test-{role}", role, DATABASE_PASSWORD)
    return _TEMPLATE


@pytest.fixture(scope="module")
def migrated_database(database: TwinSettings, database_template: str) -> Iterator[MigratedDatabase]:
    """A fresh database for each test module, with the schema, the roles and partitions around now."""
    name = f"tollgate_{next(_candidates)}"
    with psycopg.connect(admin_dsn(database), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template} OWNER {DATABASE_USER}")
        yield MigratedDatabase(name, database.postgres)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
