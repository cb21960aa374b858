"""State is a function of the set it was given, and reads as the reference reads the raw history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.entity_state import EntityState, Folded, LaterLabel, fold
from shared.domain.entity_state_codec import read_state, state_bytes
from shared.domain.entity_state_layout import BASE_LAYOUT, StateLayout
from shared.domain.entity_state_read import StateReader
from shared.domain.entity_state_spans import SPAN_BITS, Part, Span, Tiles
from shared.domain.entity_state_tiles import (
    MAX_EVENTS,
    MIN_WIDTH_US,
    NEVER_US,
    ROOT_WIDTH_US,
    Tile,
    id_list,
    with_event,
    with_labels,
)
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import CARD_V1, HANDBOOK_V1, VIEWS, Entity, Feature, FeatureView, Measure, Null
from shared.domain.features import History, PastTransaction, transform_one
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import Label, LabelSource, label_at
from shared.domain.transaction import ALLOWED_LATENESS_US, Transaction
from tests.unit.domain.worlds import BASE_US, World, label, random_world, same_bits, transaction, worlds

DAY = US_PER_DAY


def past(item: Transaction, *labels: Label) -> PastTransaction:
    return PastTransaction(item.transaction_id, item.event_time_us, item.amount_minor, labels)


@dataclass
class Store:
    """What an adapter does: labels without a transaction wait, states are kept by entity.

    In memory a state goes on with the sums it was last read with; otherwise it is read back from its bytes each time.
    """

    view: FeatureView = CARD_V1
    in_memory: bool = False
    states: dict[tuple[Entity, str], EntityState] = field(default_factory=dict)
    seen: dict[str, Transaction] = field(default_factory=dict)
    waiting: dict[str, list[Label]] = field(default_factory=dict)

    def keys(self, item: Transaction) -> list[tuple[Entity, str]]:
        return [(Entity.CUSTOMER, item.customer_id), (Entity.TERMINAL, item.terminal_id)]

    def state(self, entity: Entity, key: str) -> EntityState:
        return self.states.get((entity, key), EntityState.empty(StateLayout.needed_by(self.view), entity))

    def read(self, item: Transaction, view: FeatureView) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        customer = self.state(Entity.CUSTOMER, item.customer_id)
        terminal = self.state(Entity.TERMINAL, item.terminal_id)
        return StateReader(view).read(customer, terminal, item)

    def take(self, batch: Sequence[Transaction | Label]) -> None:
        events: dict[tuple[Entity, str], list[PastTransaction]] = {}
        later: dict[tuple[Entity, str], list[LaterLabel]] = {}
        for item in batch:
            if isinstance(item, Transaction):
                self.seen[item.transaction_id] = item
                known = past(item, *self.waiting.pop(item.transaction_id, []))
                for key in self.keys(item):
                    events.setdefault(key, []).append(known)
            elif item.transaction_id in self.seen:
                of = self.seen[item.transaction_id]
                for key in self.keys(of):
                    later.setdefault(key, []).append(LaterLabel(of.event_time_us, item))
            else:
                self.waiting.setdefault(item.transaction_id, []).append(item)
        for owner in dict.fromkeys([*events, *later]):
            before = self.state(*owner)
            folded = fold(before, events.get(owner, []), later.get(owner, []))
            header, tiles = written(before, folded)
            self.states[owner] = folded.state if self.in_memory else read_state(header, tiles)

    def bytes(self) -> dict[tuple[Entity, str], object]:
        return {key: state_bytes(state) for key, state in self.states.items()}


def written(before: EntityState, folded: Folded) -> tuple[bytes, list[bytes]]:
    """The stored form after writing only what the fold says it changed; it must be the whole new state."""
    _, tiles = state_bytes(before)
    rows = {tile.start_us: data for tile, data in zip(before.tiles, tiles, strict=True)}
    for start_us in folded.removed:
        rows.pop(start_us, None)
    header, _ = state_bytes(folded.state)
    assert not {tile.start_us for tile in folded.changed} & set(folded.removed)
    _, changed = state_bytes(EntityState(folded.state.header, Tiles.of(folded.changed)))
    rows |= {tile.start_us: data for tile, data in zip(folded.changed, changed, strict=True)}
    stored = [rows[start_us] for start_us in sorted(rows)]
    assert (header, tuple(stored)) == state_bytes(folded.state)
    return header, stored


def width_of(tile: Tile) -> int:
    return tile.end_us - tile.start_us


def check_shape(state: EntityState) -> None:
    """The grid's rule, and that sums and order are what the columns say."""
    for tile in state.tiles:
        width_us = width_of(tile)
        assert tile.start_us % width_us == 0
        assert MIN_WIDTH_US <= width_us <= ROOT_WIDTH_US
        assert 0 < len(tile.times) <= MAX_EVENTS or width_us == MIN_WIDTH_US
        assert all(tile.start_us <= time_us < tile.end_us for time_us in tile.times)
        order = list(zip(tile.times, id_list(tile), strict=True))
        assert order == sorted(set(order))
        verdicts = dict(zip(tile.label_rows, tile.label_codes, strict=True))
        genuine = [tile.amounts[row] for row, code in verdicts.items() if not code & 1]
        counted = len(tile.times), len(verdicts) - len(genuine), len(genuine), sum(genuine)
        assert tile.sums[2:] == counted
        assert tile.sums.since_us == max(tile.label_known, default=NEVER_US)
    for left, right in zip(state.tiles, state.tiles[1:], strict=False):
        assert left.end_us <= right.start_us
        shared = max(width_of(left), width_of(right))
        if left.start_us // (2 * shared) == right.start_us // (2 * shared) and 2 * shared <= ROOT_WIDTH_US:
            low = left.start_us // (2 * shared) * 2 * shared
            inside = sum(len(tile.times) for tile in state.tiles if low <= tile.start_us < low + 2 * shared)
            assert inside > MAX_EVENTS
    check_tree(state.tiles.parts, ROOT_WIDTH_US >> SPAN_BITS)
    again = Tiles.of(list(state.tiles))
    assert (len(again), again.n_bytes, shape(again.parts)) == (
        len(state.tiles),
        state.tiles.n_bytes,
        shape(state.tiles.parts),
    )


