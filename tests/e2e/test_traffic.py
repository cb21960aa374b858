"""`tollgate traffic` against a whole twin: a few seconds over both ways, and a polite end."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from azure.storage.blob import BlobServiceClient

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.system_clock import SystemClock
from shared.domain.bundle_pointer import Role
from shared.services.training_publication import publish
from tests.e2e.conftest import Twin
from tests.fakes.bundles import golden_files
from tests.integration.score_app import serves

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deciding(make_twin: Callable[[], Twin]) -> Twin:
    """A twin whose apps decide."""
    twin = make_twin()
    twin.run("up")
    with BlobServiceClient.from_connection_string(twin.settings.storage_connection()) as service:
        store = BlobBundles(service.get_container_client("models"))
        champion = publish(store, golden_files(), Role.CHAMPION, clock=SystemClock(), author="tests", reason="e2e")
    assert champion.digest is not None
    serves(twin.settings.score, 2, champion.digest)
    return twin


def decisions(twin: Twin) -> int:
    with psycopg.connect(twin.settings.database_dsn()) as connection:
        row = connection.execute("SELECT count(*) FROM tollgate.predictions").fetchone()
    return int(row[0]) if row else 0


def test_all_that_is_sent_is_decided_once_and_counted(deciding: Twin, tmp_path: Path) -> None:
    report = tmp_path / "traffic.json"
    before = decisions(deciding)
    output = deciding.run(
        *("traffic", "--minutes", "0.1", "--tps", "30", "--mode", "burst", "--http-share", "0.5"),
        *("--duplicates", "0.1", "--malformed", "0.05", "--json", str(report)),
    )
    found = json.loads(report.read_text(encoding="utf-8"))
    assert "all answers were as they may be" in output
    assert found["scheduled"] == found["sent"]["http"] + found["sent"]["hub"]
    assert found["sent"]["http"] > 50
    assert found["sent"]["hub"] > 50
    assert found["statuses"]["200"] == sum(found["decisions"]["http"].values()) + found["repeated_answers"]
    assert found["undecided"] == 0
    assert 0 < found["http_ms"]["p50"] <= found["http_ms"]["p99"]
    assert found["hub_decided_ms"]["p50"] > 0
    counted = sum(found["decisions"]["http"].values()) + sum(found["decisions"]["hub"].values())
    assert decisions(deciding) - before == counted


def test_an_interrupted_run_ends_with_its_summary(deciding: Twin) -> None:
    with deciding.start("traffic", "--minutes", "5", "--tps", "10", "--over", "http") as process:
        assert process.stdout is not None
        assert "Ctrl-C ends it" in process.stdout.readline()
        line = process.stdout.readline()  # the first line of statistics, after five seconds
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert " http, 0 hub (" in line
    assert "interrupted after" in rest
    assert process.returncode == 0, rest
