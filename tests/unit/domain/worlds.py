"""Small worlds of transactions and labels, as objects and as columns, crowded around the edges of windows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.feature_view import FeatureView
from shared.domain.features import History, PastTransaction, transform_one
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import PRECEDENCE, Label, LabelSource, Verdict
from shared.domain.transaction import Transaction

BASE_US = 1_522_540_800_000_000  # 2018-04-01


@dataclass(frozen=True)
class World:
    """Transactions in arrival order, and labels with the moment of arrival as version; None: no versions."""

    transactions: list[Transaction]
    labels: list[Label]
    versions: list[int] | None = None
    label_versions: list[int] | None = None

    def columns(self) -> TransactionColumns:
        version = None if self.versions is None else np.array(self.versions, dtype=np.int64)
        return TransactionColumns(
            transaction_id=np.array([item.transaction_id for item in self.transactions], dtype=np.str_),
            event_time_us=np.array([item.event_time_us for item in self.transactions], dtype=np.int64),
            amount_minor=np.array([item.amount_minor for item in self.transactions], dtype=np.int64),
            customer=np.array([item.customer_id for item in self.transactions], dtype=np.str_),
            terminal=np.array([item.terminal_id for item in self.transactions], dtype=np.str_),
            customer_version=version,
            terminal_version=version,
        )

    def label_columns(self) -> LabelColumns:
        rows = {item.transaction_id: row for row, item in enumerate(self.transactions)}
        version = None if self.label_versions is None else np.array(self.label_versions, dtype=np.int64)
        return LabelColumns(
            row=np.array([rows[label.transaction_id] for label in self.labels], dtype=np.int64),
            is_fraud=np.array([label.is_fraud for label in self.labels], dtype=np.bool_),
            known_at_us=np.array([label.known_at_us for label in self.labels], dtype=np.int64),
            source=np.array([PRECEDENCE.index(label.source) for label in self.labels], dtype=np.int64),
            confidence=np.array([label.confidence for label in self.labels], dtype=np.int64),
            customer_version=version,
            terminal_version=version,
        )

    def history(self, row: int) -> History:
        """All that the row's entities know when it is decided; without versions the whole world, later events too."""
        own = self.transactions[row]
        number = None if self.versions is None else self.versions[row]

        def known(other: int) -> PastTransaction:
            item = self.transactions[other]
            labels = tuple(
                label
                for place, label in enumerate(self.labels)
                if label.transaction_id == item.transaction_id
                and (number is None or self.label_versions is None or self.label_versions[place] < number)
            )
            return PastTransaction(item.transaction_id, item.event_time_us, item.amount_minor, labels)

        others = [
            other
            for other in range(len(self.transactions))
            if number is None or self.versions is None or self.versions[other] < number
        ]
        return History(
            [known(other) for other in others if self.transactions[other].customer_id == own.customer_id],
            [known(other) for other in others if self.transactions[other].terminal_id == own.terminal_id],
        )

    def one_by_one(self, view: FeatureView) -> NDArray[np.float32]:
        """The reference, row by row."""
        rows = range(len(self.transactions))
        found = [transform_one(view, self.transactions[row], self.history(row)) for row in rows]
        return np.array(found, dtype=np.float32).reshape(len(found), len(view.features))

    def at_once(self, view: FeatureView, chunk_rows: int = 1 << 17) -> NDArray[np.float32]:
        return transform_many(view, self.columns(), self.label_columns(), chunk_rows=chunk_rows)


