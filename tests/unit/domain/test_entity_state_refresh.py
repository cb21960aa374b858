"""A state that is kept in memory and told only what was written since equals the one that storage has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.entity_state import EntityState, LaterLabel, fold
from shared.domain.entity_state_codec import header_bytes, read_state, refreshed, state_bytes, tile_bytes
from shared.domain.entity_state_layout import BASE_LAYOUT
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import Entity
from shared.domain.features import PastTransaction
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY
from tests.unit.domain.worlds import BASE_US, label, transaction

DAY = US_PER_DAY


@dataclass
class Rows:
    """What a database has of one entity: a header, and tiles with the version that wrote them."""

    header: bytes = b""
    tiles: dict[int, tuple[int, bytes]] = field(default_factory=dict)

    def fold(self, state: EntityState, events: list[PastTransaction], labels: list[LaterLabel]) -> EntityState:
        """Fold and store only what changed; the state that the writer goes on with."""
        folded = fold(state, events, labels)
        for start_us in folded.removed:
            self.tiles.pop(start_us, None)
        version = folded.state.header.version
        for tile in folded.changed:
            self.tiles[tile.start_us] = (version, tile_bytes(tile))
        self.header = header_bytes(folded.state.header, len(folded.state.tiles))
        return folded.state

    def since(self, version: int) -> list[bytes]:
        return [data for written, data in self.tiles.values() if written > version]


def event(number: int, time_us: int) -> PastTransaction:
    item = transaction(number, time_us)
    return PastTransaction(item.transaction_id, item.event_time_us, item.amount_minor)


_BURST = st.tuples(
    st.sampled_from([0, 1, 13, 25, 26, 40, 80, 130, 200, 330]),  # day of the burst
    st.sampled_from([1, 1, 3, 40, 70]),  # how many
    st.sampled_from([1, 1_000_000, 3_600_000_000, 40_000_000_000]),  # microseconds between them
)
_STEP = st.one_of(
    _BURST,
    st.integers(0, 400),  # a label for this transaction, if there is one
)


@settings(max_examples=120, deadline=None)
@given(st.lists(_STEP, min_size=1, max_size=14), st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_refreshed_is_what_is_stored_however_many_folds_lie_between(
    steps: list[tuple[int, int, int] | int], habits: list[int]
) -> None:
    """Three readers refresh at different steps; each then has every byte of the writer's state."""
    rows = Rows()
    state = EntityState.empty(BASE_LAYOUT, Entity.TERMINAL)
    readers = [state, state, state]
    events: list[PastTransaction] = []
    for place, step in enumerate(steps):
        if isinstance(step, tuple):
            day, count, apart_us = step
            new = [event(len(events) + n, day * DAY + n * apart_us) for n in range(count)]
            events += new
            state = rows.fold(state, new, [])
        elif events:
            of = events[step % len(events)]
            told = label(transaction(0, of.event_time_us - BASE_US), fraud=step % 2 == 0, known_after_us=step)
            told = replace(told, transaction_id=of.transaction_id)
            state = rows.fold(state, [], [LaterLabel(of.event_time_us, told)])
        else:
            continue
        for which, habit in enumerate(habits):
            if place % (habit + 1) == 0 or place == len(steps) - 1:
                readers[which] = refreshed(readers[which], rows.header, rows.since(readers[which].header.version))
                assert state_bytes(readers[which]) == state_bytes(state)
                assert readers[which] == state
    if rows.header:
        assert read_state(rows.header, [data for _, data in rows.tiles.values()]) == state


def test_a_cached_state_goes_on_from_another_writers_folds() -> None:
    """Two writers take turns on a busy entity; each refreshes, folds and stores, and neither ever reads it whole."""
    rng = np.random.default_rng(11)
    rows = Rows()
    states = [EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER)] * 2
    alone = states[0]
    for turn in range(60):
        times = np.sort(rng.integers(0, 3 * DAY, 30)) + turn * 3 * DAY
        new = [event(turn * 100 + n, int(time_us)) for n, time_us in enumerate(times.tolist())]
        which = int(rng.integers(2))
        if rows.header:
            states[which] = refreshed(states[which], rows.header, rows.since(states[which].header.version))
        states[which] = rows.fold(states[which], new, [])
        alone = fold(alone, new).state
        assert states[which] == alone
    assert len(rows.tiles) == len(alone.tiles) > 6


def grown() -> tuple[EntityState, EntityState, list[bytes]]:
    """A state, a later one in which a tile was split, and what was written between."""
    rows = Rows()
    old = rows.fold(EntityState.empty(BASE_LAYOUT, Entity.TERMINAL), [event(n, n * DAY) for n in range(60)], [])
    new = rows.fold(old, [event(100 + n, 40 * DAY + n) for n in range(60)], [])
    return old, new, rows.since(old.header.version)


def test_what_does_not_fit_is_refused() -> None:
    old, new, tiles = grown()
    header = header_bytes(new.header, len(new.tiles))
    assert refreshed(old, header, tiles[::-1]) == new
    with pytest.raises(BrokenInvariant, match="its header says"):
        refreshed(old, header, tiles[1:])
    with pytest.raises(BrokenInvariant, match=f"state of version {new.header.version} refreshed with another"):
        refreshed(new, header_bytes(old.header, len(old.tiles)), [])
    other = header_bytes(old.header._replace(greatest_us=1), len(old.tiles))
    with pytest.raises(BrokenInvariant, match="refreshed with another"):
        refreshed(old, other, [])
    with pytest.raises(BrokenInvariant, match=r"state of a terminal .* refreshed as that of a customer"):
        refreshed(old, header_bytes(EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER).header, 0), [])
    further = old.header._replace(horizon_us=old.header.horizon_us + DAY)
    for laid in (further, further._replace(filled_us=old.header.horizon_us)):
        with pytest.raises(BrokenInvariant, match=r"refreshed as that of a terminal kept"):
            refreshed(old, header_bytes(laid, len(old.tiles)), [])


def test_a_version_without_a_changed_tile_refreshes_the_header_alone() -> None:
    old, new, _ = grown()
    unknown = LaterLabel(BASE_US, label(transaction(9999, 0), fraud=True))
    later = fold(new, [], [unknown])
    assert later.left_out == (TransactionId("t9999"),)
    assert later.changed == ()
    header = header_bytes(later.state.header, len(later.state.tiles))
    assert refreshed(new, header, []) == later.state
    assert refreshed(old, header_bytes(old.header, len(old.tiles)), []) == old
