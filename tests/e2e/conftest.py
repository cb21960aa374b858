"""A twin of the tests' own, driven as a user would: by the command, from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import twin_settings
from twin.services.processes import Records, Running
from twin.services.settings import TwinSettings

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Twin:
    """A twin in a folder of its own, on ports of its own."""

    settings: TwinSettings

    @property
    def environment(self) -> dict[str, str]:
        ports = {f"TWIN_PORT_{name.upper()}": str(port) for name, port in self.settings.ports().items()}
        return {**os.environ, **ports, "TOLLGATE_HOME": str(self.settings.root), "COLUMNS": "200"}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command and return at once."""
        return subprocess.Popen(
            [sys.executable, "-m", "twin.cli", *arguments],
            cwd=ROOT,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, code: int | None = 0, timeout_s: float = 120, **environment: Any) -> str:
        """Run a command to its end and return what it printed; `code` is the exit code it must have."""
        with self.start(*arguments, **environment) as process:
            try:
                output, _ = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        assert code is None or process.returncode == code, output
        return output

    def running(self, service: str) -> Running | None:
        return Records(self.settings.root / "run").find(service)

    def pid(self, service: str) -> int:
        found = self.running(service)
        assert found is not None, f"{service} does not run"
        return found.pid

    def logs(self) -> str:
        """The end of every log, for a test that fails."""
        files = sorted((self.settings.root / "logs").glob("*.log"))
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in files)

    def host_config(self, app: str) -> dict[str, object]:
        document = json.loads((self.settings.root / "apps" / app / "host.json").read_text(encoding="utf-8"))
        assert isinstance(document, dict)
        return document


def demo_environment(folder: Path) -> dict[str, str]:
    """The environment of a demo that plays in a folder and on ports of its own: two may be played at once."""
    left_out = {"DATA", "KEEP", "SCALE", "TOLLGATE_HOME"}
    usual = {name: value for name, value in os.environ.items() if name not in left_out}
    ports = twin_settings(folder).ports()
    own = {f"TWIN_PORT_{name.upper()}": str(port) for name, port in ports.items()}
    return {**usual, **own, "DEMO_HOME": str(folder / "twin")}


@pytest.fixture(scope="session")
def make_twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Twin]]:
    """Make twins; all are taken down at the end, whatever happened."""
    made: list[Twin] = []

    def make() -> Twin:
        made.append(Twin(twin_settings(tmp_path_factory.mktemp("twin") / "state")))
        return made[-1]

    yield make
    for twin in made:
        twin.run("down", code=None)


@pytest.fixture(scope="session")
def twin(make_twin: Callable[[], Twin]) -> Twin:
    """A twin that is up."""
    twin = make_twin()
    twin.run("up")
    return twin
