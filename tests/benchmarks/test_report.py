"""What a benchmark prints and writes can be relied on; the figures themselves are never timed tests."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.__main__ import names
from benchmarks.report import Figure, Report

ROOT = Path(__file__).resolve().parents[2]


def test_a_missed_aim_is_said_and_peers_have_none(tmp_path: Path) -> None:
    report = Report("example")
    report.add("in", 9_000.4, "events/s", aim=8_500)
    report.add("latency", 61.0, "ms", aim=60, better="lower", note="p50")
    report.add("peer", 0.0000123, "s")
    with (tmp_path / "out").open("w") as file:
        path = report.finish(tmp_path, Console(file=file, width=140))
    printed = (tmp_path / "out").read_text()
    assert "9,000" in printed
    assert ">= 8,500" in printed
    assert "NO" in printed
    assert "e-0" not in printed
    document = json.loads(path.read_text())
    assert [figure["met"] for figure in document["figures"]] == [True, False, None]
    assert document["command"] == "python -m benchmarks example"
    assert document["machine"]["cpus"]


@pytest.mark.parametrize(("value", "aim", "better", "met"), [(1, 1, "higher", True), (1, 1, "lower", True)])
def test_reaching_an_aim_exactly_meets_it(value: float, aim: float, better: str, met: bool) -> None:
    assert Figure("x", value, "s", aim, "higher" if better == "higher" else "lower").met is met


def test_every_benchmark_can_be_loaded_and_is_listed() -> None:
    assert {"broker", "features", "host"} <= set(names())
    for name in names():
        assert callable(importlib.import_module(f"benchmarks.bench_{name}").run)


def test_an_unknown_benchmark_is_refused_by_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "speed" in done.stderr
