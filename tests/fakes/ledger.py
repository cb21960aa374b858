"""The ledger in memory; it passes the same contract tests as the real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field

from shared.domain.canonical import Digest, label_digest
from shared.domain.entity_state import EntityState
from shared.domain.entity_state_codec import header_bytes, read_state, tile_bytes
from shared.domain.entity_state_layout import BASE_LAYOUT, StateLayout
from shared.domain.errors import TollgateError
from shared.domain.feature_view import Entity
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.labels import Label
from shared.domain.ledger import (
    FORGOTTEN_DIGEST,
    Claim,
    Claimed,
    DecisionRow,
    DecisionWrites,
    EntityChange,
    KnownEntity,
    LabelClaim,
    Labelled,
    LabelsClaimed,
    LabelVersions,
    LabelWrites,
    Repeat,
    TransactionRow,
)
from shared.domain.log_block import Head, LogBlock
from shared.domain.surrogates import SALT_BYTES, Surrogate


@dataclass
class StoredEntity:
    """Bytes of one entity, as a database has them."""

    salt: bytes
    surrogate: Surrogate | None = None
    header: bytes | None = None
    tiles: dict[int, tuple[int, bytes]] = field(default_factory=dict)


@dataclass
class Tables:
    """Everything that is kept; shared by all fake ledgers of a test."""

    digests: dict[TransactionId, Digest | None] = field(default_factory=dict)
    known: dict[TransactionId, Labelled] = field(default_factory=dict)
    transactions: dict[TransactionId, TransactionRow] = field(default_factory=dict)
    decisions: dict[TransactionId, DecisionRow] = field(default_factory=dict)
    labels: dict[tuple[TransactionId, Digest], LabelVersions | Label] = field(default_factory=dict)
    entities: dict[tuple[Entity, str], StoredEntity] = field(default_factory=dict)
    blocks: list[LogBlock] = field(default_factory=list)
    recorded_at_us: dict[tuple[str, int], int] = field(default_factory=dict)
    places: dict[TransactionId, tuple[str, int, int]] = field(default_factory=dict)
    outbox: list[TransactionId] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class FakeLedger:
    """A ledger over `Tables`; `fault` is raised by the next claim or write, after which it is gone."""

    def __init__(
        self,
        tables: Tables | None = None,
        writer: str = "fake",
        new_salts: Callable[[Sequence[CustomerId]], Sequence[bytes]] = lambda keys: [bytes(SALT_BYTES)] * len(keys),
        layout: StateLayout = BASE_LAYOUT,
    ) -> None:
        self.tables = tables or Tables()
        self.writer = writer
        self.head: Head | None = None
        self.fault_at_claim: TollgateError | None = None
        self.fault_at_write: TollgateError | None = None
        self._new_salts = new_salts
        self.layout = layout

    @contextmanager
    def deciding(self) -> Iterator[FakeDecidingWork]:
        with self.tables.lock:
            yield FakeDecidingWork(self)

    @contextmanager
    def labelling(self) -> Iterator[FakeLabellingWork]:
        with self.tables.lock:
            yield FakeLabellingWork(self)

    def _known(self, entity: Entity, key: str, new: dict[tuple[Entity, str], StoredEntity]) -> KnownEntity:
        stored = self.tables.entities.get((entity, key))
        if stored is None:
            salt = self._new_salts([CustomerId(key)])[0] if entity is Entity.CUSTOMER else b""
            stored = new.setdefault((entity, key), StoredEntity(salt))
        if stored.header is None:
            return KnownEntity(EntityState.empty(self.layout, entity), None, stored.salt)
        state = read_state(stored.header, [data for _, (_, data) in sorted(stored.tiles.items())])
        return KnownEntity(state, stored.surrogate, stored.salt)

    def _write_entities(self, changes: Sequence[EntityChange], new: dict[tuple[Entity, str], StoredEntity]) -> None:
        for change in changes:
            stored = copy(self.tables.entities.get((change.entity, change.key)) or new[change.entity, change.key])
            stored.tiles = dict(stored.tiles)
            for start_us in change.removed:
                stored.tiles.pop(start_us, None)
            for tile in change.changed:
                stored.tiles[tile.start_us] = (change.state.header.version, tile_bytes(tile))
            stored.header = header_bytes(change.state.header, len(change.state.tiles))
            stored.surrogate = change.surrogate
            self.tables.entities[change.entity, change.key] = stored


class FakeDecidingWork:
    """A unit of work on transactions in memory."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self._digests: dict[TransactionId, Digest] = {}
        self._new: dict[tuple[Entity, str], StoredEntity] = {}

    @property
    def writer(self) -> str:
        return self._ledger.writer

    @property
    def head(self) -> Head | None:
        return self._ledger.head

    def claim(self, claims: Sequence[Claim]) -> Claimed:
        ledger, tables = self._ledger, self._ledger.tables
        _raise_once(ledger, "fault_at_claim")
        repeats = {}
        for transaction, digest in claims:
            identifier = transaction.transaction_id
            held = tables.digests.get(identifier)
            if held is None:
                self._digests[identifier] = digest
            else:
                decision = tables.decisions.get(identifier)
                repeats[identifier] = Repeat(held, decision.record if decision else None)
        waiting: dict[TransactionId, tuple[Label, ...]] = {}
        for (identifier, _), label in tables.labels.items():
            if identifier in self._digests and isinstance(label, Label):
                waiting[identifier] = (*waiting.get(identifier, ()), label)
        ordered = {
            identifier: tuple(sorted(labels, key=lambda label: (label.known_at_us, label_digest(label))))
            for identifier, labels in waiting.items()
        }
        customers = {
            claim.transaction.customer_id: ledger._known(Entity.CUSTOMER, claim.transaction.customer_id, self._new)
            for claim in claims
        }
        terminals = {
            claim.transaction.terminal_id: ledger._known(Entity.TERMINAL, claim.transaction.terminal_id, self._new)
            for claim in claims
        }
        return Claimed(frozenset(self._digests), repeats, customers, terminals, ordered)

    def write(self, writes: DecisionWrites) -> None:
        ledger, tables = self._ledger, self._ledger.tables
        _raise_once(ledger, "fault_at_write")
        for row in writes.transactions:
            transaction = row.transaction
            identifier = transaction.transaction_id
            tables.digests[identifier] = self._digests[identifier]
            tables.known[identifier] = Labelled(
                transaction.customer_id, transaction.terminal_id, transaction.event_time_us
            )
            tables.transactions[identifier] = row
        for decision in writes.decisions:
            tables.decisions[decision.transaction_id] = decision
            tables.outbox.append(decision.transaction_id)
        for waited in writes.waited:
            tables.labels[waited.label.transaction_id, waited.digest] = waited
        ledger._write_entities(writes.entities, self._new)
        if writes.block is not None:
            tables.blocks.append(writes.block)
            place = writes.block.writer, writes.block.sequence
            tables.recorded_at_us[place] = writes.recorded_at_us
            tables.places |= {row.transaction_id: (*place, leaf) for leaf, row in enumerate(writes.decisions)}
            ledger.head = Head.of(writes.block)


