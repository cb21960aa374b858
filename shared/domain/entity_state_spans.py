"""The tiles of a state as a tree over time, so that a very hot entity costs hardly more than any other.

Tiles that are narrower than a sixteenth of the widest lie in spans: a span is a range of the same dyadic grid, holds
what lies in it (tiles, and spans of a sixteenth of its width), and keeps sums over all of it. An ordinary entity has no
span at all: its few tiles are the tree. The tree follows from the tiles and is never stored.

Sums are kept as of the moment of knowledge last asked for, with the range of moments for which they hold. As that
moment moves on, only what a label became known in since is counted again: each label costs one tile and the spans
above it once. Whatever is changed makes new spans above it, which start without sums; all others stay as they are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple, overload

from shared.domain.entity_state_tiles import FOREVER_US, NEVER_US, ROOT_WIDTH_US, SPANNED_BELOW_US, Sums, Tile

SPAN_BITS: Final = 4
"""A span has at most 2 to the power of this many parts: wide enough to be shallow, small enough to be copied."""

_START: Final = attrgetter("start_us")
_UNKNOWN: Final = Sums(FOREVER_US, NEVER_US)
"""Sums that hold at no moment."""

type Part = Tile | Span


class Span:
    """A range of event time with the tiles in it; a value, like a tile.

    Attributes:
        start_us: Start of the range, microseconds since 1970 UTC; a multiple of its width.
        end_us: First microsecond behind the range.
        parts: What lies in it, in order of time.
        recent: What the labels in it say at the moment last asked for.
    """

    __slots__ = ("end_us", "parts", "recent", "start_us")

    def __init__(self, start_us: int, end_us: int, parts: tuple[Part, ...]) -> None:
        self.start_us = start_us
        self.end_us = end_us
        self.parts = parts
        self.recent = _UNKNOWN

    def __iter__(self) -> Iterator[Tile]:
        """The tiles in it, in order."""
        return _tiles(self.parts)

    def as_of(self, known_us: int) -> Sums:
        """What the labels that were known at a moment say."""
        recent = self.recent
        if recent.since_us <= known_us < recent.until_us:
            return recent
        since_us, until_us = NEVER_US, FOREVER_US
        n_events = n_fraud = n_genuine = genuine_sum = 0
        for part in self.parts:
            found = part.recent
            if not found[0] <= known_us < found[1]:
                found = part.as_of(known_us)
            since_us = max(since_us, found[0])
            until_us = min(until_us, found[1])
            n_events += found[2]
            n_fraud += found[3]
            n_genuine += found[4]
            genuine_sum += found[5]
        self.recent = recent = Sums(since_us, until_us, n_events, n_fraud, n_genuine, genuine_sum)
        return recent


class Tiles(Sequence[Tile]):
    """All tiles of a state, in order of time; a value.

    Attributes:
        parts: The widest tiles and spans, in order of time.
        n_bytes: About what the tiles take in memory.
    """

    __slots__ = ("_n_tiles", "n_bytes", "parts")

    def __init__(self, parts: tuple[Part, ...] = (), n_tiles: int = 0, n_bytes: int = 0) -> None:
        self.parts = parts
        self.n_bytes = n_bytes
        self._n_tiles = n_tiles

    @classmethod
    def of(cls, tiles: Sequence[Tile]) -> Tiles:
        """The tree of tiles that are in order of time and do not overlap."""
        return cls(_grouped(tiles, _TOP_WIDTH_US), len(tiles), sum([tile.n_bytes for tile in tiles]))

    def __len__(self) -> int:
        return self._n_tiles

    def __iter__(self) -> Iterator[Tile]:
        return _tiles(self.parts)

    @overload
    def __getitem__(self, place: int) -> Tile: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Tile, ...]: ...
    def __getitem__(self, place: int | slice) -> Tile | tuple[Tile, ...]:
        return tuple(self)[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tiles) and len(self) == len(other) and all(map(_same, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Tiles.of({list(self)})"

    def around(self, time_us: int) -> Tile:
        """The tile of this time; if there is none, the empty one that the grid has there.

        A range that has a tile inside was halved, so the range around the time is halved until it has none.
        """
        parts, width_us = self.parts, ROOT_WIDTH_US
        while True:
            place = bisect_right(parts, time_us, key=_START)
            part = parts[place - 1] if place else None
            if part is None or part.end_us <= time_us:
                break
            if isinstance(part, Tile):
                return part
            parts, width_us = part.parts, part.end_us - part.start_us
        beside = [part.start_us for part in parts[max(0, place - 1) : place + 1]]
        start_us = time_us & -width_us
        while any(start_us <= each < start_us + width_us for each in beside):
            width_us >>= 1
            start_us = time_us & -width_us
        return Tile(start_us, start_us + width_us)

    def between(self, after_us: int, until_us: int) -> list[Tile]:
        """The tiles that may hold events with `after_us < time <= until_us`, in order."""
        found: list[Tile] = []
        for part in self.parts:
            if part.end_us > after_us + 1 and part.start_us <= until_us:
                if isinstance(part, Tile):
                    found.append(part)
                else:
                    found += [tile for tile in part if tile.end_us > after_us + 1 and tile.start_us <= until_us]
        return found

    def with_range(self, start_us: int, end_us: int, tiles: Sequence[Tile]) -> Tiles:
        """These with a range of the grid replaced: what overlapped it is gone, the given tiles are there."""
        place = bisect_right(self.parts, start_us, key=_START) - 1
        old = self.parts[place] if place >= 0 else None
        if isinstance(old, Tile) and len(tiles) == 1:
            new = tiles[0]
            if old.start_us == start_us == new.start_us and old.end_us == end_us == new.end_us:  # nearly always
                parts = (*self.parts[:place], new, *self.parts[place + 1 :])
                return Tiles(parts, self._n_tiles, self.n_bytes + new.n_bytes - old.n_bytes)
        change = _Change(start_us, end_us, tiles, [])
        parts = _replaced(self.parts, _TOP_WIDTH_US, change)
        n_tiles, n_bytes = self._n_tiles + len(tiles), self.n_bytes
        for tile in tiles:
            n_bytes += tile.n_bytes
        for tile in _tiles(change.gone):
            n_tiles -= 1
            n_bytes -= tile.n_bytes
        return Tiles(parts, n_tiles, n_bytes)

    def before(self, time_us: int) -> list[Tile]:
        """The tiles that start before a time at which the widest range starts."""
        return list(_tiles(self.parts[: bisect_left(self.parts, time_us, key=_START)]))

    def since(self, time_us: int) -> Tiles:
        """The others, as a tree."""
        gone = self.before(time_us)
        if not gone:
            return self
        parts = self.parts[bisect_left(self.parts, time_us, key=_START) :]
        return Tiles(parts, self._n_tiles - len(gone), self.n_bytes - sum([tile.n_bytes for tile in gone]))


_TOP_WIDTH_US: Final = SPANNED_BELOW_US
"""Narrowest tile that lies in no span, and width of the widest spans."""


NO_TILES: Final = Tiles()


def _same(left: Tile, right: Tile) -> bool:
    return left == right


def _tiles(parts: Iterable[Part]) -> Iterator[Tile]:
    """The tiles of parts, in order."""
    for part in parts:
        if isinstance(part, Tile):
            yield part
        else:
            yield from part


def _grouped(tiles: Sequence[Tile], width_us: int) -> tuple[Part, ...]:
    """Tiles in order as parts: those narrower than the width together in spans of that width."""
    if all(tile.end_us - tile.start_us >= width_us for tile in tiles):
        return tuple(tiles)
    parts: list[Part] = []
    for start_us, group in groupby(tiles, lambda tile: tile.start_us & -width_us):
        inside = list(group)
        if inside[0].end_us - inside[0].start_us >= width_us:
            parts += inside
        else:
            parts.append(Span(start_us, start_us + width_us, _grouped(inside, width_us >> SPAN_BITS)))
    return tuple(parts)


class _Change(NamedTuple):
    """A range to be replaced.

    Attributes:
        start_us: Its start.
        end_us: First microsecond behind it.
        tiles: What is to be there.
        gone: What was there, once it is replaced.
    """

    start_us: int
    end_us: int
    tiles: Sequence[Tile]
    gone: list[Part]


def _replaced(parts: tuple[Part, ...], width_us: int, change: _Change) -> tuple[Part, ...]:
    """Parts with a range replaced; the width is that of the spans among them."""
    start_us, end_us, tiles, gone = change
    low = bisect_right(parts, start_us, key=_START)
    if low and parts[low - 1].end_us > start_us:
        low -= 1
    high = bisect_left(parts, end_us, low, key=_START)
    if end_us - start_us >= width_us:
        gone += parts[low:high]
        return parts[:low] + _grouped(tiles, width_us) + parts[high:]
    inside: tuple[Part, ...] = ()
    for part in parts[low:high]:  # one at most, and if it is a tile then it is wider than the range
        if isinstance(part, Span):
            inside = part.parts
        else:
            gone.append(part)
    span_us = start_us & -width_us
    span = Span(span_us, span_us + width_us, _replaced(inside, width_us >> SPAN_BITS, change))
    return (*parts[:low], span, *parts[high:])
