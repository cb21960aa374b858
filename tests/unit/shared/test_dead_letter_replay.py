"""Dead letters handed in again on fakes: taken once, marked when taken, and told what is still wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest

from shared.domain.dead_letter import MAX_PAGE, LetterId, LetterSelection, parse_letter_id
from shared.domain.errors import InvalidInput, NotFound, Transient
from shared.domain.event import DeadLetter
from shared.domain.instants import US_PER_DAY
from shared.ports.letters import DeadLetters
from shared.services.dead_letter_replay import DeadLetterReplay, ReplayOutcome
from shared.services.ingestion import Ingestion
from tests.fakes.dead_letters import FakeKeptLetters
from tests.unit.domain.worlds import BASE_US, label, transaction
from tests.unit.shared.test_ingestion import Bench, events, raw

ONE = LetterId(1)


@dataclass
class Desk:
    """An ingestion whose dead letters can be handed in again."""

    bench: Bench = field(default_factory=Bench)
    kept: FakeKeptLetters = field(default_factory=FakeKeptLetters)

    def __post_init__(self) -> None:
        self.bench.clock.time_us = BASE_US + 6 * US_PER_DAY
        self.replay = DeadLetterReplay(self.kept, self._taking, self.bench.clock)

    def _taking(self, refused: DeadLetters, waited_us: int) -> Ingestion:
        return Ingestion(
            self.bench.scoring,
            self.bench.labelling,
            receipts=self.bench.receipts,
            dead_letters=refused,
            clock=self.bench.clock,
            currency="EUR",
            lateness_us=7 * US_PER_DAY + waited_us,
        )

    def bury(self, body: object, rule: str = "was odd") -> None:
        for event in events(*[b""] * len(self.kept.letters), body)[-1:]:
            self.kept.put(DeadLetter(event, "", rule, self.bench.clock.now_us()))

    def waiting(self) -> list[int]:
        return [letter.letter_id for letter in self.replay.selected(LetterSelection())]


def test_what_can_be_used_now_is_taken_once_and_marked() -> None:
    desk = Desk()
    desk.bury(transaction(1, 0))
    desk.bury(label(transaction(1, 0), fraud=True, known_after_us=0))
    first = desk.replay.replay(ONE)
    assert (first.outcome, first.reason) == (ReplayOutcome.TAKEN, "")
    marked_us = desk.kept.letters[ONE][0].replayed_at_us
    assert marked_us == desk.bench.clock.now_us()
    desk.bench.clock.time_us += 5
    assert desk.replay.replay(ONE).outcome == ReplayOutcome.REPEATED
    assert desk.kept.letters[ONE][0].replayed_at_us == marked_us
    assert desk.replay.replay(LetterId(2)).outcome == ReplayOutcome.TAKEN
    assert len(desk.bench.ledger.tables.decisions) == len(desk.bench.ledger.tables.labels) == 1
    assert desk.waiting() == []


def test_what_is_still_wrong_keeps_its_letter_and_makes_no_other() -> None:
    desk = Desk()
    desk.bury(b"{")
    told = desk.replay.replay(ONE)
    assert told.outcome == ReplayOutcome.REFUSED
    assert told.reason.startswith("the input must be JSON")
    assert desk.waiting() == [1]
    assert not desk.bench.dead_letters.kept


def test_a_mended_body_is_taken_in_place_of_the_one_that_came() -> None:
    desk = Desk()
    wrong = {**json.loads(raw(transaction(1, 0))), "amount_minor": "1000"}
    desk.bury(wrong)
    assert "amount_minor must be" in desk.replay.replay(ONE).reason
    assert desk.replay.replay(ONE, raw(transaction(1, 0))).outcome == ReplayOutcome.TAKEN
    assert desk.kept.letters[ONE][1] == raw(wrong)
    assert desk.waiting() == []


def test_what_came_in_time_is_in_time_however_long_it_lay() -> None:
    desk = Desk()
    desk.bury(transaction(1, 0))
    desk.bench.clock.time_us += 90 * US_PER_DAY
    desk.bury(transaction(2, 0))
    assert desk.replay.replay(ONE).outcome == ReplayOutcome.TAKEN
    assert "must not lie more than 7 days in the past" in desk.replay.replay(LetterId(2)).reason


def test_a_fault_of_ours_is_told_and_changes_nothing() -> None:
    desk = Desk()
    desk.bury(transaction(1, 0))
    desk.bench.scoring.odd = frozenset({"t0001"})
    assert desk.replay.replay(ONE).reason == "the input could not be processed: KeyError"
    assert desk.waiting() == [1]


def test_a_passing_fault_leaves_the_letter_to_be_handed_in_again() -> None:
    desk = Desk()
    desk.bury(transaction(1, 0))
    desk.bench.ledger.fault_at_write = Transient("down")
    with pytest.raises(Transient):
        desk.replay.replay(ONE)
    assert desk.waiting() == [1]
    assert desk.replay.replay(ONE).outcome == ReplayOutcome.TAKEN


def test_a_letter_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound, match="7 is no dead letter"):
        Desk().replay.replay(LetterId(7))


def test_all_letters_come_page_by_page() -> None:
    desk = Desk()
    for number in range(MAX_PAGE + 1):
        desk.kept.put(DeadLetter(replace(events(b"")[0], offset=str(number)), "", "was odd", 1))
    assert len(desk.waiting()) == MAX_PAGE + 1
    assert desk.kept.pages == 2


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "x", "9" * 30, str(1 << 63), "\u0663"])
def test_a_number_of_a_letter_is_a_positive_whole_number(text: str) -> None:
    with pytest.raises(InvalidInput, match="must be the number of a dead letter"):
        parse_letter_id(text)


def test_the_number_of_a_letter_is_read() -> None:
    assert parse_letter_id("12") == 12
