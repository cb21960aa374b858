"""What verification found: counts of everything, and the first of them by name, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

MOST_KEPT: Final = 1000
"""So many findings are kept by name; all are counted."""

type Progress = Callable[[str, int], None]
"""Told what is being done and how many rows of it are done."""


class Subject(StrEnum):
    """What a finding is about."""

    FEATURE = "feature"
    REPLAY = "replay"
    UNCHECKED = "unchecked"
    COLUMN = "column"
    BODY = "body"
    LABEL = "label"
    VERSION = "version"
    SURROGATE = "surrogate"
    STRAY = "stray"
    BLOCK = "block"
    DECISION = "decision"
    SEAL = "seal"


class Finding(NamedTuple):
    """One thing that does not hold.

    Attributes:
        subject: What it is about.
        name: Which one: a transaction id, the surrogate of an entity, a block or a seal.
        detail: What is wrong, with what is stored and what should be.
    """

    subject: Subject
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.subject.value} {self.name}: {self.detail}"


@dataclass(slots=True)
class Findings:
    """All findings of one verification.

    Attributes:
        kept: The first `MOST_KEPT`.
        counts: How many there are of each subject, kept or not.
    """

    kept: list[Finding] = field(default_factory=list)
    counts: Counter[Subject] = field(default_factory=Counter)

    def add(self, subject: Subject, name: str, detail: str) -> None:
        """Take one in."""
        self.counts[subject] += 1
        if len(self.kept) < MOST_KEPT:
            self.kept.append(Finding(subject, name, detail))

    @property
    def total(self) -> int:
        """How many there are."""
        return self.counts.total()


def no_progress(_what: str, _done: int) -> None:
    """Tell nobody."""
