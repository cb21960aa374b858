"""What is counted of decisions and of the stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from shared.domain.decision import DecidingPolicy
from shared.domain.event import StreamEvent
from shared.domain.policy_choice import PolicyRule
from shared.domain.surrogates import KeyRing
from shared.domain.transaction import Transaction
from shared.ports.clock import Clock
from shared.ports.ledger import Ledger
from shared.ports.models import Scorers
from shared.services.ingestion import IngestOutcome
from shared.services.metering import CONFIDENCE, EVENTS, LATENCY, PREDICTIONS, REPEATS, STREAM_LAG, Meters
from shared.services.scoring import Decided, Scoring, Verdict


class MeteredScoring(Scoring):
    """Decides as `Scoring` does, and counts what was decided."""

    def __init__(
        self,
        ledger: Ledger,
        scorers: Scorers,
        meters: Meters,
        *,
        policy: DecidingPolicy | PolicyRule,
        keys: KeyRing,
        clock: Clock,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(ledger, scorers, policy=policy, keys=keys, clock=clock)
        self._meters = meters
        self._timer = timer

    def decide(self, transactions: Sequence[Transaction]) -> list[Verdict]:
        """Decide a batch; the latency of each of its decisions is that of the batch."""
        began = self._timer()
        verdicts = super().decide(transactions)
        seconds = self._timer() - began
        for verdict in verdicts:
            if isinstance(verdict, Decided):
                note_decided(self._meters, verdict, seconds)
        return verdicts


def note_decided(meters: Meters, verdict: Decided, seconds: float) -> None:
    """Count a decision that is durable, or the repeat of one."""
    if verdict.repeated:
        meters.count(REPEATS)
        return
    decision = verdict.record.decision
    probability = decision.score.probability
    meters.count(PREDICTIONS, decision.outcome.value)
    meters.record(LATENCY, seconds)
    meters.record(CONFIDENCE, max(probability, 1.0 - probability))


def note_events(meters: Meters, events: Sequence[StreamEvent], outcome: IngestOutcome, now_us: int) -> None:
    """Count the events of a batch that was taken, and how long they were under way."""
    for result, count in (
        ("decided", outcome.decided),
        ("labelled", outcome.labelled),
        ("probe", outcome.probes),
        ("repeated", outcome.repeated),
        ("dead_lettered", outcome.dead_lettered),
    ):
        meters.count(EVENTS, result, by=count)
    for event in events:
        meters.record(STREAM_LAG, max(0, now_us - event.enqueued_at_us) / 1e6)
