"""Entity state: what decisions read of a customer's or terminal's past, folded from its transactions and labels.

State is a function of the set of transactions and labels that it was given, whatever their order, batches and
interleaving. It ends by the entity's greatest event time: a tile's widest range is dropped as a whole once all of it
lies behind the view's horizon, so what is kept never depends on when something arrived.

A transaction raises the version by one and so does a label (design decision 5); a transaction that state holds already
is absorbed and raises nothing. Nobody can say whose entity a label without its transaction belongs to: it waits
outside state, and whoever stores it hands it over with the transaction, as `PastTransaction.labels`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple

from shared.domain.entity_state_tiles import ROOT_WIDTH_US, Tile, halves, row_of, with_event, with_labels
from shared.domain.feature_view import Entity, FeatureView
from shared.domain.features import PastTransaction
from shared.domain.identifiers import TransactionId
from shared.domain.labels import Label

STATE_BYTES: Final = 400
TILE_BYTES: Final = 800
EVENT_BYTES: Final = 200
"""What a state, a tile and an event with its label take in memory, roughly and rather too much (CPython 3.13)."""

_START: Final = attrgetter("start_us")


class Header(NamedTuple):
    """What is locked, read first and written with every event.

    Attributes:
        view: Name of the feature view that set the horizon.
        entity: What it is the state of.
        horizon_us: How far behind the greatest event time events are needed, microseconds.
        version: Number of transactions and labels folded so far.
        greatest_us: Greatest event time, microseconds since 1970 UTC; None before the first transaction.
    """

    view: str
    entity: Entity
    horizon_us: int
    version: int = 0
    greatest_us: int | None = None

    @property
    def oldest_us(self) -> int | None:
        """Start of what is kept: the widest range that the horizon ends in; None before the first transaction."""
        if self.greatest_us is None:
            return None
        return (self.greatest_us - self.horizon_us) // ROOT_WIDTH_US * ROOT_WIDTH_US

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
    tiles: tuple[Tile, ...] = ()

    @classmethod
    def empty(cls, view: FeatureView, entity: Entity) -> EntityState:
        """The state of an entity that nothing is known of."""
        return cls(Header(view.name, entity, view.horizon_us(entity)))

    @property
    def n_bytes(self) -> int:
        """About how much memory it takes; an upper estimate, for whoever keeps a bounded number of states."""
        return STATE_BYTES + sum(TILE_BYTES + EVENT_BYTES * len(tile.times) + len(tile.ids) for tile in self.tiles)


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
    header = state.header
    greatest_us = max((event.event_time_us for event in events), default=header.greatest_us)
    if header.greatest_us is not None and greatest_us is not None:
        greatest_us = max(greatest_us, header.greatest_us)
    oldest_us = header._replace(greatest_us=greatest_us).oldest_us
    work = _Work(list(state.tiles), oldest_us)
    version = header.version
    for event in events:
        if work.add(event):
            version += 1 + len(event.labels)
    for later in labels:
        work.label(later)
        version += 1
    after = EntityState(header._replace(version=version, greatest_us=greatest_us), tuple(work.tiles))
    return Folded(after, *work.written(), tuple(work.left_out), tuple(work.absorbed))


class _Work:
    """The tiles while one fold changes them; each tile is replaced, never altered."""

    __slots__ = ("_gone", "_oldest_us", "_touched", "absorbed", "left_out", "tiles")

    def __init__(self, tiles: list[Tile], oldest_us: int | None) -> None:
        self.tiles = tiles
        self.left_out: list[TransactionId] = []
        self.absorbed: list[TransactionId] = []
        self._oldest_us = oldest_us
        self._touched: set[int] = set()
        self._gone: set[int] = set()
        if oldest_us is not None and tiles and tiles[0].start_us < oldest_us:
            n_expired = bisect_left(tiles, oldest_us, key=_START)
            self._gone.update(tile.start_us for tile in tiles[:n_expired])
            del tiles[:n_expired]

    def add(self, event: PastTransaction) -> bool:
        """Take a transaction in or leave it out; False if it was here already."""
        time_us = event.event_time_us
        if self._oldest_us is not None and time_us < self._oldest_us:
            self.left_out.append(event.transaction_id)
            return True
        place = bisect_right(self.tiles, time_us, key=_START) - 1
        if place < 0 or self.tiles[place].end_us <= time_us:
            place += 1
            self.tiles.insert(place, self._empty_around(time_us, place))
        grown = with_event(self.tiles[place], event)
        if grown is None:
            self.absorbed.append(event.transaction_id)
            return False
        parts = halves(grown)
        self.tiles[place : place + 1] = parts
        self._touched.update(part.start_us for part in parts)
        if parts[0].start_us != grown.start_us:
            self._gone.add(grown.start_us)
        return True

    def label(self, later: LaterLabel) -> None:
        """Add a label to its transaction, if that is kept."""
        time_us, label = later.event_time_us, later.label
        place = bisect_right(self.tiles, time_us, key=_START) - 1
        row = row_of(self.tiles[place], time_us, label.transaction_id) if place >= 0 else None
        if row is None:
            self.left_out.append(label.transaction_id)
            return
        labelled = with_labels(self.tiles[place], row, (label,))
        if labelled != self.tiles[place]:
            self.tiles[place] = labelled
            self._touched.add(labelled.start_us)

    def written(self) -> tuple[tuple[Tile, ...], tuple[int, ...]]:
        """The tiles to write, and the starts of those to delete, in order."""
        changed, absent = [], set(self._gone)
        for start_us in sorted(self._touched):
            place = bisect_left(self.tiles, start_us, key=_START)
            if place < len(self.tiles) and self.tiles[place].start_us == start_us:
                changed.append(self.tiles[place])
                absent.discard(start_us)
        return tuple(changed), tuple(sorted(absent))

    def _empty_around(self, time_us: int, place: int) -> Tile:
        """The empty tile that the grid has at this time: as wide as no other tile lies in it.

        A range that has a tile inside was halved, so the range around the time is halved until it has none.
        """
        neighbours = [tile.start_us for tile in self.tiles[max(0, place - 1) : place + 1]]
        width_us = ROOT_WIDTH_US
        start_us = time_us // width_us * width_us
        while any(start_us <= neighbour < start_us + width_us for neighbour in neighbours):
            width_us //= 2
            start_us = time_us // width_us * width_us
        return Tile(start_us, width_us, (), (), "")
