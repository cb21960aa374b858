"""Retraining over a real Postgres: several instances, one that is killed, and a whole run as the app builds it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.connections import blob_service, parse_storage
from shared.adapters.file_bundles import FileBundles
from shared.adapters.postgres_pipelines import PostgresPipelineLog, PostgresTriggers
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.bootstrap.retrain_training import retrain_parts
from shared.domain.bundle_manifest import read_manifest
from shared.domain.bundle_pointer import Role as Part
from shared.domain.cost_policy import Capacity, Costs
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.instants import US_PER_DAY, US_PER_SECOND
from shared.domain.pipeline import Cause, Priority, RunStatus, Trigger
from shared.domain.promotion import CheckName
from shared.services import retraining as service
from shared.services.retraining import LEASE, PIPELINE, RetrainingOutcome
from shared.services.retraining_lease import HeldLease
from shared.settings import RetrainSettings
from tests.conftest import MigratedDatabase
from tests.fakes.bundles import START_US, history
from tests.fakes.probes import FakeClock
from tests.fakes.recorded_history import recorded, span_of, store
from tests.integration.retraining_app import RULES, retraining
from twin.training import app

IMMEDIATE = Trigger(Cause.PERSON, "", Priority.IMMEDIATE, {}, 5)
TABLES = (
    "pipeline_execution_log",
    "task_metrics",
    "leases",
    "retraining_triggers",
    "promotions",
    "promotion_verdicts",
    "model_versions",
    "notifications",
)


@pytest.fixture
def session(migrated_database: MigratedDatabase) -> Iterator[PostgresSession]:
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute(f"TRUNCATE {', '.join(f'tollgate.{table}' for table in TABLES)}")
    opened = PostgresSession(migrated_database.role_connection(Role.RETRAIN), "test")
    yield opened
    opened.close()


def test_of_two_instances_one_answers_a_trigger(migrated_database: MigratedDatabase, session: PostgresSession) -> None:
    dsn = migrated_database.role_dsn(Role.RETRAIN)
    begun: list[str] = []
    outcomes: list[str] = []

    def work(run_id: str, now_us: int, lease: HeldLease) -> RetrainingOutcome:
        begun.append(run_id)
        time.sleep(0.2)
        lease.check()
        return RetrainingOutcome("trained", now_us, {})

    def instance(name: str, start: threading.Barrier) -> None:
        with retraining(dsn, name, work) as one:
            start.wait()
            outcomes.append(one.poll())

    for round_ in range(5):
        PostgresTriggers(session).open(replace(IMMEDIATE, subject=str(round_)))
        start = threading.Barrier(3)
        threads = [threading.Thread(target=instance, args=[f"i{number}", start]) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(begun) == round_ + 1
    assert outcomes.count("trained") == 5
    assert set(outcomes) <= {"trained", "a training runs", ""}
    runs = PostgresPipelineLog(session).recent(PIPELINE, 100)
    assert [run.status for run in runs] == [RunStatus.DONE] * 5
    assert not PostgresTriggers(session).unfinished()


def test_a_process_that_is_killed_in_mid_training_is_taken_over(
    migrated_database: MigratedDatabase, session: PostgresSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RETRY_US", 0)
    dsn = migrated_database.role_dsn(Role.RETRAIN)
    triggers, log = PostgresTriggers(session), PostgresPipelineLog(session)
    number = triggers.open(IMMEDIATE)
    command = [sys.executable, "-m", "tests.integration.retraining_worker", dsn]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        killed = process.stdout.readline().strip()
        assert killed.startswith(PIPELINE)

        def work(run_id: str, now_us: int, lease: HeldLease) -> RetrainingOutcome:
            lease.check()
            return RetrainingOutcome("trained", now_us, {"by": run_id})

        with retraining(dsn, "next", work) as one:
            time.sleep(RULES.lease_us / US_PER_SECOND + 1)  # longer than the lease: it is renewed
            assert one.poll() == "a training runs"
            process.kill()
            process.wait(30)
            until_s = time.monotonic() + 60
            while (outcome := one.poll()) == "a training runs":
                assert time.monotonic() < until_s, "the lease never ran out"
                time.sleep(0.2)
    assert outcome == "trained"
    dead = log.find(killed)
    assert dead is not None
    assert (dead.status, dead.error) == (RunStatus.FAILED, "its process is gone, or has lost the lease")
    assert dead.details["trigger"] == number
    assert not triggers.unfinished()
    (done,) = log.recent(PIPELINE, 9, RunStatus.DONE)
    assert done.details["by"] == done.run_id
    with session.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM tollgate.leases WHERE name = %s", [LEASE]).fetchone() == (0,)


def test_a_whole_run_as_the_app_builds_it(
    migrated_database: MigratedDatabase, session: PostgresSession, storage: str
) -> None:
    columns = filled(migrated_database)
    environment: dict[str, Any] = {
        "DATABASE": migrated_database.role_dsn(Role.RETRAIN),
        "DATA_STORAGE": storage,
        "AzureWebJobsStorage": storage,
        "DAILY_TRAINING_SCHEDULE": "0 0 2 * * *",
        "TRIGGER_POLL_SCHEDULE": "0 * * * * *",
        "MODELS_CONTAINER": "models-retraining",
        "REPORTS_CONTAINER": "reports-retraining",
        "MIN_NEW_TRANSACTIONS": "1000",
        "TRAIN_DAYS": "20",
        "CALIBRATION_DAYS": "7",
        "TEST_DAYS": "7",
        "MATURITY_DAYS": "7",
        "SEARCH_TRIALS": "1",
        "MODEL_NAME": "drawn",
        "REVIEW_COST_MINOR": "700",
        "REVIEWS_PER_DAY": "2",
    }
    settings = RetrainSettings.read(environment)
    clock = FakeClock(START_US + 95 * US_PER_DAY)
    with blob_service(parse_storage("DATA_STORAGE", environment)) as blobs:
        for name in (settings.models_container, settings.reports_container):
            blobs.create_container(name)
        parts = retrain_parts(blobs, migrated_database.role_connection(Role.RETRAIN), clock, settings)
        with parts.retraining() as one:
            outcome = one.daily()
        assert outcome.startswith("refused: "), "half of its frauds cannot be told from genuine transactions"
        (run,) = PostgresPipelineLog(session).recent(PIPELINE, 9)
        assert (run.status, run.error) == (RunStatus.DONE, "")
        made = str(run.details["bundle"])
        assert run.details["rows_read"] == 20_000 - _younger(columns[0].event_time_us, clock.time_us)
        bundle = read_manifest(BlobBundles(blobs.get_container_client(settings.models_container)).manifest(made))
        assert bundle.capacity is not None
        assert bundle.capacity.capacity == Capacity(2, Costs(review_minor=700))
        assert bundle.capacity.policy.shadow_price_minor > 0
        refused_by = run.details["refused_by"]
        assert isinstance(refused_by, list)
        assert refused_by
        assert CheckName.METRICS.value not in refused_by  # the gate fits the same price
        models = {blob.name for blob in blobs.get_container_client(settings.models_container).list_blobs()}
        assert any(made in name for name in models)
        pages = [blob.name for blob in blobs.get_container_client(settings.reports_container).list_blobs()]
        assert pages == [f"verdicts/{run.details['verdict']}.html"]
        assert not [name for name in models if name.startswith("pointers/") and Part.CHAMPION in name]
        clock.time_us += US_PER_DAY
        with parts.retraining() as one:
            assert one.daily().startswith("cooldown until ")
        assert parts.trial is not None
        with parts.trial() as trial:
            assert trial.settle() == ""
    with session.transaction() as connection:
        found = connection.execute(
            "SELECT m.status, v.passed, v.run_id, n.title FROM tollgate.model_versions m"
            " JOIN tollgate.promotion_verdicts v ON v.challenger_digest = m.bundle_digest"
            " JOIN tollgate.notifications n ON n.dedup_key = 'retrain/verdict/' || v.verdict_digest"
        ).fetchall()
    assert found == [("refused", False, run.run_id, "Retraining of drawn 1: refused")]


def test_a_model_is_trained_on_what_was_recorded_by_hand(migrated_database: MigratedDatabase, tmp_path: Path) -> None:
    filled(migrated_database)
    options = ["--train-days", "20", "--calibration-days", "7", "--test-days", "7", "--trees", "5"]
    environment = {**os.environ, "DATABASE": migrated_database.role_dsn(Role.RETRAIN), "COLUMNS": "200"}
    done = CliRunner().invoke(app, ["--from-db", "--out", str(tmp_path), *options], env=environment)
    assert done.exit_code == 0, done.output
    (digest,) = FileBundles(tmp_path).digests()
    assert digest in done.output
    assert FileBundles(tmp_path).pointer(Part.CHAMPION).digest == digest
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute("TRUNCATE tollgate.feedback_labels")
    none = CliRunner().invoke(app, ["--from-db", "--out", str(tmp_path), *options], env=environment)
    assert none.exit_code == 1
    assert "mature transactions with a label" in none.output


def filled(database: MigratedDatabase) -> tuple[TransactionColumns, LabelColumns]:
    """A history of some months in the tables, and nothing else."""
    columns = recorded(*history(20_000, days=95))
    database.make_partitions(*span_of(columns[0]))
    with psycopg.connect(database.dsn) as connection:
        connection.execute("TRUNCATE tollgate.transactions, tollgate.feedback_labels")
        store(connection, *columns, np.random.default_rng(1).permutation(20_000).tolist())
    return columns


def _younger(time_us: np.ndarray[Any, np.dtype[np.int64]], now_us: int) -> int:
    """Transactions that are not mature yet."""
    return int((time_us > now_us - 7 * US_PER_DAY).sum())
