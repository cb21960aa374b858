"""What an Event Hub function receives: bodies, and the metadata that the library wraps into EventHubEvent objects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from twin.host.bindings import HubTrigger
from twin.host.protos import Collection, TypedData

type Metadata = list[tuple[str, TypedData]]


@dataclass(frozen=True, slots=True)
class Event:
    """One event as the broker delivered it; `enqueued` is aware UTC."""

    body: bytes
    sequence_number: int
    offset: str
    enqueued: datetime
    partition_key: str | None = None
    properties: dict[str, object] = field(default_factory=dict)


def _stamp(moment: datetime) -> str:
    """As .NET prints it: a fraction only where there is one. Milliseconds are all the wire carries."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _json(value: object) -> TypedData:
    return TypedData(json=json.dumps(value, default=str))


def _system(event: Event) -> dict[str, object]:
    return {
        "SequenceNumber": event.sequence_number,
        "Offset": event.offset,
        "EnqueuedTimeUtc": _stamp(event.enqueued),
        "PartitionKey": event.partition_key,
    }


def _context(trigger: HubTrigger, partition: str) -> TypedData:
    return _json({"PartitionId": partition, "EventHubName": trigger.hub, "ConsumerGroup": trigger.group})


def many_payload(trigger: HubTrigger, partition: str, events: Sequence[Event]) -> tuple[TypedData, Metadata]:
    """Value and metadata for a batch."""
    bodies = [event.body for event in events]
    if trigger.data_type == "string":
        value = TypedData(collection_string=Collection(string=[body.decode("utf-8", "replace") for body in bodies]))
    else:
        value = TypedData(collection_bytes=Collection(binary=bodies))
    metadata: Metadata = [
        ("PartitionContext", _context(trigger, partition)),
        # The library takes a batch for one only if this is present.
        ("SystemPropertiesArray", _json([_system(event) for event in events])),
        ("PropertiesArray", _json([event.properties for event in events])),
        ("SequenceNumberArray", _json([event.sequence_number for event in events])),
        ("OffsetArray", _json([event.offset for event in events])),
        ("EnqueuedTimeUtcArray", _json([_stamp(event.enqueued) for event in events])),
        ("PartitionKeyArray", _json([event.partition_key for event in events])),
    ]
    return value, metadata


def one_payload(trigger: HubTrigger, partition: str, event: Event) -> tuple[TypedData, Metadata]:
    """Value and metadata for a single event."""
    if trigger.data_type == "string":
        value = TypedData(string=event.body.decode("utf-8", "replace"))
    else:
        value = TypedData(bytes=event.body)
    metadata: Metadata = [
        ("PartitionContext", _context(trigger, partition)),
        ("SystemProperties", _json(_system(event))),
        ("Properties", _json(event.properties)),
        ("SequenceNumber", _json(event.sequence_number)),
        ("Offset", TypedData(string=event.offset)),
        ("EnqueuedTimeUtc", _json(_stamp(event.enqueued))),
    ]
    if event.partition_key is not None:
        metadata.append(("PartitionKey", TypedData(string=event.partition_key)))
    return value, metadata


def manual_payload(trigger: HubTrigger, text: str) -> tuple[TypedData, Metadata]:
    """A made-up event for the admin route; for a batch function, a JSON array becomes several events."""
    bodies = [text.encode()]
    if trigger.many and text.lstrip().startswith("["):
        try:
            parsed = json.loads(text)
        except ValueError:
            parsed = None
        if isinstance(parsed, list):
            bodies = [(item if isinstance(item, str) else json.dumps(item)).encode() for item in parsed]
    now = datetime.now(UTC)
    events = [Event(body, number, str(number), now) for number, body in enumerate(bodies)]
    return many_payload(trigger, "0", events) if trigger.many else one_payload(trigger, "0", events[0])
