"""Reports on real servers: what the page reads from Postgres, and a child that draws or dies."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa  # type: ignore[import-untyped]  # has no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # has no types
import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient
from psycopg.types.json import Jsonb

from shared.adapters.blob_reports import BlobReports
from shared.adapters.drift_archive import blob_name
from shared.adapters.evidently_drawing import EvidentlyDrawing
from shared.adapters.postgres_notices import PostgresNotices
from shared.adapters.postgres_reports import PostgresReports
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.bundle_manifest import REFERENCE
from shared.domain.bundle_reference import SCORE, Reference, histogram_of, write_reference
from shared.domain.errors import NotFound, Transient
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.pipeline import Cause, Notice, RunStatus, Severity
from shared.entrypoints import report_pages
from shared.ports.notifying import NoticeStatus
from shared.ports.reports import ComparedWindow
from shared.services.reporting import Reporting, report_path
from tests.conftest import MigratedDatabase
from tests.fakes.probes import FakeClock

NOW_US = 1_700_000_000_000_000
HOUR_US = NOW_US // US_PER_HOUR * US_PER_HOUR
DIGEST, OLDER = "9f" * 32, "11" * 32


def add_metric(connection: psycopg.Connection[Any], end_us: int, digest: str = DIGEST, **row: object) -> None:
    values = {"subject": "all", "statistic": "verdict", "value": 0.0, "details": {}, "hours": 1, **row}
    connection.execute(
        "INSERT INTO tollgate.drift_metrics (bundle_digest, subject, statistic, value, window_start_us, window_end_us,"
        " reference_rows, current_rows, details, recorded_at_us)"
        " VALUES (%(digest)s, %(subject)s, %(statistic)s, %(value)s, %(start)s, %(end)s, 10, 20, %(details)s, %(end)s)",
        {
            **values,
            "details": Jsonb(values["details"]),
            "digest": digest,
            "start": end_us - int(str(values["hours"])) * US_PER_HOUR,
            "end": end_us,
        },
    )


@pytest.fixture(scope="module")
def seeded(migrated_database: MigratedDatabase) -> MigratedDatabase:
    """Two days of what the watching loop keeps."""
    found = {"state": "drift", "archived": True, "findings": [{"subject": "amount", "psi": 0.33}, {"subject": "score"}]}
    withheld = {"state": "withheld", "withheld": "no transaction for 40 minutes", "archived": False, "findings": []}
    with psycopg.connect(migrated_database.dsn) as connection:
        add_metric(connection, HOUR_US, details=found, value=2.0)
        add_metric(connection, HOUR_US - US_PER_HOUR, details=withheld, value=None)
        add_metric(connection, HOUR_US - 2 * US_PER_HOUR, OLDER, details={"state": "quiet", "archived": True})
        add_metric(connection, HOUR_US - 2 * US_PER_HOUR, details={"state": "quiet", "archived": True})
        add_metric(connection, HOUR_US - 15 * US_PER_DAY, details={"state": "quiet", "archived": True})
        for place in range(4):
            at = HOUR_US - place * US_PER_HOUR
            add_metric(connection, at, subject="amount", statistic="psi", value=0.1 * place, details={"counts": [1]})
            add_metric(connection, at, subject="amount", statistic="psi", value=9.0, hours=24)
        for place in range(2):
            connection.execute(
                "INSERT INTO tollgate.performance_metrics (bundle_digest, segment, metric, value, n_rows, n_frauds,"
                " window_start_us, window_end_us, recorded_at_us) VALUES (%s, %s, 'recall', %s, 9, 1, %s, %s, %s)",
                [DIGEST, ("all", "amount:high")[place], 0.7, HOUR_US - US_PER_DAY, HOUR_US, HOUR_US],
            )
        for rule, place, passed in (("volume", 0, True), ("volume", 1, False), ("missing", 0, False)):
            end_us = HOUR_US - place * US_PER_HOUR
            connection.execute(
                "INSERT INTO tollgate.data_quality_log (source, rule, passed, observed, window_start_us, window_end_us,"
                " recorded_at_us) VALUES ('transactions', %s, %s, 0.5, %s, %s, %s)",
                [rule, passed, end_us - US_PER_HOUR, end_us, end_us],
            )
        for status, closed in (("open", None), ("done", NOW_US)):
            connection.execute(
                "INSERT INTO tollgate.retraining_triggers"
                " (cause, subject, priority, status, created_at_us, closed_at_us)"
                " VALUES ('feature drift', 'amount', 2, %s, %s, %s)",
                [status, NOW_US, closed],
            )
        connection.execute(
            "INSERT INTO tollgate.promotion_verdicts VALUES (%s, %s, NULL, false, '{}', NULL, %s)",
            ["aa" * 32, "bb" * 32, NOW_US],
        )
        for number, status in ((1, "done"), (2, "failed")):
            connection.execute(
                "INSERT INTO tollgate.pipeline_execution_log VALUES (%s, 'drift', %s, %s, %s, %s)",
                [f"drift/{number}", status, NOW_US + number, NOW_US + 5, "the store is away" if number == 2 else None],
            )
    session = PostgresSession(migrated_database.role_connection(Role.DRIFT), "test")
    notices = PostgresNotices(session)
    notices.put(Notice("a", Severity.WARNING, "older", {}, "", NOW_US - 1))
    notices.put(Notice("b", Severity.ERROR, "newer", {"psi": 0.3}, "", NOW_US))
    notices.spread(["mail", "slack"], NOW_US)
    session.close()
    return migrated_database


@pytest.fixture
def readings(seeded: MigratedDatabase) -> PostgresReports:
    return PostgresReports(seeded.role_connection(Role.DRIFT), "test")


def test_the_page_is_read_with_the_rights_of_the_app(readings: PostgresReports) -> None:
    facts = readings.read(NOW_US)
    assert [(row.state, row.withheld) for row in facts.verdicts[:2]] == [
        *(("drift", ""), ("withheld", "no transaction for 40 minutes")),
    ]
    assert facts.verdicts[0].findings == (("amount", 0.33), ("score", None))
    assert len(facts.verdicts) == 4
    (amount,) = facts.drift
    assert [value for _, value in amount.points] == pytest.approx([0.3, 0.2, 0.1, 0.0])
    assert [(one.name, one.points) for one in facts.performance] == [("recall", ((HOUR_US, 0.7),))]
    assert [(row.rule, row.passed, row.failures) for row in facts.quality] == [
        ("missing", False, 1),
        ("volume", True, 1),
    ]
    assert [item.trigger.cause for item in facts.triggers] == [Cause.FEATURE_DRIFT]
    assert [(row.verdict_digest, row.passed) for row in facts.gate] == [("aa" * 32, False)]
    assert [item.notice.title for item in facts.notices] == ["newer", "older"]
    assert facts.notices[0].channels == (("mail", NoticeStatus.WAITING), ("slack", NoticeStatus.WAITING))
    assert [(run.run_id, run.status, run.error) for run in facts.runs] == [
        ("drift/2", RunStatus.FAILED, "the store is away")
    ]
    assert "no transaction for 40 minutes" in report_pages.page(facts, frozenset())


def test_an_empty_database_makes_an_empty_page(readings: PostgresReports) -> None:
    facts = readings.read(NOW_US + 400 * US_PER_DAY)
    assert (facts.verdicts, facts.drift, facts.performance, facts.quality, facts.runs) == ((), (), (), (), ())


def test_windows_that_were_archived_want_a_report_one_each(readings: PostgresReports) -> None:
    assert readings.archived(HOUR_US - US_PER_DAY) == [
        ComparedWindow(HOUR_US - US_PER_HOUR, DIGEST),
        ComparedWindow(HOUR_US - 3 * US_PER_HOUR, DIGEST),
    ]


class OneBundle:
    """Serves one bundle's reference."""

    def get(self, digest: str) -> dict[str, bytes]:
        if digest != DIGEST:
            raise NotFound("digest", "names no bundle of this store")
        rng = np.random.default_rng(1)
        times = rng.integers(HOUR_US - 30 * US_PER_DAY, HOUR_US, 4000)
        columns = {"amount": rng.lognormal(3, 1, 4000), "night": rng.integers(0, 2, 4000), SCORE: rng.beta(1, 20, 4000)}
        histograms = {name: histogram_of(values.astype(np.float32), times) for name, values in columns.items()}
        return {REFERENCE: write_reference(Reference(int(times.min()), HOUR_US, histograms))}


