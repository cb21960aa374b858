"""A packaged app runs under the twin's host with nothing but its package on the path."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import free_ports
from tests.packaging.conftest import copy_sources
from twin.packaging import build, unpack
from twin.packaging.policy import SITE_PACKAGES
from twin.packaging.source import ROOT

START_TIMEOUT_S = 60


@contextmanager
def hosted(folder: Path, state: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    settings = {"FUNCTIONS_WORKER_RUNTIME": "python", "AzureWebJobsStorage": "UseDevelopmentStorage=true"}
    config = {
        "app_dir": str(folder),
        "site_packages": str(folder / SITE_PACKAGES),
        "settings": {**settings, "DATA_STORAGE": "UseDevelopmentStorage=true"},
        "host": "127.0.0.1",
        "port": port,
        "state_dir": str(state),
    }
    state.mkdir()
    path = state / "host.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config), encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-m", "twin.host", "--config", str(path)], cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def answer(process: subprocess.Popen[bytes], url: str) -> tuple[int, bytes]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return int(response.status), bytes(response.read())
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "the host ended"
            assert time.monotonic() < deadline, "the host does not answer"
            time.sleep(0.1)


@pytest.mark.timeout(600)  # it installs, compiles and compresses all that the app needs
def test_score_answers_from_its_package(cache_dir: Path, tmp_path: Path) -> None:
    root = copy_sources("score", tmp_path / "sources")
    package = build("score", tmp_path / "out", root=root, cache_dir=cache_dir)
    folder = unpack(package.path, tmp_path / "app", expected_sha256=package.manifest.sha256)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (port,) = free_ports(1)
    with hosted(folder, tmp_path / "state", port) as process:
        status, body = answer(process, f"http://127.0.0.1:{port}/api/health/live")
    assert (status, json.loads(body)["status"]) == (200, "live")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
