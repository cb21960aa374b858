"""What the host's tests are made of: host processes as a user runs them, and a small HTTP client."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
APPS = Path(__file__).parent / "apps"
DEADLINE_S = 60.0
BUNDLE = {"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[4.0.0, 5.0.0)"}


def until[T](probe: Callable[[], T], what: str, timeout_s: float = DEADLINE_S, pause_s: float = 0.05) -> T:
    """Poll until `probe` returns something true; returns that. Fails naming it otherwise."""
    deadline = time.monotonic() + timeout_s
    while not (result := probe()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(pause_s)
    return result


@dataclass(frozen=True)
class Answer:
    """An HTTP response; header names in lower case, in the order they came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name.lower()), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, [(k.lower(), v) for k, v in response.getheaders()], response.read())
    finally:
        connection.close()


@dataclass
class HostProcess:
    """A host process with a folder of its own. `settings` None leaves local.settings.json to the host."""

    directory: Path
    app_dir: Path
    settings: dict[str, str] | None = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def log_file(self) -> Path:
        return self.directory / "host.log"

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def write_config(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "app_dir": str(self.app_dir),
            "port": self.port,
            "state_dir": str(self.directory / "state"),
        }
        if self.settings is not None:
            config["settings"] = self.settings
        path = self.directory / "host.json"
        path.write_text(json.dumps({**config, **self.options}))
        path.chmod(0o600)
        return path

    def spawn(self) -> HostProcess:
        command = [sys.executable, "-m", "twin.host", "--config", str(self.write_config())]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        return self

    def start(self) -> HostProcess:
        """Spawn, and wait until the host says that it runs."""
        before = len(self.log())
        self.spawn()

        def listening() -> re.Match[str] | None:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            return re.search(r"listening on http://[^:]+:(\d+)", self.log()[before:])

        found = until(listening, f"listening: {self.log()[before:]}")
        self.port = int(found[1]) if found else 0
        until(lambda: self.status(**self.admin).get("state") == "Running", "state Running")
        return self

    @property
    def admin(self) -> dict[str, str]:
        """Headers for admin routes: the master key if keys are enforced."""
        if not self.options.get("enforce_keys"):
            return {}
        return {"x_functions_key": json.loads(Path(self.options["keys_file"]).read_text())["masterKey"]}

    def fails(self, timeout_s: float = DEADLINE_S) -> tuple[int, str]:
        """Spawn a host that must not come up; its exit code and log."""
        self.spawn()
        assert self.process is not None
        code = self.process.wait(timeout_s)
        return code, self.log()

    def status(self, **headers: str) -> dict[str, Any]:
        try:
            answer = self.get("/admin/host/status", **headers)
        except OSError:
            return {}
        return answer.json() if answer.status == 200 else {}

    def workers(self) -> list[int]:
        """Process ids of the workers; asked again if the one that took the question left with it."""
        return list(until(self.status, "a status")["workers"])

    def get(self, path: str, **headers: str) -> Answer:
        return request(self.port, "GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path: str, body: bytes = b"", **headers: str) -> Answer:
        return request(self.port, "POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def run_by_hand(self, function: str, text: str = "") -> Answer:
        return self.post(f"/admin/functions/{function}", json.dumps({"input": text}).encode())

    def stop(self, timeout_s: float = 90) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    def kill(self) -> None:
        """SIGKILL, and wait until its workers are gone as well."""
        assert self.process is not None
        workers = self.workers()
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self.process = None
        until(lambda: not any(alive(pid) for pid in workers), "workers die with their host")

    def discard(self) -> None:
        """Be rid of it at once, where how it ends is not under test."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def write_app(directory: Path, code: str, host: Mapping[str, Any] | None = None) -> Path:
    """An app of a test's own."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "function_app.py").write_text(code)
    document = {"version": "2.0", "extensionBundle": BUNDLE, **(host or {})}
    (directory / "host.json").write_text(json.dumps(document))
    return directory


def kill(pid: int) -> None:
    """SIGKILL one process that a test started (through a host)."""
    os.kill(pid, signal.SIGKILL)
