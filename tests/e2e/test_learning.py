"""The learning loop from end to end, as `tollgate demo --learning` plays it on a twin of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, demo_environment


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_bad_model_is_refused_a_good_one_decides_and_is_rolled_back(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twin.cli", "demo", "--learning"],
        cwd=ROOT,
        env=demo_environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1180,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    first, second = report["champions"]
    assert [epoch["champion"] for epoch in report["epochs"]] == [first, second, first]
    assert report["refused"]
    assert [change["action"] for change in report["changes"] if change["role"] == "champion"] == [
        "accept",
        "promote",
        "rollback",
    ]
    assert report["replayed"] == sum(epoch["decided"] for epoch in report["epochs"])
    assert report["replay_mismatches"] == report["log_faults"] == 0
