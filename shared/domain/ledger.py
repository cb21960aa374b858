"""What passes between the use cases and the ledger: the one durable account of transactions, decisions, labels, state.

Values only. A unit of work claims ids first and so learns what is new, what is a repeat and what is known of the
entities, all of it locked until the unit ends; then everything that follows from it is written at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from shared.domain.canonical import Digest
from shared.domain.decision import Outcome
from shared.domain.decision_record import Lateness
from shared.domain.entity_state import EntityState
from shared.domain.entity_state_tiles import Tile
from shared.domain.feature_view import Entity
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.labels import Label
from shared.domain.log_block import LogBlock
from shared.domain.surrogates import Surrogate
from shared.domain.transaction import Transaction


class Claim(NamedTuple):
    """A transaction that wants to be decided or imported.

    Attributes:
        transaction: The transaction.
        digest: Digest of its canonical bytes.
    """

    transaction: Transaction
    digest: Digest


class KnownEntity(NamedTuple):
    """An entity's row, locked.

    Attributes:
        state: Its state; empty if the entity is new.
        surrogate: How the log names it; None if the entity is new.
        salt: A customer's own salt; empty for a terminal.
    """

    state: EntityState
    surrogate: Surrogate | None
    salt: bytes


class Repeat(NamedTuple):
    """An id that was claimed before.

    Attributes:
        digest: Of the body that claimed it; all zero once its customer was forgotten.
        record: Canonical bytes of its decision; None if it has none, because it was imported.
    """

    digest: Digest
    record: bytes | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a unit of work knows after claiming transactions.

    Attributes:
        fresh: Ids that are this unit's to decide.
        repeats: All other ids of the claims.
        customers: Rows of the customers of all claims.
        terminals: Rows of the terminals of all claims.
        waiting: Labels that were recorded before their transaction, of fresh ids, ordered by known-at and digest.
    """

    fresh: frozenset[TransactionId]
    repeats: Mapping[TransactionId, Repeat]
    customers: Mapping[CustomerId, KnownEntity]
    terminals: Mapping[TerminalId, KnownEntity]
    waiting: Mapping[TransactionId, tuple[Label, ...]]


class EntityChange(NamedTuple):
    """What a unit of work did to an entity.

    Attributes:
        entity: Which kind.
        key: Its identifier.
        state: Its state from now on.
        changed: Tiles to write, each with the state's version as its own.
        removed: Starts of tiles to delete; such a row need not exist.
        surrogate: How the log names it.
    """

    entity: Entity
    key: str
    state: EntityState
    changed: tuple[Tile, ...]
    removed: tuple[int, ...]
    surrogate: Surrogate


class TransactionRow(NamedTuple):
    """A transaction to be stored.

    Attributes:
        transaction: The transaction.
        customer_version: The customer's version that it created.
        terminal_version: The terminal's version that it created.
        lateness: Whose state it was too late for.
    """

    transaction: Transaction
    customer_version: int
    terminal_version: int
    lateness: Lateness


class DecisionRow(NamedTuple):
    """A decision to be stored; its place in the sequence is its leaf in the log block.

    Attributes:
        transaction_id: Of its transaction.
        event_time_us: Of its transaction, microseconds since 1970 UTC.
        record: Canonical bytes.
        outcome: For queries; the record is the authority.
        score: Calibrated probability; likewise.
        bundle_digest: The bundle; likewise.
    """

    transaction_id: TransactionId
    event_time_us: int
    record: bytes
    outcome: Outcome
    score: float
    bundle_digest: str


class LabelVersions(NamedTuple):
    """The versions that a label created when it was folded.

    Attributes:
        label: The label.
        digest: Digest of its canonical bytes, its key beside the transaction id.
        customer_version: The customer's version.
        terminal_version: The terminal's version.
    """

    label: Label
    digest: Digest
    customer_version: int
    terminal_version: int


@dataclass(frozen=True, slots=True)
class DecisionWrites:
    """All that a unit of work on transactions writes.

    Attributes:
        transactions: Fresh transactions.
        decisions: Their decisions, in the order of the block's leaves; none where history is imported.
        waited: Labels that had waited for these transactions, now folded.
        entities: What became of the entities, each once.
        block: The log block over the decisions; None without decisions.
        recorded_at_us: Our clock, microseconds since 1970 UTC.
    """

    transactions: tuple[TransactionRow, ...]
    decisions: tuple[DecisionRow, ...]
    waited: tuple[LabelVersions, ...]
    entities: tuple[EntityChange, ...]
    block: LogBlock | None
    recorded_at_us: int


class LabelClaim(NamedTuple):
    """A label that wants to be recorded.

    Attributes:
        label: The label.
        digest: Digest of its canonical bytes.
    """

    label: Label
    digest: Digest


class Labelled(NamedTuple):
    """The transaction that a label names.

    Attributes:
        customer_id: Its customer.
        terminal_id: Its terminal.
        event_time_us: Its event time, microseconds since 1970 UTC.
    """

    customer_id: CustomerId
    terminal_id: TerminalId
    event_time_us: int


@dataclass(frozen=True, slots=True)
class LabelsClaimed:
    """What a unit of work knows after claiming labels.

    Attributes:
        fresh: (transaction id, digest) of labels that were not recorded before.
        known: Transactions that are known; labels of others wait.
        forgotten: Transactions whose customer was forgotten; they take no labels any more.
        customers: Rows of the customers of known transactions.
        terminals: Rows of their terminals.
    """

    fresh: frozenset[tuple[TransactionId, Digest]]
    known: Mapping[TransactionId, Labelled]
    forgotten: frozenset[TransactionId]
    customers: Mapping[CustomerId, KnownEntity]
    terminals: Mapping[TerminalId, KnownEntity]


@dataclass(frozen=True, slots=True)
class LabelWrites:
    """All that a unit of work on labels writes.

    Attributes:
        folded: Labels of known transactions, with the versions they created.
        waiting: Labels of transactions that are not known yet.
        entities: What became of the entities, each once.
        recorded_at_us: Our clock, microseconds since 1970 UTC.
    """

    folded: tuple[LabelVersions, ...]
    waiting: tuple[LabelClaim, ...]
    entities: tuple[EntityChange, ...]
    recorded_at_us: int


class OutboxEntry(NamedTuple):
    """A decision that has not left yet.

    Attributes:
        outbox_id: Rises in the order in which decisions of one customer were committed.
        record: Canonical bytes of the decision.
    """

    outbox_id: int
    record: bytes


FORGOTTEN_DIGEST = Digest(bytes(32))
"""What stands for the digest of a transaction whose customer was forgotten: no body has it."""
