"""Recorded history in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from shared.domain.errors import TollgateError
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.training_history import TrainingHistory


@dataclass
class FakeTrainingData:
    """Columns; `asked` are the spans that were read, `fault` is raised by every method while it is set."""

    transactions: TransactionColumns
    labels: LabelColumns
    fault: TollgateError | None = None
    asked: list[tuple[int, int]] = field(default_factory=list)

    def newest_us(self, until_us: int) -> int | None:
        self._fail()
        times = self.transactions.event_time_us[self.labels.row]
        times = times[times < until_us]
        return int(times.max()) if len(times) else None

    def count(self, start_us: int, end_us: int, most: int) -> int:
        self._fail()
        return min(most, len(self._inside(start_us, end_us)))

    def history(self, start_us: int, end_us: int) -> TrainingHistory:
        self._fail()
        self.asked.append((start_us, end_us))
        rows = self._inside(start_us, end_us)
        place = np.full(len(self.transactions.event_time_us), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        labels = self.labels
        kept = np.flatnonzero((place[labels.row] >= 0) & (labels.known_at_us >= start_us))
        columns = self.transactions
        return TrainingHistory(
            TransactionColumns(
                columns.transaction_id[rows],
                columns.event_time_us[rows],
                columns.amount_minor[rows],
                columns.customer[rows],
                columns.terminal[rows],
                None if columns.customer_version is None else columns.customer_version[rows],
                None if columns.terminal_version is None else columns.terminal_version[rows],
            ),
            replace(
                labels,
                row=place[labels.row[kept]],
                is_fraud=labels.is_fraud[kept],
                known_at_us=labels.known_at_us[kept],
                source=labels.source[kept],
                confidence=labels.confidence[kept],
                customer_version=None if labels.customer_version is None else labels.customer_version[kept],
                terminal_version=None if labels.terminal_version is None else labels.terminal_version[kept],
            ),
        )

    def _inside(self, start_us: int, end_us: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        times = self.transactions.event_time_us
        return np.flatnonzero((times >= start_us) & (times < end_us))

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault
