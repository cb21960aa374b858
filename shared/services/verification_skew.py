"""The use case that measures skew: served vectors beside the features that training would compute for the same rows.

Training knows at a transaction's event time every earlier transaction, and every label with known-at plus delay not
after it. A decision knew what had been recorded by then. Where the two differ, the reason is told by computing a third
time, transactions as the decision knew them and labels as training does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from shared.domain.archive import HistoryPart, Selection
from shared.domain.decision_record import DecisionRecord, read_decision
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_columns import transform_many
from shared.domain.feature_view import VIEWS, Entity
from shared.ports.archive import Archive
from shared.services.verification_columns import CHUNK_ROWS, Chunk, chunks, is_comparable, part_of_view
from shared.services.verification_findings import Progress, no_progress


class SkewReason(StrEnum):
    """Why a served feature is not the one that training computes."""

    LATE_ARRIVAL = "late arrival"
    LABEL_RECORDED_LATE = "label recorded late"
    BOTH = "late arrival and label recorded late"
    TOO_LATE = "too late for state"
    UNEXPLAINED = "unexplained"


@dataclass(slots=True)
class SkewReport:
    """How far serving is from training.

    Attributes:
        rows: Decisions compared.
        unreadable: Decisions left out, because their record cannot be read or their view not be computed.
        values: Feature values compared, by feature.
        different: Of these, how many differ, by feature and reason.
        rows_different: Decisions with a feature of an entity that differs, by entity.
    """

    rows: int = 0
    unreadable: int = 0
    values: Counter[str] = field(default_factory=Counter)
    different: Counter[tuple[str, SkewReason]] = field(default_factory=Counter)
    rows_different: Counter[Entity] = field(default_factory=Counter)

    @property
    def share(self) -> float:
        """Share of all feature values that differ."""
        return self.different.total() / self.values.total() if self.values else 0.0

    @property
    def unexplained(self) -> int:
        """Feature values that neither way of knowing gives: a fault, which `verify_decisions` names."""
        return sum(count for (_, reason), count in self.different.items() if reason is SkewReason.UNEXPLAINED)


def verify_skew(
    archive: Archive, selection: Selection, *, progress: Progress = no_progress, chunk_rows: int = CHUNK_ROWS
) -> SkewReport:
    """Compare the selected decisions' vectors with the features that training would compute.

    Args:
        archive: The ledger.
        selection: Which decisions.
        progress: Told how far it is.
        chunk_rows: Rows worked on at a time.

    Raises:
        Transient: The ledger cannot be reached now.
    """
    report = SkewReport()

    def look(part: HistoryPart) -> list[DecisionRecord | None]:
        found: list[DecisionRecord | None] = []
        for row in part.transactions:
            record = None
            if row.decision is not None and selection.takes_time(row.transaction.event_time_us):
                record = _comparable(row.decision.record)
                report.unreadable += record is None and entity is Entity.CUSTOMER
            found.append(record)
        return found

    with archive.snapshot() as snapshot:
        for entity in Entity:
            done = 0
            for chunk in chunks(snapshot.histories(entity, selection), entity, look, chunk_rows=chunk_rows):
                _compare(chunk, report)
                done += len(chunk.ids)
                progress(f"histories of {entity}s", done)
    return report


def _comparable(data: bytes) -> DecisionRecord | None:
    try:
        record = read_decision(data)
    except BrokenInvariant:
        return None
    return record if is_comparable(record) else None


def _compare(chunk: Chunk, report: SkewReport) -> None:
    """Compare what was served in a chunk."""
    for name in chunk.served:
        view = VIEWS[name]
        own, places = part_of_view(view, chunk.entity)
        rows, vectors = chunk.served_columns(view)
        if chunk.entity is Entity.CUSTOMER:
            report.rows += len(rows)
        served = np.ascontiguousarray(vectors[:, places]).view(np.uint32)
        known, every = chunk.transactions(versions=True), chunk.transactions(versions=False)
        late_labels, labels = chunk.label_columns(versions=True), chunk.label_columns(versions=False)
        offline = transform_many(own, every, labels)[rows].view(np.uint32)
        differs = served != offline
        report.values.update(dict.fromkeys(own.names, len(rows)))
        report.rows_different[chunk.entity] += int(differs.any(axis=1).sum())
        if not differs.any():
            continue
        by_versions = transform_many(own, known, late_labels)[rows].view(np.uint32)
        middle = transform_many(own, known, labels)[rows].view(np.uint32)
        late = np.frombuffer(chunk.late, dtype=np.int64)[rows] != 0
        unexplained = differs & (served != by_versions)
        explained = differs & ~unexplained
        masks = {
            SkewReason.TOO_LATE: unexplained & late[:, None],
            SkewReason.UNEXPLAINED: unexplained & ~late[:, None],
            SkewReason.LATE_ARRIVAL: explained & (by_versions == middle),
            SkewReason.LABEL_RECORDED_LATE: explained & (by_versions != middle) & (middle == offline),
            SkewReason.BOTH: explained & (by_versions != middle) & (middle != offline),
        }
        for reason, mask in masks.items():
            counts = mask.sum(axis=0).tolist()
            report.different.update(
                {(feature, reason): count for feature, count in zip(own.names, counts, strict=True) if count}
            )
