"""The use case that verifies decisions: every vector again from raw rows, every answer again from its vector.

Features are recomputed from raw transactions and labels by the versions that decisions recorded, never from entity
state, with `feature_columns.transform_many`: of what computed them first it shares the feature definition alone. Beside
that it checks what recomputation leans on: bodies by their digests, dense versions, columns that repeat the record.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.domain.archive import HistoryPart, Selection, StoredLabel, StoredTransaction, surrogate_of_forgotten
from shared.domain.canonical import label_digest, transaction_digest
from shared.domain.decision_record import DecisionRecord, read_decision
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_columns import transform_many
from shared.domain.feature_view import VIEWS, Entity
from shared.domain.ledger import FORGOTTEN_DIGEST
from shared.ports.archive import Archive, ArchiveSnapshot
from shared.services.replaying import Replaying, ReplayVerdict
from shared.services.verification_columns import (
    CHUNK_ROWS,
    Chunk,
    chunks,
    is_comparable,
    part_of_view,
    shown_entity,
)
from shared.services.verification_findings import Findings, Progress, Subject, no_progress


@dataclass(slots=True)
class DecisionsReport:
    """What verifying decisions came to.

    Attributes:
        findings: What does not hold.
        replayed: Decisions whose score, reasons and bytes came out again.
        unchecked: Decisions that could not be replayed here: no bundle, or another runtime.
        recomputed: Decisions whose features of an entity were computed again, by entity.
        values: Feature values compared.
        late: Of those vectors, how many are flagged as too late for the entity's state.
        late_different: Of these, how many differ; they may, and are no findings.
        imported: Transactions without a decision: history that was imported.
        transactions: Raw transactions read, by entity.
        labels: Labels read, by entity.
    """

    findings: Findings = field(default_factory=Findings)
    replayed: int = 0
    unchecked: int = 0
    recomputed: dict[Entity, int] = field(default_factory=lambda: dict.fromkeys(Entity, 0))
    values: int = 0
    late: int = 0
    late_different: int = 0
    imported: int = 0
    transactions: dict[Entity, int] = field(default_factory=lambda: dict.fromkeys(Entity, 0))
    labels: dict[Entity, int] = field(default_factory=lambda: dict.fromkeys(Entity, 0))


def verify_decisions(
    archive: Archive,
    replaying: Replaying,
    selection: Selection,
    *,
    progress: Progress = no_progress,
    chunk_rows: int = CHUNK_ROWS,
) -> DecisionsReport:
    """Verify all selected decisions against one moment of the ledger.

    Memory: some hundred bytes for each row of a chunk, or of its largest entity.

    Args:
        archive: The ledger.
        replaying: Replays the answers.
        selection: Which decisions; the full histories of their entities are read whatever it says.
        progress: Told how far it is.
        chunk_rows: Rows worked on at a time; changes speed and memory, never a finding.

    Raises:
        Transient: The ledger or a bundle cannot be reached now.
    """
    with archive.snapshot() as snapshot:
        work = _Work(snapshot, replaying, selection, progress)
        for entity in Entity:
            work.verify(entity, chunk_rows)
        for stray in snapshot.strays():
            work.report.findings.add(Subject.STRAY, stray.transaction_id, f"a {stray.what} without its transaction")
    return work.report


class _Work:
    """One verification."""

    def __init__(
        self, snapshot: ArchiveSnapshot, replaying: Replaying, selection: Selection, progress: Progress
    ) -> None:
        self.report = DecisionsReport()
        self._snapshot = snapshot
        self._replaying = replaying
        self._selection = selection
        self._progress = progress

    def verify(self, entity: Entity, chunk_rows: int) -> None:
        """Verify everything about one kind of entity."""
        parts = self._snapshot.histories(entity, self._selection)
        look = self._look_at_customers if entity is Entity.CUSTOMER else self._look_at_terminals
        for chunk in chunks(parts, entity, look, chunk_rows=chunk_rows):
            self._compare(chunk)
            check_versions(chunk, self.report.findings)
            self._progress(f"histories of {entity}s", self.report.transactions[entity])

    def _look_at_customers(self, part: HistoryPart) -> list[DecisionRecord | None]:
        """Everything that a row and its decision say on their own is checked in the customers' pass."""
        self._count(part, Entity.CUSTOMER)
        findings = self.report.findings
        for stored in part.labels:
            check_label(stored, findings)
        taken = []
        for row in part.transactions:
            check_body(row, findings)
            if row.decision is None:
                self.report.imported += 1
            elif self._selection.takes_time(row.transaction.event_time_us):
                taken.append(row)
        records = dict(zip([row.transaction.transaction_id for row in taken], self._replay(taken), strict=True))
        return [records.get(row.transaction.transaction_id) for row in part.transactions]

    def _replay(self, rows: list[StoredTransaction]) -> list[DecisionRecord | None]:
        """Replay decisions, and say which can be compared."""
        report = self.report
        replays = self._replaying.replay_records([row.decision.record for row in rows if row.decision])
        found: list[DecisionRecord | None] = []
        for row, replay in zip(rows, replays, strict=True):
            name = row.transaction.transaction_id
            match replay.verdict:
                case ReplayVerdict.EQUAL:
                    report.replayed += 1
                case ReplayVerdict.UNCHECKED:
                    report.unchecked += 1
                    report.findings.add(Subject.UNCHECKED, name, replay.obstacle)
                case _:
                    for item in replay.differences:
                        detail = f"{item.field} is stored as {item.stored} and replayed as {item.replayed}"
                        report.findings.add(Subject.REPLAY, name, detail)
            record = replay.record
            if record is not None:
                check_columns(row, record, report.findings)
                check_surrogate(row, record, Entity.CUSTOMER, report.findings)
                if record.view not in VIEWS:
                    detail = f"its view {record.view} is not one that this release computes"
                    report.findings.add(Subject.UNCHECKED, name, detail)
            found.append(record if record is not None and is_comparable(record) else None)
        return found

    def _look_at_terminals(self, part: HistoryPart) -> list[DecisionRecord | None]:
        self._count(part, Entity.TERMINAL)
        found: list[DecisionRecord | None] = []
        for row in part.transactions:
            record = None
            if row.decision is not None and self._selection.takes_time(row.transaction.event_time_us):
                record = _readable(row.decision.record)
            if record is not None:
                check_surrogate(row, record, Entity.TERMINAL, self.report.findings)
            found.append(record if record is not None and is_comparable(record) else None)
        return found

    def _count(self, part: HistoryPart, entity: Entity) -> None:
        self.report.transactions[entity] += len(part.transactions)
        self.report.labels[entity] += len(part.labels)

    def _compare(self, chunk: Chunk) -> None:
        """Compute the vectors of a chunk again, and compare every bit."""
        report = self.report
        for name in chunk.served:
            view = VIEWS[name]
            own, places = part_of_view(view, chunk.entity)
            rows, vectors = chunk.served_columns(view)
            found = transform_many(own, chunk.transactions(versions=True), chunk.label_columns(versions=True))[rows]
            stored = np.ascontiguousarray(vectors[:, places])
            differs = stored.view(np.uint32) != found.view(np.uint32)
            late = np.frombuffer(chunk.late, dtype=np.int64)[rows] != 0
            report.recomputed[chunk.entity] += len(rows)
            report.values += stored.size
            report.late += int(late.sum())
            report.late_different += int((late & differs.any(axis=1)).sum())
            for row, column in np.argwhere(differs & ~late[:, None]).tolist():
                detail = (
                    f"{own.names[column]} is stored as {_number(stored, row, column)}"
                    f" and recomputed as {_number(found, row, column)}"
                )
                report.findings.add(Subject.FEATURE, chunk.ids[int(rows[row])], detail)


