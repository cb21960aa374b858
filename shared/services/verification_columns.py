"""Histories as columns, whole entities at a time, so that features can be computed from raw rows in bounded memory.

A pass goes over the histories of the customers, and another one over those of the terminals, because the features of an
entity need its own events only. A chunk ends between two entities; one that is larger than a chunk is a chunk of its
own, of about 300 bytes for each of its rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.archive import HistoryPart, StoredEntity, StoredLabel, StoredTransaction, surrogate_of_forgotten
from shared.domain.decision_record import DecisionRecord, Lateness
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.feature_view import FEATURE_DTYPE, VIEWS, Entity, FeatureView
from shared.domain.labels import PRECEDENCE
from shared.domain.surrogates import redacted

CHUNK_ROWS: Final = 50_000
"""Rows after which a chunk ends with its entity: 15 MB, and as fast as larger ones."""

LATE_FLAGS: Final = {Entity.CUSTOMER: Lateness.CUSTOMER, Entity.TERMINAL: Lateness.TERMINAL}

type Look = Callable[[HistoryPart], Sequence[DecisionRecord | None]]
"""Looks at rows as they come by, and says which decision each has that is to be compared."""


def _ints() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Served:
    """The vectors of one view that were served for rows of a chunk.

    Attributes:
        rows: Their rows.
        data: Their vectors, one after the other.
    """

    rows: array[int] = field(default_factory=_ints)
    data: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class EntityGroup:
    """An entity of a chunk.

    Attributes:
        name: How it may be shown: its surrogate.
        entity: Its row.
    """

    name: str
    entity: StoredEntity


@dataclass(slots=True)
class Chunk:
    """Whole histories of some entities.

    Attributes:
        entity: Which kind.
        groups: The entities.
        ids: (n,) transaction ids.
        group: (n,) place of the row's entity among the groups.
        time_us: (n,) event times.
        amount: (n,) minor units.
        version: (n,) the entity's version that the row created.
        late: (n,) 1 where the row was too late for the entity's state.
        labels: Row, whether fraud, known-at, source, confidence and version of labels that were folded.
        served: Vectors to compare, by name of their view.
    """

    entity: Entity
    groups: list[EntityGroup] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    group: array[int] = field(default_factory=_ints)
    time_us: array[int] = field(default_factory=_ints)
    amount: array[int] = field(default_factory=_ints)
    version: array[int] = field(default_factory=_ints)
    late: array[int] = field(default_factory=_ints)
    labels: tuple[array[int], ...] = field(default_factory=lambda: tuple(_ints() for _ in range(6)))
    served: dict[str, Served] = field(default_factory=dict)

    def add(self, row: StoredTransaction, labels: Sequence[StoredLabel], record: DecisionRecord | None) -> None:
        """Take a row in, of the newest entity."""
        own, place = row.transaction, len(self.ids)
        of_customer = self.entity is Entity.CUSTOMER
        self.ids.append(own.transaction_id)
        self.group.append(len(self.groups) - 1)
        self.time_us.append(own.event_time_us)
        self.amount.append(own.amount_minor)
        self.version.append(row.customer_version if of_customer else row.terminal_version)
        self.late.append(int(LATE_FLAGS[self.entity] in row.lateness))
        for stored in labels:
            version = stored.customer_version if of_customer else stored.terminal_version
            if version is not None:
                label = stored.label
                values = (
                    place,
                    int(label.is_fraud),
                    label.known_at_us,
                    PRECEDENCE.index(label.source),
                    label.confidence,
                    version,
                )
                for column, value in zip(self.labels, values, strict=True):
                    column.append(value)
        if record is not None:
            served = self.served.setdefault(record.view, Served())
            served.rows.append(place)
            served.data += record.vector

    def transactions(self, *, versions: bool) -> TransactionColumns:
        """The rows, with their versions or as what was knowable at their event times."""
        group = _column(self.group)
        of_customer = self.entity is Entity.CUSTOMER
        version = _column(self.version) if versions else None
        return TransactionColumns(
            transaction_id=np.array(self.ids, dtype=np.bytes_),
            event_time_us=_column(self.time_us),
            amount_minor=_column(self.amount),
            customer=group,
            terminal=group,
            customer_version=version if of_customer else None,
            terminal_version=None if of_customer else version,
        )

    def label_columns(self, *, versions: bool) -> LabelColumns:
        """The labels, with their versions or as if each had been recorded before all else."""
        row, fraud, known_at_us, source, confidence, version = (_column(column) for column in self.labels)
        if not versions:
            version = np.zeros_like(version)
        return LabelColumns(row, fraud.astype(np.bool_), known_at_us, source, confidence, version, version)

    def served_columns(self, view: FeatureView) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows, and (n, n_features) vectors of a view as they were served."""
        served = self.served[view.name]
        vectors = np.frombuffer(bytes(served.data), dtype=FEATURE_DTYPE).astype(np.float32, copy=False)
        return _column(served.rows), vectors.reshape(len(served.rows), len(view.features))

    def name_of(self, row: int) -> str:
        """How the entity of a row may be shown."""
        return self.groups[self.group[row]].name


def _column(values: array[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def part_of_view(view: FeatureView, entity: Entity) -> tuple[FeatureView, list[int]]:
    """The features of one entity as a view of their own, and their places in the whole one.

    Features of the transaction alone go with the customer's.
    """
    places = [
        place
        for place, feature in enumerate(view.features)
        if feature.entity is entity or (feature.entity is None and entity is Entity.CUSTOMER)
    ]
    features = tuple(view.features[place] for place in places)
    return FeatureView(f"{view.name} of the {entity}", features, view.label_delay_us), places


def is_comparable(record: DecisionRecord) -> bool:
    """Whether this release can compute the view of a decision, and its vector has the view's length."""
    view = VIEWS.get(record.view)
    return view is not None and len(record.vector) == len(view.features) * np.dtype(FEATURE_DTYPE).itemsize


def shown_entity(row: StoredTransaction, entity: Entity) -> str:
    """How the entity of a row may be shown: by its surrogate, or by the end of its identifier."""
    key = row.transaction.customer_id if entity is Entity.CUSTOMER else row.transaction.terminal_id
    return f"{entity} {row.entity.surrogate or surrogate_of_forgotten(key) or redacted(key)}"


def chunks(
    parts: Iterator[HistoryPart], entity: Entity, look: Look, *, chunk_rows: int = CHUNK_ROWS
) -> Iterator[Chunk]:
    """Gather histories into chunks of whole entities."""
    chunk, last = Chunk(entity), None
    for part in parts:
        records = look(part)
        labels: dict[str, list[StoredLabel]] = {}
        for stored in part.labels:
            labels.setdefault(stored.label.transaction_id, []).append(stored)
        for row, record in zip(part.transactions, records, strict=True):
            own = row.transaction
            key = own.customer_id if entity is Entity.CUSTOMER else own.terminal_id
            if key != last:
                if len(chunk.ids) >= chunk_rows:
                    yield chunk
                    chunk = Chunk(entity)
                chunk.groups.append(EntityGroup(shown_entity(row, entity), row.entity))
                last = key
            chunk.add(row, labels.get(own.transaction_id, ()), record)
    if chunk.ids:
        yield chunk
