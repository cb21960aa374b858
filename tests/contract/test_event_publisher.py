"""The publisher against the broker: everything arrives, in order per key, and faults are told apart."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from typing import Any

import azure.eventhub.exceptions as sdk_errors
import pytest
from azure.eventhub import EventData, EventHubConsumerClient, PartitionContext

from shared.adapters.eventhub_publisher import EventHubPublisher, meaning
from shared.domain.errors import BrokenInvariant, TollgateError, Transient
from shared.domain.event import OutgoingEvent
from tests.conftest import twin_settings
from twin.services.broker import broker_service
from twin.services.orchestra import bring_up, take_down
from twin.services.processes import Records
from twin.services.settings import TwinSettings


@pytest.fixture(scope="module")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwinSettings]:
    settings = twin_settings(tmp_path_factory.mktemp("broker"))
    records = Records(settings.root / "run")
    layers = [[broker_service(settings)]]
    bring_up(layers, records, lambda *_: None, timeout_s=60)
    yield settings
    take_down(layers, records, lambda *_: None)


@pytest.fixture
def publisher(hubs: TwinSettings) -> Iterator[EventHubPublisher]:
    made = EventHubPublisher.of_setting("EVENT_HUBS", "decisions", {"EVENT_HUBS": hubs.hub_connection()})
    yield made
    made.close()


def received(hubs: TwinSettings, count: int) -> list[tuple[str, bytes, str]]:
    """The first events of the hub as (partition, body, key)."""
    found: list[tuple[str, bytes, str]] = []
    client = EventHubConsumerClient.from_connection_string(
        hubs.hub_connection(), consumer_group="check", eventhub_name="decisions"
    )
    deadline = time.monotonic() + 60

    def take(context: PartitionContext, events: list[EventData]) -> None:
        for event in events:
            properties: Any = event.properties or {}
            key = properties.get(b"key", b"")
            if key.startswith(b"k"):  # other tests send too
                found.append((context.partition_id, event.body_as_str().encode(), key.decode()))
        if len(found) >= count or time.monotonic() > deadline:
            client.close()

    client.receive_batch(take, starting_position="-1", max_wait_time=0.2)
    return found


def test_everything_arrives_and_a_key_keeps_its_order(hubs: TwinSettings, publisher: EventHubPublisher) -> None:
    events = [OutgoingEvent(f"k{number % 17}", f"{number:05}".encode()) for number in range(400)]
    large = [OutgoingEvent("k3", b"L" * 300_000 + str(number).encode()) for number in range(8)]
    publisher.publish([])
    publisher.publish(events)
    publisher.publish(large)
    found = received(hubs, 408)
    assert sorted(body for _, body, _ in found) == sorted(event.body for event in [*events, *large])
    for key in {event.key for event in events}:
        own = [body for _, body, of in found if of == key and body[:1] != b"L"]
        assert own == sorted(own)
        assert len({partition for partition, _, of in found if of == key}) == 1
    assert len({partition for partition, _, _ in found}) == 4


def test_an_event_that_no_batch_can_hold_is_refused(publisher: EventHubPublisher) -> None:
    with pytest.raises(BrokenInvariant, match="too large"):
        publisher.publish([OutgoingEvent("k", b"x" * 2_000_000)])
    with pytest.raises(BrokenInvariant, match="too large"):
        publisher.publish([OutgoingEvent("small", b"small"), OutgoingEvent("k", b"x" * 2_000_000)])


def test_a_hub_that_cannot_be_reached_is_a_passing_fault(hubs: TwinSettings) -> None:
    nobody = hubs.hub_connection().replace(str(hubs.amqp), str(hubs.amqps))
    publisher = EventHubPublisher.of_setting("EVENT_HUBS", "decisions", {"EVENT_HUBS": nobody})
    with pytest.raises(Transient, match="sending to the hub"):
        publisher.publish([OutgoingEvent("k", b"x")])


def test_a_publisher_goes_on_after_a_fault(hubs: TwinSettings, publisher: EventHubPublisher) -> None:
    publisher.publish([OutgoingEvent("again", b"before")])
    with pytest.raises(BrokenInvariant):
        publisher.publish([OutgoingEvent("again", b"x" * 2_000_000)])
    publisher.publish([OutgoingEvent("again", b"after")])


@pytest.mark.parametrize(
    "kind",
    [kind for _, kind in inspect.getmembers(sdk_errors, inspect.isclass) if issubclass(kind, Exception)],
    ids=lambda kind: str(kind.__name__),
)
def test_every_error_of_the_sdk_has_a_meaning(kind: type[Exception]) -> None:
    found = meaning(kind("x"))
    assert isinstance(found, TollgateError)
    broken = kind in {sdk_errors.AuthenticationError, sdk_errors.EventDataError}
    assert isinstance(found, BrokenInvariant if broken else Transient)
