"""The archive, sealing and forgetting over the tables in memory; they pass the same contract tests as the real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from shared.domain.archive import (
    FORGOTTEN_AUTHOR,
    Erased,
    Extent,
    HistoryPart,
    Selection,
    StoredBlock,
    StoredDecision,
    StoredEntity,
    StoredLabel,
    StoredSeal,
    StoredTransaction,
    Stray,
    forgotten_key,
)
from shared.domain.canonical import Digest, label_digest
from shared.domain.entity_state_codec import read_state
from shared.domain.feature_view import Entity
from shared.domain.identifiers import CustomerId, TransactionId
from shared.domain.ledger import FORGOTTEN_DIGEST, DecisionRow, LabelVersions
from shared.domain.log_block import Head
from shared.domain.seal import read_seal
from shared.domain.surrogates import Surrogate
from shared.ports.models import Scorer
from tests.fakes.ledger import Tables


@dataclass
class FakeArchive:
    """Reads the tables; `hashes` are stored hashes of blocks that were changed behind the product's back."""

    tables: Tables
    mirrored: dict[int, bytes] = field(default_factory=dict)
    hashes: dict[tuple[str, int], bytes] = field(default_factory=dict)
    part_rows: int = 3

    @contextmanager
    def snapshot(self) -> Iterator[FakeSnapshot]:
        yield FakeSnapshot(self)


class FakeSnapshot:
    """What the tables hold."""

    def __init__(self, archive: FakeArchive) -> None:
        self._archive = archive
        self._tables = archive.tables

    def decision(self, transaction_id: TransactionId) -> StoredDecision | None:
        row = self._tables.decisions.get(transaction_id)
        return None if row is None else self._decision(row)

    def _decision(self, row: DecisionRow) -> StoredDecision:
        writer, sequence, leaf = self._tables.places[row.transaction_id]
        recorded_at_us = self._tables.recorded_at_us[writer, sequence]
        return StoredDecision(*row, writer, sequence, leaf, recorded_at_us)

    def histories(self, entity: Entity, selection: Selection) -> Iterator[HistoryPart]:
        rows = sorted(
            self._tables.transactions.items(),
            key=lambda item: (_key(item[1].transaction, entity), item[1].transaction.order),
        )
        wanted = {
            _key(row.transaction, entity) for _, row in rows if selection.takes_time(row.transaction.event_time_us)
        }
        found = []
        for _, row in rows:
            key = _key(row.transaction, entity)
            if key not in wanted or not selection.takes_entity(key):
                continue
            decision = self._tables.decisions.get(row.transaction.transaction_id)
            found.append(
                StoredTransaction(
                    row.transaction,
                    row.customer_version,
                    row.terminal_version,
                    row.lateness,
                    self._tables.digests.get(row.transaction.transaction_id),
                    self._entity(entity, key),
                    None if decision is None else self._decision(decision),
                )
            )
        for start in range(0, len(found), self._archive.part_rows):
            part = tuple(found[start : start + self._archive.part_rows])
            ids = {row.transaction.transaction_id for row in part}
            yield HistoryPart(part, tuple(label for label in self._labels() if label.label.transaction_id in ids))

    def _entity(self, entity: Entity, key: str) -> StoredEntity:
        stored = self._tables.entities.get((entity, key))
        if stored is None or stored.header is None:
            return StoredEntity(None, None)
        state = read_state(stored.header, [data for _, (_, data) in sorted(stored.tiles.items())])
        return StoredEntity(state.header.version, stored.surrogate)

    def _labels(self) -> Iterator[StoredLabel]:
        for (_, digest), label in self._tables.labels.items():
            if isinstance(label, LabelVersions):
                yield StoredLabel(label.label, digest, label.customer_version, label.terminal_version)
            else:
                yield StoredLabel(label, digest, None, None)

    def strays(self) -> Iterator[Stray]:
        held = set(self._tables.transactions)
        for transaction_id, digest in self._tables.digests.items():
            if digest is not None and transaction_id not in held:
                yield Stray("claimed id", transaction_id)
        for transaction_id in self._tables.decisions:
            if transaction_id not in held:
                yield Stray("decision", transaction_id)
        for label in self._labels():
            if label.customer_version is not None and label.label.transaction_id not in held:
                yield Stray("label", label.label.transaction_id)

    def extents(self, since_us: int | None, until_us: int | None) -> Sequence[Extent]:
        found: dict[str, list[int]] = {}
        for block in self._tables.blocks:
            recorded_at_us = self._tables.recorded_at_us[block.writer, block.sequence]
            if (since_us is None or since_us <= recorded_at_us) and (until_us is None or recorded_at_us < until_us):
                found.setdefault(block.writer, []).append(block.sequence)
        return [Extent(writer, min(found[writer]), max(found[writer])) for writer in sorted(found)]

    def blocks(self, extents: Sequence[Extent] | None) -> Iterator[StoredBlock]:
        for block in sorted(self._tables.blocks, key=lambda item: (item.writer, -item.sequence)):
            place = block.writer, block.sequence
            if _within(extents, *place):
                hashed = self._archive.hashes.get(place, block.hash)
                yield StoredBlock(block, hashed, self._tables.recorded_at_us.get(place, 0))

    def logged(self, extents: Sequence[Extent] | None) -> Iterator[StoredDecision]:
        found = [self._decision(row) for row in self._tables.decisions.values()]
        for item in sorted(found, key=lambda row: (row.writer, -row.sequence, row.leaf, row.transaction_id)):
            if _within(extents, item.writer, item.sequence):
                yield item

    def seals(self) -> Iterator[StoredSeal]:
        for number in sorted(self._archive.mirrored):
            yield StoredSeal(number, self._archive.mirrored[number])


