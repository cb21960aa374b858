from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.host.hosting import alive, until
from twin.services.processes import MAX_LOG_BYTES, Records, ServiceDied, end, tail
from twin.services.service import base_environment, port_owner

SLEEPER = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)"]


def start(records: Records, folder: Path, command: list[str] | None = None) -> int:
    running = records.start(
        "sleeper",
        command or SLEEPER,
        environment=base_environment(),
        cwd=folder,
        log=folder / "logs" / "sleeper.log",
        fingerprint="f1",
    )
    return running.pid


def test_a_service_is_found_again_and_stopped(tmp_path: Path) -> None:
    records = Records(tmp_path / "run")
    assert records.find("sleeper") is None
    pid = start(records, tmp_path)
    found = Records(tmp_path / "run").find("sleeper")
    assert found is not None
    assert (found.pid, found.fingerprint) == (pid, "f1")
    assert abs(found.started_at - time.time()) < 30
    assert records.stop("sleeper")
    assert records.find("sleeper") is None
    assert not records.stop("sleeper")


def test_a_process_id_that_is_used_again_is_not_mistaken(tmp_path: Path) -> None:
    records = Records(tmp_path / "run")
    start(records, tmp_path)
    path = tmp_path / "run" / "sleeper.json"
    document = json.loads(path.read_text())
    try:
        # As if the recorded process had ended an hour ago and another one had been given its number.
        path.write_text(json.dumps({**document, "recorded_at": document["recorded_at"] - 3600}))
        assert records.find("sleeper") is None
        assert not records.stop("sleeper")
        os.kill(document["pid"], 0)
    finally:
        end(document["pid"])


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pid": "x", "recorded_at": 1, "fingerprint": ""}', "garbage"])
def test_a_damaged_record_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "sleeper.json").write_text(content)
    assert Records(tmp_path).find("sleeper") is None


def test_a_service_that_does_not_begin_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiter = tmp_path / "waiter.py"
    waiter.write_text("import os, sys, time; open(sys.argv[1] + '.pid', 'w').write(str(os.getpid())); time.sleep(60)")
    monkeypatch.setattr("twin.services.launch.__file__", str(waiter))
    monkeypatch.setattr("twin.services.processes._BEGIN_S", 1.0)
    records = Records(tmp_path / "run")
    with pytest.raises(ServiceDied, match="sleeper"):
        start(records, tmp_path)
    begun = tmp_path / "run" / "sleeper.json.pid"
    assert not begun.exists() or not alive(int(begun.read_text())), "nobody would find it again"
    assert records.find("sleeper") is None


def test_a_killed_service_is_not_running(tmp_path: Path) -> None:
    records = Records(tmp_path / "run")
    pid = start(records, tmp_path)
    os.kill(pid, signal.SIGKILL)
    until(lambda: records.find("sleeper") is None, "its end")


def test_a_service_that_ignores_the_signal_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    records = Records(tmp_path / "run")
    start(records, tmp_path, [sys.executable, "-c", code])
    log = tmp_path / "logs" / "sleeper.log"
    until(lambda: log.read_text().strip(), "the child's number")
    child = int(log.read_text())
    assert records.stop("sleeper", grace_s=0.5)
    assert not alive(child)


def test_a_program_that_is_not_there_is_named_in_its_log(tmp_path: Path) -> None:
    records = Records(tmp_path / "run")
    start(records, tmp_path, ["/nonexistent/program"])
    until(lambda: records.find("sleeper") is None, "its end")
    assert "cannot start /nonexistent/program: No such file" in tail(tmp_path / "logs" / "sleeper.log", 5)


def test_a_long_log_is_turned_over_at_the_next_start(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "sleeper.log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(MAX_LOG_BYTES + 1)
    records = Records(tmp_path / "run")
    start(records, tmp_path)
    records.stop("sleeper")
    assert log.stat().st_size < 1000
    assert (tmp_path / "logs" / "sleeper.log.1").stat().st_size == MAX_LOG_BYTES + 1


def test_the_owner_of_a_port_is_named(tmp_path: Path) -> None:
    code = (
        "import socket, time; listener = socket.create_server(('127.0.0.1', 0));"
        "print(listener.getsockname()[1], flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert f"process {process.pid} (" in str(port_owner(port))
        process.kill()
    assert port_owner(port) is None
