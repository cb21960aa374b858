"""Notices on their way to people, as ports: where they wait, and the channels that they leave by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from shared.domain.pipeline import Notice, Severity

PAGE: Final = "page"
"""The channel of the report page: every notice is there, whatever else is configured."""

WITHHELD_PREFIX: Final = "withheld/"
"""How the keys of the notices begin that say that others are withheld; the rate limit does not hold these up."""


class NoticeStatus(StrEnum):
    """How a notice stands in one channel."""

    WAITING = "waiting"
    SENT = "sent"
    WITHHELD = "withheld"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ClaimedNotice:
    """A notice that one dispatcher may send in one channel.

    Attributes:
        number: Of the notice in this channel.
        attempt: Which attempt this is, from 1; who settles must name it, so that a late dispatcher changes nothing.
        notice: What to send.
    """

    number: int
    attempt: int
    notice: Notice


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What bounds a claim.

    Attributes:
        per_hour: Notices that a channel sends within any 3,600 s.
        urgent_share: The part of `per_hour` that only critical notices and errors may use, 0 to 1.
        lease_us: How long the claim holds, microseconds; after it others may send what was not settled.
        give_up_us: Notices older than this fail, microseconds.
        most: Notices in one claim.
    """

    per_hour: int = 20
    urgent_share: float = 0.5
    lease_us: int = 300_000_000
    give_up_us: int = 3 * 86_400_000_000
    most: int = 50

    def allowance(self, severity: Severity) -> int:
        """How many notices may have been sent within the hour, this one included.

        >>> ClaimRules(per_hour=20).allowance(Severity.WARNING), ClaimRules(per_hour=20).allowance(Severity.ERROR)
        (10, 20)
        """
        if severity <= Severity.ERROR:
            return self.per_hour
        return self.per_hour - int(self.per_hour * self.urgent_share)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought.

    Attributes:
        taken: Notices to send now, the worst first.
        withheld: How many are never sent in this channel, because of the rate limit.
        given_up: Titles of those that have waited for too long.
    """

    taken: tuple[ClaimedNotice, ...] = ()
    withheld: int = 0
    given_up: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptNotice:
    """A notice as it is shown.

    Attributes:
        notice: What it says.
        channels: Channel -> how it stands there.
    """

    notice: Notice
    channels: tuple[tuple[str, NoticeStatus], ...]


class WaitingNotices(Protocol):
    """Notices that wait for their channels. Every method raises Transient if the store cannot be reached now."""

    def spread(self, channels: Sequence[str], now_us: int) -> int:
        """Let new notices wait in each of these channels as well; returns how many notices were new."""
        ...

    def claim(self, channel: str, now_us: int, rules: ClaimRules) -> Claim:
        """Take what is due in a channel; nobody else gets it while the lease lasts.

        What exceeds the rate limit is withheld for good, and one notice an hour says so.
        """
        ...

    def settle(self, claimed: ClaimedNotice, status: NoticeStatus, now_us: int, error: str = "") -> bool:
        """Note that a claimed notice was sent or has failed for good; returns whether the claim still held."""
        ...

    def put_off(self, claimed: ClaimedNotice, next_at_us: int, error: str) -> bool:
        """Note why an attempt failed and when the next one is due; returns whether the claim still held."""
        ...

    def release(self, claimed: ClaimedNotice, next_at_us: int, reason: str) -> bool:
        """Give back what was not tried, and say why; returns whether the claim still held."""
        ...


class Channel(Protocol):
    """A way to reach people."""

    @property
    def name(self) -> str:
        """`mail`, `slack` or `webhook`."""
        ...

    def send(self, notice: Notice) -> None:
        """Send one notice; it has arrived at the channel's server when this returns.

        Raises:
            Overloaded: The server says when to come again.
            Transient: It cannot take it now.
            BrokenInvariant: It refuses it for good.
        """
        ...
