"""The same apps from their packages, and without a single key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Twin
from twin.services.journey import get
from twin.services.settings import APPS, DATABASE_PASSWORD, HUB_KEY, STORAGE_KEY

# Packages are built and checked: those of drift and retrain hold hundreds of megabytes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]


def test_apps_run_from_their_packages_with_nothing_else_on_the_path(make_twin: Callable[[], Twin]) -> None:
    twin = make_twin()
    twin.run("up", "--packages", timeout_s=1_200)
    try:
        assert "All checks hold." in twin.run("check")
        for app in APPS:
            config = twin.host_config(app)
            folder = Path(str(config["app_dir"]))
            assert folder.is_relative_to(twin.settings.root / "packages")
            assert config["site_packages"] == str(folder / ".python_packages" / "lib" / "site-packages")
        pids = {app: twin.pid(app) for app in APPS}
        assert twin.run("up", "--packages", timeout_s=1_200).count("already up") == 7
        assert {app: twin.pid(app) for app in APPS} == pids
    finally:
        twin.run("down")


def test_access_keys_are_enforced_when_switched_on(twin: Twin) -> None:
    score = twin.settings.score
    url = f"http://127.0.0.1:{score}/api/probes/nobody"
    assert get(url)[0] == 404
    output = twin.run("up", "--keys")
    try:
        assert "apps/<app>/keys.json" in output
        assert output.count("settings changed, restarting") == len(APPS)
        assert "All checks hold." in twin.run("check")
        assert get(url)[0] == 401
        assert get(url, headers={"x-functions-key": "guess"})[0] == 401
        keys = json.loads((twin.settings.root / "apps" / "score" / "keys.json").read_text(encoding="utf-8"))
        for key in (keys["masterKey"], keys["hostKeys"]["default"], keys["functionKeys"]["probe_receipt"]["default"]):
            assert get(url, headers={"x-functions-key": key})[0] == 404
            assert get(f"{url}?code={key}")[0] == 404
        assert get(f"http://127.0.0.1:{score}/api/health/live")[0] == 200
    finally:
        twin.run("up")
    assert get(url)[0] == 404


def test_packages_without_a_single_key(make_twin: Callable[[], Twin]) -> None:
    twin = make_twin()
    twin.run("up", "--packages", "--identity", timeout_s=1_200)
    try:
        output = twin.run("check")
        assert "All checks hold." in output
        assert "user operator-identity" in output
        for app in APPS:
            config = json.dumps(twin.host_config(app))
            assert not [key for key in (STORAGE_KEY, HUB_KEY, DATABASE_PASSWORD) if key in config]
            assert "managedidentity" in config
        logs = twin.logs()
        header = (twin.settings.root / "identity" / "header").read_text()
        assert header not in logs
        assert not re.search(r"eyJ[A-Za-z0-9_-]{20,}\.eyJ", logs), "a token is in a log"
        # The mode is remembered: status and check speak of the keyless twin without being told.
        assert "--packages --identity" in twin.run("status")
    finally:
        twin.run("down")


def test_package_prints_sizes_and_writes_manifests(make_twin: Callable[[], Twin], tmp_path: Path) -> None:
    output = make_twin().run("package", "score", "--output", str(tmp_path))
    manifest = json.loads((tmp_path / "score.manifest.json").read_text(encoding="utf-8"))
    assert (tmp_path / "score.zip").stat().st_size == manifest["size_bytes"]
    assert "MiB" in output
