"""Sending with the unmodified Python SDK: batches, keys, stamping, limits."""

from __future__ import annotations

import asyncio
import datetime
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.aio import EventHubProducerClient as AioProducer
from azure.eventhub.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType
from azure.eventhub.exceptions import ConnectError, EventDataSendError, EventHubError

from tests.broker.support import BrokerProcess, Received, collecting, until
from twin.broker.partition_key import partition_for


def properties(broker: BrokerProcess, partition: str) -> dict[str, Any]:
    with broker.producer() as producer:
        return dict(producer.get_partition_properties(partition))


@pytest.fixture(scope="module")
def received(broker: BrokerProcess) -> Iterator[Received]:
    """Everything this file's broker ever got, as a consumer gets it."""
    with collecting(broker) as found:
        yield found


def collect(received: Received, wanted: set[str]) -> dict[str, list[tuple[str, Any]]]:
    """All copies of the events whose bodies are wanted, with their partition."""
    found: dict[str, list[tuple[str, Any]]] = {}

    def complete() -> bool:
        found.clear()
        for partition, event in tuple(received.events):
            if event.body_type is AmqpMessageBodyType.DATA and event.body_as_str() in wanted:
                found.setdefault(event.body_as_str(), []).append((partition, event))
        return found.keys() == wanted

    until(complete, f"{len(wanted)} events")
    return found


def test_hub_and_partition_properties(broker: BrokerProcess) -> None:
    with broker.producer() as producer:
        hub = producer.get_eventhub_properties()
        assert (hub["eventhub_name"], hub["partition_ids"]) == ("tx", ["0", "1", "2", "3"])
        assert abs((hub["created_at"] - datetime.datetime.now(datetime.UTC)).total_seconds()) < 600
        before = producer.get_partition_properties("3")
        producer.send_batch([EventData("p")], partition_id="3")
        after = producer.get_partition_properties("3")
    assert after["last_enqueued_sequence_number"] == before["last_enqueued_sequence_number"] + 1
    assert isinstance(after["last_enqueued_offset"], str)
    assert after["beginning_sequence_number"] == 0
    assert not after["is_empty"]


def test_an_untouched_partition_is_empty(start_broker: Any) -> None:
    found = properties(start_broker(), "0")
    assert found["is_empty"]
    assert (found["last_enqueued_sequence_number"], found["last_enqueued_offset"]) == (-1, "-1")


def test_everything_an_event_carries_arrives(broker: BrokerProcess, received: Received) -> None:
    sent_at = datetime.datetime.now(datetime.UTC)
    event = EventData("full")
    event.properties = {"text": "a", "number": 7, "flag": True, "bytes": b"\x00\xff"}
    event.message_id, event.correlation_id, event.content_type = "m-1", "c-1", "application/json"
    value = AmqpAnnotatedMessage(value_body={"amount": 1250, "currency": "EUR"})
    with broker.producer() as producer:
        producer.send_event(event, partition_key="card-0")
        producer.send_event(value, partition_id="2")
        producer.send_event(EventData("after"), partition_id="2")
    found = collect(received, {"full", "after"})
    ((partition, got),) = found["full"]
    assert partition == str(partition_for("card-0", 4)) == "1"
    assert got.properties == {
        b"text": b"a",
        b"number": 7,
        b"flag": True,
        b"bytes": b"\x00\xff",
    }
    assert (got.message_id, got.correlation_id, got.content_type) == ("m-1", "c-1", "application/json")
    assert got.partition_key == b"card-0"
    assert abs((got.enqueued_time - sent_at).total_seconds()) < 60
    assert got.offset.isdigit()
    assert found["after"][0][1].sequence_number >= 1


def test_value_and_sequence_bodies_arrive(broker: BrokerProcess, received: Received) -> None:
    with broker.producer() as producer:
        producer.send_event(AmqpAnnotatedMessage(sequence_body=[["marker-sequence", 1], [2]]), partition_id="0")
        producer.send_event(AmqpAnnotatedMessage(value_body={"marker": "value"}), partition_id="0")

    def bodies(kind: AmqpMessageBodyType) -> list[Any]:
        return [event.body for event in received.of("0") if event.body_type is kind]

    until(lambda: {b"marker": b"value"} in bodies(AmqpMessageBodyType.VALUE), "the value")
    (sequence,) = bodies(AmqpMessageBodyType.SEQUENCE)
    assert list(sequence) == [[b"marker-sequence", 1], [2]]


