"""When to send what: arrivals of a mode as a Poisson process, and simulated transactions that happen at those moments.

Pure but for the generator that is handed in. Offsets are seconds since the run began.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.instants import US_PER_SECOND
from simulator.config import WorldConfig
from simulator.wire import Disturbance, WireEvent, disturbed
from simulator.world import World

CARDHOLDERS: Final = 5_000
REPEAT_AFTER_S: Final = 10.0
"""A repeat follows its first within so many seconds, so that a short run sees its repeats too."""

BURST: Final = 5.0
SPIKE: Final = 10.0
_CHUNK: Final = 512
"""Arrivals that are made into events at once: bounds memory and the time until the first is sent."""

_HOURS: Final = 24
_KEY_BITS: Final = 63
"""The upper half of the keys is for broken bodies, see `simulator.wire`."""


class Traffic(StrEnum):
    """How the rate moves."""

    REALISTIC = "realistic"
    BURST = "burst"
    SPIKE = "spike"


@dataclass(frozen=True, slots=True)
class Profile:
    """A rate over time: the run is cut into parts of one length, each with a factor of the base rate.

    Attributes:
        seconds: Length of the run.
        tps: Base rate, transactions per second.
        factors: Factor of each part.
    """

    seconds: float
    tps: float
    factors: tuple[float, ...]

    def rate_at(self, offset_s: float) -> float:
        """Transactions per second at an offset; 0 outside the run.

        >>> Profile(10, 2, (1, 5)).rate_at(7)
        10
        """
        if not 0 <= offset_s < self.seconds:
            return 0.0
        part = min(int(offset_s / self.seconds * len(self.factors)), len(self.factors) - 1)
        return self.tps * self.factors[part]

    @property
    def expected(self) -> float:
        """Transactions that the whole run has on average."""
        return self.tps * self.seconds * sum(self.factors) / len(self.factors)

    def arrivals(self, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Offsets of a Poisson process with this rate, rising, in chunks.

        Gaps of a process of rate one are mapped through the inverse of the cumulative rate (time change; Cinlar,
        Introduction to Stochastic Processes, 1975, section 4.7).
        """
        edges_s = np.linspace(0, self.seconds, len(self.factors) + 1)
        steps = np.array(self.factors) * self.tps * self.seconds / len(self.factors)
        reached = np.concatenate([[0.0], np.cumsum(steps)])
        at = 0.0
        while at < reached[-1]:
            marks = at + np.cumsum(rng.exponential(1.0, _CHUNK))
            at = float(marks[-1])
            offsets: NDArray[np.float64] = np.interp(marks[marks < reached[-1]], reached, edges_s)
            if len(offsets):
                yield offsets


def profile_of(mode: Traffic, seconds: float, tps: float, rhythm: tuple[float, ...]) -> Profile:
    """The profile of a mode.

    Args:
        mode: Realistic: a day's rhythm within the run, `tps` on average. Burst: ten phases, quiet (`tps`) and five
            times as much in turn. Spike: `tps`, and ten times as much in the middle tenth.
        seconds: Length of the run.
        tps: Base rate.
        rhythm: Factors of the hours of a day, 1 on average.
    """
    match mode:
        case Traffic.REALISTIC:
            factors = rhythm
        case Traffic.BURST:
            factors = (1.0, BURST) * 5
        case Traffic.SPIKE:
            factors = (*(1.0,) * 9, SPIKE, SPIKE, *(1.0,) * 9)
    return Profile(seconds, tps, factors)


class Stage:
    """A simulated bank whose day is played, again and again, at the moments of a profile."""

    def __init__(self, seed: int, day: date) -> None:
        """Draw the bank's day.

        Args:
            seed: Of the bank and of everything drawn.
            day: The day that is played.
        """
        world = World.create(WorldConfig(first_date=day, customers=CARDHOLDERS), np.random.default_rng(seed))
        (self._day,) = world.days(0, 1)
        self._seed = seed

    def rhythm(self) -> tuple[float, ...]:
        """The day's share of each hour, times 24: 1 on average."""
        hours = (self._day.event_time_us - self._day.first_us) // (3_600 * US_PER_SECOND)
        counts = np.bincount(hours, minlength=_HOURS)[:_HOURS]
        return tuple((counts / counts.mean()).tolist())

    def events(self, profile: Profile, started_us: int, duplicates: float, malformed: float) -> Iterator[WireEvent]:
        """What to send, in order; event times are the moments of sending. What falls after the run's end is left out.

        Args:
            profile: The rate.
            started_us: When the run begins, microseconds since 1970 UTC. Part of the seed, so that a second run does
                not send the first one's identifiers again with other times, which would be conflicts.
            duplicates: Share of the transactions that is sent once more.
            malformed: Share of the transactions that a broken body accompanies.
        """
        disturbance = Disturbance(repeated=duplicates, malformed=malformed, repeat_after_s=REPEAT_AFTER_S)
        rng = np.random.default_rng([self._seed, started_us])
        end_us = started_us + int(profile.seconds * US_PER_SECOND)
        pending: list[WireEvent] = []
        row = 0
        for offsets_s in profile.arrivals(rng):
            rows = (row + np.arange(len(offsets_s))) % len(self._day)
            row += len(rows)
            batch = replace(
                self._day.take(rows),
                key=rng.integers(0, 1 << _KEY_BITS, len(rows), dtype=np.uint64),
                event_time_us=started_us + (offsets_s * US_PER_SECOND).astype(np.int64),
            )
            pending = sorted(pending + disturbed(batch, disturbance, rng), key=_sent_at_us)
            # Nothing of a later chunk lies before this one's last arrival.
            ready = bisect_left(pending, int(batch.event_time_us[-1]), key=_sent_at_us)
            yield from pending[:ready]
            del pending[:ready]
        yield from (event for event in pending if event.sent_at_us < end_us)


_WAYS: Final = 10_000
_MULTIPLIER: Final = 2_654_435_761
"""Knuth's multiplicative hash (The Art of Computer Programming 3, section 6.4): neighbours go different ways."""


def goes_over_http(customer: int, share: float) -> bool:
    """Whether a cardholder's events go over HTTP; all of one go one way, so that their order holds.

    >>> goes_over_http(7, 0.0), goes_over_http(7, 1.0)
    (False, True)
    """
    return (customer * _MULTIPLIER % (1 << 32)) * _WAYS >> 32 < round(share * _WAYS)


def _sent_at_us(event: WireEvent) -> int:
    return event.sent_at_us
