"""From the start of a worker process to its first explained, durable decision; what it weighs then.

Real database, real storage, a model of 100 trees of depth 4; the process begins with nothing but bytecode on disk. The
peer of the same run is the interpreter that imports nothing.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.bench_http import ground
from benchmarks.report import Report
from tests.host.hosting import ROOT
from tests.integration.score_app import settings

STARTS: Final = 9
TIME_AIM_S: Final = 0.8
WEIGHT_AIM_MB: Final = 150


def run() -> Report:
    """Measure some starts and report their medians."""
    report = Report("cold")
    with tempfile.TemporaryDirectory(prefix="bench-cold-") as folder, ground(Path(folder)) as under:
        dsn = under.server.settings.database_dsn("score-app")
        environment = {**os.environ, **settings(under.storage, dsn, under.models.name)}
        start(environment)  # the first one may have to write bytecode
        found = [start(environment) for _ in range(STARTS)]
        bare = [_bare() for _ in range(STARTS)]
    report.add("interpreter alone", statistics.median(bare), "s", better="lower", note="peer: python -c pass")
    for name, key, unit in (
        ("app loaded", "loaded_s", "s"),
        ("CPU of it all", "cpu_s", "s"),
        ("peak memory", "peak_mb", "MB"),
    ):
        report.add(name, statistics.median(item[key] for item in found), unit, better="lower")
    decided = sorted(item["decided_s"] for item in found)
    note = f"{STARTS} starts, {decided[0]:.2f} to {decided[-1]:.2f}"
    report.add("first decision", statistics.median(decided), "s", aim=TIME_AIM_S, better="lower", note=note)
    weight = statistics.median(item["rss_mb"] for item in found)
    report.add("resident memory then", weight, "MB", aim=WEIGHT_AIM_MB, better="lower")
    return report


def start(environment: dict[str, str]) -> Any:
    """One start; what `benchmarks.cold_start` prints."""
    command = [sys.executable, "-m", "benchmarks.cold_start", str(ROOT / "functions" / "score"), repr(time.time())]
    ended = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["status"] == 200, found["body"]
    return found


def _bare() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True, timeout=30)
    return time.perf_counter() - began
