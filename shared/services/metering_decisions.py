"""What is counted of decisions and of the stream."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from shared.domain.decision import DecidingPolicy
from shared.domain.event import StreamEvent
from shared.domain.policy_choice import PolicyRule
from shared.domain.surrogates import KeyRing
from shared.domain.transaction import Transaction
from shared.ports.clock import Clock
from shared.ports.ledger import Ledger
from shared.ports.models import Scorers
from shared.services.batching import Unit
from shared.services.ingestion import IngestOutcome
from shared.services.metering import (
    CONFIDENCE,
    EVENTS,
    LATENCY,
    PREDICTIONS,
    REPEATS,
    STAGE_SECONDS,
    STREAM_LAG,
    UNITS,
    Meters,
)
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
        note_decided(self._meters, verdicts, [seconds] * len(verdicts))
        return verdicts


def note_decided(meters: Meters, verdicts: Sequence[Verdict], latencies_s: Sequence[float]) -> None:
    """Count the decisions among verdicts that are durable now, with their latencies, and the repeats of older ones."""
    decided = [
        (verdict, seconds)
        for verdict, seconds in zip(verdicts, latencies_s, strict=True)
        if isinstance(verdict, Decided)
    ]
    fresh = [(verdict.record.decision, seconds) for verdict, seconds in decided if not verdict.repeated]
    if len(fresh) < len(decided):
        meters.count(REPEATS, by=len(decided) - len(fresh))
    for outcome, count in Counter([decision.outcome for decision, _ in fresh]).items():
        meters.count(PREDICTIONS, outcome.value, by=count)
    probabilities = [decision.score.probability for decision, _ in fresh]
    meters.record_all(LATENCY, [seconds for _, seconds in fresh])
    meters.record_all(CONFIDENCE, [max(probability, 1.0 - probability) for probability in probabilities])


def note_unit(meters: Meters, unit: Unit) -> None:
    """Count a unit of work: its size, what its stages took, and its decisions."""
    meters.record(UNITS, len(unit.verdicts))
    for stage, seconds in unit.stages.items():
        meters.count(STAGE_SECONDS, stage, by=seconds)
    note_decided(meters, unit.verdicts, unit.latencies_s)


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
    meters.record_all(STREAM_LAG, [max(0, now_us - event.enqueued_at_us) / 1e6 for event in events])
