"""The use case that hands dead letters in again: a new attempt at the body, as if the stream had brought it now.

An event that is taken is marked and never lies among those that wait; one that is still wrong keeps its letter, and
the caller is told what is wrong now. Effects happen once: an event that was taken in the meantime is only a repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from shared.domain.dead_letter import MAX_PAGE, KeptLetter, LetterId, LetterSelection
from shared.domain.errors import NotFound
from shared.domain.event import DeadLetter, StreamEvent
from shared.ports.clock import Clock
from shared.ports.letters import DeadLetters, KeptLetters
from shared.services.ingestion import Ingestion

NO_SEQUENCE: Final = 0
"""A letter does not keep the event's sequence number; the offset says the same."""


class ReplayOutcome(StrEnum):
    """What became of a letter that was handed in again."""

    TAKEN = "taken"
    REPEATED = "repeated"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Replayed:
    """One letter's new attempt.

    Attributes:
        letter_id: Its number.
        outcome: Taken now, taken before, or still wrong.
        reason: What is still wrong; empty if it was taken.
    """

    letter_id: LetterId
    outcome: ReplayOutcome
    reason: str = ""


type Taking = Callable[[DeadLetters, int], Ingestion]
"""Makes what takes events: where the unusable ones go, and how much later than a live event one may come, in
microseconds."""


@dataclass(slots=True)
class _Overheard:
    """Dead letters that are listened to and not kept: the letter that was handed in is there already."""

    letters: list[DeadLetter] = field(default_factory=list)

    def put(self, letter: DeadLetter) -> None:
        self.letters.append(letter)


class DeadLetterReplay:
    """Hands letters in again, one at a time; one per thread, because the ledger behind it is."""

    def __init__(self, kept: KeptLetters, taking: Taking, clock: Clock) -> None:
        self._kept = kept
        self._taking = taking
        self._clock = clock

    def selected(self, selection: LetterSelection) -> Iterator[KeptLetter]:
        """All letters of a selection by number, a page at a time; those kept meanwhile may come too.

        Raises:
            Transient: The store cannot be reached now.
        """
        after = LetterId(0)
        while True:
            letters = self._kept.page(selection, after, MAX_PAGE)
            yield from letters
            if len(letters) < MAX_PAGE:
                return
            after = letters[-1].letter_id

    def replay(self, letter_id: LetterId, body: bytes | None = None) -> Replayed:
        """Hand one letter in again.

        An event that came in time is in time now: what the letter has waited is added to the allowed lateness.

        Args:
            letter_id: Its number.
            body: What is to be taken in place of the body that came, mended by an operator; the letter keeps its own.

        Raises:
            NotFound: There is no such letter.
            Transient: It may or may not have been taken; handing it in again is safe.
        """
        found = self._kept.find(letter_id)
        if found is None:
            raise NotFound("id", f"{letter_id} is no dead letter")
        letter, came = found
        overheard = _Overheard()
        waited_us = max(0, self._clock.now_us() - letter.recorded_at_us)
        event = StreamEvent(
            letter.hub,
            letter.partition,
            NO_SEQUENCE,
            letter.offset,
            letter.enqueued_at_us,
            came if body is None else body,
        )
        outcome = self._taking(overheard, waited_us).take([event])
        if overheard.letters:
            wrong = overheard.letters[0]
            return Replayed(letter_id, ReplayOutcome.REFUSED, f"{wrong.field or 'the input'} {wrong.rule}")
        self._kept.mark_replayed(letter_id, self._clock.now_us())
        return Replayed(letter_id, ReplayOutcome.REPEATED if outcome.repeated else ReplayOutcome.TAKEN)
