"""The timers around labels, data quality and performance, fired by hand on a whole twin, and what is noted of them."""

from __future__ import annotations

import time
import urllib.request

import psycopg

from shared.services import expiring, maturing, performance_check, quality_check
from tests.e2e.conftest import Twin

TIMERS = {
    "mature_labels": ("ingest", maturing.PIPELINE),
    "check_quality": ("drift", quality_check.PIPELINE),
    "measure_performance": ("drift", performance_check.PIPELINE),
    "make_partitions": ("drift", "partitions"),
    "expire_rows": ("drift", expiring.PIPELINE),
    "publish_decisions": ("ingest", "publishing"),
}


def fire(port: int, timer: str) -> None:
    url = f"http://127.0.0.1:{port}/admin/functions/{timer}"
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=b'{"input": ""}', headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 202


def noted(twin: Twin) -> dict[str, str]:
    """The status of the best run of each pipeline."""
    with psycopg.connect(twin.settings.database_dsn()) as connection:
        rows = connection.execute(
            "SELECT pipeline, min(status) FROM tollgate.pipeline_execution_log WHERE ended_at_us IS NOT NULL GROUP BY 1"
        )
        return {str(name): str(status) for name, status in rows}


def test_timers_do_their_work_and_are_noted_however_often_they_fire(twin: Twin) -> None:
    ports = twin.settings.ports()
    for _ in range(2):
        for timer, (app, _pipeline) in TIMERS.items():
            fire(ports[app], timer)
    wanted = dict.fromkeys((pipeline for _, pipeline in TIMERS.values()), "done")
    end_s = time.monotonic() + 60
    while not wanted.items() <= (found := noted(twin)).items():  # one of two firings may end first, with less
        assert time.monotonic() < end_s, f"{found}\n{twin.logs()}"
        time.sleep(0.3)
    with psycopg.connect(twin.settings.database_dsn()) as connection:
        # Each rule once for each window, each figure once, although the timers fired twice.
        checks = connection.execute(
            "SELECT count(*) > 0, count(*) = count(DISTINCT (source, rule, window_start_us))"
            " FROM tollgate.data_quality_log"
        ).fetchone()
        figures = connection.execute("SELECT count(*) FROM tollgate.performance_metrics").fetchone()
    assert checks == (True, True)
    assert figures is not None
    assert figures[0] >= 1
