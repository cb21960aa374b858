"""Azurite: Blob, Queue and Table storage, from npm."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.blob import BlobServiceClient

from twin.services.service import Problem, Service, TlsFiles, base_environment, http_problem
from twin.services.settings import CONTAINERS, HOST, TwinSettings

NODE_MODULES = Path(__file__).resolve().parents[1] / "node" / "node_modules"


def azurite_service(
    settings: TwinSettings,
    tls: TlsFiles | None = None,
    *,
    trust: ssl.SSLContext | None = None,
    bundle: Path | None = None,
) -> Service:
    """Azurite with its data in the state folder.

    With `tls` it speaks HTTPS and takes tokens besides keys: audience, issuer and expiry of a token are checked, its
    signature is not (Azurite's `--oauth basic`). `trust` and `bundle` are the
    roots that the health check and the SDK believe in.
    """
    scheme = "http" if tls is None else "https"
    folder = settings.root / "azurite"
    listeners = {"blob": settings.blob, "queue": settings.queue, "table": settings.table}
    command = [_node(), str(_program()), "--location", str(folder), "--silent", "--disableTelemetry"]
    for name, port in listeners.items():
        command += [f"--{name}Host", HOST, f"--{name}Port", str(port)]
    command.append("--skipApiVersionCheck")  # the SDKs move faster than Azurite
    if tls is not None:
        command += ["--oauth", "basic", "--cert", str(tls.certificate), "--key", str(tls.key)]
    return Service(
        name="azurite",
        ports=listeners,
        command=command,
        environment=base_environment(),
        probe=lambda: _problem(scheme, listeners, trust),
        log=settings.root / "logs" / "azurite.log",
        cwd=settings.root,
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        furnish=lambda: make_containers(settings.storage_connection(scheme), bundle),
        urls={name: f"{scheme}://{HOST}:{port}" for name, port in listeners.items()},
    )


def make_containers(connection: str, bundle: Path | None = None) -> None:
    """Create the product's blob containers where they are missing; `bundle` holds the roots to trust.

    Raises:
        OSError: Azurite refuses.
    """
    options: dict[str, Any] = {"connection_verify": str(bundle)} if bundle else {}
    with BlobServiceClient.from_connection_string(connection, retry_total=2, **options) as service:
        for name in CONTAINERS:
            try:
                service.create_container(name)
            except ResourceExistsError:
                continue
            except AzureError as error:
                raise OSError(f"container {name} cannot be made: {error}") from error


def _problem(scheme: str, listeners: dict[str, int], trust: ssl.SSLContext | None) -> Problem:
    """Any answer that Azurite signs is a good one: without a login it refuses, and that is an answer."""
    for name, port in listeners.items():
        url = f"{scheme}://{HOST}:{port}/"
        problem = http_problem(url, accept=_any_answer, trust=trust)
        if problem:
            return f"{name}: {problem}"
    return ""


def _any_answer(status: int, body: str) -> Problem:
    del body
    return "" if status < 500 else f"answered {status}"


def _node() -> str:
    node = shutil.which("node")
    if node is None:
        raise FileNotFoundError("node is not on the PATH; Azurite needs Node 20 or newer")
    return node


def _program() -> Path:
    program = NODE_MODULES / "azurite" / "dist" / "src" / "azurite.js"
    if not program.exists():
        raise FileNotFoundError("Azurite is not installed; run make setup")
    return program
