"""Servers shared by the identity tests of one run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.adapters import connections
from tests.identity import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.identity.servers import RunningAzurite, RunningEndpoint, RunningPostgres
    from twin.identity.certificates import Certificates


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return servers.make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEndpoint]:
    with servers.endpoint(tmp_path_factory.mktemp("endpoint")) as running:
        yield running


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory, tls: Certificates) -> Iterator[RunningAzurite]:
    with servers.azurite(tmp_path_factory.mktemp("azurite"), tls) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[RunningPostgres]:
    # Not pytest's folder: it is closed to other users, and Postgres does not run as root.
    with tempfile.TemporaryDirectory(prefix="tollgate-identity-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with servers.postgres(Path(folder) / "postgres") as running:
            yield running


@pytest.fixture(autouse=True)
def _fresh_credentials() -> Iterator[None]:
    """Credentials live as long as a process, but each test has an endpoint of its own."""
    connections.credential.cache_clear()
    yield
    connections.credential.cache_clear()
