"""History from files: CSV or Parquet with anybody's column names, read as transactions and labels, row by row checked.

Every row goes through the same rules as a live transaction; a row that breaks one is reported with its number, field
and rule, and the next is read. Amounts in major units (12.50) become minor ones exactly, or the row is refused.
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from shared.domain.errors import InvalidInput
from shared.domain.identifiers import parse_identifier
from shared.domain.labels import Label, LabelSource, Verdict
from shared.domain.transaction import Acceptance, Transaction, parse_transaction

BATCH_ROWS: Final = 10_000
TOLERANCE: Final = Decimal("1e-6")
"""How far from a whole minor unit an amount may lie, in minor units, as in training."""

FIELDS: Final = ("transaction_id", "customer_id", "terminal_id", "amount", "event_time")
"""What a mapping must name; `currency` and `fraud` may be named too."""

OPTIONAL: Final = ("currency", "fraud")

HANDBOOK: Final = {
    "transaction_id": "TRANSACTION_ID",
    "customer_id": "CUSTOMER_ID",
    "terminal_id": "TERMINAL_ID",
    "amount": "TX_AMOUNT",
    "event_time": "TX_DATETIME",
    "fraud": "TX_FRAUD",
}
"""Columns of the Fraud Detection Handbook's published files; amounts in major units, times in UTC."""

OWN: Final = {name: name for name in ("transaction_id", "customer_id", "terminal_id", "event_time", "currency")} | {
    "amount": "amount_minor"
}
"""Columns named as the fields of the API."""


class UnreadableFile(Exception):
    """The file as a whole cannot be read; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file's columns become fields.

    Attributes:
        columns: Field to column; all of `FIELDS`, any of `OPTIONAL`.
        currency: The deployment's currency; of every row unless a column says it.
        minor_digits: Decimals of the currency's major unit; 0 if amounts are in minor units already.
        label_after_us: How long after its transaction the verdict of the `fraud` column became known, microseconds.
        prefixes: Put before ids of a kind that are plain numbers, such as `{"customer_id": "c"}`.
    """

    columns: Mapping[str, str]
    currency: str = "EUR"
    minor_digits: int = 2
    label_after_us: int = 0
    prefixes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a mapping that lacks or invents fields.

        Raises:
            UnreadableFile: It does.
        """
        unknown = sorted(set(self.columns) - {*FIELDS, *OPTIONAL})
        missing = [name for name in FIELDS if name not in self.columns]
        if unknown:
            raise UnreadableFile(f"{unknown[0]} is no field; the fields are {', '.join((*FIELDS, *OPTIONAL))}")
        if missing:
            raise UnreadableFile(f"no column is named for {', '.join(missing)}")

    @classmethod
    def detected(cls, names: list[str], currency: str = "EUR") -> Layout:
        """The layout of a file whose columns are the Handbook's or the API's.

        Raises:
            UnreadableFile: They are neither.
        """
        if set(HANDBOOK.values()) <= set(names):
            return cls(HANDBOOK, currency, prefixes={"transaction_id": "h", "customer_id": "c", "terminal_id": "m"})
        if {column for name, column in OWN.items() if name != "currency"} <= set(names):
            columns = {name: column for name, column in (OWN | {"fraud": "fraud"}).items() if column in names}
            return cls(columns, currency, minor_digits=0)
        raise UnreadableFile(
            f"the columns {', '.join(names[:12])} are not known; name them with --map FIELD=COLUMN for each of "
            + ", ".join(FIELDS)
        )


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that breaks a rule.

    Attributes:
        row: Its number in the file, the first row of data is 1.
        error: The field and the rule.
    """

    row: int
    error: InvalidInput


@dataclass(slots=True)
class Chunk:
    """Some rows of a file, in its order.

    Attributes:
        transactions: Rows that are transactions.
        labels: The verdicts of the `fraud` column, of these rows.
        rejected: Rows that are not.
    """

    transactions: list[Transaction] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def columns_of(path: Path) -> list[str]:
    """The names of a file's columns.

    Raises:
        UnreadableFile: There is no such file, or it is neither CSV nor Parquet.
    """
    with _opened(path) as reader:
        return list(reader.schema.names)


def chunks(path: Path, layout: Layout, now_us: int) -> Iterator[Chunk]:
    """The rows of a file as transactions and labels, some thousand at a time.

    Args:
        path: A `.csv` or `.parquet` file.
        layout: Its columns.
        now_us: Our clock; history cannot lie in the future.

    Raises:
        UnreadableFile: The file cannot be read, or lacks a column.
    """
    acceptance = Acceptance(layout.currency, now_us, lateness_us=None)
    with _opened(path) as reader:
        lacking = [column for column in layout.columns.values() if column not in reader.schema.names]
        if lacking:
            raise UnreadableFile(f"{path.name} has no column {lacking[0]}; it has {', '.join(reader.schema.names)}")
        number = 0
        for table in reader.batches():
            chunk = Chunk()
            columns = {name: table.column(column).to_pylist() for name, column in layout.columns.items()}
            for values in zip(*columns.values(), strict=True):
                number += 1
                fields = dict(zip(columns, values, strict=True))
                try:
                    transaction, label = _read(fields, layout, acceptance)
                except InvalidInput as error:
                    chunk.rejected.append(Rejected(number, error))
                    continue
                chunk.transactions.append(transaction)
                if label is not None:
                    chunk.labels.append(label)
            yield chunk


