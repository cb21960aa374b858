"""Entity state: what decisions read of a customer's or terminal's past, folded from its transactions and labels.

State is a function of the set of transactions and labels that it was given, whatever their order, batches and
interleaving. It ends by the entity's greatest event time: a tile's widest range is dropped as a whole once all of it
lies behind the horizon, so what is kept never depends on when something arrived. A horizon belongs to no view: whoever
needs no more than is kept may read (`entity_state_layout`).

A transaction raises the version by one and so does a label (design decision 5); a transaction that state holds already
is absorbed and raises nothing. Nobody can say whose entity a label without its transaction belongs to: it waits
outside state, and whoever stores it hands it over with the transaction, as `PastTransaction.labels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from shared.domain.entity_state_layout import StateLayout
from shared.domain.entity_state_spans import NO_TILES, Tiles
from shared.domain.entity_state_tiles import (
    MAX_EVENTS,
    ROOT_WIDTH_US,
    Tile,
    halves,
    row_of,
    with_event,
    with_labels,
    with_newest,
)
from shared.domain.feature_view import Entity
from shared.domain.features import PastTransaction
from shared.domain.identifiers import TransactionId
from shared.domain.labels import Label

_STATE_MEMORY: Final = 720
"""Bytes of a state without its tiles, of its key, and of its place in a cache (CPython 3.13, measured)."""


class Header(NamedTuple):
    """What is locked, read first and written with every event.

    Attributes:
        view: Name of the feature view that set the horizon.
        entity: What it is the state of.
        horizon_us: How far behind the greatest event time events are needed, microseconds.
        version: Number of transactions and labels folded so far.
        greatest_us: Greatest event time, microseconds since 1970 UTC; None before the first transaction.
        filled_us: How far behind the greatest event time nothing is missing, microseconds, where that is less than the
            horizon because it was raised and what lies before is not filled yet; None if nothing is missing.
    """

    view: str
    entity: Entity
    horizon_us: int
    version: int = 0
    greatest_us: int | None = None
    filled_us: int | None = None

    @property
    def oldest_us(self) -> int | None:
        """Start of what is kept: the widest range that the horizon ends in; None before the first transaction."""
        if self.greatest_us is None:
            return None
        return (self.greatest_us - self.horizon_us) & -ROOT_WIDTH_US

    @property
    def complete_us(self) -> int:
        """How far behind the greatest event time nothing is missing, microseconds."""
        return self.horizon_us if self.filled_us is None else self.filled_us

    def is_too_late(self, time_us: int, lateness_us: int) -> bool:
        """Whether a transaction is later than state promises to know its past for; such a decision is flagged."""
        return self.greatest_us is not None and time_us < self.greatest_us - lateness_us


class EntityState(NamedTuple):
    """A header and its tiles.

    Attributes:
        header: The header.
        tiles: In order of time, without empty ones.
    """

    header: Header
    tiles: Tiles = NO_TILES

    @classmethod
    def empty(cls, layout: StateLayout, entity: Entity) -> EntityState:
        """The state of an entity that nothing is known of."""
        span = layout.of(entity)
        return cls(Header(span.view, entity, span.horizon_us))

    @property
    def n_bytes(self) -> int:
        """About how much memory it takes, rather too much; for whoever keeps a bounded number of states."""
        return _STATE_MEMORY + self.tiles.n_bytes


@dataclass(frozen=True, slots=True)
class LaterLabel:
    """A label that came after its transaction was folded.

    Attributes:
        event_time_us: Event time of its transaction, which finds the tile.
        label: The label.
    """

    event_time_us: int
    label: Label


class Folded(NamedTuple):
    """What a fold did, so that only this is written.

    Attributes:
        state: The state after it.
        changed: Tiles to be written, under their start.
        removed: Starts of tiles to be deleted.
        left_out: Transactions, of events and of labels, that lie before what state keeps; they raised the version.
        absorbed: Transactions that state held already.
    """

    state: EntityState
    changed: tuple[Tile, ...]
    removed: tuple[int, ...]
    left_out: tuple[TransactionId, ...]
    absorbed: tuple[TransactionId, ...]


def fold(state: EntityState, events: Sequence[PastTransaction], labels: Sequence[LaterLabel] = ()) -> Folded:
    """The state after more transactions and labels, in any order; the given state stays as it is.

    Args:
        state: The state before.
        events: Transactions, each with the labels that waited for it.
        labels: Labels of transactions that were folded before or are among the events, each given once.

    Returns:
        The new state and what became of everything.
    """
    if len(events) == 1 and not labels:
        folded = _newest(state, events[0])
        if folded is not None:
            return folded
    view, entity, horizon_us, version, greatest_us, filled_us = state.header
    for event in events:
        if greatest_us is None or event.event_time_us > greatest_us:
            greatest_us = event.event_time_us
    work = _Work(state.tiles, Header(view, entity, horizon_us, version, greatest_us).oldest_us)
    for event in events:
        if work.add(event):
            version += 1 + len(event.labels)
    for later in labels:
        work.label(later)
        version += 1
    after = EntityState(Header(view, entity, horizon_us, version, greatest_us, filled_us), work.tiles)
    return Folded(after, *work.written(), tuple(work.left_out), tuple(work.absorbed))


def _newest(state: EntityState, event: PastTransaction) -> Folded | None:
    """The fold of a transaction that is the newest and fits its tile, as nearly every one is; None if it is not so.

    The general way gives the same at twice the cost.
    """
    (view, entity, horizon_us, version, greatest_us, filled_us), tiles = state
    parts, time_us = tiles.parts, event.event_time_us
    if greatest_us is None or time_us <= greatest_us or event.labels:
        return None
    last = parts[-1]
    if not isinstance(last, Tile) or time_us >= last.end_us or last.sums.n_events >= MAX_EVENTS:
        return None
    if parts[0].start_us < (time_us - horizon_us) & -ROOT_WIDTH_US:  # tiles expire
        return None
    tile = with_newest(last, event)
    grown = Tiles((*parts[:-1], tile), len(tiles), tiles.n_bytes + tile.n_bytes - last.n_bytes)
    after = EntityState(Header(view, entity, horizon_us, version + 1, time_us, filled_us), grown)
    return Folded(after, (tile,), (), (), ())


class _Work:
    """The tiles while one fold changes them, and what it did to them."""

    __slots__ = ("_gone", "_oldest_us", "_touched", "absorbed", "left_out", "tiles")

    def __init__(self, tiles: Tiles, oldest_us: int | None) -> None:
        self.tiles = tiles
        self.left_out: list[TransactionId] = []
        self.absorbed: list[TransactionId] = []
        self._oldest_us = oldest_us
        self._touched: dict[int, Tile] = {}
        self._gone: set[int] = set()
        if oldest_us is not None and tiles.parts and tiles.parts[0].start_us < oldest_us:
            self._gone.update([tile.start_us for tile in tiles.before(oldest_us)])
            self.tiles = tiles.since(oldest_us)

    def add(self, event: PastTransaction) -> bool:
        """Take a transaction in or leave it out; False if it was here already."""
        time_us = event.event_time_us
        if self._oldest_us is not None and time_us < self._oldest_us:
            self.left_out.append(event.transaction_id)
            return True
        grown = with_event(self.tiles.around(time_us), event)
        if grown is None:
            self.absorbed.append(event.transaction_id)
            return False
        parts = halves(grown)
        if parts[0].start_us != grown.start_us:
            self._touched.pop(grown.start_us, None)
            self._gone.add(grown.start_us)
        self._put(grown.start_us, grown.end_us, parts)
        return True

    def label(self, later: LaterLabel) -> None:
        """Add a label to its transaction, if that is kept."""
        time_us, label = later.event_time_us, later.label
        tile = self.tiles.around(time_us)
        row = row_of(tile, time_us, label.transaction_id)
        if row is None:
            self.left_out.append(label.transaction_id)
            return
        labelled = with_labels(tile, row, (label,))
        if labelled is not tile:
            self._put(tile.start_us, tile.end_us, (labelled,))

    def written(self) -> tuple[tuple[Tile, ...], tuple[int, ...]]:
        """The tiles to write, and the starts of those to delete, in order."""
        touched = self._touched
        return tuple([touched[start_us] for start_us in sorted(touched)]), tuple(sorted(self._gone))

    def _put(self, start_us: int, end_us: int, tiles: Sequence[Tile]) -> None:
        """Replace the tile of a range."""
        self.tiles = self.tiles.with_range(start_us, end_us, tiles)
        for tile in tiles:
            self._touched[tile.start_us] = tile
            self._gone.discard(tile.start_us)
