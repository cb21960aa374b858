"""Seals: the heads of the writers' chains, kept outside the database, each bound to the seal before it.

A chain that is cut off at its end still verifies. A seal says where it ended, so what a seal names cannot go without a
trace. Seals are numbered 0, 1, 2 ... without a gap; each holds the heads that moved since the one before.

The form is canonical bytes (see `canonical`). To change it: raise its version and keep the reader of the old one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from shared.domain.canonical import DIGEST_BYTES, Digest, Reader, Writer, digest_of
from shared.domain.errors import BrokenInvariant
from shared.domain.log_block import Head

SEAL_KIND: Final = 0x53
SEAL_FORMAT: Final = 1

NO_SEAL: Final = Digest(bytes(DIGEST_BYTES))
"""The previous hash of the first seal."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Where the chains ended at some moment.

    Attributes:
        number: 0, 1, 2 ... without a gap.
        sealed_at_us: Our clock, microseconds since 1970 UTC.
        previous: Hash of the seal before; `NO_SEAL` for the first.
        heads: Heads that moved since then, by writer, each writer once.
    """

    number: int
    sealed_at_us: int
    previous: Digest
    heads: tuple[Head, ...]

    @property
    def hash(self) -> Digest:
        """What the next seal names this one by."""
        return digest_of(seal_bytes(self))


def seal_bytes(seal: Seal) -> bytes:
    """The canonical bytes of a seal.

    Raises:
        BrokenInvariant: Its heads are not sorted by writer, or a writer stands there twice.
    """
    writers = [head.writer for head in seal.heads]
    if any(left >= right for left, right in pairwise(writers)):
        raise BrokenInvariant("the heads of a seal must be sorted by writer, each once")
    out = Writer(SEAL_KIND, SEAL_FORMAT).integer(seal.number).integer(seal.sealed_at_us).data(seal.previous)
    out.integer(len(seal.heads))
    for head in seal.heads:
        out.text(head.writer).integer(head.sequence).data(head.hash)
    return out.finish()


def read_seal(data: bytes) -> Seal:
    """The seal of canonical bytes; the inverse of `seal_bytes`.

    Raises:
        BrokenInvariant: The bytes are no such thing.
    """
    reader = Reader(data, SEAL_KIND, SEAL_FORMAT)
    number, sealed_at_us, previous = reader.integer(), reader.integer(), Digest(reader.data())
    count = reader.integer()
    heads = tuple([Head(reader.text(), reader.integer(), Digest(reader.data())) for _ in range(count)])
    reader.finish()
    seal = Seal(number, sealed_at_us, previous, heads)
    if seal_bytes(seal) != data:
        raise BrokenInvariant("the bytes of a seal are not in canonical form")
    return seal
