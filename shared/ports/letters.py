"""Dead letters, as ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shared.domain.dead_letter import KeptLetter, LetterId, LetterSelection
from shared.domain.event import DeadLetter


class DeadLetters(Protocol):
    """Where events go that no retry can make usable."""

    def put(self, letter: DeadLetter) -> None:
        """Keep a dead letter. Idempotent: the same event is kept once, however often it is delivered.

        Raises:
            Transient: The store cannot be reached now; the event must not be acknowledged.
        """
        ...


class KeptLetters(Protocol):
    """Dead letters to be looked at and handed in again.

    Every method raises Transient if the store cannot be reached now.
    """

    def page(self, selection: LetterSelection, after: LetterId, limit: int) -> Sequence[KeptLetter]:
        """The next letters of a selection by number, those above `after`; fewer than `limit` are the last ones."""
        ...

    def find(self, letter_id: LetterId) -> tuple[KeptLetter, bytes] | None:
        """A letter and its body as it came; None if there is none."""
        ...

    def mark_replayed(self, letter_id: LetterId, replayed_at_us: int) -> bool:
        """Note that a letter was taken after all; returns whether this call did. Idempotent: the first time stays."""
        ...
