"""Labels from files: CSV, Parquet or JSON lines, with the fields of the API as columns."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from shared.domain.errors import InvalidInput
from shared.domain.event import parse_object
from shared.domain.labels import parse_label
from shared.entrypoints.wire_labels import COLUMNS, csv_fields, read_csv, read_item
from shared.services.label_feed import LabelRow
from twin.history import UnreadableFile

_BATCH_ROWS: Final = 10_000


def read_labels(path: Path, now_us: int) -> Iterator[LabelRow]:
    """The rows of a file, each a label or why it is none; empty lines of CSV and JSON lines are passed over.

    Args:
        path: A `.csv`, `.parquet` or `.jsonl` file.
        now_us: Our clock; nothing can be known later.

    Raises:
        UnreadableFile: The file as a whole cannot be read.
    """
    readers = {".csv": _of_csv, ".parquet": _of_parquet, ".jsonl": _of_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UnreadableFile(f"{path.name} is none of {', '.join(readers)}")
    if not path.is_file():
        raise UnreadableFile(f"there is no file {path.name}")
    return reader(path, now_us)


def _of_csv(path: Path, now_us: int) -> Iterator[LabelRow]:
    try:
        yield from read_csv(path.read_bytes(), now_us)
    except InvalidInput as error:
        raise UnreadableFile(f"{path.name}: {error}") from error


def _of_lines(path: Path, now_us: int) -> Iterator[LabelRow]:
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                try:
                    yield parse_label(parse_object(line), now_us)
                except InvalidInput as error:
                    yield error


def _of_parquet(path: Path, now_us: int) -> Iterator[LabelRow]:
    pa: Any = importlib.import_module("pyarrow")
    pa_parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        with pa_parquet.ParquetFile(path) as file:
            lacking = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if lacking:
                raise UnreadableFile(f"{path.name} has no column {lacking[0]}; the columns are {', '.join(COLUMNS)}")
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(COLUMNS)):
                for row in batch.to_pylist():
                    yield read_item(_plain(row), now_us)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(f"{path.name} cannot be read: {error}") from error


def _plain(row: Mapping[str, object]) -> dict[str, object]:
    """A row's values as the API wants them: times as text; one without an offset is UTC."""
    return csv_fields({name: _time(value) if isinstance(value, datetime) else value for name, value in row.items()})


def _time(value: datetime) -> str:
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
