"""What was kept, read again and sealed, as ports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from shared.domain.archive import (
    Extent,
    HistoryPart,
    Selection,
    StoredBlock,
    StoredDecision,
    StoredSeal,
    Stray,
)
from shared.domain.feature_view import Entity
from shared.domain.identifiers import TransactionId
from shared.domain.log_block import Head


class ArchiveSnapshot(Protocol):
    """What the ledger held at one moment, to be read in any order, in bounded memory.

    Every method raises Transient if the store cannot be reached now, and BrokenInvariant for rows that no release
    wrote. Streams must be read to their end, or left, before the next one is begun.
    """

    def decision(self, transaction_id: TransactionId) -> StoredDecision | None:
        """One decision; None if there is none."""
        ...

    def histories(self, entity: Entity, selection: Selection) -> Iterator[HistoryPart]:
        """All rows of the selected entities that have a transaction in the selected time.

        Cost: one sort of the transactions by the entity's key.
        """
        ...

    def strays(self) -> Iterator[Stray]:
        """Rows whose transaction is not there; labels that wait for theirs are none."""
        ...

    def extents(self, since_us: int | None, until_us: int | None) -> Sequence[Extent]:
        """The writers with blocks recorded in a range of our clock, by writer; every block without bounds."""
        ...

    def blocks(self, extents: Sequence[Extent] | None) -> Iterator[StoredBlock]:
        """The blocks of these parts, or all: by writer, then falling sequence."""
        ...

    def logged(self, extents: Sequence[Extent] | None) -> Iterator[StoredDecision]:
        """The decisions that name a block of these parts, or all: by writer, falling sequence, leaf."""
        ...

    def seals(self) -> Iterator[StoredSeal]:
        """The copies of the seals, by number."""
        ...


class Archive(Protocol):
    """Everything that the ledger keeps, read-only."""

    def snapshot(self) -> AbstractContextManager[ArchiveSnapshot]:
        """What it holds at this moment; whatever is committed later stays out.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class SampledDecision(NamedTuple):
    """A decision that was drawn.

    Attributes:
        transaction_id: Its transaction, as its row says.
        record: Its canonical bytes.
    """

    transaction_id: TransactionId
    record: bytes


class DecisionSamples(Protocol):
    """Draws decisions at random from those recorded lately."""

    def draw(self, since_us: int, until_us: int, *, seed: int, limit: int) -> Sequence[SampledDecision]:
        """Draw decisions that were recorded in a range of our clock, its end not included; all if they are few.

        Of transactions that were older than the usual lateness when they were decided, none is drawn. The same
        decisions and seed give the same sample. Cost: one read of what was recorded in the range.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class Seals(Protocol):
    """Where seals lie that whoever writes the log cannot change."""

    def put(self, number: int, data: bytes) -> bool:
        """Keep a seal; a seal is never overwritten. Returns whether this call did.

        Raises:
            Transient: It may or may not have been kept; `get` tells.
        """
        ...

    def get(self, number: int) -> bytes | None:
        """A seal's canonical bytes, or None.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class SealedLedger(Protocol):
    """The ledger, as who seals it sees it."""

    def heads(self, since_us: int | None) -> Sequence[Head]:
        """The last block of each writer that recorded one since then, by writer; of all writers for None.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def last_seal(self) -> StoredSeal | None:
        """The copy of the last seal.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def recent_seals(self, since_us: int) -> Sequence[StoredSeal]:
        """The copies of the seals that were made since then, by number.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def mirror(self, seal: StoredSeal) -> None:
        """Keep a copy of a seal. Idempotent: the first copy of a number stays.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...
