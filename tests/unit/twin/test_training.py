"""`tollgate train`: files as columns, what is refused, and a bundle that serves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # the library has no types
import pytest
import typer
from pyarrow import parquet
from typer.testing import CliRunner

from shared.adapters.file_bundles import FileBundles
from shared.adapters.onnx_scorer import OnnxScorer
from shared.domain.bundle import open_bundle
from shared.domain.bundle_manifest import read_manifest
from shared.domain.bundle_pointer import Role
from shared.domain.cost_policy import Capacity, Costs
from shared.domain.instants import US_PER_DAY
from tests.fakes.bundles import history
from twin.history import HANDBOOK, Layout, UnreadableFile
from twin.training import app, read_history

OPTIONS = ["--train-days", "20", "--calibration-days", "7", "--test-days", "7", "--trees", "10"]


def table(**changes: Any) -> dict[str, Any]:
    """The drawn history with the Handbook's columns."""
    transactions, labels = history()
    columns = {
        "TRANSACTION_ID": transactions.transaction_id,
        "TX_DATETIME": transactions.event_time_us.astype("datetime64[us]"),
        "CUSTOMER_ID": transactions.customer,
        "TERMINAL_ID": transactions.terminal,
        "TX_AMOUNT": transactions.amount_minor / 100,
        "TX_FRAUD": labels.is_fraud.astype(np.int64),
    }
    return columns | changes


def written(path: Path, columns: dict[str, Any]) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={**os.environ, "COLUMNS": "200"})


def test_a_file_becomes_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "h.parquet", table())
    found = read_history(path, Layout.detected(list(HANDBOOK.values())))
    transactions, labels = history()
    assert np.array_equal(found.transactions.event_time_us, transactions.event_time_us)
    assert np.array_equal(found.transactions.amount_minor, transactions.amount_minor)
    assert np.array_equal(found.labels.is_fraud, labels.is_fraud)
    assert found.transactions.transaction_id[:2].tolist() == ["h0", "h1"]
    assert found.transactions.customer[0] == f"c{transactions.customer[0]}"
    assert found.left_out == {}
    later = Layout(HANDBOOK, label_after_us=3 * US_PER_DAY)
    known_at_us = read_history(path, later).labels.known_at_us
    assert np.array_equal(known_at_us, transactions.event_time_us + 3 * US_PER_DAY)


