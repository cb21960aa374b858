"""Canonical bytes of entity state: equal states have equal bytes, and the bytes read back to the state.

Form of a tile and of a header: kind, format, fields, and a CRC-32 of all before it. Little-endian, because that is what
the machines we run on read without turning bytes around. The CRC tells damage, not intent; what is proved to others is
proved by the log. To change a form: raise its format and keep the reader of the old one.

A tile's bytes are those of its columns, one after the other, so that to read or write one copies and converts nothing:
event times of 8 bytes (offsets would be shorter and cost more to read), amounts of 4, or 8 where one does not fit,
labels of 14, ids. What follows from the columns (the sums) is stored too: to add it up again would unpack them all.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from shared.domain.entity_state import EntityState, Header
from shared.domain.entity_state_spans import Tiles
from shared.domain.entity_state_tiles import FOREVER_US, Sums, Tile
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import Entity

HEADER_KIND: Final = 0x45
TILE_KIND: Final = 0x4C
STATE_FORMAT: Final = 1
RAISED_FORMAT: Final = 2
"""Of a header whose horizon was raised and that is not filled yet: one more field. A filled one has the first form."""

_START: Final = attrgetter("start_us")
_ENTITIES: Final = tuple(Entity)
_HEADER: Final = struct.Struct("<BBBBqqqIB")
_RAISED: Final = struct.Struct("<BBBBqqqIBq")
_RAISED_MARK: Final = bytes((RAISED_FORMAT,))
_LAYOUT: Final = struct.Struct("<BBBBq")
"""The start of either form of a header, up to its horizon."""

_TILE: Final = struct.Struct("<BBBBqIIIqIIq")
_TIME: Final = 8
_NARROW: Final = 4
_WIDE: Final = 8
_ROW: Final = 4
_CODE: Final = 2
"""Bytes of a time, of an amount in a tile where all are narrow or one is wide, of a label's row and of its code."""

_CRC: Final = struct.Struct("<I")
_SOUND: Final = zlib.crc32(_CRC.pack(zlib.crc32(b"")))
"""The CRC-32 of any bytes with their own CRC-32 behind them."""


def header_bytes(header: Header, n_tiles: int) -> bytes:
    """A header as bytes, with how many tiles belong to it, so that a missing one is noticed."""
    entity, horizon_us, version, greatest_us, filled_us = header[1:]
    view, has_greatest = header.view.encode("ascii"), greatest_us is not None
    place, latest_us = _ENTITIES.index(entity), greatest_us or 0
    if filled_us is None:
        fixed = _HEADER.pack(
            HEADER_KIND, STATE_FORMAT, place, has_greatest, horizon_us, version, latest_us, n_tiles, len(view)
        )
        return _sealed(fixed + view)
    fixed = _RAISED.pack(
        HEADER_KIND, RAISED_FORMAT, place, has_greatest, horizon_us, version, latest_us, n_tiles, len(view), filled_us
    )
    return _sealed(fixed + view)


def read_header(data: bytes) -> tuple[Header, int]:
    """The header of bytes and how many tiles belong to it.

    Raises:
        BrokenInvariant: The bytes are no header of this format, or damaged.
    """
    filled_us = None
    if data[1:2] == _RAISED_MARK:
        _check(data, HEADER_KIND, _RAISED.size, "a state header", RAISED_FORMAT)
        _, _, entity, has_greatest, horizon_us, version, greatest_us, n_tiles, n_view, filled_us = _RAISED.unpack_from(
            data
        )
        view = data[_RAISED.size : -_CRC.size]
        fits = filled_us < horizon_us
    else:
        _check(data, HEADER_KIND, _HEADER.size, "a state header")
        _, _, entity, has_greatest, horizon_us, version, greatest_us, n_tiles, n_view = _HEADER.unpack_from(data)
        view = data[_HEADER.size : -_CRC.size]
        fits = True
    if len(view) != n_view or entity >= len(_ENTITIES) or has_greatest > 1 or not fits:
        raise BrokenInvariant("the bytes of a state header do not fit together")
    greatest = greatest_us if has_greatest else None
    return Header(view.decode("ascii"), _ENTITIES[entity], horizon_us, version, greatest, filled_us), n_tiles


def is_laid_out(data: bytes, header: Header) -> bool:
    """Whether the bytes of a header have the layout of another header: its horizon, and as much of it filled.

    What a raise or a filling changes raises no version, so whoever keeps a state in memory asks this too. Looks at the
    start of the bytes only; they are checked by whoever reads them.
    """
    if len(data) < _LAYOUT.size:
        return False
    _, form, _, _, horizon_us = _LAYOUT.unpack_from(data)
    is_raised = header.filled_us is not None
    return bool(horizon_us == header.horizon_us and (form == RAISED_FORMAT) == is_raised)


def tile_bytes(tile: Tile) -> bytes:
    """A tile as bytes."""
    since_us, _, n_events, n_fraud, n_genuine, genuine_sum = tile.sums
    fixed = _TILE.pack(
        TILE_KIND,
        STATE_FORMAT,
        len(tile.amount_bytes) > _NARROW * n_events,
        (tile.end_us - tile.start_us).bit_length() - 1,
        tile.start_us,
        n_events,
        tile.n_labels,
        len(tile.ids),
        since_us,
        n_fraud,
        n_genuine,
        genuine_sum,
    )
    columns = tile.time_bytes, tile.amount_bytes, tile.known_bytes, tile.row_bytes, tile.code_bytes, tile.ids
    return _sealed(b"".join((fixed, *columns)))


