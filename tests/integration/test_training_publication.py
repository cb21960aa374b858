"""From a file through `tollgate train --publish` and Blob storage to the scorer that an app would serve from."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # the library has no types
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient
from pyarrow import parquet
from typer.testing import CliRunner

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.bundle_scorers import BundleScorers
from shared.adapters.onnx_scorer import OnnxScorer
from shared.domain.bundle_pointer import Role
from tests.fakes.bundles import history
from twin.training import MODELS_CONTAINER, app


def test_a_published_model_is_taken_up_and_replaced(storage: str, tmp_path: Path) -> None:
    transactions, labels = history()
    columns = {
        "transaction_id": transactions.transaction_id.astype(np.str_),
        "customer_id": transactions.customer.astype(np.str_),
        "terminal_id": transactions.terminal.astype(np.str_),
        "amount_minor": transactions.amount_minor,
        "event_time": transactions.event_time_us.astype("datetime64[us]"),
        "fraud": labels.is_fraud,
    }
    parquet.write_table(pa.table(columns), tmp_path / "own.parquet")
    options = ["--train-days", "20", "--calibration-days", "7", "--test-days", "7", "--name", "published"]
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        container = service.get_container_client(MODELS_CONTAINER)
        with suppress(ResourceExistsError):  # where the twin's furnishing made it
            container.create_container()
        scorers = BundleScorers(BlobBundles(container), OnnxScorer)
        for version, trees in ((1, "5"), (2, "6")):
            done = CliRunner().invoke(
                app,
                [
                    "--data",
                    str(tmp_path / "own.parquet"),
                    "--publish",
                    "--connection",
                    "Storage",
                    "--trees",
                    trees,
                    *options,
                ],
                env={**os.environ, "Storage": storage},
            )
            assert done.exit_code == 0, done.output
            assert scorers.refresh()
            assert (scorers.current().name, scorers.current().version) == ("published", version)
            assert scorers.current().bundle_digest in done.stdout.replace("\n", "")
        states = BlobBundles(container).history(Role.CHAMPION)
        assert [state.author for state in states[-2:]] == ["tollgate train"] * 2