def check_tree(parts: tuple[Part, ...], span_us: int) -> None:
    """Tiles narrower than the spans at their side lie in them, and no span is empty."""
    for part in parts:
        if isinstance(part, Span):
            assert part.end_us - part.start_us == span_us
            assert part.parts
            assert all(part.start_us <= inside.start_us < part.end_us for inside in part.parts)
            check_tree(part.parts, span_us >> SPAN_BITS)
        else:
            assert width_of(part) >= span_us


def shape(parts: tuple[Part, ...]) -> list[object]:
    return [shape(part.parts) if isinstance(part, Span) else part for part in parts]


def world_items(world: World) -> list[Transaction | Label]:
    """Each once: the same label drawn twice is one label."""
    return [*world.transactions, *dict.fromkeys(world.labels)]


@settings(max_examples=80, deadline=None)
@given(worlds(), st.randoms(use_true_random=False), st.sampled_from([1, 2, 5]))
def test_order_batches_and_interleaving_do_not_matter(world: World, chance, size: int) -> None:  # type: ignore[no-untyped-def]  # hypothesis' Random
    items = world_items(world)
    at_once = Store()
    at_once.take(items)
    chance.shuffle(items)
    shuffled = Store()
    for start in range(0, len(items), size):
        shuffled.take(items[start : start + size])
    assert shuffled.bytes() == at_once.bytes()
    for state in shuffled.states.values():
        check_shape(state)


@pytest.mark.parametrize("seed", range(3))
def test_a_dense_world_in_any_order_is_the_same_state(seed: int) -> None:
    world = random_world(seed, 900)
    items = world_items(world)
    rng = np.random.default_rng(seed)
    stores = [Store(), Store(), Store()]
    stores[0].take(items)
    for store in stores[1:]:
        order = rng.permutation(len(items)).tolist()
        for start in range(0, len(items), 37):
            store.take([items[place] for place in order[start : start + 37]])
        assert store.bytes() == stores[0].bytes()
        assert any(len(state.tiles) > 6 for state in store.states.values())
        for state in store.states.values():
            check_shape(state)