def read_tile(data: bytes) -> Tile:
    """The tile of bytes.

    Raises:
        BrokenInvariant: The bytes are no tile of this format, or damaged.
    """
    _check(data, TILE_KIND, _TILE.size, "a state tile")
    (_, _, is_wide, width_bits, start_us, n_events, n_labels, n_ids, since_us, n_fraud, n_genuine, genuine_sum) = (
        _TILE.unpack_from(data)
    )
    amounts = _TILE.size + _TIME * n_events
    known = amounts + (_WIDE if is_wide else _NARROW) * n_events
    rows = known + _TIME * n_labels
    codes = rows + _ROW * n_labels
    ids = codes + _CODE * n_labels
    if ids + n_ids + _CRC.size != len(data) or start_us & ((1 << width_bits) - 1):
        raise BrokenInvariant("the bytes of a state tile do not fit together")
    return Tile(
        start_us,
        start_us + (1 << width_bits),
        sums=Sums(since_us, FOREVER_US, n_events, n_fraud, n_genuine, genuine_sum),
        time_bytes=data[_TILE.size : amounts],
        amount_bytes=data[amounts:known],
        known_bytes=data[known:rows],
        row_bytes=data[rows:codes],
        code_bytes=data[codes:ids],
        ids=data[ids : -_CRC.size],
    )


def read_state(header: bytes, tiles: Sequence[bytes]) -> EntityState:
    """The state of a header and all its tiles, in any order.

    Raises:
        BrokenInvariant: Bytes are foreign or damaged, a tile is missing, or they do not fit together.
    """
    head, n_tiles = read_header(header)
    return _state(head, n_tiles, Tiles.of(_checked(head, [read_tile(tile) for tile in tiles])))


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
    if (head.entity, head.horizon_us, head.filled_us) != (old.entity, old.horizon_us, old.filled_us):
        raise BrokenInvariant(f"state of a {_laid(old)} refreshed as that of a {_laid(head)}")
    if head.version < old.version or (head.version == old.version and head != old):
        raise BrokenInvariant(f"state of version {old.version} refreshed with another of version {head.version}")
    kept = cached.tiles if head.oldest_us is None else cached.tiles.since(head.oldest_us)
    new = _checked(head, [read_tile(tile) for tile in tiles])
    for tile in new:
        kept = kept.with_range(tile.start_us, tile.end_us, (tile,))
    return _state(head, n_tiles, kept)


def state_bytes(state: EntityState) -> tuple[bytes, tuple[bytes, ...]]:
    """All of a state: its header and its tiles in order."""
    return header_bytes(state.header, len(state.tiles)), tuple([tile_bytes(tile) for tile in state.tiles])


def _checked(head: Header, tiles: list[Tile]) -> list[Tile]:
    """Tiles in order of time, of which none overlaps another or lies before what is kept."""
    tiles.sort(key=_START)
    end_us = head.oldest_us
    for tile in tiles:
        if end_us is None or tile.start_us < end_us:
            raise BrokenInvariant("the tiles of a state overlap or lie before what it keeps")
        end_us = tile.end_us
    return tiles


def _state(head: Header, n_tiles: int, tiles: Tiles) -> EntityState:
    """A state that has all the tiles its header counts."""
    if len(tiles) != n_tiles:
        raise BrokenInvariant(f"a state has {len(tiles)} tiles, its header says {n_tiles}")
    if (head.greatest_us is None) != (n_tiles == 0):
        raise BrokenInvariant(f"a state has {n_tiles} tiles and {head.greatest_us} as its greatest event time")
    return EntityState(head, tiles)


def _laid(header: Header) -> str:
    """What a header is of and how far back it is kept."""
    return f"{header.entity} kept {header.horizon_us} us back for {header.view}, {header.complete_us} us filled"


def _sealed(data: bytes) -> bytes:
    return data + _CRC.pack(zlib.crc32(data))


def _check(data: bytes, kind: int, size: int, what: str, form: int = STATE_FORMAT) -> None:
    """Refuse what is not this kind, not this format, too short, or damaged."""
    if len(data) >= size + _CRC.size and data[0] == kind and data[1] == form and zlib.crc32(data) == _SOUND:
        return
    if data[:1] != bytes((kind,)):
        raise BrokenInvariant(f"the bytes are not {what}: they start with {data[:1].hex() or 'nothing'}")
    if data[1:2] != bytes((form,)):
        reads = f"this release reads {STATE_FORMAT:02x}, of a header also {RAISED_FORMAT:02x}"
        raise BrokenInvariant(f"{what} of format {data[1:2].hex() or 'none'}; {reads}")
    if len(data) < size + _CRC.size:
        raise BrokenInvariant(f"{what} ends early, after {len(data)} bytes")
    raise BrokenInvariant(f"{what} is damaged: its check sum is another")
