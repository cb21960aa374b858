"""What traffic led to: counts, and latencies in a histogram whose size does not grow with the run."""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

GROWTH: Final = 1.02
"""Width of a histogram's bucket: a percentile is at most so much above the true one."""

SMALLEST_MS: Final = 0.01
"""Anything faster counts as this."""

_OK: Final = 200
_UNAVAILABLE: Final = 503
_REFUSALS: Final = frozenset({400, 409, 413, 415, 422})
"""Answers that say that a body is at fault (docs/api.md)."""


class Latencies:
    """A histogram of milliseconds with buckets that grow by `GROWTH`; the largest value is kept exactly."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.most_ms = 0.0

    def add(self, ms: float) -> None:
        """Count one; negative ones, of a clock that was set, count as the smallest."""
        self._buckets[math.ceil(math.log(max(ms, SMALLEST_MS) / SMALLEST_MS) / math.log(GROWTH))] += 1
        self.count += 1
        self.most_ms = max(self.most_ms, ms)

    def percentile(self, share: float) -> float:
        """The time that a share of the values stayed within (nearest rank), within `GROWTH` above it; 0 without any.

        >>> latencies = Latencies()
        >>> for ms in range(1, 101):
        ...     latencies.add(ms)
        >>> 50 <= latencies.percentile(0.5) <= 51
        True
        """
        wanted, seen = max(1, math.ceil(share * self.count)), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min(SMALLEST_MS * GROWTH**bucket, max(self.most_ms, SMALLEST_MS))
        return 0.0

    def document(self) -> dict[str, float]:
        """Percentiles for people and programs, milliseconds."""
        found = {name: self.percentile(share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
        return {name: round(ms, 2) for name, ms in {**found, "max": self.most_ms}.items()}


def is_expected(status: int, *, good: bool, retry_after: bool) -> bool:
    """Whether an answer is one that a healthy product may give.

    Args:
        status: The answer's.
        good: Whether the body keeps all rules; one that does not must be refused.
        retry_after: Whether the answer said when to come again.
    """
    if status == _UNAVAILABLE:
        return retry_after
    return status == _OK if good else status in _REFUSALS


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP.

    Attributes:
        status: The answer's.
        retry_after: Whether it said when to come again.
        repeated: Whether it is the stored answer of a repeat.
        decision: Of a decision, what was decided; else empty.
    """

    status: int
    retry_after: bool = False
    repeated: bool = False
    decision: str = ""


@dataclass(slots=True)
class Statistics:
    """Counts of a run; several threads write, each method is one step.

    Attributes:
        scheduled: Events that were due.
        sent_http: Requests that were begun.
        sent_hub: Events that the hub accepted.
        dropped_http: Events that found the queue to the clients full.
        dropped_hub: Events that found the queue to the hub full.
        abandoned: Events that waited in a queue when the run was ended.
        statuses: Answers by status.
        unexpected: Answers that a healthy product does not give, by status.
        failures: Requests without an answer and batches that the hub did not take, by kind.
        decisions: Decisions in answers over HTTP, by outcome; repeats do not count.
        repeated: Answers that were stored ones.
        decisions_hub: Decisions of events of this run on the decisions hub, by outcome.
        http_ms: From the moment a request should have been sent to its answer.
        hub_ms: From the moment an event should have been sent until the hub accepted it.
        decided_ms: From the moment an event should have been sent to the hub to its decision on the decisions hub.
    """

    scheduled: int = 0
    sent_http: int = 0
    sent_hub: int = 0
    dropped_http: int = 0
    dropped_hub: int = 0
    abandoned: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    unexpected: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    decisions_hub: Counter[str] = field(default_factory=Counter)
    http_ms: Latencies = field(default_factory=Latencies)
    hub_ms: Latencies = field(default_factory=Latencies)
    decided_ms: Latencies = field(default_factory=Latencies)
    _awaited: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self, *, over_http: bool, taken: bool) -> None:
        """An event was due; its queue took it or was full."""
        with self._lock:
            self.scheduled += 1
            if not taken and over_http:
                self.dropped_http += 1
            elif not taken:
                self.dropped_hub += 1

    def begun(self) -> None:
        """A request goes out."""
        with self._lock:
            self.sent_http += 1

    def answered(self, answer: Answer, ms: float, *, good: bool) -> None:
        """A request was answered."""
        with self._lock:
            self.statuses[answer.status] += 1
            self.http_ms.add(ms)
            if not is_expected(answer.status, good=good, retry_after=answer.retry_after):
                self.unexpected[answer.status] += 1
            if answer.repeated:
                self.repeated += 1
            elif answer.decision:
                self.decisions[answer.decision] += 1

    def failed(self, kind: str, number: int = 1) -> None:
        """Something got no answer."""
        with self._lock:
            self.failures[kind] += number

    def abandon(self) -> None:
        """An event is not sent any more."""
        with self._lock:
            self.abandoned += 1

    def awaits(self, transaction_id: str, intended_s: float) -> None:
        """A decision of this event will be seen on the decisions hub; said before it is sent, once for repeats."""
        with self._lock:
            self._awaited.setdefault(transaction_id, intended_s)

    def accepted(self, ms: list[float]) -> None:
        """The hub accepted events."""
        with self._lock:
            self.sent_hub += len(ms)
            for each in ms:
                self.hub_ms.add(each)

    def gives_up(self, transaction_id: str) -> None:
        """The hub did not take an event: no decision is awaited."""
        with self._lock:
            self._awaited.pop(transaction_id, None)

    def decided(self, transaction_id: str, decision: str, now_s: float) -> None:
        """A decision was seen on its hub; those of others, and second copies, do not count."""
        with self._lock:
            intended_s = self._awaited.pop(transaction_id, None)
            if intended_s is not None:
                self.decisions_hub[decision] += 1
                self.decided_ms.add((now_s - intended_s) * 1000)

    @property
    def awaited(self) -> int:
        """Events on the hub without a decision so far: its lag."""
        return len(self._awaited)

    @property
    def is_sound(self) -> bool:
        """Whether nothing happened that a healthy product does not do."""
        return not self.unexpected and not self.failures

    def document(self) -> dict[str, Any]:
        """All of it, for the report."""
        with self._lock:
            return {
                "scheduled": self.scheduled,
                "sent": {"http": self.sent_http, "hub": self.sent_hub},
                "dropped": {"http": self.dropped_http, "hub": self.dropped_hub, "abandoned": self.abandoned},
                "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
                "unexpected": {str(status): count for status, count in sorted(self.unexpected.items())},
                "failures": dict(sorted(self.failures.items())),
                "decisions": {
                    "http": dict(sorted(self.decisions.items())),
                    "hub": dict(sorted(self.decisions_hub.items())),
                },
                "repeated_answers": self.repeated,
                "undecided": len(self._awaited),
                "http_ms": self.http_ms.document(),
                "hub_accepted_ms": self.hub_ms.document(),
                "hub_decided_ms": self.decided_ms.document(),
            }
