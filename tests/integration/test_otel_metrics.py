"""Metrics on their way to Application Insights, against a server on loopback that takes what the service takes."""

from __future__ import annotations

import gzip
import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from shared.adapters.otel_metrics import QUIET, OtelMetrics, azure_exporter
from shared.domain.errors import Transient
from shared.services.metering import Sample


class Ingestion(ThreadingHTTPServer):
    """Takes envelopes, or answers with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.paths: list[str] = []
        self.envelopes: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Ingestion)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        taken = json.loads(body)
        server.paths.append(self.path)
        if server.status == 200:
            server.envelopes += taken
        count = len(taken) if server.status == 200 else 0
        answer = json.dumps({"itemsReceived": len(taken), "itemsAccepted": count, "errors": []}).encode()
        self.send_response(server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_request(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def ingestion() -> Iterator[Ingestion]:
    server = Ingestion()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def teller(ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtelMetrics]:
    for name in QUIET:
        monkeypatch.setenv(name, "unset")
    address = f"http://127.0.0.1:{ingestion.server_port}/"
    made = OtelMetrics(azure_exporter(f"InstrumentationKey={uuid.uuid4()};IngestionEndpoint={address}"))
    yield made
    made.close()


def told(ingestion: Ingestion) -> dict[tuple[str, ...], float]:
    found = {}
    for envelope in ingestion.envelopes:
        data = envelope["data"]["baseData"]
        (metric,) = data["metrics"]
        found[metric["name"], *(data.get("properties") or {}).values()] = metric["value"]
    ingestion.envelopes.clear()
    return found


def added(value: float) -> Sample:
    return Sample("model_predictions_total", (("app", "score"), ("decision", "decline")), value)


def test_counters_arrive_as_what_was_added_and_readings_as_they_are(ingestion: Ingestion, teller: OtelMetrics) -> None:
    teller.tell([added(2)], [Sample("tollgate_champion_present", (), 1.0)])
    assert told(ingestion) == {("model_predictions_total", "score", "decline"): 2, ("tollgate_champion_present",): 1}
    teller.tell([added(3)], [Sample("tollgate_champion_present", (), 0.0)])
    assert told(ingestion) == {("model_predictions_total", "score", "decline"): 3, ("tollgate_champion_present",): 0}
    teller.tell([added(1)], [])
    assert told(ingestion) == {("model_predictions_total", "score", "decline"): 1}, "no reading of long ago"
    assert set(ingestion.paths) == {"/v2.1/track"}, "to the owner's workspace and nobody else"


def test_a_refusal_is_told_and_nothing_is_counted_twice_after_it(ingestion: Ingestion, teller: OtelMetrics) -> None:
    ingestion.status = 400
    with pytest.raises(Transient, match="did not take"):
        teller.tell([added(2)], [])
    ingestion.status = 200
    teller.tell([added(2)], [])
    assert told(ingestion) == {("model_predictions_total", "score", "decline"): 2}
