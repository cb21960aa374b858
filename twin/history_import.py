"""History as columns in the order of event time, and its way into the ledger, transactions and labels interleaved.

A file is read once, checked row by row, and kept as columns of some hundred bytes a row; so nothing is written before
all of it was read, and a file in any order is taken in the right one.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.errors import Conflict, Transient
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.labels import Label, LabelSource, Verdict
from shared.domain.transaction import Transaction
from shared.services.importing import Importing, ImportOutcome
from shared.services.label_feed import LabelRow, take_rows
from shared.services.labelling import Labelling, LabelOutcome, LabelVerdict
from twin.history import Chunk, Layout, UnreadableFile, chunks
from twin.rejects import Rejects

ATTEMPTS: Final = 6
"""How often a batch is tried when the database cannot take it now; the waits between double from `FIRST_WAIT_S` and add
up to half a minute, enough for a server that starts again."""

FIRST_WAIT_S: Final = 1.0

_GENUINE, _FRAUD, _NO_VERDICT = 0, 1, -1
_AUTHOR: Final = "import"
_CONFIDENCE: Final = 100

type Told = Callable[[int], None]
"""Told how many rows were done since it was told before."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Accepted rows of a file in the order of event time, then of the file.

    Attributes:
        ids: Columns of text, `transaction_id`, `customer_id`, `terminal_id`: a pyarrow table.
        amount_minor: (n,) int64, minor units.
        event_time_us: (n,) int64, microseconds since 1970 UTC.
        verdict: (n,) int8, 1 fraud, 0 genuine, -1 none.
        row: (n,) int64, its number in the file, from 1.
        currency: Of all amounts.
        label_after_us: From a transaction until its verdict was known, microseconds.
        was_sorted: Whether the file was in this order.
    """

    ids: Any
    amount_minor: NDArray[np.int64]
    event_time_us: NDArray[np.int64]
    verdict: NDArray[np.int8]
    row: NDArray[np.int64]
    currency: str
    label_after_us: int
    was_sorted: bool

    def __len__(self) -> int:
        """Number of transactions."""
        return len(self.row)

    def transactions(self, start: int, stop: int) -> list[Transaction]:
        """Some of its transactions."""
        ids = self.ids.slice(start, stop - start)
        columns = (ids.column(name).to_pylist() for name in ids.column_names)
        numbers = (self.amount_minor[start:stop].tolist(), self.event_time_us[start:stop].tolist())
        return [
            Transaction(
                TransactionId(identifier), CustomerId(customer), TerminalId(terminal), amount, self.currency, moment
            )
            for identifier, customer, terminal, amount, moment in zip(*columns, *numbers, strict=True)
        ]

    def labels(self, places: NDArray[np.int64]) -> list[Label]:
        """The labels of some rows, by place."""
        identifiers = self.ids.column("transaction_id").take(_pyarrow().array(places)).to_pylist()
        known = (self.event_time_us[places] + self.label_after_us).tolist()
        return [
            Label(
                TransactionId(identifier),
                Verdict.FRAUD if verdict == _FRAUD else Verdict.GENUINE,
                LabelSource.IMPORT,
                moment,
                moment,
                _CONFIDENCE,
                _AUTHOR,
            )
            for identifier, moment, verdict in zip(identifiers, known, self.verdict[places].tolist(), strict=True)
        ]


@dataclass(slots=True)
class _Columns:
    """A file while it is read."""

    ids: list[Any] = field(default_factory=list)
    amount_minor: list[NDArray[np.int64]] = field(default_factory=list)
    event_time_us: list[NDArray[np.int64]] = field(default_factory=list)
    verdict: list[NDArray[np.int8]] = field(default_factory=list)
    row: list[NDArray[np.int64]] = field(default_factory=list)
    rows: int = 0

    def add(self, chunk: Chunk) -> None:
        """Keep the accepted rows of a chunk."""
        items, refused = chunk.transactions, {item.row for item in chunk.rejected}
        first, self.rows = self.rows + 1, self.rows + len(items) + len(refused)
        pa = _pyarrow()
        self.ids.append(
            pa.table(
                {
                    name: pa.array([getattr(item, name) for item in items], pa.string())
                    for name in ("transaction_id", "customer_id", "terminal_id")
                }
            )
        )
        self.amount_minor.append(np.array([item.amount_minor for item in items], dtype=np.int64))
        self.event_time_us.append(np.array([item.event_time_us for item in items], dtype=np.int64))
        self.verdict.append(_verdicts(items, chunk.labels))
        numbers = [number for number in range(first, self.rows + 1) if number not in refused]
        self.row.append(np.array(numbers, dtype=np.int64))


def _verdicts(items: Sequence[Transaction], labels: Sequence[Label]) -> NDArray[np.int8]:
    """The verdict of each transaction; labels come in the order of their rows, and not every row has one."""
    verdicts = np.full(len(items), _NO_VERDICT, dtype=np.int8)
    waiting = iter(labels)
    label = next(waiting, None)
    for place, item in enumerate(items):
        if label is not None and label.transaction_id == item.transaction_id:
            verdicts[place] = _FRAUD if label.is_fraud else _GENUINE
            label = next(waiting, None)
    return verdicts


def read_history(path: Path, layout: Layout, now_us: int, rejects: Rejects, told: Told) -> History:
    """Read all of a file.

    Args:
        path: A `.csv` or `.parquet` file.
        layout: Its columns.
        now_us: Our clock; history cannot lie in the future.
        rejects: Where rows are reported that break a rule.
        told: Told rows read.

    Raises:
        UnreadableFile: It cannot be read, or no row of it can be used.
    """
    columns = _Columns()
    for chunk in chunks(path, layout, now_us):
        columns.add(chunk)
        for item in chunk.rejected:
            rejects.add(item.row, item.error)
        told(len(chunk.transactions) + len(chunk.rejected))
    if not sum(map(len, columns.row)):
        raise UnreadableFile(f"{path.name} has no row that can be used")
    times = np.concatenate(columns.event_time_us)
    order = np.argsort(times, kind="stable")
    was_sorted = bool((times[1:] >= times[:-1]).all())
    ids = _pyarrow().concat_tables(columns.ids)
    return History(
        ids=(ids if was_sorted else ids.take(order)).combine_chunks(),
        amount_minor=np.concatenate(columns.amount_minor)[order],
        event_time_us=times[order],
        verdict=np.concatenate(columns.verdict)[order],
        row=np.concatenate(columns.row)[order],
        currency=layout.currency,
        label_after_us=layout.label_after_us,
        was_sorted=was_sorted,
    )


@dataclass(slots=True)
class Tally:
    """What became of the rows of a file.

    Attributes:
        transactions: By outcome.
        labels: By outcome.
        unknown_yet: Verdicts that become known only later than now, and were left out.
    """

    transactions: Counter[ImportOutcome] = field(default_factory=Counter)
    labels: Counter[LabelOutcome] = field(default_factory=Counter)
    unknown_yet: int = 0


class HistoryImport:
    """Takes a history into a ledger, in batches; a batch that the database cannot take now is tried again."""

    def __init__(
        self,
        importing: Importing,
        labelling: Labelling,
        rejects: Rejects,
        *,
        batch_rows: int,
        told: Told,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._importing = importing
        self._labelling = labelling
        self._rejects = rejects
        self._batch_rows = batch_rows
        self._told = told
        self._sleep = sleep

    def run(self, history: History, now_us: int) -> Tally:
        """Take all of it: each batch of transactions after the labels that were known before it begins.

        Raises:
            Transient: The database cannot take it; what was taken stays, and running again goes on.
            BrokenInvariant: The database refuses it.
        """
        tally = Tally()
        has_verdict = history.verdict != _NO_VERDICT
        known_us = history.event_time_us + history.label_after_us
        tally.unknown_yet = int((has_verdict & (known_us > now_us)).sum())
        takes_label = has_verdict & (known_us <= now_us)
        labelled = 0
        for start in range(0, len(history), self._batch_rows):
            stop = min(start + self._batch_rows, len(history))
            # Rows are sorted, so what was known before a time is what lies before a place; never beyond what was taken.
            due = min(int(np.searchsorted(known_us, history.event_time_us[start], side="right")), start)
            labelled = self._label(history, takes_label, labelled, due, tally)
            outcomes = self._tried(self._importing.take, history.transactions(start, stop))
            tally.transactions.update(outcomes)
            for place, outcome in enumerate(outcomes, start):
                if outcome is ImportOutcome.CONFLICT:
                    takes_label[place] = False  # it would be recorded for another transaction
                    self._rejects.add(
                        int(history.row[place]), Conflict("transaction_id", "was used before with another body")
                    )
            self._told(stop - start)
        self._label(history, takes_label, labelled, len(history), tally)
        return tally

    def _label(self, history: History, takes_label: NDArray[np.bool_], start: int, stop: int, tally: Tally) -> int:
        """Record the labels of the rows of a range, and return its end."""
        places = np.flatnonzero(takes_label[start:stop]) + start
        for first in range(0, len(places), self._batch_rows):
            some = places[first : first + self._batch_rows]
            verdicts = self.record(history.labels(some), history.row[some].tolist())
            tally.labels.update(verdict.outcome for verdict in verdicts)
            self._told(len(some))
        return stop

    def record(self, labels: Sequence[LabelRow], rows: Sequence[int]) -> list[LabelVerdict]:
        """Record labels, and report those that are refused by the number of their row."""
        verdicts = self._tried(lambda given: take_rows(self._labelling, given), labels)
        for row, verdict in zip(rows, verdicts, strict=True):
            if verdict.error is not None:
                self._rejects.add(row, verdict.error)
        return verdicts

    def _tried[Given, Answer](
        self, take: Callable[[Sequence[Given]], list[Answer]], given: Sequence[Given]
    ) -> list[Answer]:
        """Take a batch, again after a while if the database cannot do it now: taking it twice changes nothing."""
        wait_s = FIRST_WAIT_S
        for _ in range(ATTEMPTS - 1):
            try:
                return take(given)
            except Transient:
                self._sleep(wait_s)
                wait_s *= 2
        return take(given)


def work_of(history: History, now_us: int) -> int:
    """Rows and labels that will be told as done."""
    known_us = history.event_time_us + history.label_after_us
    return len(history) + int(((history.verdict != _NO_VERDICT) & (known_us <= now_us)).sum())


def _pyarrow() -> Any:
    return importlib.import_module("pyarrow")
