"""History from files of other people."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import InvalidInput
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import LabelSource, Verdict
from twin.history import FIELDS, Chunk, Layout, UnreadableFile, chunks, columns_of, minor_amount

pa: Any = importlib.import_module("pyarrow")
pa_parquet: Any = importlib.import_module("pyarrow.parquet")

NOW_US = 1_700_000_000_000_000
HEAD = "transaction_id,customer_id,terminal_id,amount_minor,event_time,fraud\n"


def read(path: Path, layout: Layout | None = None) -> Chunk:
    whole = Chunk()
    for chunk in chunks(path, layout or Layout.detected(columns_of(path)), NOW_US):
        whole.transactions += chunk.transactions
        whole.labels += chunk.labels
        whole.rejected += chunk.rejected
    return whole


def csv(folder: Path, text: str) -> Path:
    path = folder / "some.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_handbooks_columns_are_known(tmp_path: Path) -> None:
    moment = datetime(2018, 4, 1, 0, 0, 31, tzinfo=UTC)
    table = pa.table(
        {
            "TRANSACTION_ID": pa.array([0, 1], pa.int32()),
            "TX_DATETIME": pa.array([moment.replace(tzinfo=None)] * 2, pa.timestamp("ms")),
            "CUSTOMER_ID": pa.array([596, 4961], pa.int16()),
            "TERMINAL_ID": pa.array([3156, 3412], pa.int16()),
            "TX_AMOUNT": [57.16, 0.0],
            "TX_FRAUD": pa.array([1, 0], pa.int8()),
        }
    )
    path = tmp_path / "book.parquet"
    pa_parquet.write_table(table, path)
    found = read(path)
    (own,) = found.transactions
    assert (own.transaction_id, own.customer_id, own.terminal_id) == ("h0", "c596", "m3156")
    assert (own.amount_minor, own.currency) == (5716, "EUR")
    assert own.event_time_us == int(moment.timestamp()) * 1_000_000
    (said,) = found.labels
    assert (said.transaction_id, said.verdict, said.source) == ("h0", Verdict.FRAUD, LabelSource.IMPORT)
    (rejected,) = found.rejected
    assert (rejected.row, str(rejected.error)) == (2, "amount_minor must be greater than zero")


def test_own_columns_are_known_and_each_bad_row_is_reported(tmp_path: Path) -> None:
    rows = [
        "t1,c1,m1,1250,2023-01-01T00:00:00Z,0",
        "t2,c1,m1,12.5,2023-01-01T00:00:00Z,0",
        "t3,,m1,1,2023-01-01T00:00:00Z,0",
        "t4,c1,m1,1,yesterday,0",
        "t5,c1,m1,1,2033-01-01T00:00:00Z,0",
        "t6,c1,m1,nan,2023-01-01 00:00:00,0",
        "t7,c1,m1,1,2023-01-01 00:00:00,maybe",
        "t8,c1,m1,7,2023-01-01 00:00:00.000001,true",
        "t9,c1,m1,,2023-01-01T00:00:00Z,0",
    ]
    found = read(csv(tmp_path, HEAD + "\n".join(rows) + "\n"))
    assert [item.transaction_id for item in found.transactions] == ["t1", "t8"]
    assert [item.verdict for item in found.labels] == [Verdict.GENUINE, Verdict.FRAUD]
    assert [(item.row, str(item.error)) for item in found.rejected] == [
        (2, "amount must not have more than 0 decimals"),
        (3, "customer_id must not be empty"),
        (4, "event_time must be a time such as 2018-04-01T00:00:31Z"),
        (5, "event_time must not lie more than 300 s in the future"),
        (6, "amount must be a finite number"),
        (7, "fraud must be 0 or 1, true or false"),
        (9, "amount must be a number"),
    ]


def test_other_names_units_and_delays_are_mapped(tmp_path: Path) -> None:
    path = csv(tmp_path, "id;x\n".replace(";", ",") + "1,2\n")
    with pytest.raises(UnreadableFile, match="--map FIELD=COLUMN"):
        Layout.detected(columns_of(path))
    path = csv(tmp_path, "id,card,shop,eur,at,bad\n007,4,x,12.50,2023-01-01,1\n")
    layout = Layout(
        dict(zip((*FIELDS, "fraud"), ("id", "card", "shop", "eur", "at", "bad"), strict=True)),
        label_after_us=3 * US_PER_DAY,
        prefixes={"customer_id": "card-"},
    )
    found = read(path, layout)
    (own,), (said,) = found.transactions, found.labels
    assert (own.transaction_id, own.customer_id, own.amount_minor) == ("007", "card-4", 1250)
    assert said.known_at_us == own.event_time_us + 3 * US_PER_DAY


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"transaction_id": "a"}, "no column is named for customer_id"), ({"colour": "a"}, "colour is no field")],
)
def test_a_mapping_names_real_fields_and_all_of_them(columns: dict[str, str], message: str) -> None:
    with pytest.raises(UnreadableFile, match=message):
        Layout(columns)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="no file"):
        columns_of(tmp_path / "none.csv")
    (tmp_path / "a.xlsx").write_bytes(b"x")
    with pytest.raises(UnreadableFile, match="neither"):
        columns_of(tmp_path / "a.xlsx")
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(UnreadableFile, match="cannot be read"):
        columns_of(tmp_path / "a.parquet")
    path = csv(tmp_path, HEAD + "t1,c1\n")
    with pytest.raises(UnreadableFile, match="cannot be read"):
        read(path)
    layout = Layout(dict.fromkeys(FIELDS, "nowhere"))
    with pytest.raises(UnreadableFile, match="has no column nowhere"):
        read(csv(tmp_path, HEAD), layout)


@given(st.integers(1, 10**10), st.integers(0, 4))
def test_amounts_survive_being_floats(amount: int, digits: int) -> None:
    assert minor_amount(amount / 10**digits, digits) == amount
    assert minor_amount(f" {amount} ", 0) == amount


@pytest.mark.parametrize("value", [None, True, "a lot", "", float("inf"), "NaN", [1]])
def test_what_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="amount must be a"):
        minor_amount(value, 2)