@pytest.fixture
def container(storage: str) -> Iterator[ContainerClient]:
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        client = service.create_container(f"test-{uuid.uuid4().hex}")
        yield client
        client.delete_container()


def archive(container: ContainerClient, start_us: int, factor: float) -> None:
    """What drift would have archived of an hour, without the columns that nobody needs."""
    rng = np.random.default_rng(2)
    table = pa.table(
        {
            "event_time_us": rng.integers(start_us, start_us + US_PER_HOUR, 3000),
            "amount": (rng.lognormal(3, 1, 3000) * factor).astype(np.float32),
            "night": rng.integers(0, 2, 3000).astype(np.float32),
            "raw": rng.beta(1, 20, 3000).astype(np.float32),
            "score": rng.random(3000),
            "something_new": rng.random(3000),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    container.upload_blob(blob_name(start_us), sink.getvalue().to_pybytes())


def drift_rows(database: MigratedDatabase) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.dsn) as connection:
        return connection.execute("SELECT * FROM tollgate.drift_metrics ORDER BY metric_id").fetchall()


@pytest.mark.slow
def test_a_child_that_dies_leaves_the_verdict_and_the_next_run_makes_it_up(
    seeded: MigratedDatabase, readings: PostgresReports, container: ContainerClient
) -> None:
    start_us = HOUR_US - US_PER_HOUR
    archive(container, start_us, 1.6)
    store, clock, before = BlobReports(container), FakeClock(NOW_US), drift_rows(seeded)
    small = EvidentlyDrawing(container, OneBundle(), memory_bytes=32 << 20)  # type: ignore[arg-type]  # a part of one
    with pytest.raises(Transient, match="the child that draws ended with"):
        Reporting(readings, store, small, clock).run()
    hasty = EvidentlyDrawing(container, OneBundle(), timeout_s=0.2)  # type: ignore[arg-type]  # a part of one
    with pytest.raises(Transient, match=r"longer than 0\.2 s"):
        Reporting(readings, store, hasty, clock).run()
    assert store.paths("") == [blob_name(start_us)]

    well = EvidentlyDrawing(container, OneBundle())  # type: ignore[arg-type]  # a part of one
    assert Reporting(readings, store, well, clock).run() == {"drawn": 1, "deleted": 0, "gone": 1}
    assert drift_rows(seeded) == before
    page, _ = store.get(report_path(start_us, "html")) or (b"", "")
    assert b"amount" in page
    assert not re.findall(rb'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)', page)
    document = json.loads((store.get(report_path(start_us, "json")) or (b"", ""))[0])
    assert document["about"]["rows"] == 3000
    assert document["about"]["bundle_digest"] == DIGEST
    values = {metric["config"].get("column"): metric["value"] for metric in document["evidently"]["metrics"]}
    assert values["amount"] > 0.15
    assert max(values["night"], values[SCORE]) < 0.02