class FakeLabellingWork:
    """A unit of work on labels in memory."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self._new: dict[tuple[Entity, str], StoredEntity] = {}

    def claim(self, claims: Sequence[LabelClaim]) -> LabelsClaimed:
        ledger, tables = self._ledger, self._ledger.tables
        _raise_once(ledger, "fault_at_claim")
        named = [claim.label.transaction_id for claim in claims]
        forgotten = frozenset(item for item in named if tables.digests.get(item) == FORGOTTEN_DIGEST)
        known = {item: tables.known[item] for item in named if item in tables.known and item not in forgotten}
        customers: dict[CustomerId, KnownEntity] = {}
        terminals: dict[TerminalId, KnownEntity] = {}
        for item in known.values():
            customers[item.customer_id] = ledger._known(Entity.CUSTOMER, item.customer_id, self._new)
            terminals[item.terminal_id] = ledger._known(Entity.TERMINAL, item.terminal_id, self._new)
        fresh = frozenset(
            (claim.label.transaction_id, claim.digest)
            for claim in claims
            if (claim.label.transaction_id, claim.digest) not in tables.labels
        )
        return LabelsClaimed(fresh, known, forgotten, customers, terminals)

    def write(self, writes: LabelWrites) -> None:
        ledger, tables = self._ledger, self._ledger.tables
        _raise_once(ledger, "fault_at_write")
        for versions in writes.folded:
            tables.labels[versions.label.transaction_id, versions.digest] = versions
        for claim in writes.waiting:
            tables.labels[claim.label.transaction_id, claim.digest] = claim.label
            tables.digests.setdefault(claim.label.transaction_id, None)
        ledger._write_entities(writes.entities, self._new)


def _raise_once(ledger: FakeLedger, name: str) -> None:
    fault: TollgateError | None = getattr(ledger, name)
    if fault is not None:
        setattr(ledger, name, None)
        raise fault