def test_amounts_are_whole_minor_units_or_their_rows_are_left_out(tmp_path: Path) -> None:
    columns = {name: values[:7] for name, values in table().items()}
    columns["TX_AMOUNT"] = np.array([57.16 * 5, 0.0, 12.345, float("nan"), -3.0, 1e6 + 0.01, 0.01])
    found = read_history(written(tmp_path / "h.parquet", columns), Layout(HANDBOOK))
    assert found.transactions.amount_minor.tolist() == [28_580, 100_000_001, 1]
    assert found.left_out == {
        "amount must be greater than nought": 3,
        "amount must not have more than 2 decimals": 2,
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"TX_FRAUD": np.full(32_000, 2)}, "no row that can be used"),
        ({"TX_AMOUNT": ["a lot"] * 32_000}, "cannot be read"),
        ({"TRANSACTION_ID": np.zeros(32_000, dtype=np.int64)}, "a transaction id twice"),
        ({"CUSTOMER_ID": pa.array([None] * 32_000, pa.int64())}, "lacks values in the column CUSTOMER_ID"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_reason(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    path = written(tmp_path / "h.parquet", table(**change))
    with pytest.raises(UnreadableFile, match=reason):
        read_history(path, Layout(HANDBOOK))


def test_a_layout_without_verdicts_cannot_train(tmp_path: Path) -> None:
    without = {name: column for name, column in HANDBOOK.items() if name != "fraud"}
    with pytest.raises(UnreadableFile, match="no column is named for fraud"):
        read_history(tmp_path / "h.parquet", Layout(without))
    with pytest.raises(UnreadableFile, match=r"is not \.parquet"):
        read_history(tmp_path / "h.csv", Layout(HANDBOOK))


def test_a_model_is_trained_kept_and_serves(tmp_path: Path) -> None:
    path = written(tmp_path / "h.parquet", table())
    for version in (1, 2):
        done = run("--data", str(path), "--out", str(tmp_path / "store"), "--name", "drawn", *OPTIONS)
        assert done.exit_code == 0, done.output
        assert f"drawn {version} is champion: " in done.stdout
        assert "average_precision" in done.stdout
        assert "trees" in done.stderr
    store = FileBundles(tmp_path / "store")
    champion = store.pointer(Role.CHAMPION)
    assert champion.digest is not None
    assert champion.digest in done.stdout
    scorer = OnnxScorer(open_bundle(store.get(champion.digest), champion.digest))
    assert (scorer.name, scorer.version) == ("drawn", 2)
    first, second = (json.loads(store.manifest(state.digest or "")) for state in store.history(Role.CHAMPION))
    for manifest in (first, second):
        del manifest["version"]
    assert first == second  # all but the version is a function of the file


def test_a_price_is_fitted_for_as_many_reviews_as_the_option_or_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "h.parquet", table())
    monkeypatch.setenv("REVIEW_COST_MINOR", "200")
    monkeypatch.setenv("REVIEWS_PER_DAY", "3")
    fitted = []
    for option in ([], ["--reviews-per-day", "2"], ["--reviews-per-day", "0"]):
        done = run("--data", str(path), "--out", str(tmp_path / "store"), *OPTIONS, *option)
        assert done.exit_code == 0, done.output
        store = FileBundles(tmp_path / "store")
        manifest = read_manifest(store.manifest(store.pointer(Role.CHAMPION).digest or ""))
        fitted.append(manifest.capacity)
        assert ("reviews a day: a shadow price of" in done.stdout) == (manifest.capacity is not None)
    costs = Costs(review_minor=200)
    assert [one and one.capacity for one in fitted] == [Capacity(3, costs), Capacity(2, costs), None]
    prices = [one.policy.shadow_price_minor for one in fitted if one]
    assert prices[0] < prices[1]
    monkeypatch.setenv("REVIEWS_PER_DAY", "some")
    done = run("--data", str(path), "--out", str(tmp_path / "store"), *OPTIONS)
    assert (done.exit_code, "Traceback" in done.output) == (1, False)
    assert "REVIEWS_PER_DAY" in done.stderr


def test_columns_of_any_name_can_be_mapped(tmp_path: Path) -> None:
    renamed = {f"col {name}": values for name, values in table().items()}
    path = written(tmp_path / "h.parquet", renamed)
    mapping = [text for field, column in HANDBOOK.items() for text in ("--map", f"{field}=col {column}")]
    done = run("--data", str(path), "--out", str(tmp_path / "store"), "--role", "challenger", *OPTIONS, *mapping)
    assert done.exit_code == 0, done.output
    assert "card-fraud 1 is challenger" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "say where the bundle goes"),
        (["--out", "x", "--publish"], "say where the bundle goes"),
        (["--out", "x", "--from-db"], "say what to learn from"),
        (["--out", "x", "--connection", "Y"], "--connection goes with --publish"),
        (["--out", "x", "--view", "battles-v1"], "battles-v1 is no feature view"),
        (["--out", "x", "--name", "Not A Name"], "name must be 1 to 64"),
        (["--out", "x", "--trees", "301"], "n_trees must be 1 to 300"),
        (["--out", "x", "--map", "amount"], "--map takes FIELD=COLUMN"),
        (["--out", "x"], "there is no file missing.parquet"),
        (["--publish", "--connection", "Nothing"], "Nothing"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path: Path, arguments: list[str], reason: str) -> None:
    placed = [str(tmp_path / "x") if argument == "x" else argument for argument in arguments]
    done = run("--data", str(tmp_path / "missing.parquet"), *placed)
    assert done.exit_code == 1
    assert reason in done.stderr
    assert "Traceback" not in done.output


def test_the_page_names_every_option() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    options = [name for parameter in typer.main.get_command(app).params for name in parameter.opts]
    assert len(options) > 10
    assert [name for name in options if f"`{name}" not in page and name not in {"--data", "--help"}] == []


def test_a_history_that_is_too_short_is_said_in_a_line(tmp_path: Path) -> None:
    path = written(tmp_path / "h.parquet", {name: values[:2_000] for name, values in table().items()})
    done = run("--data", str(path), "--out", str(tmp_path / "store"), *OPTIONS)
    assert done.exit_code == 1
    assert "history must hold at least 10 frauds" in done.stderr
    assert FileBundles(tmp_path / "store").digests() == []