def same_bits(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


def transaction(
    number: int, time_us: int, *, customer: str = "c", terminal: str = "m", amount: int = 1000
) -> Transaction:
    return Transaction(
        TransactionId(f"t{number:04}"), CustomerId(customer), TerminalId(terminal), amount, "EUR", BASE_US + time_us
    )


def label(of: Transaction, *, fraud: bool, known_after_us: int = 0) -> Label:
    known_at_us = of.event_time_us + known_after_us
    verdict = Verdict.FRAUD if fraud else Verdict.GENUINE
    return Label(of.transaction_id, verdict, LabelSource.ANALYST, known_at_us, known_at_us, 100, "ann")


_DAYS = st.sampled_from([0, 1, 6, 7, 8, 14, 15, 20, 30, 31, 37, 38, 60, 90, 97, 98])
_NUDGES = st.sampled_from([-1, 0, 0, 1])
_AMOUNTS = st.sampled_from([1, 2, 3, 999, 1000, 1001, 2500, 2501, 7_777, 10_000_000_000]) | st.integers(1, 100_000)


@st.composite
def worlds(draw: st.DrawFn, *, versions: bool = False, max_size: int = 24) -> World:
    """A few entities, times at window edges and a microsecond beside them, ties, labels of all kinds in any order."""
    times = st.builds(
        lambda days, hours, nudge: days * US_PER_DAY + hours * 3_600_000_000 + nudge,
        _DAYS,
        st.sampled_from([0, 0, 5]),
        _NUDGES,
    )
    rows = draw(
        st.lists(
            st.tuples(times, st.sampled_from("ab"), st.sampled_from("xy"), _AMOUNTS), min_size=1, max_size=max_size
        )
    )
    numbers = draw(st.permutations(range(len(rows))))
    transactions = [
        transaction(number, time_us, customer=customer, terminal=terminal, amount=amount)
        for number, (time_us, customer, terminal, amount) in zip(numbers, rows, strict=True)
    ]
    sayings = draw(
        st.lists(
            st.tuples(
                st.sampled_from(transactions),
                st.booleans(),
                st.sampled_from([-1, 0, 0, 0, 1, 3, 7, 20]),
                _NUDGES,
                st.sampled_from(LabelSource),
                st.sampled_from([50, 100]),
            ),
            max_size=2 * len(rows),
        )
    )
    labels = [
        replace(label(of, fraud=fraud, known_after_us=days * US_PER_DAY + nudge), source=source, confidence=confidence)
        for of, fraud, days, nudge, source, confidence in sayings
    ]
    if not versions:
        return World(transactions, labels)
    size = len(transactions) + len(labels)
    by_time = sorted(
        range(size),
        key=lambda item: transactions[item].event_time_us if item < len(rows) else labels[item - len(rows)].known_at_us,
    )
    moved = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=4))
    for source_place, target in moved:  # a few arrive late or early
        by_time.insert(target, by_time.pop(source_place))
    arrival = [0] * size
    for place, item in enumerate(by_time):
        arrival[item] = place + 1
    return World(transactions, labels, arrival[: len(rows)], arrival[len(rows) :])


def random_world(seed: int, n_rows: int, *, late: bool = False) -> World:
    """A denser world than hypothesis draws: weeks of traffic, late and contradicting labels."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 120 * 86_400, n_rows)) * 1_000_000
    transactions = [
        transaction(
            number,
            int(times[number]),
            customer=f"c{rng.integers(3)}",
            terminal=f"m{rng.integers(4)}",
            amount=int(rng.lognormal(8, 1)) + 1,
        )
        for number in range(n_rows)
    ]
    labels = [
        label(item, fraud=bool(rng.random() < 0.3), known_after_us=int(rng.integers(0, 20)) * US_PER_DAY)
        for item in transactions
        if rng.random() < 0.8
        for _ in range(1 + int(rng.random() < 0.2))
    ]
    if not late:
        return World(transactions, labels)
    arrive = [(item.event_time_us + int(rng.random() < 0.05) * int(rng.integers(US_PER_DAY))) for item in transactions]
    arrive += [saying.known_at_us + int(rng.integers(US_PER_DAY)) for saying in labels]
    places = np.empty(len(arrive), dtype=np.int64)
    places[np.argsort(np.array(arrive), kind="stable")] = np.arange(1, len(arrive) + 1)
    return World(transactions, labels, places[:n_rows].tolist(), places[n_rows:].tolist())
