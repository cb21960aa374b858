"""Fixtures that all suites share: real servers, started once for a test session on free ports."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from twin.services.azurite import azurite_service
from twin.services.orchestra import bring_up, take_down
from twin.services.postgres import postgres_service
from twin.services.processes import Records
from twin.services.service import port_owner
from twin.services.settings import TwinSettings

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
