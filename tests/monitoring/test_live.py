"""A real Prometheus over the deployed apps: every expression has data, every alert fires on its fault and clears."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from monitoring.alerts import ALERTS
from monitoring.panels import DASHBOARDS
from monitoring.rendering import prometheus_rules, promql_of
from shared.adapters.postgres_meters import PostgresMeters
from shared.adapters.schema.grants import Role
from shared.adapters.system_clock import SystemClock
from shared.domain.pipeline import Cause
from shared.services.metering import (
    CONFIDENCE,
    DURATION,
    ERRORS,
    EVENTS,
    LATENCY,
    PREDICTIONS,
    REPLAYS,
    REQUESTS,
    STREAM_LAG,
    Family,
    Meters,
)
from shared.services.metering_flush import MeterFlush
from tests.conftest import MigratedDatabase, free_ports
from tests.fakes.counts import FakeCells
from tests.host.hosting import ROOT, HostProcess, until
from tests.integration.score_app import Models, fields, login, running, settings
from twin.services import prometheus
from twin.services.settings import HOST

WINDOW = "10s"
"""Instead of minutes: ten scrapes, and a writer's flush or two."""

HOUR_US = 3_600_000_000
CHAMPION = "a" * 64


class Instance:
    """Another instance of an app: counts and writes as one does."""

    def __init__(self, app: str, role: Role, database: MigratedDatabase) -> None:
        cells = FakeCells()
        self.meters = Meters(cells)
        store = PostgresMeters(database.role_connection(role), "tests")
        self._flush = MeterFlush(app, cells, store, SystemClock())

    def record(self, family: Family, value: float, *labels: str, times: int = 1) -> None:
        for _ in range(times):
            self.meters.record(family, value, *labels)
        self._flush.flush()

    def count(self, family: Family, *labels: str, by: float = 1) -> None:
        self.meters.count(family, *labels, by=by)
        self._flush.flush()

    def takes_a_batch(self) -> None:
        for event in range(4):
            self.meters.count(EVENTS, "decided")
            self.meters.count(PREDICTIONS, ("approve", "approve", "review", "decline")[event])
            self.meters.record(LATENCY, 0.02)
            self.meters.record(CONFIDENCE, 0.97)
            self.meters.record(STREAM_LAG, 0.2)
        self._flush.flush()

    def fails(self, times: int) -> None:
        self.meters.count(REQUESTS, "score", "500", by=times)
        self.count(ERRORS, "score", "server", by=times)


@dataclass
class Stage:
    """Everything that runs, and the means to break it."""

    address: str
    drift: HostProcess
    connection: psycopg.Connection[Any]
    score: Instance
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(2, 1_000)))

    def put(self, table: str, **values: Any) -> None:
        columns, places = ", ".join(values), ", ".join(["%s"] * len(values))
        wrapped = [Jsonb(value) if isinstance(value, dict) else value for value in values.values()]
        self.connection.execute(f"INSERT INTO tollgate.{table} ({columns}) VALUES ({places})", wrapped)

    def ask(self, path: str, **query: str) -> Any:
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[float]:
        return [float(item["value"][1]) for item in self.ask("query", query=expression)["result"]]

    def firing(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}

    def has_data(self, title: str, expression: str) -> None:
        def numbers() -> bool:
            found = self.values(expression)
            return bool(found) and all(map(math.isfinite, found))

        until(numbers, f"{title}: {expression}", 30)

    def fires(self, name: str, meanwhile: Callable[[Stage], None] = lambda stage: None) -> None:
        def fired() -> bool:
            meanwhile(self)
            return name in self.firing()

        until(fired, f"{name} fires", 60, pause_s=1)

    def champion(self, digest: str | None) -> None:
        self.put(
            "promotions",
            role="champion",
            number=next(self.numbers),
            bundle_digest=digest,
            action="promote" if digest else "retire",
            author="a test",
            reason="a test",
            changed_at_us=now_us(),
        )

    def drifts(self, *, alert: bool) -> None:
        end_us = now_us()
        for hours, subject, statistic in ((24, "amount", "psi"), (1, "all", "verdict")):
            self.put(
                "drift_metrics",
                bundle_digest=CHAMPION,
                subject=subject,
                statistic=statistic,
                value=1 if alert else 0,
                window_start_us=end_us - hours * HOUR_US,
                window_end_us=end_us,
                reference_rows=100,
                current_rows=100,
                details={"state": "drift" if alert else "quiet"},
                recorded_at_us=end_us,
            )

    def checks(self, *, passed: bool) -> None:
        end_us = now_us()
        self.put(
            "data_quality_log",
            source="transactions",
            rule="volume",
            passed=passed,
            window_start_us=end_us - 1,
            window_end_us=end_us,
            recorded_at_us=end_us,
        )

    def runs(self, status: str) -> None:
        name = f"drift/{next(self.numbers)}"
        at_us = now_us()
        self.put(
            "pipeline_execution_log",
            run_id=name,
            pipeline="drift",
            status=status,
            started_at_us=at_us,
            ended_at_us=at_us,
        )

    def judges(self, *, passed: bool) -> None:
        self.put(
            "promotion_verdicts",
            verdict_digest=f"{next(self.numbers):064x}",
            challenger_digest="b" * 64,
            passed=passed,
            document="{}",
            decided_at_us=now_us(),
        )

    def buries(self) -> None:
        self.put(
            "dead_letters",
            source="transactions",
            partition_id="0",
            event_offset=str(next(self.numbers)),
            reason="amount must be positive",
            field=f"field {next(self.numbers)}",
            body=b"{}",
            received_at_us=now_us(),
        )


