"""The deployed score app for tests: under the twin's host, on a real database and real storage."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient

from shared.adapters.blob_bundles import BlobBundles
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.instants import format_instant
from tests.conftest import MigratedDatabase
from tests.fakes.bundles import golden_files
from tests.host.hosting import ROOT, Answer, HostProcess, request, until

PROCESSES = "FUNCTIONS_WORKER_PROCESS_COUNT"
JSON = {"content_type": "application/json"}
PATIENT = {"SCORE_DEADLINE_MS": "50000"}
"""For tests in which no decision may be refused and the deadline is not what is tested: on a machine that is busy a
worker's first decision, for which it loads the runtime and the model, may take longer than the usual deadline."""


class Models:
    """A container for bundles of its own."""

    def __init__(self, storage: str) -> None:
        self.name = f"models-{uuid.uuid4().hex[:12]}"
        self._service = BlobServiceClient.from_connection_string(storage)
        self.container = self._service.create_container(self.name)
        self.store = BlobBundles(self.container)

    def promote(self, files: dict[str, bytes] | None = None) -> str:
        """Make a bundle the champion; the recorded one by default. Returns its digest."""
        digest = self.store.put(files or golden_files())
        self.point(digest)
        return digest

    def point(self, digest: str | None) -> None:
        """Give the part to another bundle, or to nobody."""
        current = self.store.pointer(Role.CHAMPION)
        change = Pointer(Role.CHAMPION, digest, current.next_number, time.time_ns() // 1000, "a test", "a test")
        self.store.point(change, current.tag)

    def close(self) -> None:
        self._service.close()


@dataclass
class ScoreApp:
    """A running score app."""

    host: HostProcess
    processes: int

    def score(self, fields: dict[str, Any], **headers: str) -> Answer:
        return self.host.post("/api/score", json.dumps(fields).encode(), **JSON, **headers)

    def batch(self, items: list[dict[str, Any]]) -> Answer:
        return self.host.post("/api/score/batch", json.dumps({"transactions": items}).encode(), **JSON)

    def ready(self) -> Answer:
        return self.host.get("/api/health/ready")

    def serves(self, digest: str) -> None:
        """Wait until every worker decides with a bundle."""
        serves(self.host.port, self.processes, digest)


def serves(port: int, processes: int, digest: str) -> None:
    """Wait until every worker process of a host without keys has said of itself that it decides with a bundle.

    Asking a few times is not enough: while a worker still starts, its sibling answers everything.
    """
    told: dict[int, str | None] = {}

    def everywhere() -> bool:
        status = request(port, "GET", "/api/manage/status").json()
        told[status["process_id"]] = status["model"] and status["model"]["digest"]
        workers = request(port, "GET", "/admin/host/status").json()["workers"]
        return len(workers) == processes and all(told.get(worker) == digest for worker in workers)

    until(everywhere, f"{digest[:12]} in every worker")


def fields(name: str | None = None, **changes: Any) -> dict[str, Any]:
    """The fields of a transaction of this moment."""
    return {
        "transaction_id": name or uuid.uuid4().hex,
        "customer_id": "card-1",
        "terminal_id": "terminal-1",
        "amount_minor": 4_250,
        "currency": "EUR",
        "event_time": format_instant(time.time_ns() // 1000),
        **changes,
    }


def settings(storage: str, dsn: str, models: str, **changes: str) -> dict[str, str]:
    """App settings of the score app."""
    return {
        "FUNCTIONS_WORKER_RUNTIME": "python",
        PROCESSES: "2",
        "AzureWebJobsStorage": storage,
        "DATA_STORAGE": storage,
        "DATABASE": dsn,
        "SURROGATE_KEYS": "k1:" + base64.b64encode(bytes(range(32))).decode(),
        "MODELS_CONTAINER": models,
        "CHAMPION_POLL_S": "0.2",
        **changes,
    }


@contextmanager
def running(directory: Path, app_settings: dict[str, str], **options: Any) -> Iterator[ScoreApp]:
    """The score app, until the block ends."""
    host = HostProcess(directory, ROOT / "functions" / "score", app_settings, options)
    try:
        host.start()
        yield ScoreApp(host, int(app_settings[PROCESSES]))
    finally:
        host.discard()


def login(database: MigratedDatabase, port: int | None = None) -> str:
    """The score app's own login, by way of another port if one is given."""
    from shared.adapters.schema.grants import Role as Group

    dsn = database.role_dsn(Group.SCORE)
    return dsn if port is None else dsn.replace(f":{database.port}/", f":{port}/")
