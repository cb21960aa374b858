"""Real servers for the identity tests, each on free loopback ports, each ended by its own process id."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from tests.conftest import free_ports
from twin.identity import certificates, signing
from twin.services.postgres_account import own, programs, unprivileged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twin.identity.certificates import Certificates

ROOT = Path(__file__).resolve().parents[2]
AZURITE = ROOT / "twin/node/node_modules/azurite/dist/src/azurite.js"
TENANT = "5c1d6a3e-7d0a-4c43-9a44-0f8f8a1c2b11"
ISSUER = f"https://sts.windows.net/{TENANT}/"
SCORE = {
    "name": "score",
    "client_id": "0d0e2b5c-6f0c-4f7e-9d36-3c1c5c7e0a01",
    "object_id": "9a1f5f0e-1f55-4a6e-8a53-1b8a0f3d2c01",
    "resources": None,
}
INGEST = {
    "name": "ingest",
    "client_id": "0d0e2b5c-6f0c-4f7e-9d36-3c1c5c7e0a02",
    "object_id": "9a1f5f0e-1f55-4a6e-8a53-1b8a0f3d2c02",
    "resources": ["https://storage.azure.com/"],
}


def free_port() -> int:
    """Return a loopback port that is free now."""
    return free_ports(1)[0]


def wait_until(description: str, seconds: float, check: Any) -> Any:
    """Poll until `check()` is true and return what it returned."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := check():
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {description}")


@contextlib.contextmanager
def process(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with both outputs in `log`; end it by its own id."""
    with log.open("ab") as output, subprocess.Popen(command, stdout=output, stderr=output, **options) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()


@dataclass(frozen=True, slots=True)
class RunningEndpoint:
    """A running identity endpoint."""

    url: str
    header: str
    log: Path
    config: dict[str, Any]
    postgres_tls_port: int | None
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """What App Service would set."""
        return {"IDENTITY_ENDPOINT": self.url, "IDENTITY_HEADER": self.header}

    def get(self, header: str | None = None, **query: str) -> tuple[int, dict[str, Any]]:
        """Ask for a token as any HTTP client would."""
        address = f"{self.url}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(
            address, headers={"X-IDENTITY-HEADER": self.header if header is None else header}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def token(self, resource: str, client_id: str = str(SCORE["client_id"])) -> str:
        """Return the current access token."""
        status, body = self.get(**{"resource": resource, "api-version": "2019-08-01", "client_id": client_id})
        assert status == 200, body
        return str(body["access_token"])


def endpoint_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a configuration that works, with changes."""
    key = signing.ensure(folder)
    config = {
        "host": "127.0.0.1",
        "port": 0,
        "header": secrets.token_hex(16),
        "issuer": ISSUER,
        "tenant_id": TENANT,
        "key_file": str(key.private),
        "public_key_file": str(key.public),
        "token_lifetime_s": 86_400,
        "identities": [SCORE, INGEST],
        "postgres": None,
    }
    return config | changes


@contextlib.contextmanager
def endpoint(folder: Path, **changes: Any) -> Iterator[RunningEndpoint]:
    """Run `python -m twin.identity`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = endpoint_config(folder, **changes)
    file = folder / "identity.json"
    file.write_text(json.dumps(config))
    log = folder / f"identity-{uuid.uuid4().hex[:6]}.log"
    with process([sys.executable, "-m", "twin.identity", "--config", str(file)], log, cwd=ROOT) as child:

        def first_line() -> dict[str, Any] | None:
            assert child.poll() is None, log.read_text()
            lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
            return json.loads(lines[0]) if lines else None

        started = wait_until("the endpoint listens", 30, first_line)
        yield RunningEndpoint(started["endpoint"], config["header"], log, config, started["postgres_tls_port"], child)


@dataclass(frozen=True, slots=True)
class RunningAzurite:
    """A running Azurite: the addresses of its services for the emulator's account."""

    url: str
    queue_url: str
    log: Path


@contextlib.contextmanager
def azurite(folder: Path, tls: Certificates, blob: int = 0, queue: int = 0) -> Iterator[RunningAzurite]:
    """Run Azurite with OAuth over TLS, on free ports unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["node", str(AZURITE), "--location", str(folder), "--disableTelemetry"]
    command += ["--blobPort", str(blob), "--queuePort", str(queue), "--tablePort", "0"]
    command += ["--oauth", "basic", "--cert", str(tls.certificate), "--key", str(tls.key)]
    # The pinned SDK speaks a newer API version than the pinned Azurite knows.
    command += ["--skipApiVersionCheck"]
    log = folder / "azurite.log"
    with process(command, log, cwd=folder) as child:

        def addresses() -> list[str]:
            assert child.poll() is None, log.read_text()
            found = re.findall(
                r"Azurite (?:Blob|Queue) service is successfully listening at \S+:(\d+)\s", log.read_text()
            )
            return found if len(found) == 2 else []

        blobs, queues = (f"https://localhost:{port}/devstoreaccount1" for port in wait_until("Azurite", 60, addresses))
        yield RunningAzurite(blobs, queues, log)


@dataclass(frozen=True, slots=True)
class RunningPostgres:
    """A running Postgres that asks for SCRAM passwords on TCP."""

    port: int
    log: Path
    admin_dsn: str


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[RunningPostgres]:
    """Run a new Postgres cluster, as an unprivileged user when we are root."""
    binaries = programs()
    folder.mkdir(parents=True)
    own(folder)
    data, password = folder / "data", secrets.token_hex(12)
    secret = folder / "password"
    secret.write_text(password)
    own(secret)
    init = [
        *unprivileged(),
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-U",
        "twin",
        "--auth=scram-sha-256",
        f"--pwfile={secret}",
    ]
    subprocess.run([*init, "-N", "-E", "UTF8"], check=True, capture_output=True, cwd=folder, timeout=120)
    port, log = free_port(), folder / "postgres.log"
    # Statements are logged so that the tests can look for secrets in them.
    settings = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": "", "fsync": "off"}
    settings |= {"log_statement": "all", "log_connections": "on", "shared_buffers": "16MB"}
    command = [*unprivileged(), str(binaries / "postgres"), "-D", str(data)]
    command += [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    with process(command, log, cwd=folder) as child:
        dsn = f"postgresql://twin:{password}@127.0.0.1:{port}/postgres"

        def answers() -> bool:
            assert child.poll() is None, log.read_text()
            try:
                psycopg.connect(dsn, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until("Postgres answers", 60, answers)
        yield RunningPostgres(port, log, dsn)


def make_certificates(folder: Path) -> Certificates:
    """Return certificates as of now."""
    return certificates.ensure(folder, datetime.now(UTC))
