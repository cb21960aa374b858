"""MLflow: the real server, with its tables in the twin's Postgres and its files in Azurite."""

from __future__ import annotations

import json
import sys
import urllib.request
import uuid
from typing import Final

import psycopg
from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.blob import BlobServiceClient
from psycopg import sql

from twin.services.postgres import admin_dsn
from twin.services.service import Problem, Service, base_environment, http_problem
from twin.services.settings import DATABASE_PASSWORD, HOST, STORAGE_ACCOUNT, TwinSettings

DATABASE: Final = "mlflow"
"""A database of its own, whose owner has the same name; the same in the cloud (`infra.delivery.logins`)."""

CONTAINER: Final = "mlflow"


def mlflow_service(settings: TwinSettings) -> Service:
    """The tracking server and model registry; Postgres and Azurite have to be up before it.

    Clients send and fetch files through it, so they need no access to storage.
    """
    host_names = ",".join(f"{name}:{settings.mlflow}" for name in (HOST, "localhost"))
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(settings.mlflow)]
    command += ["--workers", "1", "--allowed-hosts", host_names]
    return Service(
        name="mlflow",
        ports={"mlflow": settings.mlflow},
        command=command,
        environment={
            **base_environment(),
            "MLFLOW_BACKEND_STORE_URI": _database_uri(settings),
            "MLFLOW_ARTIFACTS_DESTINATION": f"wasbs://{CONTAINER}@{STORAGE_ACCOUNT}.blob.core.windows.net/artifacts",
            "AZURE_STORAGE_CONNECTION_STRING": settings.storage_connection(),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # two processes instead of ten; nothing here uses its jobs
            # Either of them stops the server from sending usage reports, and from asking for what its page may send.
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        },
        probe=lambda: http_problem(f"{tracking_uri(settings)}/health", accept=_healthy),
        log=settings.root / "logs" / "mlflow.log",
        cwd=settings.root,
        prepare=lambda: _prepare(settings),
        urls={"mlflow": tracking_uri(settings)},
    )


def tracking_uri(settings: TwinSettings) -> str:
    """Where clients reach it."""
    return f"http://{HOST}:{settings.mlflow}"


def use(settings: TwinSettings) -> str:
    """Ask it for its experiments, and send, fetch and delete a file; returns what was found, for people.

    Raises:
        OSError: It cannot be used.
    """
    api = f"{tracking_uri(settings)}/api/2.0"
    with urllib.request.urlopen(f"{api}/mlflow/experiments/search?max_results=100", timeout=10) as answer:  # noqa: S310 - our own loopback URLs
        count = len(json.load(answer)["experiments"])
    body, file = uuid.uuid4().bytes, f"{api}/mlflow-artifacts/artifacts/check/{uuid.uuid4().hex}"
    for method, data in (("PUT", body), ("GET", None), ("DELETE", None)):
        request = urllib.request.Request(file, data=data, method=method)  # noqa: S310 - our own loopback URLs
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own loopback URLs
            if method == "GET" and answer.read() != body:
                raise OSError("a file came back changed")
    return f"{count} experiments; a file was sent, fetched and deleted"


def _database_uri(settings: TwinSettings) -> str:
    return f"postgresql+psycopg://{DATABASE}:{DATABASE_PASSWORD}@{HOST}:{settings.postgres}/{DATABASE}"


def _healthy(status: int, body: str) -> Problem:
    return "" if (status, body) == (200, "OK") else f"answered {status} {body[:80]}"


def _prepare(settings: TwinSettings) -> None:
    """Make its login, database and container where they are missing; the server makes its tables itself.

    Raises:
        OSError: Postgres or Azurite refuses.
    """
    try:
        with psycopg.connect(admin_dsn(settings), connect_timeout=5, autocommit=True) as connection:
            name = sql.Identifier(DATABASE)
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [DATABASE]).fetchone():
                password = sql.Literal(DATABASE_PASSWORD)
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, password))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
        with BlobServiceClient.from_connection_string(settings.storage_connection(), retry_total=2) as service:
            service.create_container(CONTAINER)
    except ResourceExistsError:
        return
    except (psycopg.Error, AzureError) as error:
        raise OSError(f"its database and container cannot be made: {error}") from error
