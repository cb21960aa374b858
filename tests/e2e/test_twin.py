"""The twin as its user meets it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient

from tests.e2e.conftest import ROOT, Twin, demo_environment
from twin.services.app_settings import surrogate_keys, with_keys
from twin.services.journey import get, send, travel
from twin.services.settings import APPS, TwinSettings

SERVICES = ("postgres", "azurite", "broker", *APPS)


def until(condition: Callable[[], Any], *, within_s: float = 60, what: str = "it") -> Any:
    """Poll until something is true and return it."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s} s"
        time.sleep(0.05)
    return found


def test_everything_is_healthy_and_every_use_works(twin: Twin) -> None:
    output = twin.run("status")
    assert output.count(" healthy ") == len(SERVICES), output
    output = twin.run("check")
    assert "All checks hold." in output
    assert "FAIL" not in output
    assert "hub to ingest in" in output


def test_an_event_leaves_a_receipt_that_http_shows(twin: Twin) -> None:
    journey = travel(twin.settings.score, with_keys("ingest", twin.settings))
    assert journey.arrived, twin.logs()
    sent = json.loads(journey.sent)
    assert journey.receipt["probe_id"] == sent["probe_id"]
    assert journey.receipt["sent_at_us"] == sent["sent_at_us"]
    assert journey.receipt["hub"] == "transactions"


def test_what_cannot_be_read_becomes_a_dead_letter_and_the_stream_goes_on(twin: Twin) -> None:
    settings = with_keys("ingest", twin.settings)
    bodies: list[str | bytes] = [b"\x00\xffnot json", '{"type": "transaction", "id": "t-1"}', b"[]"]
    send("transactions", bodies, settings)
    assert travel(twin.settings.score, settings).arrived
    with BlobServiceClient.from_connection_string(twin.settings.storage_connection()) as service:
        container = service.get_container_client("dead-letters")

        def reasons() -> set[str]:
            letters = [json.loads(container.download_blob(name).readall()) for name in container.list_blob_names()]
            return {letter["reason"] for letter in letters}

        wanted = {
            "the input must be UTF-8; byte 1 is not",
            "the input must be a JSON object",
            "type must be a type this release reads (tollgate.transaction, tollgate.label or tollgate.probe),"
            ' not "transaction"',
        }
        until(lambda: wanted <= reasons(), what="three dead letters")


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("probes/nobody", 404, "probe_id nobody has no receipt"),
        ("probes/-", 400, "probe_id must be 1 to 64 letters, digits and hyphens, and not start with a hyphen"),
    ],
)
def test_bad_requests_are_answered_with_field_and_rule(twin: Twin, path: str, status: int, detail: str) -> None:
    found, body = get(f"http://127.0.0.1:{twin.settings.score}/api/{path}")
    assert found == status
    assert json.loads(body)["detail"] == detail


