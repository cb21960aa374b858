"""What is read back from the ledger to check it: rows as they are stored, without any promise that they are right."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, NamedTuple

from shared.domain.canonical import Digest
from shared.domain.decision import Outcome
from shared.domain.decision_record import Lateness
from shared.domain.errors import InvalidInput
from shared.domain.identifiers import CustomerId, TransactionId
from shared.domain.labels import Label
from shared.domain.log_block import LogBlock
from shared.domain.surrogates import Surrogate
from shared.domain.transaction import Transaction

FORGOTTEN_AUTHOR: Final = "forgotten"
"""What the authors of labels become whose transaction's customer was forgotten, with a running number behind it."""

_FORGOTTEN_PREFIX: Final = "forgotten "
_SAMPLE_BITS: Final = 32


def forgotten_key(surrogate: Surrogate) -> CustomerId:
    """What stands for a forgotten customer beside the raw transactions.

    It holds a space, which no identifier may, so no sender can choose it.

    >>> forgotten_key(Surrogate("k1.00"))
    'forgotten k1.00'
    """
    return CustomerId(_FORGOTTEN_PREFIX + surrogate)


def surrogate_of_forgotten(key: str) -> Surrogate | None:
    """The inverse of `forgotten_key`; None for the identifier of a customer who was not forgotten."""
    return Surrogate(key.removeprefix(_FORGOTTEN_PREFIX)) if key.startswith(_FORGOTTEN_PREFIX) else None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which decisions are looked at; whoever computes them again still reads the full history of their entities.

    Attributes:
        since_us: Event time of the first, microseconds since 1970 UTC; None for no bound.
        until_us: Event time before which the last lies; None for no bound.
        share: Of the entities, greater than 0 and at most 1. An entity is in or out by a hash of its key, so that the
            cost falls with the share, as it would not if single decisions were drawn: they touch nearly all entities.
        seed: Another seed draws other entities.
    """

    since_us: int | None = None
    until_us: int | None = None
    share: float = 1.0
    seed: str = ""

    def __post_init__(self) -> None:
        """Refuse a share that is none, and a time range that holds nothing.

        Raises:
            InvalidInput: It is.
        """
        if not 0.0 < self.share <= 1.0:
            raise InvalidInput("sample", "must be greater than 0 and at most 1")
        if self.since_us is not None and self.until_us is not None and self.since_us >= self.until_us:
            raise InvalidInput("since", "must lie before until")

    @property
    def threshold(self) -> int:
        """Entities are in whose hash is below it, 1 to 2**32."""
        return max(1, round(self.share * (1 << _SAMPLE_BITS)))

    def takes_entity(self, key: str) -> bool:
        """Whether an entity is in: the first 32 bits of MD5 over seed, colon and key, which Postgres computes too."""
        data = hashlib.md5(f"{self.seed}:{key}".encode(), usedforsecurity=False).digest()
        return int.from_bytes(data[: _SAMPLE_BITS // 8]) < self.threshold

    def takes_time(self, event_time_us: int) -> bool:
        """Whether an event time is in."""
        return (self.since_us is None or self.since_us <= event_time_us) and (
            self.until_us is None or event_time_us < self.until_us
        )


class StoredDecision(NamedTuple):
    """A decision with the columns that stand beside its record.

    Attributes:
        transaction_id: Column.
        event_time_us: Column, microseconds since 1970 UTC.
        record: Canonical bytes.
        outcome: Column.
        score: Column.
        bundle_digest: Column.
        writer: Whose block of the log holds it.
        sequence: Which block.
        leaf: Which leaf of it.
        recorded_at_us: Column, our clock, microseconds since 1970 UTC.
    """

    transaction_id: TransactionId
    event_time_us: int
    record: bytes
    outcome: Outcome
    score: float
    bundle_digest: str
    writer: str
    sequence: int
    leaf: int
    recorded_at_us: int


class StoredEntity(NamedTuple):
    """The row of an entity.

    Attributes:
        version: Events and labels folded so far; None without a row, as for a forgotten customer.
        surrogate: How the log names it; None without a row.
    """

    version: int | None
    surrogate: Surrogate | None


class StoredTransaction(NamedTuple):
    """A raw transaction with all that stands beside it.

    Attributes:
        transaction: The transaction; of a forgotten customer, `forgotten_key` stands for the identifier.
        customer_version: The customer's version that it created.
        terminal_version: The terminal's version that it created.
        lateness: Whose state it was too late for.
        digest: Digest of its body, kept with its claimed id; None if the id was not claimed.
        entity: Row of its customer or terminal, of whichever the history is.
        decision: Its decision; None if it was imported.
    """

    transaction: Transaction
    customer_version: int
    terminal_version: int
    lateness: Lateness
    digest: Digest | None
    entity: StoredEntity
    decision: StoredDecision | None


class StoredLabel(NamedTuple):
    """A label.

    Attributes:
        label: The label.
        digest: Its key.
        customer_version: The customer's version that it created; None while it waits for its transaction.
        terminal_version: The terminal's.
    """

    label: Label
    digest: Digest
    customer_version: int | None
    terminal_version: int | None


class HistoryPart(NamedTuple):
    """Some rows of entities' histories: all rows of an entity come one after the other, over any number of parts.

    Attributes:
        transactions: In the order of the entities' keys, then event time, then id.
        labels: All labels of these transactions.
    """

    transactions: tuple[StoredTransaction, ...]
    labels: tuple[StoredLabel, ...]


class Stray(NamedTuple):
    """A row whose transaction is not there.

    Attributes:
        what: What kind of row: `claimed id`, `decision` or `label`.
        transaction_id: The transaction that it names.
    """

    what: str
    transaction_id: TransactionId


class StoredBlock(NamedTuple):
    """A block of the log.

    Attributes:
        block: The block.
        hash: Its hash as stored.
        recorded_at_us: Our clock when it was written, microseconds since 1970 UTC.
    """

    block: LogBlock
    hash: bytes
    recorded_at_us: int


class Extent(NamedTuple):
    """The part of a writer's chain that lies in a range of recorded times.

    Attributes:
        writer: Whose chain.
        first: Sequence of its first block in the range.
        last: Sequence of its last one.
    """

    writer: str
    first: int
    last: int


class StoredSeal(NamedTuple):
    """The copy of a seal that the database keeps.

    Attributes:
        number: Which one.
        data: Its canonical bytes.
    """

    number: int
    data: bytes


class Erased(NamedTuple):
    """What forgetting a customer did.

    Attributes:
        surrogate: How the log goes on naming the customer.
        transactions: How many lost their customer.
        labels: How many lost their author.
        dead_letters: How many lost their body.
    """

    surrogate: Surrogate
    transactions: int
    labels: int
    dead_letters: int
