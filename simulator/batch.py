"""A day's transactions and labels as columns, and what they are on the wire and to the domain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.feature_columns import TransactionColumns
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import PRECEDENCE, Label, Verdict
from shared.domain.transaction import Transaction
from simulator.changes import Scenario
from simulator.population import customer_id

AUTHORS: Final = (*(f"analyst-{number:02d}" for number in range(1, 13)), "cardholder-line", "chargeback-feed")
"""Who writes labels; an author is a place in this tuple."""

N_ANALYSTS: Final = len(AUTHORS) - 2
CARDHOLDER_LINE: Final = AUTHORS.index("cardholder-line")
CHARGEBACK_FEED: Final = AUTHORS.index("chargeback-feed")

NO_INCIDENT: Final = -1


def transaction_id(key: int) -> str:
    """A transaction's identifier on the wire; sorted as text as the keys are as numbers.

    >>> transaction_id(255)
    't-00000000000000ff'
    """
    return f"t-{key:016x}"


def key_of(identifier: str) -> int:
    """The key of a transaction's identifier; the inverse of `transaction_id`.

    >>> key_of("t-00000000000000ff")
    255
    """
    return int(identifier[2:], 16)


@dataclass(frozen=True, slots=True, eq=False)
class TransactionBatch:
    """Transactions of a day, sorted by event time, as columns of one length n.

    The first five columns are what a sender knows. The others are the truth about the world; nothing that decides or
    learns may read them, except to measure how well it did.

    Attributes:
        day: Days since 1970.
        currency: ISO 4217 code of all amounts.
        terminal_ids: Identifiers of all terminals of the world, indexed by `terminal`.
        key: (n,) uint64, the number in the transaction's identifier; unique unless a feed fault repeats it.
        customer: (n,) int64, number of the cardholder.
        terminal: (n,) int64, number of the terminal.
        amount_minor: (n,) int64, minor units.
        event_time_us: (n,) int64, microseconds since 1970 UTC.
        scenario: (n,) int8, `Scenario`: what it was.
        incident: (n,) int64, number of the incident it belongs to; `NO_INCIDENT` for what cardholders do.
        category: (n,) int8, place of the category in the world's.
    """

    day: int
    currency: str
    terminal_ids: NDArray[np.str_]
    key: NDArray[np.uint64]
    customer: NDArray[np.int64]
    terminal: NDArray[np.int64]
    amount_minor: NDArray[np.int64]
    event_time_us: NDArray[np.int64]
    scenario: NDArray[np.int8]
    incident: NDArray[np.int64]
    category: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.key)

    @property
    def is_fraud(self) -> NDArray[np.bool_]:
        """(n,) bool, the truth."""
        is_fraud: NDArray[np.bool_] = self.scenario != Scenario.GENUINE
        return is_fraud

    @property
    def first_us(self) -> int:
        """Start of the day, microseconds since 1970 UTC."""
        return self.day * US_PER_DAY

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> TransactionBatch:
        """Some of the transactions."""
        return replace(
            self,
            key=self.key[rows],
            customer=self.customer[rows],
            terminal=self.terminal[rows],
            amount_minor=self.amount_minor[rows],
            event_time_us=self.event_time_us[rows],
            scenario=self.scenario[rows],
            incident=self.incident[rows],
            category=self.category[rows],
        )

    def columns(self) -> TransactionColumns:
        """The transactions as `feature_columns.transform_many` reads them; keys sort as the identifiers do."""
        return TransactionColumns(self.key, self.event_time_us, self.amount_minor, self.customer, self.terminal)

    def transactions(self) -> Iterator[Transaction]:
        """The transactions one by one, in order of event time."""
        for row in range(len(self)):
            yield self.transaction(row)

    def transaction(self, row: int) -> Transaction:
        """One transaction."""
        return Transaction(
            TransactionId(transaction_id(int(self.key[row]))),
            CustomerId(customer_id(int(self.customer[row]))),
            TerminalId(str(self.terminal_ids[self.terminal[row]])),
            int(self.amount_minor[row]),
            self.currency,
            int(self.event_time_us[row]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class LabelBatch:
    """Labels sorted by known-at, then transaction key, then source, as columns of one length n.

    Attributes:
        key: (n,) uint64, key of the transaction.
        is_fraud: (n,) bool, what the label says; not always the truth.
        source: (n,) int8, place in `labels.PRECEDENCE`.
        event_time_us: (n,) int64, when the source came to it.
        known_at_us: (n,) int64, when it could be known to us; not before `event_time_us`.
        confidence: (n,) int8, percent.
        author: (n,) int8, place in `AUTHORS`.
    """

    key: NDArray[np.uint64]
    is_fraud: NDArray[np.bool_]
    source: NDArray[np.int8]
    event_time_us: NDArray[np.int64]
    known_at_us: NDArray[np.int64]
    confidence: NDArray[np.int8]
    author: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def joined(cls, parts: list[LabelBatch]) -> LabelBatch:
        """Several batches as one, sorted."""
        if not parts:
            empty = np.empty(0, dtype=np.int64)
            small = np.empty(0, dtype=np.int8)
            return cls(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.bool_), small, empty, empty, small, small)
        whole = cls(
            np.concatenate([part.key for part in parts]),
            np.concatenate([part.is_fraud for part in parts]),
            np.concatenate([part.source for part in parts]),
            np.concatenate([part.event_time_us for part in parts]),
            np.concatenate([part.known_at_us for part in parts]),
            np.concatenate([part.confidence for part in parts]),
            np.concatenate([part.author for part in parts]),
        )
        return whole.take(np.lexsort((whole.source, whole.key, whole.known_at_us)))

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> LabelBatch:
        """Some of the labels."""
        return LabelBatch(
            self.key[rows],
            self.is_fraud[rows],
            self.source[rows],
            self.event_time_us[rows],
            self.known_at_us[rows],
            self.confidence[rows],
            self.author[rows],
        )

    def known_between(self, from_us: int, until_us: int) -> LabelBatch:
        """Those known from a time on, and before another."""
        return self.take((from_us <= self.known_at_us) & (self.known_at_us < until_us))

    def labels(self) -> Iterator[Label]:
        """The labels one by one, in order."""
        for row in range(len(self)):
            yield self.label(row)

    def label(self, row: int) -> Label:
        """One label."""
        return Label(
            TransactionId(transaction_id(int(self.key[row]))),
            Verdict.FRAUD if self.is_fraud[row] else Verdict.GENUINE,
            PRECEDENCE[self.source[row]],
            int(self.event_time_us[row]),
            int(self.known_at_us[row]),
            int(self.confidence[row]),
            AUTHORS[self.author[row]],
        )
