"""What a retraining takes on the Handbook's transactions: from tables in Postgres to the gate's verdict.

All 1,504,628 transactions and their labels lie in the tables as recording would have left them, with entity versions. A
process of its own then does what the retrain app does: it reads, trains with the default search and judges, first
without a champion, then against the model of the first run. Its peak memory and what each step took are reported.
`TOLLGATE_HANDBOOK` names the file; without it a synthetic set of the same size is used, and a note says so.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks.bench_features import load
from benchmarks.report import Report
from shared.adapters.file_bundles import FileBundles
from shared.adapters.onnx_scorer import OnnxGraph
from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_partitions import PostgresPartitions
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.postgres_training_data import SETTINGS, PostgresTrainingData
from shared.adapters.xgboost_trainer import XgboostTrainer
from shared.domain.bundle_pointer import Role
from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_DAY
from shared.domain.promotion import GateRules
from shared.domain.training_split import TrainingPlan
from shared.services.retraining_lease import held
from shared.services.retraining_run import ModelRules, ModelStores, TrainingRun
from shared.services.succession import Succession
from tests.chaos.server import Server
from tests.fakes.notices import FakeNotices
from tests.fakes.pipelines import FakeLeases, FakePipelineLog
from tests.fakes.recorded_history import recorded, span_of, store
from tests.fakes.registry import FakeMeasuredRows, FakeRecords
from tests.fakes.succession import FakePromotions
from tests.fakes.verdict_pages import FakeVerdictPages
from tests.fakes.views import FakeViewBook
from twin.services import database as product_database

DATABASE: Final = "retrain"
MATURITY_US: Final = 7 * US_PER_DAY
"""The file's verdicts are known at once; a week leaves more of its 157 days to learn from."""

AIM_S: Final = 300.0
AIM_BYTES: Final = 2 << 30
BEFORE: Final = ("reading", "labels")
"""Steps before features are computed."""


@dataclass
class StillClock:
    """The time at which the file's last verdict is mature."""

    time_us: int

    def now_us(self) -> int:
        """That time."""
        return self.time_us


def run() -> Report:
    """The figures."""
    report = Report("retrain")
    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name) / "postgres")
        server.up()
        try:
            dsn = server.dsn(DATABASE)
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {DATABASE}")
            end_us, source = _fill(dsn)
            command = [sys.executable, "-m", "benchmarks.bench_retrain", dsn, str(end_us + MATURITY_US), name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        finally:
            server.down()
    found = json.loads(done.stdout)
    for title, figures in found["runs"].items():
        seconds: dict[str, float] = figures["seconds"]
        judged_s = sum(value for step, value in seconds.items() if step not in BEFORE)
        report.add(
            f"features to verdict, {title}",
            judged_s,
            "s",
            aim=AIM_S,
            better="lower",
            note=f"{figures['trials']} trials; {figures['summary']}; CPU {figures['cpu_s']:.0f} s",
        )
        report.add(f"reading, {title}", seconds["reading"], "s", note=f"{figures['rows_read']:,} rows; {source}")
        longest = sorted(seconds.items(), key=lambda item: -item[1])[:6]
        report.add(
            f"longest step, {title}",
            longest[0][1],
            "s",
            note=", ".join(f"{step} {value:.1f}" for step, value in longest),
        )
    report.add("peak memory of the process", found["peak_bytes"] / 2**20, "MiB", aim=AIM_BYTES / 2**20, better="lower")
    return report


def _fill(dsn: str) -> tuple[int, str]:
    """Write the transactions and labels; returns the last event time and where they come from."""
    transactions, labels, source = load()
    columns = recorded(transactions, labels)
    product_database.bring_up_to_date(dsn, time.time_ns() // 1000)
    where = parse_postgres("DATABASE", {"DATABASE": dsn})
    PostgresPartitions(where, "benchmark").make(*span_of(columns[0]))
    with psycopg.connect(dsn, autocommit=True) as connection:
        store(connection, *columns)
        connection.execute("VACUUM ANALYZE tollgate.transactions, tollgate.feedback_labels")
    return span_of(columns[0])[1], source


def _measured(dsn: str, now_us: int, folder: Path) -> dict[str, Any]:
    """Train twice, in this process."""
    clock, log = StillClock(now_us), FakePipelineLog()
    bundles, promotions = FileBundles(folder / "bundles"), FakePromotions()
    succession = Succession(bundles, promotions, clock, views=FakeViewBook())
    where = parse_postgres("DATABASE", {"DATABASE": dsn})
    runs: dict[str, Any] = {}
    rules = ModelRules(
        "card-fraud",
        CARD_V1,
        TrainingPlan(now_us, gap_us=CARD_V1.label_delay_us, maturity_us=MATURITY_US),
        gate=GateRules(maturity_us=MATURITY_US),
    )
    with closing(PostgresSession(where, "benchmark", SETTINGS)) as session:
        stores = ModelStores(
            PostgresTrainingData(session),
            bundles,
            succession,
            log,
            FakeNotices(),
            FakeVerdictPages(),
            FakeRecords(),
            FakeMeasuredRows(),
        )
        training = TrainingRun(stores, rules, clock, load_trainer=XgboostTrainer, load_graph=OnnxGraph)
        for title in ("no champion", "beside a champion"):
            lease = held(FakeLeases(), "retrain", title, clock, 7_200_000_000)
            if lease is None:  # a new store has none
                raise SystemExit("the lease is taken")
            began_s = time.process_time()
            outcome = training(title, now_us, lease)
            runs[title] = {**outcome.details, "summary": outcome.summary, "cpu_s": time.process_time() - began_s}
            if succession.present().get(Role.CHAMPION) is None:
                succession.accept(str(outcome.details["bundle"]), author="benchmark", reason="the first one")
    return {"runs": runs, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(_measured(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        run().finish()
