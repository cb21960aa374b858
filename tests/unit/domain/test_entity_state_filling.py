"""A state whose horizon is raised and which is then filled is the state that was kept so from the beginning."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.entity_state import EntityState, Header, LaterLabel, fold
from shared.domain.entity_state_codec import (
    RAISED_FORMAT,
    STATE_FORMAT,
    header_bytes,
    is_laid_out,
    read_header,
    read_state,
    state_bytes,
)
from shared.domain.entity_state_filling import Past, filled, missing, raised
from shared.domain.entity_state_layout import BASE_LAYOUT, Span, StateLayout
from shared.domain.entity_state_tiles import MIN_WIDTH_US, ROOT_WIDTH_US
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import CARD_V1, HANDBOOK_V1, Entity
from shared.domain.features import PastTransaction
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import Label, LabelSource, Verdict

DAY = US_PER_DAY
SHORT = Span("short", 20 * DAY)
LONG = Span("long", 90 * DAY)


def event(number: int, time_us: int, *labels: Label) -> PastTransaction:
    return PastTransaction(TransactionId(f"t{number:05d}"), time_us, 100 + number, labels)


def label(number: int, known_us: int, *, fraud: bool = True) -> Label:
    verdict = Verdict.FRAUD if fraud else Verdict.GENUINE
    return Label(TransactionId(f"t{number:05d}"), verdict, LabelSource.ANALYST, 0, known_us, 100, "ada")


def empty(span: Span) -> EntityState:
    return EntityState(Header(span.view, Entity.TERMINAL, span.horizon_us))


@dataclass
class Ledger:
    """What storage keeps of one entity: its raw events, its state, and beside it the state as it should have been."""

    state: EntityState = field(default_factory=lambda: empty(SHORT))
    ideal: EntityState = field(default_factory=lambda: empty(LONG))
    events: dict[str, PastTransaction] = field(default_factory=dict)
    labels: list[tuple[int, LaterLabel]] = field(default_factory=list)

    def take(self, item: PastTransaction) -> None:
        self.events[item.transaction_id] = item
        self.state, self.ideal = (fold(state, [item]).state for state in (self.state, self.ideal))
        self.labels += [(self.state.header.version, LaterLabel(item.event_time_us, one)) for one in item.labels]

    def say(self, said: Label) -> None:
        later = LaterLabel(self.events[said.transaction_id].event_time_us, said)
        self.state, self.ideal = (fold(state, [], [later]).state for state in (self.state, self.ideal))
        self.labels.append((self.state.header.version, later))

    def raise_horizon(self) -> None:
        self.state = EntityState(raised(self.state.header, LONG), self.state.tiles)

    def read_past(self) -> tuple[int, Past]:
        """The version that it is read at, and what is stored of the missing span."""
        header = self.state.header
        span = missing(header) or (0, 0)
        found = [
            PastTransaction(
                item.transaction_id,
                item.event_time_us,
                item.amount_minor,
                tuple(later.label for _, later in self.labels if later.label.transaction_id == item.transaction_id),
            )
            for item in self.events.values()
            if span[0] <= item.event_time_us < span[1]
        ]
        return header.version, Past(header, found)

    def fill(self, read: tuple[int, Past]) -> None:
        version, past = read
        before = self.state
        ids = {item.transaction_id for item in past.events}
        since = [later for at, later in self.labels if at > version and later.label.transaction_id in ids]
        result = filled(before, past, since)
        rows = {tile.start_us: tile for tile in before.tiles}
        for start_us in result.removed:
            rows.pop(start_us, None)
        rows |= {tile.start_us: tile for tile in result.changed}
        assert [rows[start_us] for start_us in sorted(rows)] == list(result.state.tiles)
        assert not {tile.start_us for tile in result.changed} & set(result.removed)
        self.state = result.state


def item_lists() -> st.SearchStrategy[list[tuple[int, int]]]:
    """Days of events, some of them late, and when each is labelled, in order of arrival; -1 for never."""
    return st.lists(st.tuples(st.integers(0, 200 * 24), st.integers(-1, 40)), min_size=1, max_size=40)


type Items = list[tuple[int, int]]


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(item_lists(), item_lists(), item_lists(), item_lists()),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_filling_among_other_writers_gives_what_was_kept_from_the_beginning(  # type: ignore[no-untyped-def]  # hypothesis' Random
    arrivals: tuple[Items, Items, Items, Items], twice: bool, chance
) -> None:
    first, between, meanwhile, behind = arrivals
    ledger, number = Ledger(), 0

    def live(items: Items) -> None:
        nonlocal number
        for hour, known in items:
            number += 1
            ledger.take(
                event(number, hour * US_PER_DAY // 24 + number, *([label(number, known)] if known > 30 else []))
            )
            if 0 <= known <= 30:
                target = chance.randint(1, number)
                ledger.say(label(target, known * DAY + number, fraud=bool(number % 2)))

    live(first)
    ledger.raise_horizon()
    live(between)
    read = ledger.read_past()
    live(meanwhile)
    ledger.fill(read)
    assert state_bytes(ledger.state) == state_bytes(ledger.ideal)
    live(behind)
    if twice:  # a run that was killed before it noted how far it had come
        ledger.fill(read)
    assert state_bytes(ledger.state) == state_bytes(ledger.ideal)
    assert ledger.state == read_state(*state_bytes(ledger.state))


def test_a_hot_past_is_split_as_if_it_had_been_kept() -> None:
    ledger = Ledger()
    for number in range(400):
        ledger.take(event(number, number * MIN_WIDTH_US // 8))
    ledger.take(event(900, 70 * DAY))
    assert len(ledger.state.tiles) == 1
    ledger.raise_horizon()
    ledger.take(event(901, 5))  # late, into the missing range, and kept from now on
    read = ledger.read_past()
    ledger.say(label(7, 71 * DAY))
    ledger.fill(read)
    assert len(ledger.state.tiles) > 5
    assert state_bytes(ledger.state) == state_bytes(ledger.ideal)


def test_a_raise_says_how_much_is_filled_and_a_second_one_claims_no_more() -> None:
    header = fold(empty(SHORT), [event(1, 100 * DAY)]).state.header
    once = raised(header, LONG)
    assert (once.view, once.horizon_us, once.filled_us, once.complete_us) == ("long", 90 * DAY, 20 * DAY, 20 * DAY)
    assert (once.version, once.greatest_us) == (header.version, header.greatest_us)
    twice = raised(once, Span("longer", 120 * DAY))
    assert (twice.horizon_us, twice.complete_us) == (120 * DAY, 20 * DAY)
    assert raised(twice, LONG) is twice
    assert raised(header, SHORT) is header
    assert raised(empty(SHORT).header, LONG) == empty(LONG).header


def test_what_may_be_missing_lies_between_the_horizons() -> None:
    header = fold(empty(SHORT), [event(1, 300 * DAY)]).state.header
    assert missing(header) is None
    since_us, until_us = missing(raised(header, LONG)) or (0, 0)
    assert since_us == (210 * DAY) & -ROOT_WIDTH_US
    assert until_us == (280 * DAY) & -ROOT_WIDTH_US
    assert missing(empty(LONG).header) is None


def test_a_raised_header_has_bytes_of_its_own_and_a_filled_one_those_of_any_other() -> None:
    header = fold(empty(SHORT), [event(1, 100 * DAY)]).state.header
    data, once = header_bytes(header, 1), raised(header, LONG)
    more = header_bytes(once, 1)
    assert (data[1], more[1]) == (STATE_FORMAT, RAISED_FORMAT)
    assert read_header(more) == (once, 1)
    assert header_bytes(once._replace(filled_us=None), 1)[1] == STATE_FORMAT
    assert is_laid_out(data, header)
    assert is_laid_out(more, once)
    assert not is_laid_out(data, once)
    assert not is_laid_out(more, header)
    assert not is_laid_out(more, once._replace(filled_us=None))
    assert not is_laid_out(more, raised(once, Span("longer", 120 * DAY)))
    assert not is_laid_out(b"", header)
    for place in range(len(more)):
        damaged = bytearray(more)
        damaged[place] ^= 0x10
        with pytest.raises(BrokenInvariant):
            read_header(bytes(damaged))
    with pytest.raises(BrokenInvariant, match="do not fit together"):
        read_header(header_bytes(header._replace(filled_us=header.horizon_us), 1))


def test_layouts_join_to_the_least_that_covers_all_in_any_order() -> None:
    wide = StateLayout.named("wide", 1, 60 * DAY)
    tall = StateLayout.named("tall", 200 * DAY, 1)
    joined = BASE_LAYOUT.joined([wide, tall])
    assert joined == BASE_LAYOUT.joined([tall, wide])
    assert joined == StateLayout(Span("tall", 200 * DAY), Span("wide", 60 * DAY))
    assert all(joined.covers(layout) for layout in (BASE_LAYOUT, wide, tall))
    assert BASE_LAYOUT.covers(StateLayout.needed_by(HANDBOOK_V1))
    assert not BASE_LAYOUT.covers(wide)
    assert BASE_LAYOUT.lacks(wide) == "60 days of a terminal, of which 44 days are kept"
    assert BASE_LAYOUT.lacks(StateLayout.needed_by(HANDBOOK_V1)) == ""
    same = StateLayout.named("a-twin", BASE_LAYOUT.customer.horizon_us, BASE_LAYOUT.terminal.horizon_us)
    assert BASE_LAYOUT.joined([same]) == BASE_LAYOUT == StateLayout.needed_by(CARD_V1)
    assert StateLayout.named("b", 5, 5).joined([StateLayout.named("z", 9, 9), StateLayout.named("c", 9, 9)]) == (
        Span("c", 9),
        Span("c", 9),
    )
