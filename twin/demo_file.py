"""The demo on a file of real transactions: `make demo DATA=FILE.parquet`.

Months of the file are history, its last four weeks are played live: a week of transactions, then the labels of that
week, then the next. Times are moved so that the last day is yesterday, with the weekday kept, and the twin's apps take
events of the last weeks instead of the last seven days. To stay within minutes only so many customers are taken, whole,
that there are about `MOST_ROWS` transactions; what terminals lose by it is said.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from shared.domain.errors import InvalidInput
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.labels import LABEL_DELAY_US, Label, LabelSource, Verdict
from shared.domain.training_split import TrainingPlan
from shared.domain.transaction import TRANSACTION_TYPE, Transaction
from simulator.malformed import KINDS, encoded
from simulator.wire import Sending, WireEvent, label_body, transaction_body
from twin.demo_scene import BY_THE_CLOCK, DISTURBANCE, HISTORY_DAYS, Chapter, Day, Training
from twin.history import Layout, columns_of
from twin.training import read_history

MOST_ROWS: Final = 120_000
_WEEK: Final = 7
LIVE_DAYS: Final = 4 * _WEEK
_NOT_BROKEN: Final = BY_THE_CLOCK | {"too-old"}
"""What is wrong elsewhere and not here, where events of weeks are taken."""

_SHARES: Final = np.array([DISTURBANCE.late, DISTURBANCE.repeated, DISTURBANCE.conflicting, DISTURBANCE.malformed])
_EVER_US: Final = 1 << 62
_SHUFFLE_US: Final = DISTURBANCE.shuffle_s * 1_000_000


class FileScene:
    """The last months of a file, as a scene."""

    def __init__(self, path: Path, now_us: int, most_rows: int = MOST_ROWS) -> None:
        """Read it.

        Raises:
            UnreadableFile: It cannot be read, or its columns are not known.
            InvalidInput: It spans too few days.
        """
        whole = read_history(path, Layout.detected(columns_of(path)))
        columns, labels = whole.transactions, whole.labels
        yesterday = now_us // US_PER_DAY - 1
        first, last = (int(edge) // US_PER_DAY for edge in (columns.event_time_us.min(), columns.event_time_us.max()))
        last -= 1  # the file's last day may be cut off
        last -= (last - yesterday) % _WEEK
        from_day = last - LIVE_DAYS - HISTORY_DAYS + 1
        if from_day < first:
            raise InvalidInput("DATA", f"must span at least {HISTORY_DAYS + LIVE_DAYS + _WEEK} days")
        inside = (columns.event_time_us >= from_day * US_PER_DAY) & (columns.event_time_us < (last + 1) * US_PER_DAY)
        keys, owner = np.unique(columns.customer, return_inverse=True)
        one_in = -(-int(inside.sum()) // most_rows)
        chosen = np.array([zlib.crc32(str(key).encode()) % one_in == 0 for key in keys])
        rows = np.flatnonzero(inside & chosen[owner])
        rows = rows[np.lexsort((columns.transaction_id[rows], columns.event_time_us[rows]))]
        moved_us = (yesterday - last) * US_PER_DAY
        fraud = np.zeros(len(columns.event_time_us), dtype=np.bool_)
        fraud[labels.row] = labels.is_fraud
        self._columns = TransactionColumns(
            columns.transaction_id[rows],
            columns.event_time_us[rows] + moved_us,
            columns.amount_minor[rows],
            columns.customer[rows],
            columns.terminal[rows],
        )
        self._fraud = fraud[rows]
        self._rng = np.random.default_rng(1)
        self.starts_us = from_day * US_PER_DAY + moved_us
        self.live_from_us = self.starts_us + HISTORY_DAYS * US_PER_DAY
        self.history_days, self.live_days = HISTORY_DAYS, LIVE_DAYS
        self.live_until_us = self.live_from_us + LIVE_DAYS * US_PER_DAY
        self.told = (
            f"{path.name}: one customer in {one_in}, {len(rows):,} transactions of {int(inside.sum()):,};"
            f" times moved by {moved_us // US_PER_DAY:,} days"
        )
        self._cut = int(np.searchsorted(self._columns.event_time_us, self.live_from_us))

    def history(self) -> Iterator[Day]:
        """The days of history; the file's verdicts are known on the day and count after the label delay."""
        edges = [self.starts_us + day * US_PER_DAY for day in range(HISTORY_DAYS + 1)]
        places = np.searchsorted(self._columns.event_time_us, edges).tolist()
        for low, high in pairwise(places):
            transactions = [self._transaction(row) for row in range(low, high)]
            yield Day(transactions, [self._label(row) for row in range(low, high)])

    def training(self) -> Training:
        """History as columns."""
        rows, columns = slice(0, self._cut), self._columns
        given = TransactionColumns(
            columns.transaction_id[rows],
            columns.event_time_us[rows],
            columns.amount_minor[rows],
            columns.customer[rows],
            columns.terminal[rows],
        )
        count = self._cut
        source = np.full(count, list(LabelSource).index(LabelSource.IMPORT), dtype=np.int8)
        labels = LabelColumns(
            np.arange(count), self._fraud[rows], given.event_time_us, source, np.full(count, 100, dtype=np.int8)
        )
        plan = TrainingPlan(
            self.live_from_us, train_days=60, calibration_days=10, test_days=10, maturity_us=LABEL_DELAY_US
        )
        return Training(given, labels, plan)

    def live(self) -> list[Chapter]:
        """The live weeks as they are sent, with repeats, conflicts, late and broken events; labels follow each week."""
        events = self._events()
        ends = [self.live_from_us + week * _WEEK * US_PER_DAY for week in range(1, LIVE_DAYS // _WEEK)]
        chapters = []
        for low, high in pairwise([self.live_from_us, *ends, _EVER_US]):
            own = [event for event in events if low <= event.sent_at_us < high]
            sent = {event.transaction_id for event in own if event.sending in {Sending.GOOD, Sending.LATE}}
            rows = [row for row in range(self._cut, len(self._fraud)) if str(self._columns.transaction_id[row]) in sent]
            chapters.append(Chapter(own, [label_body(self._label(row)) for row in rows]))
        return chapters

    def _events(self) -> list[WireEvent]:
        """All that is sent, in its order."""
        rng, events = self._rng, []
        for row in range(self._cut, len(self._fraud)):
            transaction = self._transaction(row)
            customer = zlib.crc32(transaction.customer_id.encode())
            late, repeated, conflicting, malformed = (rng.random(4) < _SHARES).tolist()
            delay_us = int(rng.integers(US_PER_HOUR, 2 * US_PER_DAY)) if late else int(rng.random() * _SHUFFLE_US)
            sent_us = transaction.event_time_us + delay_us
            body = transaction_body(transaction)
            kind = Sending.LATE if late else Sending.GOOD
            events.append(WireEvent(body, sent_us, kind, transaction.transaction_id, customer))
            again_us = sent_us + 1 + int(rng.random() * US_PER_HOUR)
            if repeated:
                events.append(WireEvent(body, again_us, Sending.REPEATED, transaction.transaction_id, customer))
            if conflicting:
                other = transaction_body(replace(transaction, amount_minor=transaction.amount_minor + 1))
                events.append(WireEvent(other, again_us, Sending.CONFLICTING, transaction.transaction_id, customer))
            if malformed:
                events.append(self._malformed(transaction, sent_us, customer))
        return sorted(events, key=lambda event: event.sent_at_us)

    def truth(self) -> dict[TransactionId, bool]:
        """The file's verdicts of live transactions."""
        ids = self._columns.transaction_id[self._cut :].tolist()
        return {TransactionId(str(key)): bool(fraud) for key, fraud in zip(ids, self._fraud[self._cut :], strict=True)}

    def _malformed(self, near: Transaction, sent_us: int, customer: int) -> WireEvent:
        identifier = f"{near.transaction_id}-broken"
        fields = {"type": TRANSACTION_TYPE, **near.to_fields(), "transaction_id": identifier}
        # Some kinds break what only the simulator's identifiers have; those leave this body as it is.
        kinds = [
            kind for kind in KINDS if kind.name not in _NOT_BROKEN and kind.body(fields, sent_us) != encoded(fields)
        ]
        kind = kinds[int(self._rng.integers(len(kinds)))]
        body = kind.body(fields, sent_us)
        return WireEvent(body, sent_us, Sending.MALFORMED, identifier, customer, kind.name, kind.field)

    def _transaction(self, row: int) -> Transaction:
        columns = self._columns
        return Transaction(
            TransactionId(str(columns.transaction_id[row])),
            CustomerId(str(columns.customer[row])),
            TerminalId(str(columns.terminal[row])),
            int(columns.amount_minor[row]),
            "EUR",
            int(columns.event_time_us[row]),
        )

    def _label(self, row: int) -> Label:
        time_us = int(self._columns.event_time_us[row])
        verdict = Verdict.FRAUD if self._fraud[row] else Verdict.GENUINE
        identifier = TransactionId(str(self._columns.transaction_id[row]))
        return Label(identifier, verdict, LabelSource.IMPORT, time_us, time_us, 100, "import")