def now_us() -> int:
    return time.time_ns() // 1000


def _drift_settings(storage: str, dsn: str) -> dict[str, str]:
    hub = "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=b;UseDevelopmentEmulator=true;"
    values: dict[str, str] = json.loads((ROOT / "local.settings.example.json").read_text())["Values"]
    never = "0 0 0 1 1 *"
    return {
        **{name: never if name.endswith("_SCHEDULE") else value for name, value in values.items()},
        "FUNCTIONS_WORKER_PROCESS_COUNT": "1",
        "AzureWebJobsStorage": storage,
        "DATA_STORAGE": storage,
        "DATABASE": dsn,
        "EVENT_HUBS": hub,
    }


def _configuration(folder: Path, port: int) -> Path:
    rules = folder / "alerts.yml"
    document = prometheus_rules(window=WINDOW, hold="0s")
    (silence,) = (rule for rule in document["groups"][0]["rules"] if rule["alert"] == "nothing-heard")
    silence["for"] = WINDOW  # one scrape that takes too long leaves no metric until the next one, and is no silence
    rules.write_text(json.dumps(document))
    path = folder / "prometheus.yml"
    path.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
                "rule_files": [str(rules)],
                "scrape_configs": [
                    {
                        "job_name": "tollgate",
                        "metrics_path": "/api/metrics",
                        "static_configs": [{"targets": [f"{HOST}:{port}"]}],
                    }
                ],
            }
        )
    )
    return path


