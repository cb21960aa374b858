"""Does anything grow that should stand still? Half the stream's rate for long, while event time runs through a year.

A twin's ingest app with two workers takes transactions at a steady rate whose event times pass ten months in the run,
and labels for some of them, so that states reach the end of their horizons, which wall time would do after months.
There are more entities than the bound of the states in memory has room for. Memory, lag and state tables are said by
quarters of the run: by the third one all are to stand still. `SOAK_MINUTES`, `SOAK_HZ` and `SOAK_CACHE_MIB` change the
run; with less traffic there are fewer entities, so the bound must be smaller too.
"""

from __future__ import annotations

import json
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Final

from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.amqp import AmqpAnnotatedMessage

from benchmarks.bench_stream import HUB, Ground, bodies, family_rss_mb, ground, quantile
from benchmarks.report import OUTPUT, Report
from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_partitions import PostgresPartitions
from shared.domain.entity_state import EntityState
from shared.domain.entity_state_layout import BASE_LAYOUT
from shared.domain.entity_state_tiles import ROOT_WIDTH_US, Tile
from shared.domain.feature_view import Entity
from shared.domain.instants import US_PER_DAY, US_PER_SECOND, format_instant
from shared.domain.labels import LABEL_TYPE

MINUTES: Final = float(os.environ.get("SOAK_MINUTES", "15"))
HZ: Final = float(os.environ.get("SOAK_HZ", "525"))
"""Half of what the stream's benchmark sends."""

EVENTS_PER_CUSTOMER: Final = 24
"""In a run: often enough that all customers have come and gone through their horizons before the last half."""

CACHE_MIB: Final = os.environ.get("SOAK_CACHE_MIB", "")
"""The app's `STATE_CACHE_MIB`; its own default if empty."""

QUARTERS: Final = 4
PERIODS_PER_QUARTER: Final = 3
"""All states drop what has expired whenever event time enters another widest tile, so what is kept goes up and down
with that period. A quarter has whole ones, and two quarters are longer than what any state keeps."""

SPAN_US: Final = QUARTERS * PERIODS_PER_QUARTER * ROOT_WIDTH_US
"""Event time of the run: 305 days, which an app accepts that takes events of a year."""

LABELLED_EVERY: Final = 10
"""Of so many transactions one gets a label,"""

LABEL_DELAY_US: Final = 30 * US_PER_DAY
"""which is known so much later."""

TICK_S: Final = 0.1
SAMPLES: Final = 160
SETTLE_LIMIT_S: Final = 300.0
MOST_GROWTH: Final = 1.05
"""Of the last quarter over the third; what a sample differs by from the next."""

LABELS_HUB: Final = "labels"
TABLES: Final = {
    "customer rows": "SELECT count(*) FROM tollgate.customer_features",
    "terminal rows": "SELECT count(*) FROM tollgate.merchant_features",
    "tile rows": "SELECT count(*) FROM tollgate.entity_tiles",
    "tile bytes": "SELECT coalesce(sum(octet_length(data)), 0) FROM tollgate.entity_tiles",
    "tile table on disk": "SELECT pg_total_relation_size('tollgate.entity_tiles')",
    "dead letters": "SELECT count(*) FROM tollgate.dead_letters",
    "outbox rows": "SELECT count(*) FROM tollgate.outbox",
}
BYTES: Final = frozenset({"tile bytes", "tile table on disk"})
STILL: Final = frozenset({"memory of workers", "customer rows", "terminal rows", "tile rows", *BYTES})
"""What is to stand still."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent: transactions at a steady rate, the same for the same values.

    Attributes:
        start_us: Event time of the first, microseconds since 1970 UTC.
        count: How many.
        customers: Their customers.
    """

    start_us: int
    count: int
    customers: int

    def event_time_us(self, number: int) -> int:
        """When a transaction happened, microseconds since 1970 UTC."""
        return self.start_us + SPAN_US * number // self.count

    def bodies(self) -> Iterator[tuple[int, bytes]]:
        """Transactions in order, as (customer, body); a part of them is at one merchant."""
        return bodies("soak", map(self.event_time_us, range(self.count)), self.customers)

    def labels(self, first: int, end: int) -> list[bytes]:
        """The labels that become known while these transactions happen."""
        later = LABEL_DELAY_US * self.count // SPAN_US
        return [self._label(number) for number in range(first - later, end - later) if self._is_labelled(number)]

    def _is_labelled(self, number: int) -> bool:
        return number >= 0 and number % LABELLED_EVERY == 0

    def _label(self, number: int) -> bytes:
        is_fraud = number % (50 * LABELLED_EVERY) == 0
        event_time_us = self.event_time_us(number)
        fields = {
            "type": LABEL_TYPE,
            "transaction_id": f"soak-{number}",
            "verdict": "fraud" if is_fraud else "genuine",
            "source": "chargeback" if is_fraud else "analyst",
            "event_time": format_instant(event_time_us),
            "known_at": format_instant(event_time_us + LABEL_DELAY_US),
            "confidence": 100,
            "author": "soak",
        }
        return json.dumps(fields).encode()


