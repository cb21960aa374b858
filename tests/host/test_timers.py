"""Timers on real host processes with their schedules and locks in Azurite."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobClient, BlobServiceClient

from tests.host.conftest import StartHost
from tests.host.hosting import HostProcess, until

YEARLY = "0 0 0 1 1 *"
HOSTS = "azure-webjobs-hosts"
type TimerHost = Callable[..., HostProcess]


@pytest.fixture
def minute() -> int:
    """When the hourly timer fires: as far from now as can be, so that it does not by itself in the middle of a test."""
    return (datetime.now(UTC).minute + 30) % 60


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record"


@pytest.fixture
def timer_host(new_host: StartHost, storage: str, record: Path, minute: int) -> TimerHost:
    """Hosts of the timers app that write to this test's record, all with one host id."""

    def make(
        instance: str = "a", host_id: str = record.parent.name, fast: str = YEARLY, failing: str = YEARLY
    ) -> HostProcess:
        settings = {
            "AzureWebJobsStorage": storage,
            "AzureFunctionsWebHost__hostid": host_id,
            "RECORD": str(record),
            "INSTANCE": instance,
            "HOURLY": f"0 {minute} * * * *",
            "FAST": fast,
            "FAILING": failing,
        }
        return new_host("timers", settings, instance_id=instance)

    return make


def runs(record: Path, name: str) -> list[dict[str, Any]]:
    lines = record.read_text().splitlines() if record.exists() else []
    return [run for run in map(json.loads, lines) if run["name"].startswith(name)]


def blob(storage: str, path: str) -> BlobClient:
    return BlobServiceClient.from_connection_string(storage).get_blob_client(HOSTS, path)


def test_schedule_start_and_status(timer_host: TimerHost, record: Path, storage: str, minute: int) -> None:
    host = timer_host(fast="*/1 * * * * *").start()
    # Late where the machine is busy, but not always.
    on_time = until(lambda: [run for run in runs(record, "fast") if run["at"] % 1 < 0.5][3:], "four runs on a second")
    # A schedule under a minute is never monitored, so there is no status.
    assert on_time[0]["status"] == {}
    (at_start,) = until(lambda: runs(record, "at_start"), "the run at the start")
    assert at_start["past_due"] is False
    assert runs(record, "hourly") == []
    host_id = host.status()["id"]
    client = blob(storage, f"timers/{host_id}/Host.Functions.hourly/status")
    until(client.exists, "the status of the hourly timer")
    status = json.loads(client.download_blob().readall())
    client.close()
    following = datetime.fromisoformat(status["Next"])
    assert (following.minute, following.second) == (minute, 0)
    assert following > datetime.now(UTC)
    assert host.stop() == 0


def test_missed_occurrence_is_made_up_for_once(timer_host: TimerHost, record: Path, storage: str, minute: int) -> None:
    host_id = record.parent.name
    client = blob(storage, f"timers/{host_id}/Host.Functions.hourly/status")
    two_hours_ago = (datetime.now(UTC) - timedelta(hours=2)).replace(minute=minute, second=0, microsecond=0)
    status = {
        "Last": two_hours_ago.isoformat(),
        "Next": (two_hours_ago + timedelta(hours=1)).isoformat(),
        "LastUpdated": two_hours_ago.isoformat(),
    }
    container = BlobServiceClient.from_connection_string(storage).get_container_client(HOSTS)
    if not container.exists():
        container.create_container()
    container.close()
    client.upload_blob(json.dumps(status), overwrite=True)
    host = timer_host().start()
    (run,) = until(lambda: runs(record, "hourly"), "the missed run")
    assert run["past_due"] is True
    until(lambda: json.loads(client.download_blob().readall())["Last"] != status["Last"], "the status is renewed")
    client.close()
    until(lambda: runs(record, "at_start"), "the first start")
    assert host.stop() == 0
    again = timer_host().start()
    until(lambda: len(runs(record, "at_start")) == 2, "the second start")
    assert len(runs(record, "hourly")) == 1
    assert again.stop() == 0


def test_one_of_two_instances_fires_and_the_other_takes_over(timer_host: TimerHost, record: Path) -> None:
    """The lease of a killed holder runs out after 15 s; nobody else may fire until then."""
    first = timer_host("first", fast="*/1 * * * * *").start()
    until(lambda: runs(record, "fast"), "a run")
    second = timer_host("second", fast="*/1 * * * * *").start()
    until(lambda: len(runs(record, "fast")) >= 4, "more runs")
    assert {run["instance"] for run in runs(record, "")} == {"first"}
    first.kill()
    until(lambda: any(run["instance"] == "second" for run in runs(record, "fast")), "takeover")
    second.discard()
    fired = [run["instance"] for run in sorted(runs(record, "fast"), key=lambda run: run["at"])]
    assert fired == sorted(fired), "whoever took over was not followed by the other"


def test_stop_releases_the_lock(timer_host: TimerHost, record: Path, storage: str) -> None:
    first = timer_host("first").start()
    until(lambda: runs(record, "at_start"), "a run")
    lock = blob(storage, f"locks/{record.parent.name}/Host.Functions.at_start.Listener")
    assert lock.get_blob_properties().lease.state == "leased"
    assert first.stop() == 0
    assert lock.get_blob_properties().lease.state == "available", "given back: it would be leased or expired otherwise"
    lock.close()
    second = timer_host("second").start()
    until(lambda: len(runs(record, "at_start")) == 2, "the second instance fires")
    second.discard()


def test_failing_timer_is_retried_by_its_policy(timer_host: TimerHost, record: Path) -> None:
    host = timer_host(failing="*/2 * * * * *").start()
    until(lambda: len(runs(record, "failing")) >= 6, "two occurrences, three attempts each")
    assert [run["name"] for run in runs(record, "failing")[:6]] == ["failing 0", "failing 1", "failing 2"] * 2
    assert "ValueError: on purpose" in host.log()
    assert "failed 3 times; its retry policy is exhausted" in host.log()
    host.discard()


def test_timer_is_run_by_hand(timer_host: TimerHost, record: Path) -> None:
    host = timer_host().start()
    assert host.run_by_hand("hourly").status == 202
    (run,) = until(lambda: runs(record, "hourly"), "a run by hand")
    assert run["past_due"] is False
    assert host.run_by_hand("nobody").status == 404
    host.discard()
