"""Files: the same seed gives the same bytes, they read back to the world, and the truth stays apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet  # type: ignore[import-untyped]  # it comes without types
import pytest

from shared.domain.instants import US_PER_DAY
from shared.domain.labels import parse_label
from shared.domain.transaction import Acceptance, parse_transaction
from simulator.__main__ import main
from simulator.config import WorldConfig
from simulator.exports import Form, export
from simulator.world import World

CONFIG = WorldConfig(customers=150, merchants=60, cities=3)


def world() -> World:
    return World.create(CONFIG, np.random.default_rng(4))


@pytest.mark.parametrize("form", list(Form))
def test_the_same_seed_gives_the_same_files(form: Form, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        rows = export(world(), 3, 5, tmp_path / folder, form=form)
        assert set(rows) == {path.name for path in (tmp_path / folder).iterdir()}
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_json_lines_are_what_the_product_parses(tmp_path: Path) -> None:
    rows = export(world(), 3, 4, tmp_path, form=Form.JSON_LINES)
    made = world()
    batches = list(made.days(3, 4))
    lines = (tmp_path / "transactions.jsonl").read_text(encoding="utf-8").splitlines()
    acceptance = Acceptance("EUR", batches[-1].first_us + US_PER_DAY)
    parsed = [parse_transaction(json.loads(line), acceptance) for line in lines]
    assert parsed == [one for batch in batches for one in batch.transactions()]
    labels = [
        parse_label(json.loads(line), 2**60)
        for line in (tmp_path / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert labels == [label for day in range(3, 7) for label in made.labels_of(day).labels()]
    assert rows == {"transactions.jsonl": len(lines), "labels.jsonl": len(labels), "truth.jsonl": len(lines)}


def test_parquet_reads_back_and_holds_no_truth_beside_transactions(tmp_path: Path) -> None:
    export(world(), 0, 3, tmp_path)
    batches = list(world().days(0, 3))
    table = pyarrow.parquet.read_table(tmp_path / "transactions.parquet")
    assert table.column_names == [
        "transaction_id", "customer_id", "terminal_id", "amount_minor", "currency", "event_time"
    ]  # fmt: skip
    wanted = [one for batch in batches for one in batch.transactions()]
    assert table["transaction_id"].to_pylist() == [one.transaction_id for one in wanted]
    assert table["terminal_id"].to_pylist() == [one.terminal_id for one in wanted]
    times = table["event_time"].to_numpy().astype("datetime64[us]").astype(np.int64)
    assert times.tolist() == [one.event_time_us for one in wanted]
    assert str(table.schema.field("event_time").type) == "timestamp[us, tz=UTC]"
    truth = pyarrow.parquet.read_table(tmp_path / "truth.parquet")
    assert truth["transaction_id"].to_pylist() == table["transaction_id"].to_pylist()
    assert truth["is_fraud"].to_pylist() == [bool(one) for batch in batches for one in batch.is_fraud]


def test_a_day_without_transactions_or_labels_is_written_too(tmp_path: Path) -> None:
    quiet = World.create(WorldConfig(customers=1, transactions_per_day=0.2, joining=0.0), np.random.default_rng(1))
    assert any(len(batch) == 0 for batch in quiet.days(0, 12))
    rows = export(quiet, 0, 12, tmp_path)
    assert pyarrow.parquet.read_table(tmp_path / "transactions.parquet").num_rows == rows["transactions.parquet"]


def test_a_broken_run_leaves_no_file_that_looks_whole(tmp_path: Path) -> None:
    def stop(batch: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(world(), 0, 3, tmp_path, progress=stop)
    assert all(path.name.endswith(".unfinished") for path in tmp_path.iterdir())


def test_the_command_writes_a_world_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = ["--days", "3", "--customers", "150", "--merchants", "60", "--seed", "4", "--out", str(tmp_path)]
    assert main(order) == 0
    table = pyarrow.parquet.read_table(tmp_path / "transactions.parquet")
    said = capsys.readouterr()
    assert f"{table.num_rows:,} transactions" in said.out
    assert "2026-01-01" in said.err
    config = WorldConfig(customers=150, merchants=60)
    expected = World.create(config, np.random.default_rng(4))
    assert table.num_rows == sum(len(batch) for batch in expected.days(0, 3))


@pytest.mark.parametrize(
    ("order", "reason"),
    [(["--customers", "0"], "customers"), (["--days", "0"], "--days"), (["--fraud-rate", "2"], "fraud.rate")],
)
def test_the_command_refuses_with_the_reason(
    order: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*order, "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err