def arrivals(world: World) -> list[Transaction | Label]:
    assert world.versions is not None
    assert world.label_versions is not None
    items: list[Transaction | Label] = [*world.transactions, *world.labels]
    places = [*world.versions, *world.label_versions]
    return [items[place] for place in np.argsort(np.array(places)).tolist()]


def replay(
    view: FeatureView,
    items: Sequence[Transaction | Label],
    *,
    every: int = 1,
    in_memory: bool = False,
    kept_for: FeatureView | None = None,
) -> int:
    """Decide each transaction as it arrives; state must give what the reference gives. How many were compared."""
    store = Store(kept_for or view, in_memory)
    known: list[Transaction] = []
    labels: dict[str, list[Label]] = {}
    compared = 0
    for place, item in enumerate(items):
        if isinstance(item, Transaction):
            states = [store.state(entity, key) for entity, key in store.keys(item)]
            late = any(state.header.is_too_late(item.event_time_us, ALLOWED_LATENESS_US) for state in states)
            if not late and place % every == 0:
                compared += 1
                of = [past(other, *labels.get(other.transaction_id, ())) for other in known]
                history = History(
                    [one for one, other in zip(of, known, strict=True) if other.customer_id == item.customer_id],
                    [one for one, other in zip(of, known, strict=True) if other.terminal_id == item.terminal_id],
                )
                assert same_bits(store.read(item, view), transform_one(view, item, history))
            known.append(item)
        else:
            labels.setdefault(item.transaction_id, []).append(item)
        store.take([item])
    return compared


@settings(max_examples=120, deadline=None)
@given(worlds(versions=True), st.sampled_from(sorted(VIEWS)), st.booleans())
def test_state_reads_as_the_raw_history_does(world: World, view: str, in_memory: bool) -> None:
    replay(VIEWS[view], arrivals(world), in_memory=in_memory)


@pytest.mark.parametrize("in_memory", [False, True])
def test_state_reads_as_the_raw_history_does_in_a_dense_world(in_memory: bool) -> None:
    assert replay(CARD_V1, arrivals(random_world(7, 700, late=True)), every=3, in_memory=in_memory) > 150


@settings(max_examples=80, deadline=None)
@given(worlds(versions=True), st.booleans())
def test_a_view_reads_from_state_that_is_kept_for_one_that_looks_further_back(world: World, in_memory: bool) -> None:
    replay(HANDBOOK_V1, arrivals(world), in_memory=in_memory, kept_for=CARD_V1)


