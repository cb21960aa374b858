"""What the demos are played with: take history in, send events, fire timers, ask the database, wait for what comes."""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from azure.eventhub import EventData, EventHubProducerClient

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_ledger import PostgresLedger
from shared.adapters.postgres_partitions import PostgresPartitions
from shared.adapters.system_clock import SystemClock
from shared.domain.instants import US_PER_DAY
from shared.domain.surrogates import parse_key_ring
from shared.services.importing import Importing
from shared.services.labelling import Labelling
from simulator.wire import WireEvent
from twin.demo_scene import Day
from twin.services.app_settings import surrogate_keys
from twin.services.orchestra import TwinError
from twin.services.settings import HOST, TwinSettings, login_of

IMPORT_BATCH: Final = 1000
HTTP_CLIENTS: Final = 4
HTTP_SHARE: Final = 8
"""One of so many transactions goes over HTTP, the others through the hub."""

type Tick = Callable[[int], None]
"""Told how many more are done."""


def import_history(settings: TwinSettings, days: Iterable[Day], span_us: tuple[int, int], tick: Tick) -> Counter[str]:
    """Take history in, day by day: transactions, then the labels that became known; returns how many of each."""
    owner = parse_postgres("DATABASE", {"DATABASE": settings.database_dsn()})
    PostgresPartitions(owner, "demo").make(span_us[0] - US_PER_DAY, span_us[1] + US_PER_DAY)
    where = parse_postgres("DATABASE", {"DATABASE": settings.database_dsn(login_of("ingest"))})
    keys, clock = parse_key_ring(surrogate_keys(settings)), SystemClock()
    ledger = PostgresLedger(where, "demo-import")
    importing, labelling = Importing(ledger, keys, clock), Labelling(ledger, keys, clock)
    counts: Counter[str] = Counter()
    try:
        for day in days:
            for start in range(0, len(day.transactions), IMPORT_BATCH):
                counts.update(importing.take(day.transactions[start : start + IMPORT_BATCH]))
            for start in range(0, len(day.labels), IMPORT_BATCH):
                labelling.record(day.labels[start : start + IMPORT_BATCH])
            counts["labels"] += len(day.labels)
            tick(1)
    finally:
        ledger.close()
    return counts


