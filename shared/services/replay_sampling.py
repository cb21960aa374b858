"""The use case that replays a sample of what was decided in the last hour, so that a mismatch is heard of unasked.

The sample follows from the hour alone: a second firing takes the same decisions, and its notices have the same keys. It
is there to find faults: a runtime that gives other bits, a release that decides otherwise, a record that was damaged
soon after it was written. Who wants to escape it can compute it as well; against those there are the log and its seals.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

from shared.domain.instants import US_PER_DAY, US_PER_HOUR, format_instant
from shared.domain.pipeline import Evidence, Notice, Severity
from shared.ports.archive import DecisionSamples
from shared.ports.clock import Clock
from shared.ports.pipelines import Notices
from shared.services.replaying import Replaying, ReplayVerdict

_log = logging.getLogger(__name__)

PIPELINE: Final = "replaying"

MOST: Final = 500
"""Decisions of an hour: a fault that touches one in a hundred is missed in less than one hour of a hundred
(0.99 ** 500 = 0.007), and they are replayed in well under a second."""

MOST_NAMED: Final = 10
"""Decisions that the app's log names, and obstacles that a notice names."""


class ReplaySampling:
    """Replays a sample of each hour; for one thread."""

    def __init__(
        self, samples: DecisionSamples, replaying: Replaying, notices: Notices, clock: Clock, *, most: int = MOST
    ) -> None:
        """Read nothing yet.

        Args:
            samples: Draws decisions.
            replaying: Decides them again.
            notices: Where people are told.
            clock: Our clock.
            most: Decisions of one hour.
        """
        self._samples = samples
        self._replaying = replaying
        self._notices = notices
        self._clock = clock
        self._most = most

    def check(self) -> Evidence:
        """Replay a sample of the hour that ended last. Idempotent: the hour is told of once.

        Returns:
            `sampled` decisions, and how many of them came out `equal`, `different` or stayed `unchecked`.

        Raises:
            Transient: The database or a bundle cannot be reached now.
        """
        now_us = self._clock.now_us()
        end_us = now_us // US_PER_HOUR * US_PER_HOUR
        start_us = end_us - US_PER_HOUR
        drawn = self._samples.draw(start_us, end_us, seed=start_us, limit=self._most)
        replays = self._replaying.replay_records([stored.record for stored in drawn])
        counts = Counter(replay.verdict for replay in replays)
        found = {"sampled": len(drawn), **{verdict.value: counts[verdict] for verdict in ReplayVerdict}}
        evidence: Evidence = {"hour": format_instant(start_us), **found}
        different = [
            (stored.transaction_id, replay)
            for stored, replay in zip(drawn, replays, strict=True)
            if replay.verdict is ReplayVerdict.DIFFERENT
        ]
        if different:
            # Transactions are named in the app's log alone, for who replays them by hand.
            named = ", ".join(name for name, _ in different[:MOST_NAMED])
            _log.error("decisions came out different: %s", named)
            fields = Counter(item.field for _, replay in different for item in replay.differences)
            self._notices.put(
                Notice(
                    f"{PIPELINE}/different/{start_us}",
                    Severity.CRITICAL,
                    f"{len(different)} of {len(drawn)} sampled decisions came out different when decided again",
                    {**evidence, "fields": dict(fields)},
                    "",
                    now_us,
                )
            )
        unchecked = Counter(replay.obstacle for replay in replays if replay.verdict is ReplayVerdict.UNCHECKED)
        if unchecked:
            # Once a day: what stands in the way, such as another runtime, does so every hour.
            self._notices.put(
                Notice(
                    f"{PIPELINE}/unchecked/{start_us // US_PER_DAY}",
                    Severity.WARNING,
                    f"{unchecked.total()} of {len(drawn)} sampled decisions could not be decided again",
                    {**evidence, "obstacles": dict(unchecked.most_common(MOST_NAMED))},
                    "",
                    now_us,
                )
            )
        return found
