"""Histories as they are recorded: with the versions of entities, and as rows of the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.instants import US_PER_DAY

type Ints = NDArray[np.int64]


def recorded(
    transactions: TransactionColumns, labels: LabelColumns, *, label_after_us: int = 0
) -> tuple[TransactionColumns, LabelColumns]:
    """Columns with texts for keys and the versions that recording in the order of what was known gives.

    Args:
        transactions: With whole numbers for keys.
        labels: Known when their transaction took place.
        label_after_us: After what time they were known instead.
    """
    known_at_us = labels.known_at_us + label_after_us
    moments = np.concatenate([transactions.event_time_us, known_at_us + 1])
    texts = [
        np.array([f"{letter}{key:06d}" for key in column.tolist()])
        for letter, column in (
            ("x", transactions.transaction_id),
            ("c", transactions.customer),
            ("t", transactions.terminal),
        )
    ]
    n_rows = len(transactions.event_time_us)

    def versions(keys: NDArray[Any]) -> tuple[Ints, Ints]:
        owner = np.concatenate([keys, keys[labels.row]])
        order = np.lexsort((moments, owner))
        first = np.flatnonzero(np.append(True, owner[order][1:] != owner[order][:-1]))
        version = np.empty(len(order), dtype=np.int64)
        version[order] = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order)))) + 1
        return version[:n_rows], version[n_rows:]

    customer, of_customers = versions(texts[1])
    terminal, of_terminals = versions(texts[2])
    return (
        TransactionColumns(
            texts[0], transactions.event_time_us, transactions.amount_minor, texts[1], texts[2], customer, terminal
        ),
        LabelColumns(
            labels.row, labels.is_fraud, known_at_us, labels.source, labels.confidence, of_customers, of_terminals
        ),
    )


def store(
    connection: psycopg.Connection[Any],
    transactions: TransactionColumns,
    labels: LabelColumns,
    order: Sequence[int] | None = None,
) -> None:
    """Write recorded columns into the tables; the partitions must be there.

    Args:
        connection: Of the owner.
        transactions: With versions.
        labels: With versions.
        order: In which the transactions are written; None for that of the columns.
    """
    columns = transactions
    assert columns.customer_version is not None
    assert columns.terminal_version is not None
    assert labels.customer_version is not None
    assert labels.terminal_version is not None
    places = range(len(columns.event_time_us)) if order is None else order
    statement = (
        "COPY tollgate.transactions (customer_id, event_time_us, transaction_id, terminal_id, amount_minor, currency,"
        " customer_version, terminal_version, recorded_at_us, flags) FROM STDIN"
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in places:
            time_us = int(columns.event_time_us[row])
            copy.write_row(
                (
                    str(columns.customer[row]),
                    time_us,
                    str(columns.transaction_id[row]),
                    str(columns.terminal[row]),
                    int(columns.amount_minor[row]),
                    "EUR",
                    int(columns.customer_version[row]),
                    int(columns.terminal_version[row]),
                    time_us,
                    0,
                )
            )
    statement = (
        "COPY tollgate.feedback_labels (transaction_id, label_digest, verdict, source, event_time_us, known_at_us,"
        " confidence, author, recorded_at_us, customer_version, terminal_version) FROM STDIN"
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for place, row in enumerate(labels.row.tolist()):
            known_at_us = int(labels.known_at_us[place])
            copy.write_row(
                (
                    str(columns.transaction_id[row]),
                    place.to_bytes(32, "big"),
                    0 if labels.is_fraud[place] else 1,
                    int(labels.source[place]),
                    known_at_us,
                    known_at_us,
                    int(labels.confidence[place]),
                    "test",
                    known_at_us,
                    int(labels.customer_version[place]),
                    int(labels.terminal_version[place]),
                )
            )


def span_of(transactions: TransactionColumns) -> tuple[int, int]:
    """The event times for which partitions are needed."""
    times = transactions.event_time_us
    return int(times.min()) // US_PER_DAY * US_PER_DAY, int(times.max()) + 1
