"""Dead letters as they lie there: what is told about one without its body, and which of many are meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NewType

from shared.domain.errors import InvalidInput

LetterId = NewType("LetterId", int)
"""Rises in the order in which letters were kept."""

MAX_PAGE: Final = 1000
"""Letters of one page at most."""


@dataclass(frozen=True, slots=True)
class KeptLetter:
    """A dead letter without its body, which may tell of a person.

    Attributes:
        letter_id: Its number.
        hub: The hub, or another way in.
        partition: Partition id.
        offset: The stream's own cursor.
        enqueued_at_us: When the stream accepted it, microseconds since 1970 UTC.
        field: The offending field; empty for the event as a whole.
        rule: The rule it breaks.
        body_bytes: Length of the body.
        recorded_at_us: When it was given up, microseconds since 1970 UTC.
        replayed_at_us: When it was taken after all; None if it was not.
    """

    letter_id: LetterId
    hub: str
    partition: str
    offset: str
    enqueued_at_us: int
    field: str
    rule: str
    body_bytes: int
    recorded_at_us: int
    replayed_at_us: int | None

    @property
    def reason(self) -> str:
        """Field and rule as one sentence."""
        return f"{self.field or 'the input'} {self.rule}"


@dataclass(frozen=True, slots=True)
class LetterSelection:
    """Which letters are meant; what is None does not matter.

    Attributes:
        reason: Text that stands anywhere in the reason, in these very letters.
        hub: The hub.
        since_us: Given up at this time or later, microseconds since 1970 UTC.
        until_us: Given up before this time.
        waiting_only: Only those that were not taken after all.
    """

    reason: str | None = None
    hub: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    waiting_only: bool = True

    def holds(self, letter: KeptLetter) -> bool:
        """Whether a letter is meant; stores select by the same rule."""
        return (
            (self.reason is None or self.reason in letter.reason)
            and (self.hub is None or self.hub == letter.hub)
            and (self.since_us is None or letter.recorded_at_us >= self.since_us)
            and (self.until_us is None or letter.recorded_at_us < self.until_us)
            and (not self.waiting_only or letter.replayed_at_us is None)
        )


def parse_letter_id(text: str) -> LetterId:
    """Read the number of a letter.

    >>> parse_letter_id("17")
    17

    Raises:
        InvalidInput: No number that a letter may have.
    """
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) < 1 << 63):
        raise InvalidInput("id", f"must be the number of a dead letter, not {text[:40]}")
    return LetterId(int(text))
