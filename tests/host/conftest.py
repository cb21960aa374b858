"""Fixtures of the host's tests: hosts that end with their test file, a broker, storage (see tests/conftest.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.host.hosting import APPS, ROOT, HostProcess

type StartHost = Callable[..., HostProcess]

HUBS = (
    "tx",
    "one",
    "slow",
    "retry",
    "forever",
    "gather",
    "balance",
    "crash",
    "drain",
    "relay",
    "ends",
    "sparse",
    "out",
    "bench",
)


@pytest.fixture(scope="module")
def new_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartHost]:
    """Make hosts (not started) of an app in tests/host/apps or at a path; all end with the test file."""
    made: list[HostProcess] = []

    def make(app: str | Path, settings: dict[str, str] | None = None, **options: Any) -> HostProcess:
        app_dir = APPS / app if isinstance(app, str) else app
        host = HostProcess(tmp_path_factory.mktemp("host"), app_dir, settings or {}, options)
        made.append(host)
        return host

    yield make
    for host in made:
        host.discard()


@dataclass(frozen=True)
class Hubs:
    """A running broker."""

    port: int

    @property
    def connection(self) -> str:
        return (
            f"Endpoint=sb://127.0.0.1:{self.port};SharedAccessKeyName=root;SharedAccessKey=c2VjcmV0;"
            "UseDevelopmentEmulator=true;"
        )


@pytest.fixture(scope="session")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hubs]:
    """The broker with one hub per scenario, so that tests do not meet one another's events."""
    directory = tmp_path_factory.mktemp("broker")
    config = {
        "host": "127.0.0.1",
        "port": 0,
        "data_dir": str(directory / "data"),
        "hubs": [{"name": name, "partitions": 2, "consumer_groups": ["$Default"]} for name in HUBS],
        "keys": [{"name": "root", "key": "c2VjcmV0"}],
        "retention_hours": 24,
    }
    path = directory / "broker.json"
    path.write_text(json.dumps(config))
    with (directory / "broker.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "twin.broker", "--config", str(path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdout is not None
    yield Hubs(json.loads(process.stdout.readline())["port"])
    process.terminate()
    process.wait(20)
    process.stdout.close()