@pytest.fixture(scope="module")
def stage(
    storage: str, migrated_database: MigratedDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Score under traffic, drift, another instance of score and of ingest, and a Prometheus that watches."""
    folder = tmp_path_factory.mktemp("monitoring")
    models = Models(storage)
    digest = models.promote()
    score_settings = settings(storage, login(migrated_database), models.name, METERS_FLUSH_S="0.5")
    drift = HostProcess(
        folder / "drift", ROOT / "functions" / "drift", _drift_settings(storage, migrated_database.role_dsn(Role.DRIFT))
    )
    stop = threading.Event()

    def traffic() -> None:
        ingest = Instance("ingest", Role.INGEST, migrated_database)
        with psycopg.connect(migrated_database.dsn, autocommit=True) as sent:
            while not stop.wait(0.2):
                score.score(fields())
                ingest.takes_a_batch()
                # As the ingest app does, which does not run here.
                sent.execute("DELETE FROM tollgate.outbox WHERE transaction_id <> 'stuck'")

    sending = threading.Thread(target=traffic)
    with (
        psycopg.connect(migrated_database.dsn, autocommit=True) as connection,
        running(folder / "score", score_settings) as score,
    ):
        score.serves(digest)  # else one that still starts refuses requests, and "errors" would speak of itself
        try:
            sending.start()
            drift.start()
            with prometheus.running(_configuration(folder, drift.port), free_ports(1)[0]) as address:
                made = Stage(
                    address,
                    drift,
                    connection,
                    Instance("score", Role.SCORE, migrated_database),
                )
                _seed(made)
                yield made
        finally:
            stop.set()
            sending.join()
            drift.discard()
            models.close()


def _seed(stage: Stage) -> None:
    """A platform on a quiet day."""
    stage.champion(CHAMPION)
    stage.drifts(alert=False)
    stage.checks(passed=True)
    stage.runs("done")
    stage.runs("failed")
    stage.judges(passed=True)
    stage.buries()
    stage.score.count(REPLAYS, "equal")
    stage.put(
        "performance_metrics",
        bundle_digest=CHAMPION,
        segment="all",
        metric="recall",
        value=0.8,
        n_rows=10,
        n_frauds=1,
        window_start_us=0,
        window_end_us=1,
        recorded_at_us=1,
    )
    stage.put("notifications", channel="mail", dedup_key="k", severity=1, title="t", created_at_us=1, next_at_us=1)
    stage.put("transaction_ids", transaction_id="labelled", digest=bytes(32), event_time_us=1)
    stage.put(
        "feedback_labels",
        transaction_id="labelled",
        label_digest=bytes(32),
        verdict=1,
        source=1,
        event_time_us=2,
        known_at_us=7 * 24 * HOUR_US,
        confidence=100,
        author="a test",
        recorded_at_us=now_us(),
    )


def test_every_expression_of_every_panel_has_data(stage: Stage) -> None:
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for series in panel.series:
                stage.has_data(panel.title, promql_of(series, "10s"))
    decided = 'sum(rate(model_predictions_total{app="score"}[10s]))'
    until(lambda: 1 < sum(stage.values(decided)) < 6, "what was sent, each counted once", 60)


FAULTS: dict[str, Callable[[Stage], None]] = {
    "latency": lambda stage: stage.score.record(DURATION, 2.0, "score", times=2_000),
    "errors": lambda stage: stage.score.fails(500),
    "confidence": lambda stage: stage.score.record(CONFIDENCE, 0.51, times=2_000),
    "lag": lambda stage: stage.put(
        "outbox", transaction_id="stuck", event_time_us=1, recorded_at_us=now_us() - 600_000_000
    ),
    "dead-letters": lambda stage: stage.buries(),
    "drift": lambda stage: stage.drifts(alert=True),
    "quality": lambda stage: stage.checks(passed=False),
    "gate-refused": lambda stage: stage.judges(passed=False),
    "replay-mismatch": lambda stage: stage.put(
        "task_metrics", run_id=f"replaying/{now_us()}", task="run", metric="different", value=1, recorded_at_us=now_us()
    ),
    "no-champion": lambda stage: stage.champion(None),
    "pipeline-failed": lambda stage: stage.runs("failed"),
}

STATES = {"lag", "drift", "quality", "no-champion"}
"""Faults that last until they are mended. The others are events and go on while they are waited for: of a single one a
rate knows nothing when scrapes fail around it."""


def _mend(stage: Stage) -> None:
    stage.connection.execute("DELETE FROM tollgate.outbox WHERE transaction_id = 'stuck'")
    stage.drifts(alert=False)
    stage.checks(passed=True)
    stage.champion(CHAMPION)


def test_each_alert_fires_on_its_fault_and_clears_after_it(stage: Stage) -> None:
    assert FAULTS.keys() | {"nothing-heard"} == {alert.name for alert in ALERTS}
    until(lambda: not stage.firing(), "a quiet start", 60)
    injected: set[str] = set()
    for name, fault in FAULTS.items():
        assert stage.firing() <= injected, "nothing speaks without its fault"
        injected.add(name)
        if name in STATES:
            fault(stage)
            stage.fires(name)
        else:
            stage.fires(name, meanwhile=fault)
    _mend(stage)
    until(lambda: not stage.firing(), "all clear", 60)


def test_silence_is_heard(stage: Stage) -> None:
    until(lambda: "nothing-heard" not in stage.firing(), "heard", 60)
    stage.drift.kill()
    stage.fires("nothing-heard")
    stage.drift.start()
    until(lambda: "nothing-heard" not in stage.firing(), "heard again", 60)


def test_a_trigger_is_told_by_its_cause(stage: Stage) -> None:
    asked = f'tollgate_retraining_triggers_open{{cause="{Cause.CONCEPT_DRIFT}"}}'
    assert until(lambda: stage.values(asked), asked) == [0]
