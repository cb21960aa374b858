"""Labels from files of three kinds: the same rows say the same."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from shared.domain.errors import InvalidInput
from shared.domain.labels import Label
from shared.entrypoints.wire_labels import COLUMNS
from tests.unit.domain.worlds import label, transaction
from twin.history import UnreadableFile
from twin.label_files import read_labels

pa: Any = importlib.import_module("pyarrow")
pa_parquet: Any = importlib.import_module("pyarrow.parquet")

NOW_US = 1_700_000_000_000_000
LABELS = [label(transaction(number, number), fraud=number % 2 == 0) for number in range(5)]

type Rows = list[dict[str, object]]


def to_csv(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS[::-1])
        writer.writeheader()
        writer.writerows(rows)


def to_lines(path: Path, rows: Rows) -> None:
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")


def to_parquet(path: Path, rows: Rows) -> None:
    pa_parquet.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {"csv": to_csv, "jsonl": to_lines, "parquet": to_parquet}


@pytest.mark.parametrize("kind", WRITERS)
def test_rows_are_labels_and_each_bad_row_stands_for_itself(kind: str, tmp_path: Path) -> None:
    rows = [item.to_fields() for item in LABELS]
    rows[1]["verdict"] = "perhaps"
    rows[3]["known_at"] = "2999-01-01T00:00:00Z"
    path = tmp_path / f"labels.{kind}"
    WRITERS[kind](path, rows)
    found = list(read_labels(path, NOW_US))
    assert [item for item in found if isinstance(item, Label)] == [LABELS[0], LABELS[2], LABELS[4]]
    refused = [(place, item.field) for place, item in enumerate(found) if isinstance(item, InvalidInput)]
    assert refused == [(1, "verdict"), (3, "known_at")]


def test_times_of_parquet_are_utc_unless_they_say_otherwise(tmp_path: Path) -> None:
    moment = datetime(2023, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    fields = LABELS[0].to_fields()
    path = tmp_path / "labels.parquet"
    elsewhere = moment.astimezone(timezone(timedelta(hours=5)))
    for known_at in (moment.replace(tzinfo=None), elsewhere):
        to_parquet(path, [{**fields, "event_time": moment, "known_at": known_at}])
        (found,) = read_labels(path, NOW_US)
        assert isinstance(found, Label)
        assert found.event_time_us == found.known_at_us == 1_672_628_645_678_901


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"none of \.csv, \.parquet, \.jsonl"):
        list(read_labels(tmp_path / "labels.xlsx", NOW_US))
    with pytest.raises(UnreadableFile, match=r"no file labels\.csv"):
        list(read_labels(tmp_path / "labels.csv", NOW_US))
    path = tmp_path / "labels.csv"
    path.write_bytes(b"transaction_id,verdict\n")
    with pytest.raises(UnreadableFile, match="source is missing"):
        list(read_labels(path, NOW_US))
    path.write_bytes(b"\xff")
    with pytest.raises(UnreadableFile, match="must be UTF-8"):
        list(read_labels(path, NOW_US))
    path = tmp_path / "labels.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(UnreadableFile, match="cannot be read"):
        list(read_labels(path, NOW_US))
    to_parquet(path, [{"transaction_id": "t"}])
    with pytest.raises(UnreadableFile, match="no column verdict"):
        list(read_labels(path, NOW_US))


def test_a_line_that_is_no_json_is_refused_alone(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(b"{\n" + json.dumps(LABELS[0].to_fields()).encode() + b"\n[]\n\xff\n")
    found = list(read_labels(path, NOW_US))
    assert found[1] == LABELS[0]
    rules = [str(item) for item in found if isinstance(item, InvalidInput)]
    assert [rule.split(" (")[0] for rule in rules] == [
        "the input must be JSON",
        "the input must be a JSON object",
        "the input must be UTF-8; byte 0 is not",
    ]
