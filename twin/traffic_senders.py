"""Who sends traffic: HTTP clients that keep their connection, the Event Hubs SDK, and who reads decisions back.

The schedule never waits for them. It puts events into bounded queues at the moments at which they are due, and every
latency counts from such a moment, so that a stall shows in all the events that it held up and not only in one
("coordinated omission", G. Tene, How NOT to Measure Latency, 2013).
"""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient, PartitionContext
from azure.eventhub.exceptions import EventHubError

from shared.adapters.connections import ConnectionSettingError, HubConnection, credential, hub_options
from simulator.wire import Sending, WireEvent
from twin.traffic_statistics import Answer, Statistics

QUEUE_LIMIT: Final = 1_000
"""Events that may wait for the clients, and as many for the hub; what is due beyond them is dropped and counted."""

HTTP_TIMEOUT_S: Final = 15.0
"""Longer than any sensible SCORE_DEADLINE_MS, so that what the product says is heard."""

_BATCH: Final = 500
_POLL_S: Final = 0.1

type Due = tuple[float, WireEvent]
"""When an event is due, on the monotonic clock in seconds, and the event."""


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint that scores.

    Attributes:
        url: Where the app is: scheme, host, perhaps port and path, without `/api/score`.
        headers: What each request carries, such as a key.
    """

    url: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """The path that transactions are posted to."""
        return urlsplit(self.url).path.rstrip("/") + "/api/score"

    def connection(self) -> http.client.HTTPConnection:
        """A new connection; it is opened by its first request."""
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=HTTP_TIMEOUT_S)


class Lane(ABC):
    """A bounded queue and the threads that empty it."""

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics
        self.waiting: queue.Queue[Due] = queue.Queue(QUEUE_LIMIT)
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()

    def start(self, number: int) -> None:
        """Start threads."""
        for _ in range(number):
            self._threads.append(threading.Thread(target=self.run, daemon=True))
            self._threads[-1].start()

    def offer(self, due: Due) -> bool:
        """Take an event, unless too many wait already."""
        try:
            self.waiting.put_nowait(due)
        except queue.Full:
            return False
        return True

    def take(self) -> Due | None:
        """The next event; None once there is none and none will come."""
        while True:
            try:
                return self.waiting.get(timeout=_POLL_S)
            except queue.Empty:
                if self._closing.is_set():
                    return None

    def close(self) -> None:
        """Say that nothing more will come."""
        self._closing.set()

    def abandon(self) -> None:
        """Take back what waits; it is counted as not sent."""
        while True:
            try:
                self.waiting.get_nowait()
            except queue.Empty:
                return
            self.statistics.abandon()

    @property
    def is_done(self) -> bool:
        """Whether all threads have ended."""
        return not any(thread.is_alive() for thread in self._threads)

    @abstractmethod
    def run(self) -> None:
        """Empty the queue."""


class HttpLane(Lane):
    """Clients with a connection each; events go to whichever is free."""

    def __init__(self, statistics: Statistics, target: Target) -> None:
        super().__init__(statistics)
        self._target = target

    def run(self) -> None:
        """Post what comes, one after another."""
        connection = self._target.connection()
        try:
            while (due := self.take()) is not None:
                self._post(connection, *due)
        finally:
            connection.close()

    def _post(self, connection: http.client.HTTPConnection, intended_s: float, event: WireEvent) -> None:
        headers = {"Content-Type": "application/json", **self._target.headers}
        kept = connection.sock is not None
        self.statistics.begun()
        try:
            try:
                answer = _exchange(connection, self._target.path, event.body, headers)
            except (ConnectionError, http.client.BadStatusLine):
                # Servers close idle connections; on a new one the same request is sent again, as any client does.
                connection.close()
                if not kept:
                    raise
                answer = _exchange(connection, self._target.path, event.body, headers)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.statistics.failed(type(error).__name__)
            return
        good = event.sending is not Sending.MALFORMED
        self.statistics.answered(answer, (time.monotonic() - intended_s) * 1000, good=good)


def _exchange(connection: http.client.HTTPConnection, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    connection.request("POST", path, body, dict(headers))
    response = connection.getresponse()
    text = response.read()
    decision = ""
    if response.status == http.client.OK:
        try:
            decision = str(json.loads(text)["decision"])
        except (ValueError, KeyError, TypeError):
            decision = "unreadable"
    return Answer(
        status=response.status,
        retry_after=response.getheader("Retry-After") is not None,
        repeated=response.getheader("Idempotent-Replayed") == "true",
        decision=decision,
    )


def hub_producer(connection: HubConnection, hub: str) -> EventHubProducerClient:
    """The SDK's producer for a hub.

    Raises:
        ConnectionSettingError: The SDK cannot read the connection string.
    """
    options = {**hub_options(connection), "eventhub_name": hub, "retry_total": 2}
    if connection.identity is not None:
        return EventHubProducerClient(credential=credential(connection.identity), **options)
    try:
        return EventHubProducerClient.from_connection_string(**options)
    except ValueError as error:  # which does not repeat the string, a secret
        raise ConnectionSettingError(f"Event Hubs: {error}") from error


class HubLane(Lane):
    """One sender: what waits goes together, a batch for each partition; a cardholder keeps one partition."""

    def __init__(self, statistics: Statistics, producer: EventHubProducerClient) -> None:
        """Connect.

        Raises:
            EventHubError: The hub cannot be reached or refuses.
        """
        super().__init__(statistics)
        self._producer = producer
        self._partitions = sorted(producer.get_partition_ids())
        # Opens the connection. The SDK opens the link of each partition with its first batch, and not before.
        producer.create_batch(partition_id=self._partitions[0])

    def run(self) -> None:
        """Send what comes."""
        while (due := self.take()) is not None:
            grouped: dict[str, list[Due]] = {}
            while True:
                partition = self._partitions[due[1].customer % len(self._partitions)]
                grouped.setdefault(partition, []).append(due)
                if sum(map(len, grouped.values())) >= _BATCH:
                    break
                try:
                    due = self.waiting.get_nowait()
                except queue.Empty:
                    break
            for partition, own in grouped.items():
                self._send(partition, own)

    def _send(self, partition: str, own: list[Due]) -> None:
        for intended_s, event in own:
            if event.sending is Sending.GOOD:  # a repeat leads to no decision of its own
                self.statistics.awaits(event.transaction_id, intended_s)
        rest = own
        while rest:
            number = 1
            try:
                batch = self._producer.create_batch(partition_id=partition)
                batch.add(EventData(rest[0][1].body))
                for _, event in rest[1:]:
                    try:
                        batch.add(EventData(event.body))
                    except ValueError:  # the batch is full; the rest goes into another
                        break
                    number += 1
                self._producer.send_batch(batch)
            except (EventHubError, ValueError) as error:
                for _, event in rest[:number]:
                    if event.sending is Sending.GOOD:  # a lost repeat takes nothing from its first
                        self.statistics.gives_up(event.transaction_id)
                self.statistics.failed(type(error).__name__, number)
            else:
                now_s = time.monotonic()
                self.statistics.accepted([(now_s - intended_s) * 1000 for intended_s, _ in rest[:number]])
            rest = rest[number:]


class Watch:
    """Reads decisions on their hub, and counts those of this run."""

    def __init__(self, statistics: Statistics, connection: HubConnection, hub: str, group: str) -> None:
        self._statistics = statistics
        options = {**hub_options(connection), "eventhub_name": hub, "consumer_group": group}
        self._client = (
            EventHubConsumerClient.from_connection_string(**options)
            if connection.identity is None
            else EventHubConsumerClient(credential=credential(connection.identity), **options)
        )
        self._from = datetime.now(UTC)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """Begin to read; what is already on the hub is passed over by its time."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading."""
        self._client.close()
        self._thread.join(timeout=5)

    def _read(self) -> None:
        try:
            self._client.receive_batch(self._take, starting_position=self._from, max_wait_time=0.5)
        except EventHubError as error:
            self._statistics.failed(f"decisions hub: {type(error).__name__}")

    def _take(self, _: PartitionContext, events: list[EventData]) -> None:
        now_s = time.monotonic()
        for event in events:
            try:
                document = json.loads(event.body_as_str())
                self._statistics.decided(document["transaction_id"], document["decision"], now_s)
            except (ValueError, KeyError, TypeError):
                continue  # nothing of ours
