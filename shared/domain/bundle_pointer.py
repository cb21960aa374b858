"""Which bundle plays which part: small pointers, changed one at a time, and the history of their changes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.domain.bundle_manifest import Fields, canonical_json, is_digest
from shared.domain.errors import BrokenInvariant, InvalidInput

MAX_REASON: Final = 500
"""Characters of a change's reason and author."""


class Role(StrEnum):
    """A part that a bundle can play."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Pointer:
    """One state of a role; the history of a role is the list of all its states.

    Attributes:
        role: The part.
        digest: The bundle that plays it from now on; None for nobody.
        number: Counts the changes of this role, from 1 and without gaps.
        changed_at_us: When, microseconds since 1970 UTC.
        author: Who or what changed it.
        reason: Why, for people.
    """

    role: Role
    digest: str | None
    number: int
    changed_at_us: int
    author: str
    reason: str

    def __post_init__(self) -> None:
        """Refuse what no reader would take.

        Raises:
            InvalidInput: Names the field.
        """
        if self.digest is not None and not is_digest(self.digest):
            raise InvalidInput("digest", "must be 64 hexadecimal digits")
        if self.number < 1:
            raise InvalidInput("number", "must be at least 1")
        for name, text in (("author", self.author), ("reason", self.reason)):
            if not 0 < len(text) <= MAX_REASON:
                raise InvalidInput(name, f"must have 1 to {MAX_REASON} characters")


@dataclass(frozen=True, slots=True)
class Pointed:
    """A pointer as it was read.

    Attributes:
        pointer: What it says; None if the role was never given.
        tag: Stands for this very state; a change names the tag it was made from.
    """

    pointer: Pointer | None
    tag: str

    @property
    def digest(self) -> str | None:
        """The bundle that plays the part."""
        return self.pointer.digest if self.pointer else None

    @property
    def next_number(self) -> int:
        """The number of the next change."""
        return self.pointer.number + 1 if self.pointer else 1


def write_pointer(pointer: Pointer) -> bytes:
    """The pointer as canonical JSON."""
    return canonical_json(
        {
            "role": pointer.role.value,
            "digest": pointer.digest,
            "number": pointer.number,
            "changed_at_us": pointer.changed_at_us,
            "author": pointer.author,
            "reason": pointer.reason,
        }
    )


def read_pointer(data: bytes) -> Pointer:
    """The inverse of `write_pointer`.

    Raises:
        BrokenInvariant: It cannot be read.
    """
    try:
        fields = Fields(json.loads(data), "the pointer")
        return Pointer(
            Role(fields.text("role")),
            fields.text("digest") if fields.has("digest") else None,
            fields.integer("number"),
            fields.integer("changed_at_us"),
            fields.text("author"),
            fields.text("reason"),
        )
    except (ValueError, InvalidInput) as error:
        raise BrokenInvariant(f"a stored pointer cannot be read: {error}") from error
