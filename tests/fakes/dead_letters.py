"""Dead letters in memory, to be looked at and handed in again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from shared.domain.dead_letter import KeptLetter, LetterId, LetterSelection
from shared.domain.errors import TollgateError
from shared.domain.event import DeadLetter


@dataclass
class FakeKeptLetters:
    """Letters by number, one per event; `pages` counts how often a page was asked for."""

    letters: dict[LetterId, tuple[KeptLetter, bytes]] = field(default_factory=dict)
    fault: TollgateError | None = None
    pages: int = 0

    def put(self, letter: DeadLetter) -> None:
        event = letter.event
        place = (event.hub, event.partition, event.offset, event.enqueued_at_us)
        if place in {(kept.hub, kept.partition, kept.offset, kept.enqueued_at_us) for kept, _ in self.letters.values()}:
            return
        number = LetterId(len(self.letters) + 1)
        kept = KeptLetter(number, *place, letter.field, letter.rule, len(event.body), letter.recorded_at_us, None)
        self.letters[number] = kept, event.body

    def page(self, selection: LetterSelection, after: LetterId, limit: int) -> Sequence[KeptLetter]:
        self._fail()
        self.pages += 1
        return [letter for letter, _ in self.letters.values() if letter.letter_id > after and selection.holds(letter)][
            :limit
        ]

    def find(self, letter_id: LetterId) -> tuple[KeptLetter, bytes] | None:
        self._fail()
        return self.letters.get(letter_id)

    def mark_replayed(self, letter_id: LetterId, replayed_at_us: int) -> bool:
        self._fail()
        letter, body = self.letters.get(letter_id, (None, b""))
        if letter is None or letter.replayed_at_us is not None:
            return False
        self.letters[letter_id] = replace(letter, replayed_at_us=replayed_at_us), body
        return True

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault
