"""Canonical bytes of entity state: equal states have equal bytes, and the bytes read back to the state.

Form of a tile and of a header: kind, format, fields, and a CRC-32 of all before it. Little-endian, because that is what
the machines we run on read without turning bytes around. The CRC tells damage, not intent; what is proved to others is
proved by the log. To change a form: raise its format and keep the reader of the old one.

A tile's event times have 8 bytes (offsets would be shorter and cost more to read), amounts 4, or 8 where one does not
fit. What follows from the columns (the sums) is stored as well: to add it up again would cost more than to read it.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from shared.domain.entity_state import EntityState, Header
from shared.domain.entity_state_tiles import Tile
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import Entity

HEADER_KIND: Final = 0x45
TILE_KIND: Final = 0x4C
STATE_FORMAT: Final = 1

_START: Final = attrgetter("start_us")
_ENTITIES: Final = tuple(Entity)
_HEADER: Final = struct.Struct("<BBBBqqqIB")
_TILE: Final = struct.Struct("<BBBqqIIIqqIIq")
_CRC: Final = struct.Struct("<I")
_NARROW_MAX: Final = (1 << 32) - 1


def header_bytes(header: Header, n_tiles: int) -> bytes:
    """A header as bytes, with how many tiles belong to it, so that a missing one is noticed."""
    view = header.view.encode("ascii")
    fixed = _HEADER.pack(
        HEADER_KIND,
        STATE_FORMAT,
        _ENTITIES.index(header.entity),
        header.greatest_us is not None,
        header.horizon_us,
        header.version,
        header.greatest_us or 0,
        n_tiles,
        len(view),
    )
    return _sealed(fixed + view)


def read_header(data: bytes) -> tuple[Header, int]:
    """The header of bytes and how many tiles belong to it.

    Raises:
        BrokenInvariant: The bytes are no header of this format, or damaged.
    """
    _check(data, HEADER_KIND, _HEADER.size, "a state header")
    _, _, entity, has_greatest, horizon_us, version, greatest_us, n_tiles, n_view = _HEADER.unpack_from(data)
    view = data[_HEADER.size : -_CRC.size]
    if len(view) != n_view or entity >= len(_ENTITIES) or has_greatest > 1:
        raise BrokenInvariant("the bytes of a state header do not fit together")
    greatest = greatest_us if has_greatest else None
    return Header(view.decode("ascii"), _ENTITIES[entity], horizon_us, version, greatest), n_tiles


def tile_bytes(tile: Tile) -> bytes:
    """A tile as bytes."""
    n_events, n_labels = len(tile.times), len(tile.label_rows)
    ids = tile.ids.encode("ascii")
    wide = max(tile.amounts, default=0) > _NARROW_MAX
    fixed = _TILE.pack(
        TILE_KIND,
        STATE_FORMAT,
        wide,
        tile.start_us,
        tile.width_us,
        n_events,
        n_labels,
        len(ids),
        tile.amount_sum,
        tile.known_by_us,
        tile.n_fraud,
        tile.n_genuine,
        tile.genuine_sum,
    )
    columns = struct.pack(
        _columns(n_events, n_labels, wide),
        *tile.times,
        *tile.amounts,
        *tile.label_known,
        *tile.label_rows,
        *tile.label_codes,
    )
    return _sealed(fixed + columns + ids)


def read_tile(data: bytes) -> Tile:
    """The tile of bytes.

    Raises:
        BrokenInvariant: The bytes are no tile of this format, or damaged.
    """
    _check(data, TILE_KIND, _TILE.size, "a state tile")
    _, _, wide, start_us, width_us, n_events, n_labels, n_ids, *sums = _TILE.unpack_from(data)
    columns = _columns(n_events, n_labels, wide)
    end = _TILE.size + struct.calcsize(columns)
    if end + n_ids + _CRC.size != len(data):
        raise BrokenInvariant("the bytes of a state tile do not fit together")
    found = struct.unpack_from(columns, data, _TILE.size)
    labels = 2 * n_events
    return Tile(
        start_us,
        width_us,
        found[:n_events],
        found[n_events:labels],
        data[end : end + n_ids].decode("ascii"),
        found[labels + n_labels : labels + 2 * n_labels],
        found[labels : labels + n_labels],
        found[labels + 2 * n_labels :],
        *sums,
    )


def read_state(header: bytes, tiles: Sequence[bytes]) -> EntityState:
    """The state of a header and all its tiles, in any order.

    Raises:
        BrokenInvariant: Bytes are foreign or damaged, a tile is missing, or they do not fit together.
    """
    head, n_tiles = read_header(header)
    found = sorted([read_tile(tile) for tile in tiles], key=_START)
    return _state(head, n_tiles, found)


def refreshed(cached: EntityState, header: bytes, tiles: Sequence[bytes]) -> EntityState:
    """A newer state from an older one and what was written since.

    Tiles that went need not be told: a tile that was split overlaps its parts, which were written later than it, and
    one that expired lies before what the new header keeps.

    Args:
        cached: The older state.
        header: The newer header.
        tiles: Every stored tile that was last written with a version above that of the older state, in any order.

    Raises:
        BrokenInvariant: Bytes are foreign or damaged, the header is older than the state or of another, or tiles are
            missing or do not fit together.
    """
    head, n_tiles = read_header(header)
    old = cached.header
    if (head.view, head.entity, head.horizon_us) != (old.view, old.entity, old.horizon_us):
        raise BrokenInvariant(f"state of a {old.entity} for {old.view} refreshed as {head.entity} for {head.view}")
    if head.version < old.version or (head.version == old.version and head != old):
        raise BrokenInvariant(f"state of version {old.version} refreshed with another of version {head.version}")
    new = sorted([read_tile(tile) for tile in tiles], key=_START)
    oldest_us = head.oldest_us
    starts = [tile.start_us for tile in new]
    kept = []
    for tile in cached.tiles:
        before = bisect_left(starts, tile.end_us) - 1  # the last new one that starts before this one ends
        is_replaced = before >= 0 and new[before].end_us > tile.start_us
        if not is_replaced and (oldest_us is None or tile.start_us >= oldest_us):
            kept.append(tile)
    return _state(head, n_tiles, sorted([*kept, *new], key=_START))


def _state(head: Header, n_tiles: int, tiles: Sequence[Tile]) -> EntityState:
    """A state whose tiles are sorted, checked against its header."""
    if len(tiles) != n_tiles:
        raise BrokenInvariant(f"a state has {len(tiles)} tiles, its header says {n_tiles}")
    end_us = head.oldest_us
    for tile in tiles:
        if end_us is None or tile.start_us < end_us:
            raise BrokenInvariant("the tiles of a state overlap or lie before what it keeps")
        end_us = tile.end_us
    return EntityState(head, tuple(tiles))


def state_bytes(state: EntityState) -> tuple[bytes, tuple[bytes, ...]]:
    """All of a state: its header and its tiles in order."""
    return header_bytes(state.header, len(state.tiles)), tuple([tile_bytes(tile) for tile in state.tiles])


def _columns(n_events: int, n_labels: int, wide: bool) -> str:
    """Struct format of a tile's columns: times, amounts, then known-at, row and code of the labels."""
    return f"<{n_events}q{n_events}{'q' if wide else 'I'}{n_labels}q{n_labels}I{n_labels}H"


def _sealed(data: bytes) -> bytes:
    return data + _CRC.pack(zlib.crc32(data))


def _check(data: bytes, kind: int, size: int, what: str) -> None:
    """Refuse what is not this kind, not this format, too short, or damaged."""
    if data[:1] != bytes((kind,)):
        raise BrokenInvariant(f"the bytes are not {what}: they start with {data[:1].hex() or 'nothing'}")
    if data[1:2] != bytes((STATE_FORMAT,)):
        raise BrokenInvariant(f"{what} of format {data[1:2].hex() or 'none'}; this release reads {STATE_FORMAT:02x}")
    if len(data) < size + _CRC.size:
        raise BrokenInvariant(f"{what} ends early, after {len(data)} bytes")
    if zlib.crc32(data[: -_CRC.size]) != _CRC.unpack(data[-_CRC.size :])[0]:
        raise BrokenInvariant(f"{what} is damaged: its check sum is another")
