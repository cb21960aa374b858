"""What a service of the twin is: how to prepare, start, ask and furnish it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from twin.services.settings import HOST

type Problem = str
"""Why something cannot be used, for people; empty when it can."""

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def base_environment() -> dict[str, str]:
    """The few variables that services inherit; the rest of a developer's shell stays outside."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A server's certificate and key, PEM."""

    certificate: Path
    key: Path


def no_action() -> None:
    """Nothing to prepare or furnish."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the twin, or one container of the compose file.

    Attributes:
        name: Its name in commands, logs and records.
        ports: Listener name to loopback port; all must be free before it starts.
        command: Program and arguments.
        probe: Asks the running service; returns what is wrong, or nothing.
        log: File its output goes to.
        cwd: Folder it runs in.
        environment: Its whole environment.
        prepare: Done before it starts: files, folders. Idempotent.
        furnish: Done once it is healthy: databases, containers. Idempotent.
        urls: What a person would want to open or connect to.
        identity_of: What its fingerprint is made of besides command and environment, such as the text of its settings.
        gentle: The signal that asks it to end.
        grace_s: How long it may take to end, seconds.
        attempts: How often it is started if it dies while starting.
        external: Run by somebody else (Docker): never started nor stopped as a process.
    """

    name: str
    ports: Mapping[str, int]
    command: Sequence[str]
    probe: Callable[[], Problem]
    log: Path
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=base_environment)
    prepare: Callable[[], None] = no_action
    furnish: Callable[[], None] = no_action
    urls: Mapping[str, str] = field(default_factory=dict)
    identity_of: str = ""
    gentle: signal.Signals = signal.SIGTERM
    grace_s: float = 20
    attempts: int = 1
    external: bool = False

    @property
    def fingerprint(self) -> str:
        """Short digest of what the service is started as; another one means it has to be started anew."""
        text = json.dumps([list(self.command), dict(self.environment), self.identity_of, str(self.cwd)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def http_problem(
    url: str,
    *,
    accept: Callable[[int, str], Problem],
    timeout_s: float = 2,
    trust: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
) -> Problem:
    """Ask a URL; `accept` judges status and body of any answer, and no answer is a problem."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - our own loopback URLs
    try:
        with urllib.request.urlopen(request, timeout=timeout_s, context=trust) as answer:  # noqa: S310 - our own loopback URLs
            return accept(answer.status, answer.read(65_536).decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        with error:
            return accept(error.code, error.read(65_536).decode("utf-8", "replace"))
    except (OSError, ValueError) as error:
        return f"no answer from {url} ({getattr(error, 'reason', error)})"


def port_owner(port: int) -> str | None:
    """Who listens on a loopback port: text for people, or None if it is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError:
            return _listener(port)
    return None


def _listener(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            if connection.status == psutil.CONN_LISTEN and local and local.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f"process {connection.pid} ({' '.join(process.cmdline())[:80] or process.name()})"
    except psutil.Error:  # macOS shows other users' sockets to root only
        pass
    return "another program"