def check_versions(chunk: Chunk, findings: Findings) -> None:
    """Versions of an entity are 1, 2, 3 ... over its transactions and folded labels, and end at the entity's own."""
    label_rows, label_versions = chunk.labels[0], chunk.labels[5]
    groups = np.frombuffer(chunk.group, dtype=np.int64)
    versions = np.frombuffer(chunk.version, dtype=np.int64)
    if len(label_rows):
        groups = np.concatenate((groups, groups[np.frombuffer(label_rows, dtype=np.int64)]))
        versions = np.concatenate((versions, np.frombuffer(label_versions, dtype=np.int64)))
    order = np.lexsort((versions, groups))
    groups, versions = groups[order], versions[order]
    starts = np.searchsorted(groups, np.arange(len(chunk.groups) + 1))
    before = np.where(np.arange(len(versions)) == starts[groups], 0, np.roll(versions, 1))
    for place in np.flatnonzero(versions != before + 1).tolist():
        version, last, name = int(versions[place]), int(before[place]), chunk.groups[int(groups[place])].name
        if version == last:
            findings.add(Subject.VERSION, name, f"version {version} was given twice")
        else:
            missing = f"version {last + 1} is" if version == last + 2 else f"versions {last + 1} to {version - 1} are"
            findings.add(Subject.VERSION, name, f"{missing} missing: a transaction or a label is gone")
    for number, group in enumerate(chunk.groups):
        greatest = int(versions[starts[number + 1] - 1])
        if group.entity.version is not None and group.entity.version != greatest:
            detail = f"its state is at version {group.entity.version}, its rows end at {greatest}"
            findings.add(Subject.VERSION, group.name, detail)


