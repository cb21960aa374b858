"""History as columns, put together from parts of any size and order, as a database hands them out.

Memory per transaction is that of its columns: 40 bytes and its id. Labels of transactions that are not there are
dropped as they come. Entities become whole numbers in the order of their keys, so that nothing depends on the order of
the parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.feature_columns import LabelColumns, TransactionColumns

TRANSACTION_COLUMNS: Final = ("event_time_us", "amount_minor", "customer_version", "terminal_version")
LABEL_COLUMNS: Final = ("known_at_us", "verdict", "source", "confidence", "customer_version", "terminal_version")

type Part = NDArray[np.void]
"""Rows with named fields."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingHistory:
    """What is known of some time.

    Attributes:
        transactions: With the versions that they created.
        labels: Of these transactions, with theirs.
    """

    transactions: TransactionColumns
    labels: LabelColumns


@dataclass(slots=True)
class _Keys:
    """Keys of an entity as numbers in the order in which they came up."""

    number: dict[bytes, int] = field(default_factory=dict)
    parts: list[NDArray[np.int32]] = field(default_factory=list)

    def add(self, keys: NDArray[np.bytes_]) -> None:
        distinct, inverse = np.unique(keys, return_inverse=True)
        numbers = [self.number.setdefault(key, len(self.number)) for key in distinct.tolist()]
        self.parts.append(np.array(numbers, dtype=np.int32)[inverse])

    def ranks(self) -> NDArray[np.int32]:
        """(n,) each key's place among the sorted ones."""
        order = sorted(self.number)
        rank = np.empty(len(order), dtype=np.int32)
        rank[[self.number[key] for key in order]] = np.arange(len(order), dtype=np.int32)
        return rank[np.concatenate(self.parts)] if self.parts else np.empty(0, dtype=np.int32)


class Transactions:
    """Collects transactions."""

    def __init__(self) -> None:
        self._ids: list[NDArray[np.bytes_]] = []
        self._columns: dict[str, list[NDArray[np.int64]]] = {name: [] for name in TRANSACTION_COLUMNS}
        self._customers = _Keys()
        self._terminals = _Keys()

    def add(self, part: Part) -> None:
        """Take rows: `transaction_id`, `customer_id`, `terminal_id` (bytes) and `TRANSACTION_COLUMNS`."""
        self._ids.append(np.array(part["transaction_id"]))
        self._customers.add(part["customer_id"])
        self._terminals.add(part["terminal_id"])
        for name, parts in self._columns.items():
            parts.append(part[name].astype(np.int64))

    def columns(self) -> TransactionColumns:
        """What came; ids as bytes, which sort as the texts do."""
        found = {name: _joined(parts) for name, parts in self._columns.items()}
        return TransactionColumns(
            np.concatenate(self._ids) if self._ids else np.empty(0, dtype="S1"),
            found["event_time_us"],
            found["amount_minor"],
            self._customers.ranks(),
            self._terminals.ranks(),
            found["customer_version"],
            found["terminal_version"],
        )


class Labels:
    """Collects the labels of transactions."""

    def __init__(self, transaction_id: NDArray[Any], *, is_fraud: int) -> None:
        """Collect nothing yet.

        Args:
            transaction_id: (n,) bytes, unique; of the rows that labels are found for.
            is_fraud: The verdict that says fraud.
        """
        self._is_fraud = is_fraud
        self._order = np.argsort(transaction_id, kind="stable")
        self._sorted = transaction_id[self._order]
        self._rows: list[NDArray[np.int64]] = []
        self._columns: dict[str, list[NDArray[np.int64]]] = {name: [] for name in LABEL_COLUMNS}

    def add(self, part: Part) -> None:
        """Take rows: `transaction_id` (bytes) and `LABEL_COLUMNS`."""
        ids = part["transaction_id"]
        place = np.searchsorted(self._sorted, ids)
        known = place < len(self._sorted)
        known[known] = self._sorted[place[known]] == ids[known]
        self._rows.append(self._order[place[known]])
        for name, parts in self._columns.items():
            parts.append(part[name][known].astype(np.int64))

    def columns(self) -> LabelColumns:
        """What came."""
        found = {name: _joined(parts) for name, parts in self._columns.items()}
        return LabelColumns(
            _joined(self._rows),
            found["verdict"] == self._is_fraud,
            found["known_at_us"],
            found["source"].astype(np.int8),
            found["confidence"].astype(np.int8),
            found["customer_version"],
            found["terminal_version"],
        )


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
