"""What the apps of a whole twin count, as a scraper of the drift app sees it."""

from __future__ import annotations

import re
import urllib.request
import uuid

import pytest
from azure.eventhub import EventData, EventHubProducerClient

from tests.e2e.conftest import Twin
from tests.host.hosting import until
from twin.services.journey import get
from twin.services.settings import HOST

pytestmark = pytest.mark.slow


def dead_lettered(twin: Twin) -> float:
    """The counter as it is told now; nought before ingest has counted anything."""
    status, body = get(f"http://{HOST}:{twin.settings.drift}/api/metrics")
    assert status == 200, body
    found = re.search(r'^tollgate_events_total\{app="ingest",result="dead_lettered"\} (\S+)$', body, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_what_ingest_counts_is_told_by_the_drift_app(twin: Twin) -> None:
    before = dead_lettered(twin)
    connection = twin.settings.hub_connection()
    with EventHubProducerClient.from_connection_string(connection, eventhub_name="transactions") as producer:
        batch = producer.create_batch()
        batch.add(EventData(f"no transaction {uuid.uuid4()}".encode()))
        producer.send_batch(batch)
    until(lambda: dead_lettered(twin) > before, twin.logs(), 60, 0.5)


def test_the_timer_runs_without_a_service_to_tell(twin: Twin) -> None:
    url = f"http://{HOST}:{twin.settings.drift}/admin/functions/tell_metrics"
    request = urllib.request.Request(url, b"{}", {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 202
    log = twin.settings.root / "logs" / "drift.log"
    done = re.compile(r"Executed 'Functions\.tell_metrics' \(Succeeded")
    until(lambda: done.search(log.read_text(errors="replace")), "the timer ran", 60)