def test_a_timer_can_be_fired_by_hand_and_its_probe_arrives(twin: Twin) -> None:
    url = f"http://127.0.0.1:{twin.settings.drift}/admin/functions/send_probe"
    request = urllib.request.Request(
        url, data=b'{"input": ""}', headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 202

    def probe_id() -> str | None:
        log = (twin.settings.root / "logs" / "drift.log").read_text(encoding="utf-8")
        found = re.findall(r'probe sent .*?\\?"probe_id\\?":\\?"([0-9a-f]{32})', log)
        return found[-1] if found else None

    sent = until(probe_id, what="the probe's line in the log")
    url = f"http://127.0.0.1:{twin.settings.score}/api/probes/{sent}"
    until(lambda: get(url)[0] == 200, what="the receipt")


def test_a_second_up_finds_the_first(twin: Twin) -> None:
    before = {name: twin.pid(name) for name in SERVICES}
    output = twin.run("up")
    assert output.count("already up") == len(SERVICES), output
    assert {name: twin.pid(name) for name in SERVICES} == before


def test_logs_of_one_and_of_all(twin: Twin) -> None:
    assert "ready" in twin.run("logs", "broker")
    assert twin.run("logs", "-n", "1").count("\n") >= len(APPS)
    assert "no log of nobody; there are: azurite, broker" in twin.run("logs", "nobody", code=1)


def test_following_logs_prints_what_is_added_and_ctrl_c_ends_it(twin: Twin) -> None:
    with twin.start("logs", "ingest", "-f", "-n", "0") as process:
        assert process.stdout is not None
        printed, deadline = b"", time.monotonic() + 60
        while b"batch received" not in printed:  # what came before the command looked is not shown, so again and again
            assert time.monotonic() < deadline, printed
            assert travel(twin.settings.score, with_keys("ingest", twin.settings)).arrived
            if select.select([process.stdout], [], [], 1)[0]:
                printed += os.read(process.stdout.fileno(), 1 << 16)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


def test_two_commands_do_not_change_one_twin_at_once(twin: Twin) -> None:
    import fcntl

    with (twin.settings.root / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another tollgate command is changing the twin" in twin.run("up", code=1)


@pytest.fixture(scope="module")
def hard(make_twin: Callable[[], Twin]) -> Twin:
    """A twin for a hard life; the tests take and leave it up."""
    twin = make_twin()
    twin.run("up")
    return twin


def test_up_heals_what_was_killed_and_only_that(hard: Twin) -> None:
    before = {name: hard.pid(name) for name in SERVICES}
    os.kill(hard.pid("azurite"), signal.SIGKILL)
    # Storage is down: a client is told to come again, soon enough to be still there.
    status, body = get(f"http://127.0.0.1:{hard.settings.score}/api/probes/any", timeout_s=60)
    assert (status, json.loads(body)["detail"]) == (503, "try again")
    for name in ("broker", "postgres", "score"):
        os.kill(hard.pid(name), signal.SIGKILL)
    until(lambda: hard.running("broker") is None, what="the broker's end")
    assert "down" in hard.run("status", code=1)
    assert "FAIL" in hard.run("check", code=1)
    hard.run("up")
    after = {name: hard.pid(name) for name in SERVICES}
    assert {name for name in SERVICES if before[name] != after[name]} == {"azurite", "broker", "postgres", "score"}
    assert "All checks hold." in hard.run("check")


def test_checkpoints_that_vanish_are_begun_anew_and_the_stream_goes_on(hard: Twin) -> None:
    """As after a kill of Azurite, which acknowledges before it saves."""
    hard.run("up")
    settings = with_keys("ingest", hard.settings)
    before = travel(hard.settings.score, settings)
    with BlobServiceClient.from_connection_string(hard.settings.storage_connection()) as service:
        service.delete_container("azure-webjobs-eventhub")
        after = travel(hard.settings.score, settings, timeout_s=60)
        assert after.arrived, hard.logs()
        checkpoints = service.get_container_client("azure-webjobs-eventhub")

        def written() -> bool:
            with suppress(ResourceNotFoundError):  # not made again yet
                return any("/checkpoint/" in name for name in checkpoints.list_blob_names())
            return False

        until(written, what="a checkpoint")
    # Delivered again, recorded once.
    assert get(before.url)[1] == before.answer


def test_state_survives_down_and_up_and_fresh_wipes_it(hard: Twin) -> None:
    hard.run("up")
    journey = travel(hard.settings.score, with_keys("ingest", hard.settings))
    assert journey.arrived, hard.logs()
    assert "The twin is down." in hard.run("down")
    assert all(hard.running(name) is None for name in SERVICES)
    assert "Nothing was running." in hard.run("down")
    hard.run("up")
    assert get(journey.url)[0] == 200
    hard.run("up", "--fresh")
    assert get(journey.url)[0] == 404
    assert "All checks hold." in hard.run("check")


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_up_that_is_cut_off_is_finished_by_the_next(make_twin: Callable[[], Twin], ending: signal.Signals) -> None:
    twin = make_twin()
    with twin.start("up") as process:
        until(lambda: twin.running("broker"), what="the broker's start")
        process.send_signal(ending)
        output, _ = process.communicate(timeout=60)
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert "what was started keeps running" in output
    broker = twin.pid("broker")
    output = twin.run("up")
    assert "already up" in output
    assert twin.pid("broker") == broker
    assert " healthy " in twin.run("status")
    twin.run("down", "--wipe")
    assert [path.name for path in twin.settings.root.iterdir()] == ["lock"]


def test_a_taken_port_is_named_with_its_owner_and_setting(make_twin: Callable[[], Twin]) -> None:
    twin = make_twin()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", twin.settings.amqp))
        taken.listen()
        output = twin.run("up", code=1)
    assert f"port {twin.settings.amqp} (broker) is taken by process {os.getpid()}" in output
    assert "set TWIN_PORT_AMQP" in output


def test_a_folder_with_other_peoples_files_is_not_wiped(make_twin: Callable[[], Twin]) -> None:
    twin = make_twin()
    twin.settings.root.mkdir(parents=True)
    precious = twin.settings.root / "thesis.txt"
    precious.write_text("years of work")
    output = twin.run("up", "--fresh", code=1)
    assert "holds thesis.txt, which is not the twin's" in output
    assert precious.exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("up", "--identity", "--docker"), {}, "--identity needs the twin's own services"),
        (("up", "--packages", "--func"), {}, "--packages needs the twin's own host"),
        (("up",), {"TWIN_PORT_SCORE": "http"}, "TWIN_PORT_SCORE"),
        (("up",), {"TWIN_PORT_SCOER": "1"}, "TWIN_PORT_SCOER is not a setting of the twin"),
        (("package", "shop"), {}, "shop is not an app; the apps are score, ingest, drift, retrain"),
    ],
)
def test_what_cannot_be_done_is_said(
    make_twin: Callable[[], Twin], arguments: tuple[str, ...], environment: dict[str, Any], message: str
) -> None:
    output = make_twin().run(*arguments, code=1, **environment)
    assert message in output
    assert "Traceback" not in output


