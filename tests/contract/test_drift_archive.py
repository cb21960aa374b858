"""The archive of what drift compared, on real Blob storage, and the timer that fills it."""

from __future__ import annotations

import importlib
import io
import uuid
from collections.abc import Iterator
from typing import Any

import azure.functions as func
import numpy as np
import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from shared.adapters.drift_archive import BlobDriftArchive
from shared.domain.drift_counts import DecidedRows
from shared.domain.errors import Transient
from shared.domain.instants import US_PER_HOUR
from shared.entrypoints.drift_timers import PIPELINE, DriftWatchParts, check, drift_timers
from shared.services.timed_runs import TimedRuns
from tests.conftest import free_ports
from tests.fakes.pipelines import FakePipelineLog
from tests.fakes.probes import FakeClock

HOUR_US = 494_000 * US_PER_HOUR


@pytest.fixture
def container(storage: str) -> Iterator[ContainerClient]:
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        yield service.create_container(f"reports-{uuid.uuid4().hex}")


def rows(start: int, end: int) -> DecidedRows:
    """Rows whose values say which they are."""
    place = np.arange(start, end)
    vectors = np.stack([place, place + 0.5], axis=1).astype(np.float32)
    vectors[0, 1] = np.nan
    return DecidedRows(
        HOUR_US + place,
        vectors,
        vectors[:, 0],
        place / 10.0,
        (place % 3).astype(np.int8),
        place % 2 == 0,
    )


def test_an_hour_is_one_parquet_file_of_what_was_compared(container: ContainerClient) -> None:
    archive = BlobDriftArchive(container)
    for _ in range(2):  # a second firing leaves the same file
        file = archive.begin(HOUR_US, ("a", "b"))
        file.add(rows(0, 5))
        file.add(rows(5, 7))
        file.finish()
        file.close()
    (name,) = container.list_blob_names()
    assert name == "drift/2026/05/10/08.parquet"
    parquet: Any = importlib.import_module("pyarrow.parquet")
    table = parquet.read_table(io.BytesIO(container.download_blob(name).readall()))
    assert table.column_names == ["event_time_us", "a", "b", "raw", "score", "outcome", "is_champions"]
    assert table.column("event_time_us").to_pylist() == [HOUR_US + place for place in range(7)]
    assert table.column("a").to_pylist() == [float(place) for place in range(7)]
    assert np.isnan(table.column("b").to_numpy()[[0, 5]]).all()
    assert table.column("is_champions").to_pylist() == [place % 2 == 0 for place in range(7)]


def test_a_file_that_is_given_up_leaves_no_blob(container: ContainerClient) -> None:
    file = BlobDriftArchive(container).begin(HOUR_US, ("a", "b"))
    file.add(rows(0, 5))
    file.close()
    assert not list(container.list_blob_names())


def test_storage_that_is_away_is_transient(container: ContainerClient) -> None:
    url = container.url.replace(container.url.split("/")[2], f"127.0.0.1:{free_ports(1)[0]}")
    with ContainerClient.from_container_url(url, retry_total=0) as away:
        file = BlobDriftArchive(away).begin(HOUR_US, ("a", "b"))
        file.add(rows(0, 5))
        with pytest.raises(Transient):
            file.finish()
        file.close()


def test_the_timer_notes_what_came_of_it(caplog: pytest.LogCaptureFixture) -> None:
    class Timer(func.TimerRequest):
        past_due = False

    log = FakePipelineLog()
    parts = DriftWatchParts(lambda: {"hours": 3, "findings": 1}, TimedRuns(log, FakeClock(), "p"))
    with caplog.at_level("INFO", logger="shared"):
        check(Timer(), parts)
        check(Timer(), parts)
    assert '"findings":1' in caplog.text
    (run,) = log.runs.values()
    assert run.pipeline == PIPELINE
    assert run.details["hours"] == 3
    (function,) = drift_timers(lambda: parts)._function_builders
    assert function._function.get_function_name() == "check_drift"
