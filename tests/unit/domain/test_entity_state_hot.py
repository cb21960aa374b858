"""A very hot entity: rows and reads stay small, sums follow knowledge back and forth, and states stay values."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from shared.domain.entity_state import EntityState, LaterLabel, fold
from shared.domain.entity_state_codec import read_state, state_bytes, tile_bytes
from shared.domain.entity_state_layout import BASE_LAYOUT, StateLayout
from shared.domain.entity_state_read import StateReader
from shared.domain.entity_state_scan import counts, fraud_run
from shared.domain.entity_state_spans import Part, Span, Tiles
from shared.domain.entity_state_tiles import MAX_EVENTS, MIN_WIDTH_US, ROOT_WIDTH_US, Tile, id_list
from shared.domain.feature_view import CARD_V1, Entity, Feature, FeatureView, Measure, Null
from shared.domain.features import History, PastTransaction, transform_one
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import Label, LabelSource, Verdict
from tests.unit.domain.worlds import BASE_US, same_bits, transaction

DAY = US_PER_DAY
EMPTY = EntityState.empty(BASE_LAYOUT, Entity.TERMINAL)


def event(number: int, time_us: int, *labels: Label) -> PastTransaction:
    return PastTransaction(TransactionId(f"e{number:06}"), BASE_US + time_us, 100 + number % 89, labels)


def told(of: PastTransaction, *, fraud: bool, after_us: int) -> Label:
    known_us = of.event_time_us + after_us
    verdict = Verdict.FRAUD if fraud else Verdict.GENUINE
    return Label(of.transaction_id, verdict, LabelSource.ANALYST, known_us, known_us, 100, "ann")


def depth(parts: tuple[Part, ...]) -> int:
    return 1 + max((depth(part.parts) for part in parts if isinstance(part, Span)), default=0)


def test_no_row_grows_with_the_rate() -> None:
    """A minute at 100 a second: what a fold writes stays within one tile, or the halves of one."""
    times = np.sort(np.random.default_rng(3).integers(0, 60_000_000, 6_000)).tolist()
    state = EMPTY
    largest = most = 0
    for low in range(0, 6_000, 100):
        for number in range(low, low + 100):
            folded = fold(state, [event(number, times[number])])
            state = folded.state
        written = [tile_bytes(tile) for tile in folded.changed]
        largest, most = max(largest, *map(len, written)), max(most, len(written))
    assert len(state.tiles) > 90
    assert max(len(tile.times) for tile in state.tiles) <= MAX_EVENTS
    assert depth(state.tiles.parts) > 4
    assert largest < 48 + 64 * 24
    assert most <= 2


def test_events_of_one_instant_share_a_tile_of_the_least_width() -> None:
    state = fold(EMPTY, [event(number, 5) for number in range(MAX_EVENTS + 9)]).state
    (tile,) = state.tiles
    assert tile.end_us - tile.start_us == MIN_WIDTH_US
    assert len(tile.times) == MAX_EVENTS + 9
    assert depth(state.tiles.parts) == 7  # spans are 2 ** 37, 33, 29, 25, 21 and 17 wide, the tile 2 ** 16
    assert id_list(tile) == sorted(id_list(tile))
    assert read_state(*state_bytes(state)) == state


def busy(n_events: int, days: int, *, seed: int) -> tuple[list[PastTransaction], list[tuple[int, LaterLabel]]]:
    """Events over some days, and labels by when they are recorded: frauds early, genuine ones late, some overruled."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, days * DAY, n_events)).tolist()
    events = [event(number, time_us) for number, time_us in enumerate(times)]
    labels = []
    for of in events:
        fraud = bool(rng.random() < 0.2)
        for n in range(int(rng.integers(0, 3))):
            label = told(of, fraud=fraud ^ bool(n), after_us=int(rng.integers(0, 25 * DAY)))
            label = replace(label, source=list(LabelSource)[int(rng.integers(5))])
            labels.append((label.known_at_us + int(rng.integers(0, DAY)), LaterLabel(of.event_time_us, label)))
    return events, sorted(labels, key=lambda item: item[0])