@dataclass(slots=True)
class HttpResults:
    """What HTTP clients saw.

    Attributes:
        ms: Milliseconds of each answered decision.
        statuses: Answers by status.
    """

    ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, others: HttpResults) -> None:
        """Take in what other clients saw."""
        self.ms += others.ms
        self.statuses += others.statuses

    def percentile(self, share: float) -> float:
        """The time that a share of the answers stayed within, milliseconds; 0 without any."""
        ordered = sorted(self.ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def goes_over_http(event: WireEvent) -> bool:
    """Whether this transaction is sent over HTTP; all that is sent of one goes the same way.

    What is too long for the stream is not too long for HTTP.
    """
    return event.customer % HTTP_SHARE == 0 and event.fault != "too-long"


def send_over_http(port: int, events: Sequence[WireEvent], tick: Tick) -> HttpResults:
    """Send events with some clients at once, each its own customers in order."""
    parts = [
        [event for event in events if event.customer // HTTP_SHARE % HTTP_CLIENTS == n] for n in range(HTTP_CLIENTS)
    ]
    results = HttpResults()
    with ThreadPoolExecutor(HTTP_CLIENTS) as pool:
        for own in pool.map(lambda part: _client(port, part, tick), parts):
            results.add(own)
    return results


def _client(port: int, events: Sequence[WireEvent], tick: Tick) -> HttpResults:
    results = HttpResults()
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        for event in events:
            began = time.perf_counter()
            connection.request("POST", "/api/score", event.body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == http.client.OK:
                results.ms.append((time.perf_counter() - began) * 1000)
            results.statuses[answer.status] += 1
            tick(1)
    finally:
        connection.close()
    return results


def send_to_hub(settings: TwinSettings, hub: str, bodies: Sequence[tuple[int, bytes]], tick: Tick) -> None:
    """Send bodies with the unmodified SDK; those of one key keep their order, on one partition."""
    connection = settings.hub_connection()
    with EventHubProducerClient.from_connection_string(connection, eventhub_name=hub) as producer:
        partitions = sorted(producer.get_partition_ids())
        for start in range(0, len(bodies), IMPORT_BATCH):
            grouped: dict[str, list[bytes]] = {}
            for key, body in bodies[start : start + IMPORT_BATCH]:
                grouped.setdefault(partitions[key % len(partitions)], []).append(body)
            for partition, own in grouped.items():
                _send(producer, partition, own)
            tick(min(IMPORT_BATCH, len(bodies) - start))


def _send(producer: EventHubProducerClient, partition: str, bodies: Sequence[bytes]) -> None:
    batch = producer.create_batch(partition_id=partition)
    for body in bodies:
        try:
            batch.add(EventData(body))
        except ValueError:  # the batch is full
            producer.send_batch(batch)
            batch = producer.create_batch(partition_id=partition)
            batch.add(EventData(body))
    producer.send_batch(batch)


@dataclass(frozen=True, slots=True)
class Effects:
    """What is in the database."""

    decided: int
    dead_letters: int
    labels: int


def effects(settings: TwinSettings) -> Effects:
    """Count what live events have led to so far."""
    ((decided, dead_letters, labels),) = rows(
        settings,
        "SELECT (SELECT count(*) FROM tollgate.predictions), (SELECT count(*) FROM tollgate.dead_letters),"
        " (SELECT count(*) FROM tollgate.feedback_labels)",
    )
    return Effects(decided, dead_letters, labels)


def until_effects(settings: TwinSettings, wanted: Callable[[Effects], bool], show: Callable[[Effects], None]) -> float:
    """Wait until the effects are there, or nothing has moved for half a minute; returns seconds waited."""
    began = moved = time.monotonic()
    last = effects(settings)
    while not wanted(last) and time.monotonic() - moved < 30:
        time.sleep(0.25)
        now = effects(settings)
        if now != last:
            moved = time.monotonic()
            show(now)
        last = now
    return time.monotonic() - began


def until(holds: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Wait until something holds.

    Raises:
        TwinError: It does not in time; the message names it.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TwinError(f"{what} did not come within {timeout_s:.0f} s; see the logs")
        time.sleep(0.5)


def fire_timer(port: int, timer: str) -> None:
    """Fire a timer of the app on a port now; returns when it was accepted, not when it has run."""
    request = urllib.request.Request(
        f"http://{HOST}:{port}/admin/functions/{timer}",
        data=b'{"input": ""}',
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - our own loopback URL
        return


def rows(settings: TwinSettings, query: str) -> list[tuple[Any, ...]]:
    """What a query of the owner's finds."""
    with psycopg.connect(settings.database_dsn()) as connection:
        return connection.execute(query.encode()).fetchall()


def number(settings: TwinSettings, query: str) -> int:
    """The one number that a query of the owner's finds."""
    return int(rows(settings, query)[0][0])


def dead_letters_by_reason(settings: TwinSettings) -> dict[str, int]:
    """How many dead letters there are of each reason."""
    found = rows(
        settings,
        "SELECT coalesce(nullif(field, ''), 'body'), count(*) FROM tollgate.dead_letters GROUP BY 1 ORDER BY 2 DESC, 1",
    )
    return {str(reason): int(count) for reason, count in found}


def scored(settings: TwinSettings) -> list[tuple[str, str, int, float]]:
    """(transaction id, customer, event time, score) of every decision that was taken before its first label came."""
    found = rows(
        settings,
        "SELECT p.transaction_id, t.customer_id, p.event_time_us, p.score FROM tollgate.predictions p"
        " JOIN tollgate.transactions t USING (transaction_id, event_time_us)"
        " WHERE NOT EXISTS (SELECT FROM tollgate.feedback_labels l"
        "   WHERE l.transaction_id = p.transaction_id AND l.recorded_at_us <= p.recorded_at_us)",
    )
    return [(str(row[0]), str(row[1]), int(row[2]), float(row[3])) for row in found]


def decision(port: int, transaction_id: str) -> dict[str, Any]:
    """A stored decision with all that it knew, replayed, as the endpoint gives it."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("GET", f"/api/decisions/{transaction_id}?replay=true")
        found: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return found
