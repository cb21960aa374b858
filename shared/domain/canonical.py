"""Canonical bytes: what makes two bodies the same, and what a decision's place in the log commits to.

Form: one byte for the kind of thing, one for the version of its form, then the fields in a fixed order, each written
so that its end can be told without looking ahead: integers as 8 bytes big-endian, text and bytes behind their length in
4 bytes. So no two different things share their bytes, and the bytes read back to the thing. JSON would not do: hosts
write it anew, with other spaces, key orders and number forms.

To change a form: raise its version, keep the reader of the old one, and keep the golden bytes in the tests.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final, NewType

from shared.domain.errors import BrokenInvariant
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.labels import Label
from shared.domain.transaction import Transaction

Digest = NewType("Digest", bytes)
"""32 bytes of SHA-256."""

DIGEST_BYTES: Final = 32

TRANSACTION_KIND: Final = 0x54
TRANSACTION_FORMAT: Final = 1

LABEL_KIND: Final = 0x59
LABEL_FORMAT: Final = 1

_TRANSACTION: Final = bytes((TRANSACTION_KIND, TRANSACTION_FORMAT))
_INTEGER: Final = struct.Struct(">q").pack


class Writer:
    """Appends fields to canonical bytes."""

    __slots__ = ("_parts",)

    def __init__(self, kind: int, version: int) -> None:
        self._parts = [bytes((kind, version))]

    def integer(self, value: int) -> Writer:
        """A whole number of 64 bits with sign.

        Raises:
            BrokenInvariant: It does not fit.
        """
        try:
            self._parts.append(struct.pack(">q", value))
        except struct.error as error:
            raise BrokenInvariant(f"{value} does not fit 64 bits") from error
        return self

    def real(self, value: float) -> Writer:
        """The bits of a binary64; NaN of any payload and -0.0 are what they are."""
        self._parts.append(struct.pack(">d", value))
        return self

    def data(self, value: bytes) -> Writer:
        """Bytes behind their length."""
        self._parts.append(struct.pack(">I", len(value)))
        self._parts.append(value)
        return self

    def text(self, value: str) -> Writer:
        """Text as UTF-8 behind its length in bytes."""
        self._parts.append(text_bytes(value))
        return self

    def finish(self) -> bytes:
        """All that was written."""
        return b"".join(self._parts)


class Reader:
    """Takes fields from canonical bytes, in the order in which they were written."""

    __slots__ = ("_data", "_place")

    def __init__(self, data: bytes, kind: int, version: int) -> None:
        if data[:2] != bytes((kind, version)):
            raise BrokenInvariant(f"canonical bytes start with {data[:2].hex()}, not {kind:02x}{version:02x}")
        self._data = data
        self._place = 2

    def integer(self) -> int:
        """The next field, a whole number."""
        value: int = struct.unpack(">q", self._take(8))[0]
        return value

    def real(self) -> float:
        """The next field, a binary64."""
        value: float = struct.unpack(">d", self._take(8))[0]
        return value

    def data(self) -> bytes:
        """The next field, bytes."""
        return self._take(int(struct.unpack(">I", self._take(4))[0]))

    def text(self) -> str:
        """The next field, text.

        Raises:
            BrokenInvariant: It is not UTF-8.
        """
        try:
            return self.data().decode("utf-8")
        except UnicodeDecodeError as error:
            raise BrokenInvariant("canonical bytes hold text that is not UTF-8") from error

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            BrokenInvariant: Something is.
        """
        if self._place != len(self._data):
            raise BrokenInvariant(f"canonical bytes have {len(self._data) - self._place} bytes too many")

    def _take(self, count: int) -> bytes:
        end = self._place + count
        if end > len(self._data):
            raise BrokenInvariant(f"canonical bytes end early, at {len(self._data)}")
        taken = self._data[self._place : end]
        self._place = end
        return taken


def text_bytes(value: str) -> bytes:
    """A field that is text: UTF-8 behind its length in bytes."""
    data = value.encode("utf-8")
    return len(data).to_bytes(4) + data


def digest_of(data: bytes) -> Digest:
    """SHA-256 of bytes.

    >>> digest_of(b"").hex()[:16]
    'e3b0c44298fc1c14'
    """
    return Digest(hashlib.sha256(data).digest())


def transaction_bytes(transaction: Transaction) -> bytes:
    """The canonical bytes of a parsed transaction: equal exactly where every field is.

    Packed directly and not through `Writer`, in the same form: each request pays for it while others wait.

    Raises:
        BrokenInvariant: A number does not fit 64 bits.
    """
    try:
        return b"".join(
            (
                _TRANSACTION,
                text_bytes(transaction.transaction_id),
                text_bytes(transaction.customer_id),
                text_bytes(transaction.terminal_id),
                _INTEGER(transaction.amount_minor),
                text_bytes(transaction.currency),
                _INTEGER(transaction.event_time_us),
            )
        )
    except struct.error as error:
        raise BrokenInvariant("a number of a transaction does not fit 64 bits") from error


def transaction_digest(transaction: Transaction) -> Digest:
    """What a repeated id is compared by: same digest, same body.

    It is computed over the raw customer id, which can be guessed back from it by whoever knows the other fields. So it
    belongs beside the transaction and is deleted with it; it never enters the log.
    """
    return digest_of(transaction_bytes(transaction))


def read_transaction(data: bytes) -> Transaction:
    """The transaction of canonical bytes; the inverse of `transaction_bytes`.

    Raises:
        BrokenInvariant: The bytes are no such thing.
    """
    reader = Reader(data, TRANSACTION_KIND, TRANSACTION_FORMAT)
    transaction = Transaction(
        transaction_id=TransactionId(reader.text()),
        customer_id=CustomerId(reader.text()),
        terminal_id=TerminalId(reader.text()),
        amount_minor=reader.integer(),
        currency=reader.text(),
        event_time_us=reader.integer(),
    )
    reader.finish()
    return transaction


def label_bytes(label: Label) -> bytes:
    """The canonical bytes of a label: equal exactly where every field is."""
    return (
        Writer(LABEL_KIND, LABEL_FORMAT)
        .text(label.transaction_id)
        .text(label.verdict)
        .text(label.source)
        .integer(label.event_time_us)
        .integer(label.known_at_us)
        .integer(label.confidence)
        .text(label.author)
        .finish()
    )


def label_digest(label: Label) -> Digest:
    """What a repeated label is recognised by."""
    return digest_of(label_bytes(label))