def test_a_keyed_batch_goes_to_the_partition_of_its_key(broker: BrokerProcess, received: Received) -> None:
    keys = ("a", "card-1", "customer-4711", "0123456789abc", "The quick brown fox jumps")
    names = {key: [f"{key}/{number}" for number in range(5)] for key in keys}
    with broker.producer() as producer:
        for key in keys:
            batch = producer.create_batch(partition_key=key)
            for name in names[key]:
                batch.add(EventData(name))
            producer.send_batch(batch)
    found = collect(received, {name for group in names.values() for name in group})
    for key in keys:
        assert {partition for name in names[key] for partition, _ in found[name]} == {str(partition_for(key, 4))}
        assert [found[name][0][1].partition_key for name in names[key]] == [key.encode()] * 5


def test_batches_without_a_key_take_turns(start_broker: Any) -> None:
    broker = start_broker()
    with broker.producer() as producer:
        for number in range(8):
            producer.send_batch([EventData(f"turn-{number}-{part}") for part in range(3)])
        counts = [producer.get_partition_properties(str(p))["last_enqueued_sequence_number"] + 1 for p in range(4)]
    assert counts == [6, 6, 6, 6]


def test_a_batch_of_the_largest_size(broker: BrokerProcess, received: Received) -> None:
    with broker.producer() as producer:
        batch = producer.create_batch(partition_id="1")
        assert batch.max_size_in_bytes == 1024 * 1024
        batch.add(EventData("big" + "x" * 900_000))
        producer.send_batch(batch)
    assert collect(received, {"big" + "x" * 900_000})


def test_too_large_is_refused_and_the_link_recovers(broker: BrokerProcess) -> None:
    before = properties(broker, "1")["last_enqueued_sequence_number"]
    with broker.producer(retry_total=0) as producer:
        with pytest.raises(EventDataSendError):
            producer.send_event(EventData("y" * 1_200_000), partition_id="1")
        producer.send_event(EventData("small again"), partition_id="1")
    assert properties(broker, "1")["last_enqueued_sequence_number"] == before + 1


def test_an_unknown_hub_and_a_wrong_partition(broker: BrokerProcess) -> None:
    nowhere = EventHubProducerClient.from_connection_string(broker.connection_string_for("nowhere"), retry_total=0)
    with nowhere, pytest.raises(ConnectError):
        nowhere.get_eventhub_properties()
    with nowhere, pytest.raises(EventHubError, match="NotFound"):
        nowhere.send_event(EventData("lost"))
    with broker.producer(retry_total=0) as producer, pytest.raises(ConnectError):
        producer.send_event(EventData("lost"), partition_id="9")


def test_hub_names_have_no_case(broker: BrokerProcess) -> None:
    with EventHubProducerClient.from_connection_string(broker.connection_string_for("TX")) as producer:
        producer.send_event(EventData("upper"))


def test_many_concurrent_sends(broker: BrokerProcess, received: Received) -> None:
    async def run() -> None:
        async with AioProducer.from_connection_string(broker.connection_string) as producer:
            await asyncio.gather(*(producer.send_event(EventData(f"concurrent-{n}")) for n in range(50)))

    asyncio.run(run())
    found = collect(received, {f"concurrent-{number}" for number in range(50)})
    assert Counter(len(copies) for copies in found.values()) == {1: 50}


def test_the_buffered_producer_and_the_broker_agree_on_keys(broker: BrokerProcess, received: Received) -> None:
    names = {f"buffered-{number}" for number in range(2000)}
    sent: list[Any] = []
    failed: list[Any] = []

    async def on_success(events: Any, partition: str | None) -> None:
        sent.extend(events)

    async def on_error(events: Any, partition: str | None, error: Exception) -> None:
        failed.append(error)

    async def run() -> None:
        producer = AioProducer.from_connection_string(
            broker.connection_string, buffered_mode=True, on_success=on_success, on_error=on_error, max_wait_time=1
        )
        async with producer:
            for name in sorted(names):
                await producer.send_event(EventData(name), partition_key=f"key-{name[-2:]}")
            await producer.flush()

    asyncio.run(run())
    assert (len(sent), failed) == (2000, [])
    found = collect(received, names)
    for name, copies in found.items():
        assert [partition for partition, _ in copies] == [str(partition_for(f"key-{name[-2:]}", 4))]
