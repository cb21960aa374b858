"""Sends notices: takes what waits in each channel, sends it, and notes what became of it.

Channels are served side by side, each by a thread of its own, so that one that hangs delays no other. A channel whose
server fails is left alone until the next round; what it did not try goes back unchanged. In normal operation each
notice arrives once in each channel. If this process dies, or loses the database, between sending and noting, the notice
is sent again when its lease ends: at least once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final

from shared.domain.errors import BrokenInvariant, Overloaded, TollgateError, Transient
from shared.domain.instants import US_PER_HOUR, US_PER_SECOND
from shared.domain.pipeline import Notice
from shared.ports.clock import Clock
from shared.ports.notifying import Channel, ClaimedNotice, ClaimRules, NoticeStatus, WaitingNotices
from shared.services.notifying_limits import wait_us

_log = logging.getLogger(__name__)

ROUND_S: Final = 40.0
"""How long a round tries: the timer fires each minute."""

GRACE_S: Final = 25.0
"""How long after that an attempt under way is waited for: what connecting and one exchange may take, and some."""

LONGEST_REQUEST_US: Final = 6 * US_PER_HOUR
"""What a server may ask us to wait; a channel that says "next year" is tried again today."""


@dataclass(frozen=True, slots=True)
class Links:
    """Where the links of notices lead.

    Attributes:
        base: `https://<host>` of the drift app, before links that are paths; empty if nobody said.
        page: Path of the report page, where a notice leads that has no link.
    """

    base: str = ""
    page: str = "/api/reports"

    def of(self, link: str) -> str:
        """The link to send.

        >>> Links("https://drift.example").of("/api/reports#amount"), Links().of("https://x.example/"), Links().of("")
        ('https://drift.example/api/reports#amount', 'https://x.example/', '')
        """
        if self.base and (not link or link.startswith("/")):
            return self.base.rstrip("/") + (link or self.page)
        return link


@dataclass(slots=True)
class ChannelRound:
    """What a round did in one channel, in notices.

    Attributes:
        sent: That arrived at the channel's server.
        put_off: That are tried again.
        failed: That the server refused for good, or that have waited for too long.
        withheld: That exceeded the rate limit.
    """

    sent: int = 0
    put_off: int = 0
    failed: int = 0
    withheld: int = 0


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How an attempt ended; `fault` is None if the notice was sent, `tried` False if there was none."""

    channel: str
    claimed: ClaimedNotice
    fault: TollgateError | None = None
    tried: bool = True


@dataclass(frozen=True, slots=True)
class Notifying:
    """Sends what waits.

    Attributes:
        store: Where notices wait; used by one thread at a time.
        channels: Those that are on.
        clock: For leases and waiting.
        chance: Uniform in [0, 1); spreads repeated attempts.
        rules: Limits of each channel.
        links: How links become addresses.
        round_s: See `ROUND_S`.
        grace_s: See `GRACE_S`.
        monotonic_s: Measures the round, seconds.
    """

    store: WaitingNotices
    channels: Sequence[Channel]
    clock: Clock
    chance: Callable[[], float]
    rules: ClaimRules = field(default_factory=ClaimRules)
    links: Links = field(default_factory=Links)
    round_s: float = ROUND_S
    grace_s: float = GRACE_S
    monotonic_s: Callable[[], float] = time.monotonic

    def send_waiting(self) -> Mapping[str, ChannelRound]:
        """Send what is due in every channel; returns what was done, by channel.

        Raises:
            Transient: The store cannot be reached now. What was sent but could not be noted is sent again.
        """
        self.store.spread([channel.name for channel in self.channels], self.clock.now_us())
        attempts: SimpleQueue[_Attempt] = SimpleQueue()
        until_s = self.monotonic_s() + self.round_s
        rounds: dict[str, ChannelRound] = {}
        work: list[tuple[Channel, Sequence[ClaimedNotice]]] = []
        # All are claimed before one is sent: a store that goes away in between makes nobody be told twice.
        for channel in self.channels:
            claim = self.store.claim(channel.name, self.clock.now_us(), self.rules)
            rounds[channel.name] = ChannelRound(failed=len(claim.given_up), withheld=claim.withheld)
            for title in claim.given_up:
                _log.error("a notice was given up in %s: %s", channel.name, title)
            if claim.taken:
                work.append((channel, claim.taken))
        for channel, taken in work:
            # A daemon: a process that ends does not wait for somebody's server.
            Thread(target=self._serve, args=(channel, taken, until_s, attempts), daemon=True).start()
        self._note_all(attempts, sum(len(taken) for _, taken in work), until_s + self.grace_s, rounds)
        return rounds

    def _serve(
        self, channel: Channel, taken: Sequence[ClaimedNotice], until_s: float, attempts: SimpleQueue[_Attempt]
    ) -> None:
        """Send the notices of one channel until it fails or the round is over."""
        fault: TollgateError | None = None
        for claimed in taken:
            failing = fault if isinstance(fault, Transient) else None
            if failing or self.monotonic_s() >= until_s:
                attempts.put(_Attempt(channel.name, claimed, failing, tried=False))
                continue
            fault = _send(channel, replace(claimed.notice, link=self.links.of(claimed.notice.link)))
            attempts.put(_Attempt(channel.name, claimed, fault))

    def _note_all(
        self, attempts: SimpleQueue[_Attempt], expected: int, until_s: float, rounds: dict[str, ChannelRound]
    ) -> None:
        """Note attempts as they end; those that have not ended in time keep their lease and come again."""
        lost: TollgateError | None = None
        for _ in range(expected):
            try:
                attempt = attempts.get(timeout=max(0.0, until_s - self.monotonic_s()))
            except Empty:
                _log.error("a channel hangs; what it was sending comes again")
                break
            try:
                self._note(attempt, rounds[attempt.channel])
            except TollgateError as error:  # one that cannot be noted is no reason to leave the others unnoted
                lost = error
        if lost is not None:
            raise lost

    def _note(self, attempt: _Attempt, done: ChannelRound) -> None:
        claimed, fault, now_us = attempt.claimed, attempt.fault, self.clock.now_us()
        if fault is None and attempt.tried:
            self.store.settle(claimed, NoticeStatus.SENT, now_us)
            done.sent += 1
        elif not attempt.tried:
            wait = _requested_us(fault)
            self.store.release(claimed, now_us + wait, f"not tried: {fault or 'the round was over'}")
            done.put_off += 1
        elif isinstance(fault, Transient):
            wait = max(wait_us(claimed.attempt, self.chance()), _requested_us(fault))
            self.store.put_off(claimed, now_us + wait, str(fault))
            _log.warning("%s cannot take a notice now: %s", attempt.channel, fault)
            done.put_off += 1
        else:
            self.store.settle(claimed, NoticeStatus.FAILED, now_us, str(fault))
            _log.error("%s refuses a notice: %s: %s", attempt.channel, claimed.notice.title, fault)
            done.failed += 1


def _send(channel: Channel, notice: Notice) -> TollgateError | None:
    """Send a notice; returns what went wrong, whatever it was: nothing ends the thread of a channel."""
    try:
        channel.send(notice)
    except TollgateError as error:
        return error
    except Exception as error:  # noqa: BLE001 - logged, and told as a fault of ours
        _log.exception("a channel raised what it should not have: %s", channel.name)
        return BrokenInvariant(f"a fault of ours ({type(error).__name__})")
    return None


def _requested_us(fault: TollgateError | None) -> int:
    """What the server asked us to wait, microseconds."""
    if isinstance(fault, Overloaded):
        return min(fault.retry_after_s * US_PER_SECOND, LONGEST_REQUEST_US)
    return 0