def hot_world(n_rows: int) -> list[Transaction | Label]:
    """One terminal and one card with bursts that split tiles down to the narrowest; some labels, some late."""
    rng = np.random.default_rng(5)
    bursts = rng.integers(0, 50, 6) * DAY
    offsets = np.where(rng.random(n_rows) < 0.5, rng.integers(0, DAY // 20, n_rows), rng.integers(0, 4 * DAY, n_rows))
    times = np.sort(bursts[rng.integers(0, 6, n_rows)] + offsets // 1_000_000 * 1_000_000)
    items = [
        transaction(number, int(time_us), customer="c" if number % 3 else f"c{number % 7}", amount=1 + number % 997)
        for number, time_us in enumerate(times.tolist())
    ]
    timed: list[tuple[int, Transaction | Label]] = [
        (item.event_time_us + int(rng.random() < 0.05) * int(rng.integers(6 * DAY)), item) for item in items
    ]
    for item in items:
        for _ in range(int(rng.integers(0, 3)) * int(rng.random() < 0.3)):
            told = label(item, fraud=bool(rng.random() < 0.6), known_after_us=int(rng.integers(0, 20)) * DAY)
            timed.append((told.known_at_us, replace(told, source=list(LabelSource)[int(rng.integers(5))])))
    return [item for _, item in sorted(timed, key=lambda pair: pair[0])]


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_hot_entity_reads_as_the_raw_history_does(in_memory: bool) -> None:
    items = hot_world(1_200)
    assert replay(CARD_V1, items, every=11, in_memory=in_memory) > 70
    store = Store()
    store.take(items)
    state = store.state(Entity.TERMINAL, "m")
    check_shape(state)
    assert any(isinstance(part, Span) for part in state.tiles.parts)
    assert min(width_of(tile) for tile in state.tiles) < DAY // 24


def test_an_event_at_the_edge_of_what_is_kept() -> None:
    empty = EntityState.empty(BASE_LAYOUT, Entity.TERMINAL)
    newest = fold(empty, [past(transaction(9, 200 * DAY))]).state
    oldest_us = newest.header.oldest_us
    assert oldest_us is not None
    assert oldest_us <= BASE_US + 200 * DAY - CARD_V1.horizon_us(Entity.TERMINAL) < oldest_us + ROOT_WIDTH_US
    inside, outside = transaction(1, oldest_us - BASE_US), transaction(2, oldest_us - BASE_US - 1)
    folded = fold(newest, [past(inside), past(outside, label(outside, fraud=True))])
    assert folded.left_out == (outside.transaction_id,)
    assert folded.state.header.version == 4  # what is left out is an event too, and so is its label
    assert [id_list(tile) for tile in folded.state.tiles] == [[inside.transaction_id], ["t0009"]]
    early = fold(empty, [past(inside), past(outside)])
    assert early.left_out == ()
    expired = fold(early.state, [past(transaction(9, 200 * DAY))])
    assert expired.state.tiles == folded.state.tiles
    assert expired.removed == (oldest_us - ROOT_WIDTH_US,)
    later = fold(folded.state, [], [LaterLabel(outside.event_time_us, label(outside, fraud=True))])
    assert later.left_out == (outside.transaction_id,)
    assert later.state == folded.state._replace(header=folded.state.header._replace(version=5))


def test_lateness_is_flagged_to_the_microsecond() -> None:
    header = fold(EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER), [past(transaction(1, 9 * DAY))]).state.header
    edge_us = BASE_US + 9 * DAY - ALLOWED_LATENESS_US
    assert not header.is_too_late(edge_us, ALLOWED_LATENESS_US)
    assert header.is_too_late(edge_us - 1, ALLOWED_LATENESS_US)
    assert not EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER).header.is_too_late(0, 0)


def test_repeats_are_absorbed() -> None:
    tie = [past(transaction(number, 5)) for number in (2, 1, 3)]
    once = fold(EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER), tie)
    again = fold(once.state, [tie[0], tie[1]])
    assert again.state == once.state
    assert again.changed == ()
    assert again.absorbed == (TransactionId("t0002"), TransactionId("t0001"))
    assert once.absorbed == ()
    assert once.state.header.version == 3


def test_only_touched_tiles_change() -> None:
    before = fold(
        EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER), [past(transaction(d, d * 10 * DAY)) for d in range(9)]
    )
    one = transaction(5, 50 * DAY)
    folded = fold(before.state, [past(transaction(99, 88 * DAY))], [LaterLabel(one.event_time_us, label(one, fraud=1))])  # type: ignore[arg-type]  # 1 is True
    assert len(folded.changed) == 2
    kept = [tile for tile in folded.state.tiles if tile not in folded.changed]
    assert all(any(tile is other for other in before.state.tiles) for tile in kept)
    assert folded.removed == ()
    assert folded.state.header.version == 11


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 4), st.sampled_from(LabelSource), st.sampled_from([0, 50, 100])),
        max_size=7,
    ),
    st.integers(0, 2),
)
def test_kept_labels_hold_whenever_the_strongest_of_all_does(
    drawn: list[tuple[bool, int, LabelSource, int]], row: int
) -> None:
    item = transaction(1, 0)
    told = [
        replace(label(item, fraud=fraud, known_after_us=at), source=source, confidence=confidence)
        for fraud, at, source, confidence in drawn
    ]
    plain = Tile(0, ROOT_WIDTH_US)
    for at, amount in enumerate((5, 6, 7)):
        grown = with_event(plain, PastTransaction(TransactionId("abc"[at]), at, amount))
        assert grown is not None
        plain = grown
    tile = with_labels(plain, row, told) if told else plain
    one_by_one = plain
    for each in reversed(told):
        one_by_one = with_labels(one_by_one, row, [each])
    assert one_by_one == tile
    for at in range(-1, 6):
        held = label_at(told, item.event_time_us + at, label_delay_us=0)
        kept = [code for known, code in zip(tile.label_known, tile.label_codes, strict=True) if known <= BASE_US + at]
        assert (kept[-1] & 1 == 1 if kept else None) == (held.is_fraud if held else None)