def check_body(row: StoredTransaction, findings: Findings) -> None:
    """The body is the one whose digest was claimed; a forgotten customer's has none any more."""
    own = row.transaction
    name = own.transaction_id
    is_forgotten = surrogate_of_forgotten(own.customer_id) is not None
    if row.digest is None:
        findings.add(Subject.BODY, name, "its id was never claimed")
    elif is_forgotten != (row.digest == FORGOTTEN_DIGEST):
        findings.add(Subject.BODY, name, "its customer is forgotten in one place and not in the other")
    elif not is_forgotten and transaction_digest(own) != row.digest:
        findings.add(Subject.BODY, name, "the stored transaction is not the one that was claimed")


def check_label(stored: StoredLabel, findings: Findings) -> None:
    """A label has the digest it is kept under, and waits for no transaction that is there."""
    name = stored.label.transaction_id
    if label_digest(stored.label) != stored.digest:
        findings.add(Subject.LABEL, name, "the stored label is not the one that was recorded")
    if stored.customer_version is None:
        findings.add(Subject.LABEL, name, "it waits for a transaction that is there")


def check_columns(row: StoredTransaction, record: DecisionRecord, findings: Findings) -> None:
    """The record, the columns beside it and the raw transaction say the same."""
    own, decision = row.transaction, row.decision
    if decision is None:
        return
    told = {
        "transaction_id": (decision.transaction_id, record.transaction_id),
        "event_time_us": (decision.event_time_us, record.event_time_us),
        "outcome": (decision.outcome.value, record.decision.outcome.value),
        "score": (struct.pack(">d", decision.score), struct.pack(">d", record.decision.score.probability)),
        "bundle_digest": (decision.bundle_digest, record.decision.score.bundle_digest),
        "transaction's event_time_us": (own.event_time_us, record.event_time_us),
        "transaction's amount_minor": (own.amount_minor, record.amount_minor),
        "transaction's currency": (own.currency, record.currency),
        "transaction's customer_version": (row.customer_version, record.customer_version + 1),
        "transaction's terminal_version": (row.terminal_version, record.terminal_version + 1),
        "transaction's lateness": (row.lateness.value, record.lateness.value),
    }
    for column, (stored, recorded) in told.items():
        if stored != recorded:
            findings.add(Subject.COLUMN, own.transaction_id, f"the {column} is not what the record says")


def check_surrogate(row: StoredTransaction, record: DecisionRecord, entity: Entity, findings: Findings) -> None:
    """The record names the entity as its row does; a forgotten customer is named by the key that stands for it."""
    key = row.transaction.customer_id if entity is Entity.CUSTOMER else row.transaction.terminal_id
    expected = surrogate_of_forgotten(key) or row.entity.surrogate
    recorded = record.customer if entity is Entity.CUSTOMER else record.terminal
    if recorded != expected:
        detail = f"its record names the {entity} {recorded}, its row {shown_entity(row, entity)}"
        findings.add(Subject.SURROGATE, row.transaction.transaction_id, detail)


def _readable(data: bytes) -> DecisionRecord | None:
    """A record, or None for bytes that the customers' pass has named already."""
    try:
        return read_decision(data)
    except BrokenInvariant:
        return None


def _number(values: NDArray[np.float32], row: int, column: int) -> str:
    value = values[row, column]
    return f"{value} ({value.tobytes()[::-1].hex()})"
