"""Identifiers that senders choose: which texts are allowed, and a type for each kind."""

from __future__ import annotations

import re
from typing import Final, NewType

from shared.domain.errors import InvalidInput

TransactionId = NewType("TransactionId", str)
CustomerId = NewType("CustomerId", str)
TerminalId = NewType("TerminalId", str)

MAX_IDENTIFIER_LENGTH: Final = 64
"""Longest identifier, in characters: a UUID with a prefix fits, a document does not."""

_ALLOWED: Final = re.compile(f"[!-~]{{1,{MAX_IDENTIFIER_LENGTH}}}", re.ASCII)


def parse_identifier(field: str, value: object) -> str:
    """Check an identifier: 1 to 64 visible ASCII characters.

    ASCII, so that one identifier has one byte form (Unicode has several for what looks the same) and so that Python,
    numpy and Postgres (`COLLATE "C"`) sort identifiers alike: the order of events inside state depends on it.

    >>> parse_identifier("customer_id", "c-17")
    'c-17'

    Raises:
        InvalidInput: Not text, empty, too long, or with a control character, a space or a character beyond ASCII.
    """
    if isinstance(value, str) and _ALLOWED.fullmatch(value):
        return value
    raise _refusal(field, value)


def _refusal(field: str, value: object) -> InvalidInput:
    """Which rule an identifier breaks."""
    if not isinstance(value, str):
        return InvalidInput(field, "must be text")
    if not value:
        return InvalidInput(field, "must not be empty")
    if len(value) > MAX_IDENTIFIER_LENGTH:
        return InvalidInput(field, f"must not be longer than {MAX_IDENTIFIER_LENGTH} characters; it has {len(value)}")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        return InvalidInput(field, "must not hold control characters")
    return InvalidInput(field, "must hold visible ASCII characters only, and no space")