@pytest.mark.parametrize("seed", [1, 2])
def test_sums_follow_knowledge_forwards_and_back(seed: int) -> None:
    """One state in memory, read at moments that jump to and fro between labels and events of all ages."""
    events, labels = busy(2_500, 40, seed=seed)
    rng = np.random.default_rng(seed)
    state = fold(EMPTY, events).state
    recorded: dict[str, list[Label]] = {}
    reader, customer = StateReader(CARD_V1), EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER)
    for place, (_, later) in enumerate(labels):
        state = fold(state, [], [later]).state
        recorded.setdefault(later.label.transaction_id, []).append(later.label)
        if place % 97 == 0:
            item = transaction(9999, int(rng.integers(10 * DAY, 50 * DAY)))
            known = [replace(of, labels=tuple(recorded.get(of.transaction_id, ()))) for of in events]
            expected = transform_one(CARD_V1, item, History(terminal=known))
            assert same_bits(reader.read(customer, state, item), expected)
            assert same_bits(reader.read(customer, read_state(*state_bytes(state)), item), expected)
    assert depth(state.tiles.parts) == 2


def test_a_state_that_is_held_does_not_change_when_others_go_on_from_it() -> None:
    events, labels = busy(1_500, 30, seed=4)
    reader, customer = StateReader(CARD_V1), EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER)
    item = transaction(9999, 33 * DAY)
    held = fold(EMPTY, events[:1_000], [later for _, later in labels if later.event_time_us < BASE_US + 15 * DAY]).state
    data, vector = state_bytes(held), reader.read(customer, held, item)
    later_one = held
    for number, of in enumerate(events[1_000:]):
        later_one = fold(later_one, [of], [labels[number][1]]).state
        reader.read(customer, later_one, transaction(9998, 30 * DAY + number * DAY // 100))
    assert state_bytes(held) == data
    assert same_bits(reader.read(customer, held, item), vector)
    again = fold(fold(held, events[1_000:]).state, [], [later for _, later in labels[: len(events) - 1_000]]).state
    assert again == later_one


def test_a_run_of_frauds_is_found_through_parts_without_a_genuine_one() -> None:
    """Only frauds are told early, so a run reaches through many tiles and whole spans to its first fraud."""
    times = [n * DAY // 200 for n in range(200 * 20)]
    frauds = {1: 0, 900: 0, 901: 0, 3_000: 0, 3_900: 0}
    events = []
    for number, time_us in enumerate(times):
        of = event(number, time_us)
        events.append(replace(of, labels=(told(of, fraud=True, after_us=0),)) if number in frauds else of)
    state = fold(EMPTY, events).state
    parts, end_us = state.tiles.parts, BASE_US + 21 * DAY
    assert fraud_run(parts, 0, end_us, end_us) == (1.0, 5, events[1].event_time_us)
    assert fraud_run(parts, events[1].event_time_us, end_us, end_us) == (1.0, 4, events[900].event_time_us)
    assert fraud_run(parts, events[3_900].event_time_us, end_us, end_us)[1] == 0
    told_genuine = LaterLabel(events[901].event_time_us, told(events[901], fraud=False, after_us=1))
    state = fold(state, [], [told_genuine]).state
    assert fraud_run(state.tiles.parts, 0, end_us, end_us) == (1.0, 2, events[3_000].event_time_us)
    last = LaterLabel(events[-1].event_time_us, told(events[-1], fraud=False, after_us=0))
    state = fold(state, [], [last]).state
    assert fraud_run(state.tiles.parts, 0, end_us, end_us) == (0.0, 0, 0)


def test_counts_want_genuine_only_where_asked() -> None:
    events, _ = busy(900, 30, seed=5)
    labelled = [replace(of, labels=(told(of, fraud=n % 9 == 0, after_us=0),)) for n, of in enumerate(events)]
    parts = fold(EMPTY, labelled).state.tiles.parts
    end_us = BASE_US + 25 * DAY
    edges = [BASE_US + days * DAY for days in (24, 15, 3, -9)]
    for wanted in ([False] * 4, [False, True, False, True], [True] * 4):
        found = counts(parts, list(zip(edges, wanted, strict=True)), end_us, end_us)
        for edge_us, wants, (n_events, n_fraud, n_genuine, genuine_sum) in zip(edges, wanted, found, strict=True):
            inside = [of for of in labelled if edge_us < of.event_time_us <= end_us]
            genuine = [of.amount_minor for of in inside if not of.labels[0].is_fraud]
            assert (n_events, n_fraud) == (len(inside), len(inside) - len(genuine))
            if wants:
                assert (n_genuine, genuine_sum) == (len(genuine), sum(genuine))


def test_the_memory_of_a_state_is_estimated_from_above_and_not_by_much() -> None:
    events, labels = busy(20_000, 30, seed=6)
    header, tiles = state_bytes(fold(EMPTY, events, [later for _, later in labels]).state)
    tracemalloc.start()
    rows = [bytes(bytearray(tile)) for tile in tiles]
    before = tracemalloc.get_traced_memory()[0]
    state = read_state(header, rows)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken < state.n_bytes < 1.5 * taken
    assert EMPTY.n_bytes < 1_000


def test_tiles_are_a_sequence_and_a_value() -> None:
    events, _ = busy(700, 30, seed=7)
    tiles = fold(EMPTY, events).state.tiles
    again = fold(EMPTY, events[::-1]).state.tiles
    assert tiles == again
    assert hash(tiles) == hash(again)
    assert tiles != Tiles()
    assert tiles != list(tiles)
    assert tiles[0] is next(iter(tiles))
    assert tiles[-2:] == (tiles[-2], tiles[-1])
    assert len({*tiles, *again}) == len(tiles)
    assert repr(tiles).startswith("Tiles.of([Tile(")
    assert tiles[0] != "a tile"
    assert Tile(0, ROOT_WIDTH_US) == Tile(0, ROOT_WIDTH_US) != Tile(0, MIN_WIDTH_US)


def test_a_feature_that_a_view_has_twice_has_its_value_twice() -> None:
    twice = Feature("b", Measure.COUNT, "transactions", Null.ZERO, Entity.TERMINAL, DAY, 7 * DAY)
    view = FeatureView("twice", (*CARD_V1.features[:10], twice, replace(twice, name="c")))
    terminal = fold(EntityState.empty(StateLayout.needed_by(view), Entity.TERMINAL), [event(1, 0), event(2, 5)]).state
    item = transaction(9, 7 * DAY + 5)
    vector = StateReader(view).read(EntityState.empty(StateLayout.needed_by(view), Entity.CUSTOMER), terminal, item)
    assert vector[-3:].tolist() == [2.0, 2.0, 2.0]
    assert same_bits(vector, transform_one(view, item, History(terminal=[event(1, 0), event(2, 5)])))


def test_an_event_in_the_last_microsecond_of_a_tile_is_beyond_a_window_that_ends_before_it() -> None:
    start_us = (BASE_US // ROOT_WIDTH_US + 1) * ROOT_WIDTH_US - BASE_US
    times = [start_us, start_us + ROOT_WIDTH_US - 1, start_us + ROOT_WIDTH_US]
    parts = fold(EMPTY, [event(number, time_us) for number, time_us in enumerate(times)]).state.tiles.parts
    assert [part.start_us - BASE_US for part in parts] == [start_us, start_us + ROOT_WIDTH_US]
    for until_us, n_events in ((times[1] - 1, 1), (times[1], 2), (times[2] - 1, 2), (times[2], 3)):
        end_us = BASE_US + until_us
        ((found, *_),) = counts(parts, [(BASE_US, False)], end_us, end_us)
        assert found == n_events


def test_a_tile_whose_events_all_lie_at_its_start_becomes_a_narrow_one_in_its_span() -> None:
    start_us = (BASE_US // ROOT_WIDTH_US + 1) * ROOT_WIDTH_US - BASE_US
    full = fold(EMPTY, [event(number, start_us + number) for number in range(MAX_EVENTS)]).state
    folded = fold(full, [event(MAX_EVENTS, start_us + MAX_EVENTS)])
    assert [tile.start_us for tile in folded.changed] == [full.tiles[0].start_us]
    assert folded.removed == ()
    assert folded.changed[0].end_us < full.tiles[0].end_us
    assert depth(folded.state.tiles.parts) == 7
    assert fold(folded.state, [event(99, start_us + DAY)]).state.tiles[1].start_us > folded.changed[0].start_us


def test_a_label_that_can_never_hold_writes_no_tile() -> None:
    of = event(1, 0)
    strong = replace(told(of, fraud=True, after_us=0), source=LabelSource.CHARGEBACK)
    state = fold(EMPTY, [replace(of, labels=(strong,))]).state
    folded = fold(state, [], [LaterLabel(of.event_time_us, told(of, fraud=False, after_us=DAY))])
    assert folded.changed == ()
    assert folded.state.tiles == state.tiles
    assert folded.state.header.version == state.header.version + 1
