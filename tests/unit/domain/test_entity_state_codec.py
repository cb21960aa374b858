"""Bytes of state: they read back, their form is frozen, and damage of any byte is refused."""

from __future__ import annotations

import pytest

from shared.domain.canonical import digest_of
from shared.domain.entity_state import EntityState, fold
from shared.domain.entity_state_codec import (
    header_bytes,
    read_header,
    read_state,
    read_tile,
    state_bytes,
    tile_bytes,
)
from shared.domain.entity_state_layout import BASE_LAYOUT
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import Entity
from shared.domain.features import PastTransaction
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY
from tests.unit.domain.worlds import label, transaction


def example(n_events: int = 5, *, amount: int = 1000) -> EntityState:
    items = [transaction(number, number * 9 * US_PER_DAY, amount=amount + number) for number in range(n_events)]
    events = [
        PastTransaction(
            item.transaction_id,
            item.event_time_us,
            item.amount_minor,
            (label(item, fraud=True, known_after_us=number), label(item, fraud=False, known_after_us=2 * number + 1)),
        )
        for number, item in enumerate(items)
    ]
    return fold(EntityState.empty(BASE_LAYOUT, Entity.TERMINAL), events).state


@pytest.mark.parametrize("state", [EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER), example(), example(amount=1 << 32)])
def test_bytes_read_back(state: EntityState) -> None:
    header, tiles = state_bytes(state)
    assert read_state(header, tiles) == state
    assert read_state(header, tiles[::-1]) == state
    assert read_header(header) == (state.header, len(state.tiles))


def test_the_form_is_frozen() -> None:
    """Bytes of format 1 are in databases: a change is a new format."""
    header, tiles = state_bytes(example())
    assert digest_of(header + b"".join(tiles)).hex()[:16] == "acc7156f507e596a"


def test_damage_to_any_byte_is_refused() -> None:
    header, tiles = state_bytes(example())
    for place in range(len(header)):
        with pytest.raises(BrokenInvariant):
            read_header(header[:place] + bytes((header[place] ^ 4,)) + header[place + 1 :])
        with pytest.raises(BrokenInvariant):
            read_header(header[:place])
    for place in range(len(tiles[0])):
        with pytest.raises(BrokenInvariant):
            read_tile(tiles[0][:place] + bytes((tiles[0][place] ^ 1,)) + tiles[0][place + 1 :])
        with pytest.raises(BrokenInvariant):
            read_tile(tiles[0][:place])


def test_foreign_bytes_are_refused_by_name() -> None:
    header, tiles = state_bytes(example())
    with pytest.raises(BrokenInvariant, match="not a state header: they start with 4c"):
        read_header(tiles[0])
    with pytest.raises(BrokenInvariant, match="not a state tile: they start with 45"):
        read_tile(header)
    with pytest.raises(BrokenInvariant, match="they start with nothing"):
        read_tile(b"")
    with pytest.raises(BrokenInvariant, match="of format 02; this release reads 01"):
        read_tile(tiles[0][:1] + b"\x02" + tiles[0][2:])
    with pytest.raises(BrokenInvariant, match="ends early"):
        read_tile(tiles[0][:9])
    with pytest.raises(BrokenInvariant, match="check sum"):
        read_tile(tiles[0] + b"\x00")


def test_tiles_that_are_not_the_headers_are_refused() -> None:
    state = example(12)
    header, tiles = state_bytes(state)
    with pytest.raises(BrokenInvariant, match=f"has {len(tiles) - 1} tiles, its header says {len(tiles)}"):
        read_state(header, tiles[1:])
    with pytest.raises(BrokenInvariant, match="overlap"):
        read_state(header, (tiles[0], *tiles[:-1]))
    early = fold(EntityState.empty(BASE_LAYOUT, Entity.TERMINAL), [PastTransaction(TransactionId("early"), 0, 1)]).state
    older = tile_bytes(early.tiles[0])
    with pytest.raises(BrokenInvariant, match="before what it keeps"):
        read_state(header, (older, *tiles[1:]))
    empty = EntityState.empty(BASE_LAYOUT, Entity.TERMINAL)
    with pytest.raises(BrokenInvariant, match="before what it keeps"):
        read_state(header_bytes(empty.header, 1), tiles[:1])
    with pytest.raises(BrokenInvariant, match="has 0 tiles and"):
        read_state(header_bytes(state.header, 0), ())
