"""Kill -9 of broker and consumers, checkpoints, and the balance between consumers."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from azure.eventhub import EventData, EventHubConsumerClient
from azure.eventhub.aio import EventHubConsumerClient as AioConsumer
from azure.eventhub.exceptions import EventHubError
from azure.eventhub.extensions.checkpointstoreblob import BlobCheckpointStore
from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore as AioCheckpointStore
from azure.storage.blob import ContainerClient

from tests.broker.support import (
    ROOT,
    Azurite,
    BackgroundLines,
    BrokerProcess,
    reached,
    receiving,
    stop_receiving,
    until,
)

# azure-eventhub 5.15.1 leaves its sockets open when the broker goes away under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
PARTITIONS = 2


StartBroker = Callable[..., BrokerProcess]


def new_container(azurite: Azurite) -> str:
    """A container for one scenario: checkpoints of another broker would be stale there."""
    name = f"checkpoints-{uuid.uuid4()}"
    with ContainerClient.from_connection_string(azurite.connection_string, name) as client:
        client.create_container()
    return name


def start(start_broker: StartBroker, **overrides: object) -> BrokerProcess:
    return start_broker(hubs=[{"name": "tx", "partitions": PARTITIONS}], **overrides)


@contextmanager
def consuming(broker: BrokerProcess, azurite: Azurite, container: str, every: int) -> Iterator[Consumer]:
    """A consumer process; killed at the end, when it still runs."""
    arguments = [broker.connection_string, azurite.connection_string, container, str(every)]
    command = [sys.executable, "-m", "tests.broker.consumer_process", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    consumer = Consumer(process)
    try:
        yield consumer
    finally:
        consumer.kill()


class Consumer:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines = BackgroundLines(process)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [line for line in self._said() if "sequence" in line]

    def _said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in tuple(self._lines.lines)]

    def sequences(self, partition: int) -> list[int]:
        return [event["sequence"] for event in self.events if event["partition"] == str(partition)]

    def last_checkpoint(self, partition: int) -> int:
        """The last one that is certain; the consumer may have been killed between writing one and saying so."""
        lines = [line for line in self._said() if "checkpoint" in line and line["partition"] == str(partition)]
        return int(lines[-1]["checkpoint"])

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
            self._lines.join()


def kill_of_the_broker_loses_no_acknowledged_event(start_broker: StartBroker, azurite: Azurite) -> None:
    broker = start(start_broker)
    acknowledged: list[str] = []
    stop = threading.Event()

    def produce() -> None:
        number = 0
        with broker.producer(retry_total=60, retry_backoff_factor=0.1, retry_backoff_max=1) as producer:
            while not stop.is_set():
                names = [f"{number}-{part}" for part in range(10)]
                producer.send_batch([EventData(name) for name in names], partition_id=str(number % PARTITIONS))
                acknowledged.extend(names)
                number += 1

    async def run() -> list[tuple[str, Any]]:
        async with receiving(broker.consumer(retry_total=60, retry_backoff_max=1)) as received:
            thread = threading.Thread(target=produce)
            thread.start()
            try:
                for _ in range(2):
                    mark = len(acknowledged)
                    await reached(lambda: len(acknowledged) > mark + 500, "500 more")  # noqa: B023 -- awaited here
                    await asyncio.to_thread(broker.kill)
                    await asyncio.to_thread(broker.start)
                mark = len(acknowledged)
                await reached(lambda: len(acknowledged) > mark + 200, "events after the restarts")
            finally:
                stop.set()
                await asyncio.to_thread(thread.join)
            wanted = set(acknowledged)
            await reached(lambda: wanted <= set(received.bodies), "every acknowledged event")
            return list(received.events)

    events = asyncio.run(run())
    for partition in range(PARTITIONS):
        sequences = {event.sequence_number for owner, event in events if owner == str(partition)}
        assert sequences == set(range(max(sequences) + 1)), "no gap"


def kill_of_a_consumer_repeats_only_from_its_checkpoint(start_broker: StartBroker, azurite: Azurite) -> None:
    container = new_container(azurite)
    broker = start(start_broker)
    for partition in range(PARTITIONS):
        broker.send([f"event {number}" for number in range(400)], partition_id=str(partition))
    with consuming(broker, azurite, container, every=50) as first:
        until(lambda: all(len(first.sequences(p)) >= 130 for p in range(PARTITIONS)), "130 of each partition")
        first.kill()
    for partition in range(PARTITIONS):  # it may have taken all of one before it had 130 of another
        broker.send([f"event {number}" for number in range(400, 450)], partition_id=str(partition))
    with consuming(broker, azurite, container, every=50) as second:
        until(lambda: all(449 in second.sequences(p) for p in range(PARTITIONS)), "the rest")
        for partition in range(PARTITIONS):
            before, after = first.sequences(partition), second.sequences(partition)
            assert before == list(range(len(before)))
            certain = first.last_checkpoint(partition) + 1
            assert after[0] in (certain, certain + 50)
            assert after[0] <= len(before), "nothing is skipped"
            assert after == list(range(after[0], 450))


def two_consumers_share_the_partitions(start_broker: StartBroker, azurite: Azurite) -> None:
    container = new_container(azurite)
    broker = start(start_broker)
    number = 0

    def send() -> None:
        nonlocal number
        for partition in range(PARTITIONS):
            broker.send([str(number)], partition_id=str(partition))
        number += 1

    def partitions(consumer: Consumer, since: int) -> set[str]:
        return {event["partition"] for event in consumer.events[since:]}

    with consuming(broker, azurite, container, every=1) as first:
        send()
        until(lambda: partitions(first, 0) == {"0", "1"}, "the first has both")
        with consuming(broker, azurite, container, every=1) as second:

            def balanced() -> bool:
                mark = len(first.events)
                if not second.events:
                    send()
                    return False
                since = len(second.events)
                send()
                until(lambda: partitions(first, mark) | partitions(second, since) == {"0", "1"}, "an owner for each")
                return len(partitions(first, mark)) == len(partitions(second, since)) == 1

            until(balanced, "one partition each")
            # The one that stays takes over what the killed one had.
            second.kill()
            mark = len(first.events)

            def taken_over() -> bool:
                send()
                return partitions(first, mark) == {"0", "1"}

            until(taken_over, "the survivor has both")


def the_sync_checkpoint_store(start_broker: StartBroker, azurite: Azurite) -> None:
    container = new_container(azurite)
    broker = start(start_broker)
    broker.send([f"event {number}" for number in range(40)], partition_id="0")

    def consume(enough: Callable[[list[int]], bool]) -> list[int]:
        seen: list[int] = []
        store = BlobCheckpointStore.from_connection_string(azurite.connection_string, container)
        client = EventHubConsumerClient.from_connection_string(
            broker.connection_string, consumer_group="$Default", checkpoint_store=store, load_balancing_interval=1
        )

        def on_batch(context: Any, events: list[Any]) -> None:
            seen.extend(event.sequence_number for event in events)
            if events:
                context.update_checkpoint(events[-1])

        options: dict[str, Any] = {"starting_position": "-1"}
        thread = threading.Thread(target=client.receive_batch, args=(on_batch,), kwargs=options)
        thread.start()
        try:
            until(lambda: enough(seen), "enough events")
        finally:
            client.close()
            thread.join(20)
            store._container_client.close()
        return seen

    assert consume(lambda seen: len(seen) >= 40) == list(range(40))
    broker.send(["one more"], partition_id="0")
    assert consume(bool) == [40]


def a_checkpoint_of_a_lost_log_is_an_error_not_silence(start_broker: StartBroker, azurite: Azurite) -> None:
    container = new_container(azurite)
    broker = start(start_broker)
    broker.send([f"event {number}" for number in range(30)], partition_id="0")
    seen: list[int] = []
    errors: list[Exception] = []

    async def on_event(context: Any, event: Any) -> None:
        seen.append(event.sequence_number)
        await context.update_checkpoint(event)

    async def on_error(context: Any, error: Exception) -> None:
        errors.append(error)

    async def consume(done: Callable[[], object], what: str) -> None:
        store = AioCheckpointStore.from_connection_string(azurite.connection_string, container)
        client = AioConsumer.from_connection_string(
            broker.connection_string, "$Default", checkpoint_store=store, retry_total=0, load_balancing_interval=1
        )
        options: dict[str, Any] = {"on_error": on_error, "starting_position": "-1"}
        async with store:
            task = asyncio.create_task(client.receive(on_event, **options))
            await reached(done, what)
            await stop_receiving(client, task)

    asyncio.run(consume(lambda: len(seen) >= 30, "30 events"))
    assert broker.stop() == 0
    shutil.rmtree(broker.data_dir)
    broker.start()
    asyncio.run(consume(lambda: errors, "an error"))
    assert isinstance(errors[0], EventHubError)
    assert "The supplied offset" in str(errors[0])


def retention_under_a_reader_and_after_a_restart(start_broker: StartBroker, azurite: Azurite) -> None:
    broker = start(start_broker, segment_bytes=20_000, retention_bytes=40_000, retention_hours=0.001)
    with broker.producer() as producer:
        for _ in range(100):
            producer.send_batch([EventData(b"x" * 900) for _ in range(5)], partition_id="0")

        def begin() -> int:
            return int(producer.get_partition_properties("0")["beginning_sequence_number"])

        until(lambda: begin() > 400, "old segments go")
        assert begin() <= 500
        # In the end everything is too old, and the numbers go on all the same.
        until(lambda: producer.get_partition_properties("0")["is_empty"], "an empty partition")
    assert broker.stop() == 0
    broker.start()
    with broker.producer() as producer:
        found = producer.get_partition_properties("0")
        assert (found["beginning_sequence_number"], found["last_enqueued_sequence_number"]) == (500, 499)
        producer.send_batch([EventData("next")], partition_id="0")
        assert producer.get_partition_properties("0")["last_enqueued_sequence_number"] == 500


def an_old_position_starts_at_the_first_kept_event(start_broker: StartBroker, azurite: Azurite) -> None:
    broker = start(start_broker, segment_bytes=20_000, retention_bytes=40_000, retention_hours=1)
    with broker.producer() as producer:
        for _ in range(100):
            producer.send_batch([EventData(b"x" * 900) for _ in range(5)], partition_id="0")

    async def run() -> list[int]:
        async with receiving(broker.consumer(), partition_id="0", starting_position=10) as received:
            await reached(lambda: received.events and received.events[-1][1].sequence_number == 499, "the newest")
        return [event.sequence_number for _, event in received.events]

    sequences = asyncio.run(run())
    assert sequences == list(range(sequences[0], 500))
    assert sequences[0] > 400


def group_commit_end_to_end(start_broker: StartBroker, azurite: Azurite) -> None:
    broker = start(start_broker, fsync="group")
    broker.send([f"safe {number}" for number in range(100)], partition_id="1")
    broker.kill()
    broker.start()

    async def run() -> list[str]:
        async with receiving(broker.consumer(), partition_id="1") as received:
            await reached(lambda: len(received.events) >= 100, "100 events")
        return received.bodies

    assert asyncio.run(run()) == [f"safe {number}" for number in range(100)]


SCENARIOS: dict[str, Callable[[StartBroker, Azurite], None]] = {
    scenario.__name__: scenario
    for scenario in (
        kill_of_the_broker_loses_no_acknowledged_event,
        kill_of_a_consumer_repeats_only_from_its_checkpoint,
        two_consumers_share_the_partitions,
        the_sync_checkpoint_store,
        a_checkpoint_of_a_lost_log_is_an_error_not_silence,
        retention_under_a_reader_and_after_a_restart,
        group_commit_end_to_end,
        an_old_position_starts_at_the_first_kept_event,
    )
}


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, start_broker: StartBroker, azurite: Azurite
) -> Iterator[dict[str, Future[None]]]:
    """The selected scenarios, started together: they mostly wait for pauses of the SDK."""
    selected = [
        str(item.callspec.params["scenario"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]
    with ThreadPoolExecutor(len(selected)) as pool:
        yield {name: pool.submit(SCENARIOS[name], start_broker, azurite) for name in selected}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_recovery(outcomes: dict[str, Future[None]], scenario: str) -> None:
    outcomes[scenario].result(150)