def test_a_state_of_another_entity_or_with_less_than_a_view_needs_is_refused() -> None:
    customer, terminal = (EntityState.empty(BASE_LAYOUT, entity) for entity in Entity)
    reader, one = StateReader(CARD_V1), transaction(1, 0)
    with pytest.raises(BrokenInvariant, match="given as that of a customer"):
        reader.read(terminal, customer, one)
    for entity in Entity:
        needed_us = CARD_V1.horizon_us(entity)

        def read(horizon_us: int, filled_us: int | None = None, of: Entity = entity) -> object:
            states = {known.header.entity: known for known in (customer, terminal)}
            header = states[of].header._replace(horizon_us=horizon_us, filled_us=filled_us)
            states[of] = EntityState(header)
            return reader.read(states[Entity.CUSTOMER], states[Entity.TERMINAL], one).tobytes()

        with pytest.raises(BrokenInvariant, match=f"a {entity}: card-v1 needs {needed_us} us"):
            read(needed_us - 1)
        with pytest.raises(BrokenInvariant, match=f"complete for {needed_us - 1} us"):
            read(2 * needed_us, needed_us - 1)
        assert read(2 * needed_us, needed_us) == transform_one(CARD_V1, one, History()).tobytes()


@pytest.mark.parametrize(
    "feature",
    [
        Feature("a", Measure.FRAUD_RATE, "share", Null.ZERO, Entity.CUSTOMER, DAY),
        Feature("b", Measure.OUTLIERS, "transactions", Null.ZERO, Entity.CUSTOMER, DAY, DAY),
        Feature("c", Measure.COUNT, "transactions"),
    ],
)
def test_a_feature_without_a_scan_is_refused_by_name(feature: Feature) -> None:
    with pytest.raises(BrokenInvariant, match=f"state cannot give {feature.name}"):
        StateReader(FeatureView("odd", (feature,)))


def split_root() -> tuple[int, list[PastTransaction]]:
    """Start of a widest range, and events that halve it: from its first microsecond on, and in its second half."""
    start_us = (BASE_US // ROOT_WIDTH_US + 1) * ROOT_WIDTH_US
    times = [*range(40), *range(20 * DAY, 20 * DAY + 40)]
    return start_us, [past(transaction(n, start_us - BASE_US + at)) for n, at in enumerate(times)]


def test_a_window_that_starts_where_a_tile_does_leaves_its_first_event_out() -> None:
    start_us, events = split_root()
    state = fold(EntityState.empty(BASE_LAYOUT, Entity.TERMINAL), events).state
    assert [tile.start_us for tile in state.tiles] == [start_us, start_us + ROOT_WIDTH_US // 2]
    item = transaction(500, start_us - BASE_US + 37 * DAY)
    vector = StateReader(CARD_V1).read(EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER), state, item)
    assert vector[CARD_V1.names.index("terminal_count_30d")] == len(events) - 1
    assert same_bits(vector, transform_one(CARD_V1, item, History(terminal=events)))


def test_a_half_that_empties_and_fills_in_one_fold_is_written_and_not_removed() -> None:
    start_us, events = split_root()
    second = [past(transaction(n, start_us - BASE_US + 20 * DAY + n)) for n in range(MAX_EVENTS)]
    before = fold(EntityState.empty(BASE_LAYOUT, Entity.TERMINAL), second).state
    one_more = past(transaction(90, start_us - BASE_US + 21 * DAY))
    split = fold(before, [one_more])
    assert split.removed == (start_us,)
    folded = fold(before, [one_more, *events[:1]])
    written(before, folded)
    assert folded.removed == ()
    assert folded.changed[0].start_us == start_us