@dataclass(slots=True)
class Sent:
    """When transactions were handed to the hub.

    Attributes:
        firsts: Number of the first transaction of each tick.
        at_us: When the tick was handed over, microseconds since 1970 UTC.
    """

    firsts: list[int] = field(default_factory=list)
    at_us: list[int] = field(default_factory=list)

    def when_us(self, number: int) -> int:
        """When the tick of a transaction was handed over."""
        return self.at_us[bisect_right(self.firsts, number) - 1]


class Producer(threading.Thread):
    """Sends traffic at a rate with the unmodified SDK, those of a customer on one partition."""

    def __init__(self, connection: str, traffic: Traffic, hz: float) -> None:
        super().__init__(name="soak-producer", daemon=True)
        self.sent = Sent()
        self.problem: Exception | None = None
        self._connection = connection
        self._traffic = traffic
        self._hz = hz

    def run(self) -> None:
        """Send until all is sent; what went wrong is in `problem`."""
        of_setting = EventHubProducerClient.from_connection_string
        try:
            with (
                of_setting(self._connection, eventhub_name=HUB) as transactions,
                of_setting(self._connection, eventhub_name=LABELS_HUB) as labels,
            ):
                self._send_all(transactions, labels)
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to; the run looks at it
            self.problem = error

    def _send_all(self, transactions: EventHubProducerClient, labels: EventHubProducerClient) -> None:
        partitions, made = sorted(transactions.get_partition_ids()), self._traffic.bodies()
        began, first = time.monotonic(), 0
        while first < self._traffic.count:
            end = min(self._traffic.count, int((time.monotonic() - began) * self._hz))
            parts: dict[str, list[bytes]] = {}
            for customer, body in (next(made) for _ in range(end - first)):
                parts.setdefault(partitions[customer % len(partitions)], []).append(body)
            self.sent.firsts.append(first)
            self.sent.at_us.append(time.time_ns() // 1000)
            for partition, events in parts.items():
                _send(transactions, events, partition)
            _send(labels, self._traffic.labels(first, end), None)
            first = end
            time.sleep(TICK_S - (time.monotonic() - began) % TICK_S)


def _send(producer: EventHubProducerClient, bodies: Sequence[bytes], partition: str | None) -> None:
    for start in range(0, len(bodies), 500):  # a tick that came late may have more than a batch has room for
        events: list[EventData | AmqpAnnotatedMessage] = [EventData(body) for body in bodies[start : start + 500]]
        producer.send_batch(events, partition_id=partition)


def by_quarter[T](items: Sequence[T]) -> list[Sequence[T]]:
    """Items in order as four parts that differ by one at most."""
    edges = [len(items) * place // QUARTERS for place in range(QUARTERS + 1)]
    return [items[first:end] for first, end in pairwise(edges)]


def growth(quarters: Sequence[float]) -> float:
    """The last quarter over the one before it; not a number if that is nothing."""
    return quarters[-1] / quarters[-2] if quarters[-2] else float("nan")


def run() -> Report:
    """The figures."""
    report = Report("soak")
    seconds = MINUTES * 60
    with ground() as under:
        own = {"EVENT_MAX_AGE_DAYS": "366", **({"STATE_CACHE_MIB": CACHE_MIB} if CACHE_MIB else {})}
        now_us = time.time_ns() // 1000
        count = int(seconds * HZ)
        traffic = Traffic(now_us - SPAN_US - US_PER_DAY, count, count // EVENTS_PER_CUSTOMER)
        where = parse_postgres("DATABASE", {"DATABASE": under.settings.database_dsn()})
        PostgresPartitions(where, "soak").make(traffic.start_us, now_us)
        with under.hosting(own):
            at_rest = _memory(under)
            producer = Producer(under.settings.hub_connection(), traffic, HZ)
            producer.start()
            samples = _sampled(under, producer, seconds)
            _settle(under, producer, traffic)
        _add(report, samples, at_rest)
        _add_lags(report, under, traffic, producer.sent)
    return report


def _sampled(under: Ground, producer: Producer, seconds: float) -> list[dict[str, float]]:
    """What everything takes, at even distances until the producer is done; each is written down at once."""
    samples: list[dict[str, float]] = []
    OUTPUT.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (OUTPUT / "soak_samples.jsonl").open("w", encoding="utf-8", buffering=1) as written:
        while producer.is_alive():
            time.sleep(max(0.0, began + (len(samples) + 1) * seconds / SAMPLES - time.monotonic()))
            sample = _memory(under) | {name: float(under.query(query)[0][0]) for name, query in TABLES.items()}
            samples.append(sample)
            written.write(json.dumps({"second": round(time.monotonic() - began, 1), **sample}) + "\n")
    if producer.problem is not None:
        raise RuntimeError("the producer failed") from producer.problem
    return samples


def _memory(under: Ground) -> dict[str, float]:
    """Megabytes of each part; what processes share counts once."""
    found = {f"memory of {part}": sum(map(family_rss_mb, pids)) for part, pids in under.families().items()}
    if under.host is not None and under.host.process is not None:
        found["memory of host"] = family_rss_mb(under.host.process.pid) - found["memory of workers"]
    return found


def _settle(under: Ground, producer: Producer, traffic: Traffic) -> None:
    """Wait until everything is decided."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while under.counts()[0] < traffic.count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{under.counts()[0]:,} of {traffic.count:,} decided; {len(producer.sent.firsts)} ticks")
        time.sleep(0.5)


def _add(report: Report, samples: Sequence[Mapping[str, float]], at_rest: Mapping[str, float]) -> None:
    parts = by_quarter(samples)
    for name in samples[-1]:
        quarters = [fmean(sample[name] for sample in part) for part in parts]
        shown = ", ".join(f"{value:,.0f}" for value in quarters)
        before = f"; {at_rest[name]:.0f} at rest" if name in at_rest else ""
        unit = "MB" if name in at_rest else "bytes" if name in BYTES else "rows"
        report.add(name, quarters[-1], unit, better="lower", note=f"quarters: {shown}{before}")
        if name in STILL:
            report.add(f"{name}: last quarter over third", growth(quarters), "times", aim=MOST_GROWTH, better="lower")
    last = samples[-1]
    states = (last["customer rows"] + last["terminal rows"]) * EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER).n_bytes
    tiles = last["tile rows"] * Tile(0, ROOT_WIDTH_US).n_bytes + last["tile bytes"]
    report.add(
        "all states in memory would take",
        (states + tiles) / (1 << 20),
        "MiB",
        note="of which a process keeps its bound",
    )


def _add_lags(report: Report, under: Ground, traffic: Traffic, sent: Sent) -> None:
    """From the hand-over to the hub until the decision is recorded; numbers rise with time, so they make quarters."""
    rows = under.query("SELECT substr(transaction_id, 6)::bigint, recorded_at_us FROM tollgate.predictions ORDER BY 1")
    if len(rows) != traffic.count:
        raise RuntimeError(f"{len(rows):,} decisions of {traffic.count:,} transactions")
    quarters = by_quarter([(recorded_us - sent.when_us(number)) / 1000 for number, recorded_us in rows])
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        values = [quantile(quarter, share) for quarter in quarters]
        shown = ", ".join(f"{value:,.0f}" for value in values)
        report.add(
            f"lag {name}", values[-1], "ms", better="lower", note=f"quarters: {shown}; from the sender's hand-over"
        )
    took = (max(recorded_us for _, recorded_us in rows) - sent.at_us[0]) / US_PER_SECOND
    report.add("decisions", traffic.count / took, "1/s", note=f"{traffic.count:,} in {took:.0f} s")
