"""Chance that can be asked for anywhere in the world: a stream of numbers per thing and day, and hashed numbers.

A day's payments must not depend on which days were drawn before it. So every day, plan and set of labels has a stream
of its own, seeded by the world's entropy and its place; and what must stay equal over days without being stored (a
customer's favourite terminals, a trip) is a hash of the world's key and the customer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

_WORD: Final = (1 << 64) - 1
_ENTROPY_WORDS: Final = 4
_GOLDEN: Final = 0x9E3779B97F4A7C15
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB
_TO_UNIT: Final = 2.0**-53


class Stream(IntEnum):
    """What a stream of chance is for. A number is never given to something else: it would change every world."""

    POPULATION = 0
    PURCHASES = 1
    INCIDENTS = 2
    LABELS = 3
    FEED = 4


class Trait(IntEnum):
    """What a hashed number is for; the same rule as for `Stream`."""

    FAVOURITE = 0
    TRIP = 1
    TRIP_START = 2
    TRIP_PLACE = 3
    SPREE = 4
    SEGMENT = 5
    TRANSACTION = 6


@dataclass(frozen=True, slots=True)
class Chance:
    """The source of everything that is drawn in one world.

    Attributes:
        entropy: Seed words of all streams.
        key: Key of the hashed numbers, 64 bits.
    """

    entropy: tuple[int, ...]
    key: int

    @classmethod
    def of(cls, rng: np.random.Generator) -> Chance:
        """The chance of a new world; takes five numbers from the generator and no more."""
        words = [int(word) for word in rng.integers(0, 1 << 63, size=_ENTROPY_WORDS + 1)]
        return cls(tuple(words[:-1]), words[-1])

    def stream(self, kind: Stream, *place: int) -> np.random.Generator:
        """The stream for a thing at a place, such as the purchases of a day; the same at every call.

        Args:
            kind: What it is for.
            place: Whole numbers from 0 up, such as a day.
        """
        return np.random.default_rng(np.random.SeedSequence(self.entropy, spawn_key=(int(kind), *place)))

    def hashed(self, trait: Trait, values: NDArray[np.integer], salt: int = 0) -> NDArray[np.uint64]:
        """A 64-bit hash of each value; for one trait and salt, different values have different hashes."""
        offset = (self.key + ((int(trait) << 40) + salt) * _GOLDEN) & _WORD
        start = mix64(np.array([offset], dtype=np.uint64))
        return mix64(mix64(values.astype(np.uint64)) ^ start)

    def unit(self, trait: Trait, values: NDArray[np.integer], salt: int = 0) -> NDArray[np.float64]:
        """A number in [0, 1) for each value, as good as drawn and the same at every call."""
        return (self.hashed(trait, values, salt) >> np.uint64(11)).astype(np.float64) * _TO_UNIT


def mix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit words in which every input bit changes about half of the output bits.

    Source: the output function of SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators",
    OOPSLA 2014).
    """
    mixed = words + np.uint64(_GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_FIRST)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_SECOND)
    return mixed ^ (mixed >> np.uint64(31))