def _read(fields: dict[str, Any], layout: Layout, acceptance: Acceptance) -> tuple[Transaction, Label | None]:
    """One row as a transaction, and its label if the file has verdicts."""
    transaction = parse_transaction(
        {
            "transaction_id": _identifier("transaction_id", fields, layout),
            "customer_id": _identifier("customer_id", fields, layout),
            "terminal_id": _identifier("terminal_id", fields, layout),
            "amount_minor": minor_amount(fields["amount"], layout.minor_digits),
            "currency": fields.get("currency", layout.currency),
            "event_time": _event_time(fields["event_time"]),
        },
        acceptance,
    )
    if "fraud" not in fields or fields["fraud"] is None:
        return transaction, None
    known_at_us = transaction.event_time_us + layout.label_after_us
    verdict = Verdict.FRAUD if _flag(fields["fraud"]) else Verdict.GENUINE
    return transaction, Label(
        transaction.transaction_id, verdict, LabelSource.IMPORT, known_at_us, known_at_us, 100, "import"
    )


def _identifier(name: str, fields: dict[str, Any], layout: Layout) -> str:
    value = fields[name]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return parse_identifier(name, f"{layout.prefixes.get(name, '')}{value}" if isinstance(value, str) else value)


def minor_amount(value: object, digits: int) -> int:
    """An amount of a file in minor units.

    A binary float stands for the decimal near it: 57.16 is 5716 minor units, although no float is 57.16, and so is what
    arithmetic with floats left behind, up to a millionth of a minor unit: 57.16 * 5 means 285.80.

    >>> minor_amount(57.16, 2), minor_amount("12.5", 2), minor_amount(1250, 0), minor_amount(57.16 * 5, 2)
    (5716, 1250, 1250, 28580)

    Raises:
        InvalidInput: No number, or one with more decimals than the currency has.
    """
    if value is None or isinstance(value, bool):
        raise InvalidInput("amount", "must be a number")
    try:
        scaled = Decimal(str(value).strip()).scaleb(digits)
    except InvalidOperation as error:
        raise InvalidInput("amount", "must be a number") from error
    if not scaled.is_finite():
        raise InvalidInput("amount", "must be a finite number")
    whole = scaled.to_integral_value()
    if abs(scaled - whole) > TOLERANCE:
        raise InvalidInput("amount", f"must not have more than {digits} decimals")
    return int(whole)


def _event_time(value: object) -> str:
    """A time of a file as RFC 3339 text; one without an offset is UTC."""
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.isoformat()
    if isinstance(value, str):
        text = value.strip().replace(" ", "T", 1)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise InvalidInput("event_time", "must be a time such as 2018-04-01T00:00:31Z") from error
        if moment.tzinfo:
            return text
        return f"{text}Z" if "T" in text else moment.replace(tzinfo=UTC).isoformat()
    raise InvalidInput("event_time", "must be a time")


def _flag(value: object) -> bool:
    if value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in {"0", "1", "true", "false"}:
        return value.strip().lower() in {"1", "true"}
    raise InvalidInput("fraud", "must be 0 or 1, true or false")


@dataclass(slots=True)
class _Reader:
    """A file that is open: its schema, and its rows as record batches."""

    schema: Any
    batches: Callable[[], Iterator[Any]]


@contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    """Open a file by its ending; pyarrow is imported here because few commands need it, and it has no types."""
    pa: Any = importlib.import_module("pyarrow")
    pa_csv: Any = importlib.import_module("pyarrow.csv")
    pa_parquet: Any = importlib.import_module("pyarrow.parquet")
    if not path.is_file():
        raise UnreadableFile(f"there is no file {path.name}")
    try:
        if path.suffix.lower() == ".parquet":
            with pa_parquet.ParquetFile(path) as file:
                yield _Reader(file.schema_arrow, lambda: file.iter_batches(BATCH_ROWS))
        elif path.suffix.lower() == ".csv":
            # As text: what a number or a time is, is decided by the field's rule and not guessed from the first rows.
            with path.open("rb") as raw:
                names = next(csv.reader([raw.readline().decode("utf-8-sig")]), [])
            text = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
            with pa_csv.open_csv(path, convert_options=text) as stream:
                yield _Reader(stream.schema, lambda: iter(stream))
        else:
            raise UnreadableFile(f"{path.name} is neither .csv nor .parquet")
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise UnreadableFile(f"{path.name} cannot be read: {error}") from error
