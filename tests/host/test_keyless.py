"""A host without a single secret: managed identity to storage over OAuth and to the broker over TLS."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import StartHost
from tests.host.hosting import ROOT, until, write_app
from tests.identity import servers
from twin.identity.certificates import trust_environment

APP = """
import json, os
from pathlib import Path
from typing import List
import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
MANY = func.Cardinality.MANY

@app.route(route="send", methods=["POST"])
@app.event_hub_output("hub", event_hub_name="probes", connection="Events")
@app.blob_output("copy", path="copies/last.txt", connection="AzureWebJobsStorage")
def send(req: func.HttpRequest, hub: func.Out[str], copy: func.Out[str]) -> str:
    hub.set(req.get_body().decode())
    copy.set(req.get_body().decode())
    return "sent"

@app.event_hub_message_trigger("events", event_hub_name="probes", connection="Events", cardinality=MANY)
def receive(events: List[func.EventHubEvent]) -> None:
    with Path(os.environ["RECORD"]).open("a") as file:
        file.writelines(event.get_body().decode() + "\\n" for event in events)

@app.timer_trigger("timer", schedule="0 0 0 1 1 *", run_on_startup=True)
def tick(timer: func.TimerRequest) -> None:
    with Path(os.environ["RECORD"]).open("a") as file:
        file.write("tick\\n")
"""


@pytest.fixture
def keyless(tmp_path: Path) -> Iterator[dict[str, str]]:
    """App settings of an identity, a TLS broker that takes tokens, and an Azurite that takes OAuth."""
    tls = servers.make_certificates(tmp_path / "tls")
    with (
        servers.endpoint(tmp_path / "endpoint") as endpoint,
        servers.azurite(tmp_path / "azurite", tls) as azurite,
        _broker(tmp_path, str(tls.certificate), str(tls.key), endpoint.config["public_key_file"]) as port,
    ):
        client_id = str(servers.SCORE["client_id"])
        yield {
            **endpoint.environment,
            **trust_environment(tls),
            "AzureWebJobsStorage__blobServiceUri": azurite.url,
            "AzureWebJobsStorage__credential": "managedidentity",
            "AzureWebJobsStorage__clientId": client_id,
            "Events__fullyQualifiedNamespace": f"localhost:{port}",
            "Events__credential": "managedidentity",
            "Events__clientId": client_id,
        }


@contextlib.contextmanager
def _broker(directory: Path, certificate: str, key: str, public_key: str) -> Iterator[int]:
    """A broker that takes tokens, over TLS; its port."""
    log, path = directory / "broker.log", directory / "broker.json"
    config = {
        "host": "127.0.0.1",
        "port": 0,
        "data_dir": str(directory / "broker"),
        "hubs": [{"name": "probes", "partitions": 1, "consumer_groups": ["$Default"]}],
        "tls": {"port": 0, "certificate": certificate, "key": key},
        "tokens": {
            "issuer": servers.ISSUER,
            "audience": ["https://eventhubs.azure.net", "https://eventhubs.azure.net/"],
            "public_key_file": public_key,
        },
    }
    path.write_text(json.dumps(config))
    with servers.process([sys.executable, "-m", "twin.broker", "--config", str(path)], log, cwd=ROOT):
        until(lambda: '"ready"' in log.read_text(), "the broker listens")
        line = next(line for line in log.read_text().splitlines() if '"ready"' in line)
        yield int(json.loads(line)["tls_port"])


def test_everything_works_with_managed_identity(new_host: StartHost, keyless: dict[str, str], tmp_path: Path) -> None:
    record = tmp_path / "record"
    app_dir = write_app(tmp_path / "app", APP)
    host = new_host(app_dir, {**keyless, "RECORD": str(record)}).start()
    assert not any("Key=" in value for value in keyless.values())
    until(lambda: record.exists() and "tick" in record.read_text(), f"the timer fires: {host.log()}")
    assert host.post("/api/send", b"without a key").status == 200, host.log()
    until(lambda: "without a key" in record.read_text(), f"the event comes back: {host.log()}")
    assert host.stop() == 0
