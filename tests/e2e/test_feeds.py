"""Labels over HTTP and files by command, against a twin that is up."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import psycopg
import pytest

from shared.domain.instants import US_PER_DAY, format_instant
from tests.e2e.conftest import Twin
from twin.services.settings import HOST

pytestmark = pytest.mark.slow

COLUMNS = "transaction_id,verdict,source,event_time,known_at,confidence,author"


def post(twin: Twin, body: str, kind: str) -> tuple[int, dict[str, object]]:
    """The status and the document that `POST labels` answers."""
    request = urllib.request.Request(
        f"http://{HOST}:{twin.settings.ingest}/api/labels",
        data=body.encode(),
        headers={"Content-Type": kind},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_history_by_command_then_labels_over_http(twin: Twin, tmp_path: Path) -> None:
    past_us = time.time_ns() // 1000 - 60 * US_PER_DAY
    file = tmp_path / "history.csv"
    rows = [f"feed-{n},c{n % 2},m1,{1000 + n},{format_instant(past_us + n * 1_000_000)}" for n in range(20)]
    file.write_text("transaction_id,customer_id,terminal_id,amount_minor,event_time\n" + "\n".join(rows), "utf-8")
    assert "20 imported" in twin.run("import", str(file))
    assert "20 repeated" in twin.run("import", str(file))

    moment = format_instant(past_us + US_PER_DAY)
    lines = [f"feed-{n},fraud,chargeback,{moment},{moment},100,acquirer" for n in range(3)]
    lines.append(f"feed-4,perhaps,chargeback,{moment},{moment},100,acquirer")
    status, document = post(twin, "\n".join([COLUMNS, *lines]), "text/csv")
    assert (status, document["recorded"], document["refused"]) == (207, 3, 1)
    one = dict(zip(COLUMNS.split(","), lines[0].split(","), strict=True)) | {"confidence": 100}
    assert post(twin, json.dumps(one), "application/json") == (
        200,
        {"transaction_id": "feed-0", "outcome": "repeated"},
    )
    assert post(twin, "[", "application/json")[0] == 400
    with psycopg.connect(twin.settings.database_dsn()) as connection:
        row = connection.execute(
            "SELECT count(*) FROM tollgate.feedback_labels WHERE transaction_id LIKE 'feed-%' AND customer_version > 0"
        ).fetchone()
    assert row == (3,)
    assert "0 dead letters" in twin.run("dead-letters", "list", "--hub", "nowhere")
