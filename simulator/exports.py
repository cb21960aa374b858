"""A world's days as files: what a bank could hand over, and apart from it the truth.

Three files of one form: `transactions` (the fields of a transaction on the wire), `labels` (the fields of a label) and
`truth` (scenario and incident, which nobody at the bank knows). Parquet needs pyarrow, which is loaded when asked for;
JSON lines need nothing. A file is written day by day under another name and takes its own when it is whole.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.domain.instants import format_instant
from shared.domain.labels import PRECEDENCE, Verdict
from simulator.batch import AUTHORS, LabelBatch, TransactionBatch, transaction_id
from simulator.changes import Scenario
from simulator.population import customer_id
from simulator.world import World

type Columns = dict[str, NDArray[Any]]
"""Columns of one length by name; times are datetime64[us]."""


class Form(StrEnum):
    """How files are written; the value is the end of their names."""

    PARQUET = "parquet"
    JSON_LINES = "jsonl"


class _Sink(Protocol):
    def write(self, columns: Columns) -> None:
        """Append rows."""


def export(
    world: World,
    start: int,
    n_days: int,
    folder: Path,
    *,
    form: Form = Form.PARQUET,
    progress: Callable[[TransactionBatch], None] = lambda _: None,
) -> dict[str, int]:
    """Write days of a world.

    Labels are all that the transactions of these days will ever have, also those known after the last day.

    Args:
        world: Which.
        start: The first day; 0 is the world's first.
        n_days: How many.
        folder: Where to; it is made if it is not there, and files of the same names are replaced.
        form: Which form.
        progress: Called after each day.

    Returns:
        Rows by name of file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    open_sink = _parquet if form is Form.PARQUET else _json_lines
    names = [f"{part}.{form.value}" for part in ("transactions", "labels", "truth")]
    rows = dict.fromkeys(names, 0)
    with ExitStack() as stack:
        sinks = [stack.enter_context(open_sink(folder / name)) for name in names]
        for day, batch in enumerate(world.days(start, n_days), start=start):
            labels = world.labels_of(day)
            for name, sink, columns in zip(
                names, sinks, (transaction_table(batch), label_table(labels), truth_table(batch, world)), strict=True
            ):
                sink.write(columns)
                rows[name] += len(columns["transaction_id"])
            progress(batch)
    return rows


def transaction_table(batch: TransactionBatch) -> Columns:
    """A day as the columns that a transaction has on the wire."""
    return {
        "transaction_id": _texts(transaction_id, batch.key),
        "customer_id": _texts(customer_id, batch.customer),
        "terminal_id": batch.terminal_ids[batch.terminal],
        "amount_minor": batch.amount_minor,
        "currency": np.full(len(batch), batch.currency),
        "event_time": batch.event_time_us.astype("datetime64[us]"),
    }


def label_table(labels: LabelBatch) -> Columns:
    """Labels as the columns that a label has on the wire."""
    return {
        "transaction_id": _texts(transaction_id, labels.key),
        "verdict": np.where(labels.is_fraud, Verdict.FRAUD.value, Verdict.GENUINE.value),
        "source": np.array([source.value for source in PRECEDENCE])[labels.source],
        "event_time": labels.event_time_us.astype("datetime64[us]"),
        "known_at": labels.known_at_us.astype("datetime64[us]"),
        "confidence": labels.confidence.astype(np.int64),
        "author": np.array(AUTHORS)[labels.author],
    }


def truth_table(batch: TransactionBatch, world: World) -> Columns:
    """What nobody knows."""
    scenarios = np.array([scenario.name.lower().replace("_", "-") for scenario in Scenario])
    categories = np.array([category.name for category in world.population.categories])
    return {
        "transaction_id": _texts(transaction_id, batch.key),
        "is_fraud": batch.is_fraud,
        "scenario": scenarios[batch.scenario],
        "incident": batch.incident,
        "category": categories[batch.category],
    }


def _texts(text: Callable[[int], str], numbers: NDArray[Any]) -> NDArray[np.str_]:
    # The dtype is given, because that of no texts at all would be that of numbers.
    return np.array([text(number) for number in numbers.tolist()], dtype=np.str_)


class _ParquetSink:
    """Appends row groups; the schema is that of the first rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def write(self, columns: Columns) -> None:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
        arrays = {}
        for name, column in columns.items():
            if column.dtype.kind == "M":
                arrays[name] = arrow.array(column, type=arrow.timestamp("us", tz="UTC"))
            elif column.dtype.kind == "U":
                arrays[name] = arrow.array(column.tolist(), type=arrow.string())
            else:
                arrays[name] = arrow.array(column)
        table = arrow.table(arrays)
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file; without a single write there is none."""
        if self._writer is not None:
            self._writer.close()


class _JsonSink:
    """Appends lines."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, columns: Columns) -> None:
        names = list(columns)
        for values in zip(*(_plain(column) for column in columns.values()), strict=True):
            self._file.write(json.dumps(dict(zip(names, values, strict=True)), separators=(",", ":")) + "\n")


def _plain(column: NDArray[Any]) -> Iterable[object]:
    """A column as what JSON holds; times as on the wire."""
    if column.dtype.kind == "M":
        return (format_instant(time_us) for time_us in column.astype(np.int64).tolist())
    values: list[object] = column.tolist()
    return values


@contextmanager
def _parquet(path: Path) -> Iterator[_Sink]:
    unfinished = path.with_name(path.name + ".unfinished")
    sink = _ParquetSink(unfinished)
    try:
        yield sink
    finally:
        sink.close()
    unfinished.replace(path)


@contextmanager
def _json_lines(path: Path) -> Iterator[_Sink]:
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w", encoding="utf-8", newline="\n") as file:
        yield _JsonSink(file)
    unfinished.replace(path)