@pytest.mark.timeout(1200)
def test_the_demo_plays_a_small_bank_and_every_promise_holds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twin.demo"],
        cwd=ROOT,
        env={**demo_environment(tmp_path), "SCALE": "0.3"},
        capture_output=True,
        text=True,
        timeout=1180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["decided"] == report["expected"] == report["replayed"]
    assert (report["replay_mismatches"], report["log_faults"]) == (0, 0)
    assert report["duplicates_absorbed"] == report["repeats_sent"] > 0
    assert sum(report["dead_letters"].values()) == report["dead_letters_expected"] > 0
    assert set(report["http_ms"]) == {"p50", "p95", "p99"}
    assert report["ap"] > 3 * report["frauds"] / report["judged"]
    assert len(report["explained"]) == 3
    assert all(item["reasons"] for item in report["explained"])
    assert "The twin stays up" not in done.stdout


def _stand_in(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def test_core_tools_are_started_per_app_with_its_settings(make_twin: Callable[[], Twin], tmp_path: Path) -> None:
    """A stand-in for `func` records how it is called; the real one was never run here."""
    _stand_in(tmp_path, "func", f'echo "$PWD|$*" >> {tmp_path}/calls; exec sleep 60')
    twin = make_twin()
    written = [ROOT / "functions" / app / "local.settings.json" for app in APPS]
    existed = [path for path in written if path.exists()]
    assert not existed, f"{existed} are your own; move them away for this test"
    try:
        process = twin.start("up", "--func", PATH=f"{tmp_path}:{os.environ['PATH']}")
        calls = tmp_path / "calls"
        until(lambda: calls.exists() and len(calls.read_text().splitlines()) == len(APPS), what="four calls")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        for app, path in zip(APPS, written, strict=True):
            port = twin.settings.port_of(app)
            assert f"{ROOT}/functions/{app}|start --port {port} --no-build" in calls.read_text()
            document = json.loads(path.read_text(encoding="utf-8"))
            assert document["Values"] == with_keys(app, twin.settings, surrogate_keys(twin.settings))
            assert path.stat().st_mode & 0o777 == 0o600
    finally:
        twin.run("down", code=None, PATH=f"{tmp_path}:{os.environ['PATH']}")
        for path in written:
            path.unlink(missing_ok=True)


def test_docker_mode_brings_the_containers_up_and_down(make_twin: Callable[[], Twin], tmp_path: Path) -> None:
    """A stand-in for `docker` records how it is called and fails; the real one was never run here."""
    _stand_in(tmp_path, "docker", f'echo "$*" >> {tmp_path}/calls; exit 7')
    twin = make_twin()
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert "docker compose up failed with exit code 7" in twin.run("up", "--docker", code=1, PATH=path)
    compose = ROOT / "docker-compose.azurite.yml"
    first = (tmp_path / "calls").read_text().splitlines()[0]
    assert first == f"compose -f {compose} up --detach --wait azurite eventhubs-ready postgres"
    assert twin.running("azurite") is None
    assert "docker compose down failed" in twin.run("down", code=1, PATH=path)


def test_the_default_ports_are_documented() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for name in TwinSettings().ports():
        assert f"`TWIN_PORT_{name.upper()}`" in operations