def _within(extents: Sequence[Extent] | None, writer: str, sequence: int) -> bool:
    return extents is None or any(item.writer == writer and item.first <= sequence <= item.last for item in extents)


def _key(transaction: object, entity: Entity) -> str:
    name = "customer_id" if entity is Entity.CUSTOMER else "terminal_id"
    return str(getattr(transaction, name))


@dataclass
class FakeSeals:
    """Seals in memory."""

    kept: dict[int, bytes] = field(default_factory=dict)

    def put(self, number: int, data: bytes) -> bool:
        return self.kept.setdefault(number, data) is data

    def get(self, number: int) -> bytes | None:
        return self.kept.get(number)


@dataclass
class FakeSealedLedger:
    """The tables, as who seals them sees them."""

    archive: FakeArchive

    def heads(self, since_us: int | None) -> Sequence[Head]:
        tables = self.archive.tables
        recent = {
            block.writer
            for block in tables.blocks
            if since_us is None or tables.recorded_at_us[block.writer, block.sequence] >= since_us
        }
        last = {block.writer: block for block in sorted(tables.blocks, key=lambda item: item.sequence)}
        return [Head.of(last[writer]) for writer in sorted(recent)]

    def last_seal(self) -> StoredSeal | None:
        mirrored = self.archive.mirrored
        return StoredSeal(max(mirrored), mirrored[max(mirrored)]) if mirrored else None

    def recent_seals(self, since_us: int) -> Sequence[StoredSeal]:
        found = [StoredSeal(number, data) for number, data in sorted(self.archive.mirrored.items())]
        return [stored for stored in found if read_seal(stored.data).sealed_at_us >= since_us]

    def mirror(self, seal: StoredSeal) -> None:
        self.archive.mirrored.setdefault(seal.number, seal.data)


@dataclass
class FakeErasure:
    """Forgets customers of the tables."""

    tables: Tables
    forgotten: dict[Surrogate, tuple[int, str]] = field(default_factory=dict)

    def erase(self, customer_id: CustomerId, reason: str, forgotten_at_us: int) -> Erased | None:
        with self.tables.lock:
            stored = self.tables.entities.get((Entity.CUSTOMER, customer_id))
            if stored is None or stored.surrogate is None:
                return None
            ids = [name for name, row in self.tables.transactions.items() if row.transaction.customer_id == customer_id]
            n_labels = sum([self._without_authors(name) for name in ids])
            for name in ids:
                row = self.tables.transactions[name]
                own = replace(row.transaction, customer_id=forgotten_key(stored.surrogate))
                self.tables.transactions[name] = row._replace(transaction=own)
                self.tables.digests[name] = FORGOTTEN_DIGEST
                del self.tables.known[name]
            del self.tables.entities[Entity.CUSTOMER, customer_id]
            self.forgotten[stored.surrogate] = (forgotten_at_us, reason)
            return Erased(stored.surrogate, len(ids), n_labels, 0)

    def _without_authors(self, name: TransactionId) -> int:
        found = [(key, item) for key, item in self.tables.labels.items() if key[0] == name]
        found.sort(key=lambda entry: entry[1].customer_version if isinstance(entry[1], LabelVersions) else 0)
        for number, (key, item) in enumerate(found, start=1):
            assert isinstance(item, LabelVersions)
            label = replace(item.label, author=f"{FORGOTTEN_AUTHOR}-{number}")
            del self.tables.labels[key]
            digest: Digest = label_digest(label)
            self.tables.labels[name, digest] = item._replace(label=label, digest=digest)
        return len(found)


@dataclass
class FakeArchivedScorers:
    """Bundles in memory."""

    scorers: list[Scorer]

    def find(self, bundle_digest: str) -> Scorer | None:
        return next((scorer for scorer in self.scorers if scorer.bundle_digest == bundle_digest), None)
