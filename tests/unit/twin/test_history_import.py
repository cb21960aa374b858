"""A history's way into the ledger in memory: in order, interleaved, once, whatever the file's order."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.errors import Transient
from shared.domain.instants import US_PER_DAY, format_instant
from shared.domain.labels import Label
from shared.domain.transaction import Transaction
from shared.services.importing import Importing, ImportOutcome
from shared.services.labelling import Labelling, LabelOutcome, LabelVerdict
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock
from tests.unit.domain.worlds import BASE_US
from tests.unit.shared.test_scoring import KEYS
from twin.history import Layout, UnreadableFile, columns_of
from twin.history_import import ATTEMPTS, History, HistoryImport, Tally, read_history, work_of
from twin.rejects import Rejects, rejects_to

pa: Any = importlib.import_module("pyarrow")
pa_parquet: Any = importlib.import_module("pyarrow.parquet")

NOW_US = BASE_US + 400 * US_PER_DAY
DELAY_US = 7 * US_PER_DAY
HEAD = "transaction_id,customer_id,terminal_id,amount_minor,event_time,fraud"


def line(number: int, day: int, *, amount: int = 1000, fraud: str = "0") -> str:
    moment = format_instant(BASE_US + day * US_PER_DAY)
    return f"t{number:04},c{number % 3},m{number % 2},{amount},{moment},{fraud}"


def read(folder: Path, lines: Sequence[str], rejects: Rejects | None = None, delay_us: int = DELAY_US) -> History:
    path = folder / "history.csv"
    path.write_text("\n".join([HEAD, *lines]) + "\n", encoding="utf-8")
    detected = Layout.detected(columns_of(path))
    layout = Layout(detected.columns, minor_digits=0, label_after_us=delay_us)
    return read_history(path, layout, NOW_US, rejects or Rejects(), lambda _: None)


class Bench:
    """A ledger in memory, and what was taken by it in what order."""

    def __init__(self, batch_rows: int = 3, rejects: Rejects | None = None) -> None:
        self.ledger = FakeLedger()
        self.order: list[tuple[str, int]] = []
        self.told = 0
        self.slept: list[float] = []
        clock, bench = FakeClock(NOW_US), self

        class Watched(Importing):
            def take(self, transactions: Sequence[Transaction]) -> list[ImportOutcome]:
                outcomes = super().take(transactions)
                bench.order += [("transaction", item.event_time_us) for item in transactions]
                return outcomes

        class WatchedLabels(Labelling):
            def record(self, labels: Sequence[Label]) -> list[LabelVerdict]:
                verdicts = super().record(labels)
                bench.order += [("label", item.known_at_us) for item in labels]
                return verdicts

        self.history_import = HistoryImport(
            Watched(self.ledger, KEYS, clock),
            WatchedLabels(self.ledger, KEYS, clock),
            rejects or Rejects(),
            batch_rows=batch_rows,
            told=self.count,
            sleep=self.slept.append,
        )

    def count(self, done: int) -> None:
        self.told += done

    def said(self) -> dict[str, bool]:
        """Transaction id to verdict of the labels that were folded."""
        folded = [item.label for item in self.ledger.tables.labels.values() if not isinstance(item, Label)]
        return {label.transaction_id: label.is_fraud for label in folded}

    def run(self, history: History) -> Tally:
        return self.history_import.run(history, NOW_US)


def test_labels_come_between_transactions_when_they_were_known(tmp_path: Path) -> None:
    bench = Bench(batch_rows=2)
    history = read(tmp_path, [line(number, number, fraud=str(number % 2)) for number in range(20)])
    tally = bench.run(history)
    assert tally.transactions == {ImportOutcome.IMPORTED: 20}
    assert tally.labels == {LabelOutcome.RECORDED: 20}
    assert bench.told == work_of(history, NOW_US) == 40
    last_label = 0
    latest_transaction = 0
    for kind, moment in bench.order:
        if kind == "label":
            assert moment >= last_label
            last_label = moment
        else:
            latest_transaction = moment
    # Every label that was known before a batch began was recorded before it.
    for place, (kind, moment) in enumerate(bench.order):
        if kind == "transaction":
            later = [known for other, known in bench.order[place:] if other == "label"]
            assert all(known > moment - 2 * US_PER_DAY for known in later)
    assert latest_transaction == BASE_US + 19 * US_PER_DAY
    assert bench.said() == {f"t{number:04}": number % 2 == 1 for number in range(20)}


def test_a_second_run_finds_only_repeats(tmp_path: Path) -> None:
    bench = Bench()
    history = read(tmp_path, [line(number, number) for number in range(10)])
    bench.run(history)
    states = {key: item.header for key, item in bench.ledger.tables.entities.items()}
    again = bench.run(history)
    assert (again.transactions, again.labels) == ({ImportOutcome.REPEATED: 10}, {LabelOutcome.REPEATED: 10})
    assert {key: item.header for key, item in bench.ledger.tables.entities.items()} == states


@given(st.permutations(range(12)), st.integers(1, 13))
@settings(max_examples=25, deadline=None)
def test_a_file_in_any_order_gives_the_tables_of_one_in_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], batch_rows: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    lines = [line(number, number, fraud=str(number % 2)) for number in range(12)]
    plain, shuffled = Bench(batch_rows), Bench(batch_rows)
    plain.run(read(folder, lines))
    history = read(folder, [lines[place] for place in order])
    assert history.was_sorted == (order == sorted(order))
    assert [order[row - 1] for row in history.row] == list(range(12))
    shuffled.run(history)
    assert shuffled.ledger.tables.digests == plain.ledger.tables.digests
    assert shuffled.ledger.tables.labels == plain.ledger.tables.labels
    assert {key: item.header for key, item in shuffled.ledger.tables.entities.items()} == {
        key: item.header for key, item in plain.ledger.tables.entities.items()
    }


def test_refused_rows_and_conflicts_are_reported_by_their_row(tmp_path: Path) -> None:
    lines = [line(2, 9), line(1, 3, amount=0), line(1, 5), line(1, 6, amount=7, fraud="1"), line(3, 1), line(1, 5)]
    with rejects_to(tmp_path / "rejects.csv") as rejects:
        history = read(tmp_path, lines, rejects)
        bench = Bench(batch_rows=100, rejects=rejects)
        tally = bench.run(history)
    assert tally.transactions == {
        ImportOutcome.IMPORTED: 3,
        ImportOutcome.CONFLICT: 1,
        ImportOutcome.REPEATED: 1,
    }
    assert (tmp_path / "rejects.csv").read_text(encoding="utf-8").splitlines() == [
        "row,field,rule",
        "2,amount_minor,must be greater than zero",
        "4,transaction_id,was used before with another body",
    ]
    assert rejects.count == 2
    assert bench.said() == {
        "t0001": False,
        "t0002": False,
        "t0003": False,
    }


def test_verdicts_of_the_future_are_no_labels_yet(tmp_path: Path) -> None:
    bench = Bench()
    history = read(tmp_path, [line(0, 0), line(1, 1), line(2, 396), line(3, 392)])
    tally = bench.run(history)
    assert tally.unknown_yet == 1
    assert sorted(key[0] for key in bench.ledger.tables.labels) == ["t0000", "t0001", "t0003"]
    assert bench.told == work_of(history, NOW_US) == 7


def test_what_passes_is_tried_again_and_what_does_not_ends_the_run(tmp_path: Path) -> None:
    bench = Bench()
    history = read(tmp_path, [line(number, number) for number in range(5)])
    bench.ledger.fault_at_write = Transient("down")
    assert bench.run(history).transactions == {ImportOutcome.IMPORTED: 5}
    assert bench.slept == [1.0]

    class Down(Importing):
        def take(self, transactions: Sequence[Transaction]) -> list[ImportOutcome]:
            raise Transient("down")

    slept: list[float] = []
    down = HistoryImport(
        Down(bench.ledger, KEYS, FakeClock(NOW_US)),
        Labelling(bench.ledger, KEYS, FakeClock(NOW_US)),
        Rejects(),
        batch_rows=2,
        told=bench.count,
        sleep=slept.append,
    )
    with pytest.raises(Transient):
        down.run(history, NOW_US)
    assert len(slept) == ATTEMPTS - 1
    assert sum(slept) == 31.0


def test_rows_without_a_verdict_have_no_label(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    columns = HEAD.split(",")
    rows: list[dict[str, str | None]] = [
        dict(zip(columns, line(number, 1).split(","), strict=True)) for number in range(4)
    ]
    rows[1] |= {"fraud": None}
    rows[3] |= {"fraud": "1"}
    pa_parquet.write_table(pa.Table.from_pylist(rows), path)
    bench = Bench()
    bench.run(read_history(path, Layout.detected(columns_of(path)), NOW_US, Rejects(), lambda _: None))
    assert bench.said() == {"t0000": False, "t0002": False, "t0003": True}


def test_a_file_without_a_usable_row_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="no row that can be used"):
        read(tmp_path, [])
