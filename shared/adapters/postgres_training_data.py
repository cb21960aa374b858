"""History from Postgres as columns: two binary COPYs of one snapshot.

Texts are padded by the server to one width each, so that every row has the same length and thousands of rows are read
at once, without a loop over values. Ids are visible ASCII (`shared.domain.identifiers`), so bytes are characters, the
padding occurs in none of them, and padded ids sort as the ids do.

Source of the form: PostgreSQL 16, "COPY", section "Binary Format".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from shared.adapters.postgres_errors import translated
from shared.adapters.postgres_ledger_statements import VERDICTS
from shared.domain.errors import BrokenInvariant
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import Verdict
from shared.domain.training_history import (
    LABEL_COLUMNS,
    TRANSACTION_COLUMNS,
    Labels,
    Part,
    TrainingHistory,
    Transactions,
)

if TYPE_CHECKING:
    from shared.adapters.postgres_session import Connection, PostgresSession

SETTINGS: Final = {"statement_timeout": "20min", "idle_in_transaction_session_timeout": "20min"}
"""Of the session: reading a year of history takes minutes."""

PART_ROWS: Final = 1 << 16
"""Rows that become columns at a time: some 10 MB."""

_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"

_NEWEST: Final = """
SELECT max(t.event_time_us) FROM tollgate.transactions t
JOIN tollgate.feedback_labels l ON l.transaction_id = t.transaction_id
WHERE t.event_time_us >= %s AND t.event_time_us < %s
"""
_COUNT: Final = """
SELECT count(*) FROM (
    SELECT FROM tollgate.transactions WHERE event_time_us >= %s AND event_time_us < %s LIMIT %s
) AS found
"""
_WIDTHS: Final = """
SELECT max(octet_length(transaction_id)), max(octet_length(customer_id)), max(octet_length(terminal_id))
FROM tollgate.transactions WHERE event_time_us >= %s AND event_time_us < %s
"""
_TRANSACTIONS: Final = """
COPY (
    SELECT rpad(transaction_id, %s), rpad(customer_id, %s), rpad(terminal_id, %s), event_time_us, amount_minor,
        customer_version, terminal_version
    FROM tollgate.transactions WHERE event_time_us >= %s AND event_time_us < %s
) TO STDOUT (FORMAT BINARY)
"""
# Labels that wait for their transaction have no versions, and longer ids than any that was read belong to none of them.
_LABELS: Final = """
COPY (
    SELECT rpad(transaction_id, %s), known_at_us, verdict, source, confidence, customer_version, terminal_version
    FROM tollgate.feedback_labels
    WHERE customer_version IS NOT NULL AND known_at_us >= %s AND octet_length(transaction_id) <= %s
) TO STDOUT (FORMAT BINARY)
"""

_HEADER_BYTES: Final = 19
_FRAUD: Final = VERDICTS.index(Verdict.FRAUD)
_LONG, _SHORT = ">i8", ">i2"


class PostgresTrainingData:
    """Reads `tollgate.transactions` and `tollgate.feedback_labels`; used by one thread at a time."""

    def __init__(self, session: PostgresSession) -> None:
        """Read nothing yet; the session should have `SETTINGS`."""
        self._session = session

    def newest_us(self, until_us: int) -> int | None:
        """The newest event time with a label, sought backwards in spans that double: few partitions are read."""
        end_us, width_us = until_us, US_PER_DAY
        with translated("looking for the newest label"), self._session.transaction() as connection:
            while end_us > 0:
                row = connection.execute(_NEWEST, [end_us - width_us, end_us]).fetchone()
                if row is not None and row[0] is not None:
                    return int(row[0])
                end_us, width_us = end_us - width_us, 2 * width_us
        return None

    def count(self, start_us: int, end_us: int, most: int) -> int:
        """Transactions of a span, counted up to some number."""
        with translated("counting transactions"), self._session.transaction() as connection:
            row = connection.execute(_COUNT, [start_us, end_us, most]).fetchone()
        return 0 if row is None else int(row[0])

    def history(self, start_us: int, end_us: int) -> TrainingHistory:
        """One snapshot of the transactions of a span and of their labels."""
        transactions = Transactions()
        with translated("reading history"), self._session.transaction() as connection:
            connection.execute(_SNAPSHOT)
            widths = connection.execute(_WIDTHS, [start_us, end_us]).fetchone()
            if widths is None or widths[0] is None:
                columns = transactions.columns()
                return TrainingHistory(columns, Labels(columns.transaction_id, is_fraud=_FRAUD).columns())
            fields = [
                *zip(("transaction_id", "customer_id", "terminal_id"), (f"S{width}" for width in widths), strict=True),
                *((name, _LONG) for name in TRANSACTION_COLUMNS),
            ]
            for part in _parts(connection, _TRANSACTIONS, [*widths, start_us, end_us], fields):
                transactions.add(part)
            columns = transactions.columns()
            labels = Labels(columns.transaction_id, is_fraud=_FRAUD)
            fields = [
                ("transaction_id", f"S{widths[0]}"),
                *((name, _SHORT if name in _SMALL else _LONG) for name in LABEL_COLUMNS),
            ]
            for part in _parts(connection, _LABELS, [widths[0], start_us, widths[0]], fields):
                labels.add(part)
        return TrainingHistory(columns, labels.columns())


_SMALL: Final = frozenset({"verdict", "source", "confidence"})


def _parts(
    connection: Connection, statement: str, values: Sequence[object], fields: Sequence[tuple[str, str]]
) -> Iterator[Part]:
    """The rows of a binary COPY whose rows have one length, `PART_ROWS` at a time.

    Raises:
        BrokenInvariant: The stream has another form.
    """
    dtype = np.dtype(
        [("n_fields", _SHORT), *((name, form) for field, kind in fields for name, form in _framed(field, kind))]
    )
    rest = bytearray()
    header = _HEADER_BYTES
    with connection.cursor() as cursor, cursor.copy(statement, values) as copy:
        for data in copy:
            rest += data
            if header and len(rest) >= header:
                del rest[:header]
                header = 0
            if not header and len(rest) >= PART_ROWS * dtype.itemsize:
                yield _checked(np.frombuffer(bytes(rest[: PART_ROWS * dtype.itemsize]), dtype), fields)
                del rest[: PART_ROWS * dtype.itemsize]
    n_rows, left = divmod(len(rest), dtype.itemsize)
    if header or bytes(rest[len(rest) - left :]) != _TRAILER:
        raise BrokenInvariant("history cannot be read: the rows are not of one length")
    if n_rows:
        yield _checked(np.frombuffer(bytes(rest[: n_rows * dtype.itemsize]), dtype), fields)


_TRAILER: Final = b"\xff\xff"


def _framed(field: str, kind: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """A value and, before it, its length."""
    return (f"{field}_bytes", ">i4"), (field, kind)


def _checked(part: Part, fields: Sequence[tuple[str, str]]) -> Part:
    """A part whose every row has the fields and lengths that were asked for."""
    whole = bool((part["n_fields"] == len(fields)).all())
    if not whole or any((part[f"{field}_bytes"] != np.dtype(kind).itemsize).any() for field, kind in fields):
        raise BrokenInvariant("history cannot be read: a row has another form")
    return part
