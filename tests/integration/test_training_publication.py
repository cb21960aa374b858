"""From a file through `tollgate train --publish` and Blob storage to the scorer that an app would serve from."""

from __future__ import annotations

import os
import uuid
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa  # type: ignore[import-untyped]  # the library has no types
from azure.storage.blob import BlobServiceClient
from pyarrow import parquet
from typer.testing import CliRunner, Result

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.bundle_scorers import BundleScorers
from shared.adapters.onnx_scorer import OnnxScorer
from shared.adapters.postgres_promotions import PostgresPromotions
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role as Group
from shared.adapters.system_clock import SystemClock
from shared.bootstrap.succession import succession_of
from shared.domain.bundle_pointer import Role
from shared.ports.succession import Action, ModelStatus
from tests.conftest import MigratedDatabase
from tests.fakes.bundles import history
from twin.training import app


def train(data: Path, where: dict[str, str], trees: int, *options: str) -> Result:
    """Run the command; without a database in the environment but the one that is named."""
    spans = ["--train-days", "20", "--calibration-days", "7", "--test-days", "7", "--name", "published"]
    to = ["--publish", "--connection", "Storage", "--trees", str(trees)]
    environment = {name: None for name in os.environ if name.startswith("DATABASE")} | where
    return CliRunner().invoke(app, ["--data", str(data), *to, *spans, *options], env=environment)


def own_file(folder: Path) -> Path:
    """A history that can be learnt from, as a user would have it."""
    transactions, labels = history()
    columns = {
        "transaction_id": transactions.transaction_id.astype(np.str_),
        "customer_id": transactions.customer.astype(np.str_),
        "terminal_id": transactions.terminal.astype(np.str_),
        "amount_minor": transactions.amount_minor,
        "event_time": transactions.event_time_us.astype("datetime64[us]"),
        "fraud": labels.is_fraud,
    }
    parquet.write_table(pa.table(columns), folder / "own.parquet")
    return folder / "own.parquet"


def test_a_first_model_decides_and_a_second_one_waits_for_the_gate(
    migrated_database: MigratedDatabase, storage: str, tmp_path: Path
) -> None:
    data = own_file(tmp_path)
    container_name = f"models-{uuid.uuid4().hex[:12]}"
    where = {
        "Storage": storage,
        "DATABASE": migrated_database.role_dsn(Group.RETRAIN),
        "MODELS_CONTAINER": container_name,
    }

    with psycopg.connect(migrated_database.dsn) as connection:  # other tests use the same database
        connection.execute("DELETE FROM tollgate.promotions")
        connection.execute("DELETE FROM tollgate.model_versions")
    with (
        closing(PostgresSession(migrated_database.role_connection(Group.RETRAIN), "test")) as session,
        BlobServiceClient.from_connection_string(storage, retry_total=0) as service,
    ):
        account = PostgresPromotions(session)
        store = BlobBundles(service.create_container(container_name))
        scorers = BundleScorers(store, OnnxScorer)
        done = train(data, where, 5)
        assert done.exit_code == 0, done.output
        assert scorers.refresh()
        first = scorers.current()
        assert (first.name, first.version) == ("published", 1)
        assert first.bundle_digest in done.stdout.replace("\n", "")
        (change,) = account.since(Role.CHAMPION, 0)
        assert (change.action, change.pointer.author) == (Action.ACCEPT, "tollgate train")
        assert change.pointer == store.pointer(Role.CHAMPION).pointer

        waits = train(data, where, 6)
        assert waits.exit_code == 1, waits.output
        assert "is kept as a candidate" in waits.output.replace("\n", " ")
        assert not scorers.refresh()
        (second,) = [model for model in account.models() if model.digest != first.bundle_digest]
        assert (second.version, second.status) == (2, ModelStatus.CANDIDATE)
        assert second.digest in store.digests()

        tried = train(data, where, 7, "--role", "shadow")
        assert tried.exit_code == 0, tried.output
        assert store.pointer(Role.SHADOW).digest not in (None, first.bundle_digest, second.digest)


def test_before_there_is_a_database_a_first_model_is_published_and_adopted_later(
    migrated_database: MigratedDatabase, storage: str, tmp_path: Path
) -> None:
    data, name = own_file(tmp_path), f"models-{uuid.uuid4().hex[:12]}"
    where = {"Storage": storage, "MODELS_CONTAINER": name}
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        store = BlobBundles(service.create_container(name))
        done = train(data, where, 5)
        assert done.exit_code == 0, done.output
        first = store.pointer(Role.CHAMPION)
        second = train(data, where, 6)
        assert second.exit_code == 1
        assert "is kept without a part" in second.output.replace("\n", " ")
        assert store.pointer(Role.CHAMPION) == first
        with psycopg.connect(migrated_database.dsn) as connection:
            for table in ("promotions", "model_versions"):
                connection.execute(f"DELETE FROM tollgate.{table}")
        account = migrated_database.role_connection(Group.RETRAIN)
        with succession_of(account, store, SystemClock(), "test") as throne:
            throne.reconcile()
            (change,) = throne.history()
        assert (change.action, change.pointer) == (Action.ADOPT, first.pointer)
