"""What the `$management` node answers: READ of a hub or of a partition.

Source: the requests of azure-eventhub 5.15.1 and @azure/event-hubs 6.0.4 (measured).
"""

from __future__ import annotations

from typing import Final

from twin.broker import codec, messages
from twin.broker.errors import LinkError
from twin.broker.hubs import Hub, Namespace, Partition
from twin.broker.messages import Request

HUB_TYPE: Final = "com.microsoft:eventhub"
PARTITION_TYPE: Final = "com.microsoft:partition"


def answer(request: Request, namespace: Namespace) -> bytes:
    """The reply to a request, with a status of 200, 400 or 404."""
    kind = request.text("type")
    if request.text("operation") != "READ" or kind not in (HUB_TYPE, PARTITION_TYPE):
        return messages.reply(request, 400, "Only READ of a hub or a partition is supported.")
    try:
        hub = namespace.hub(request.text("name"))
        body = describe_hub(hub) if kind == HUB_TYPE else describe_partition(hub, _partition(hub, request))
    except LinkError as error:
        return messages.reply(request, 404, error.description)
    return messages.reply(request, 200, "OK", body)


def _partition(hub: Hub, request: Request) -> Partition:
    identifier = request.properties.get("partition")
    return hub.partition(str(identifier))


def _map(entries: dict[str, bytes]) -> bytes:
    return codec.mapping({codec.string(name): value for name, value in entries.items()})


def describe_hub(hub: Hub) -> bytes:
    """The encoded description of a hub."""
    return _map(
        {
            "name": codec.string(hub.name),
            "type": codec.string(HUB_TYPE),
            "created_at": codec.timestamp(hub.created_ms),
            "partition_count": codec.integer(len(hub.partitions)),
            "partition_ids": codec.array_of([partition.id for partition in hub.partitions], codec.string),
        }
    )


def describe_partition(hub: Hub, partition: Partition) -> bytes:
    """The encoded description of a partition; the last offset of a log that never held an event is "-1"."""
    log = partition.log
    return _map(
        {
            "name": codec.string(hub.name),
            "type": codec.string(PARTITION_TYPE),
            "partition": codec.string(partition.id),
            "begin_sequence_number": codec.long(log.begin_sequence),
            "last_enqueued_sequence_number": codec.long(log.next_sequence - 1),
            "last_enqueued_offset": codec.string(str(log.last_offset)),
            "last_enqueued_time_utc": codec.timestamp(log.last_ms),
            "is_partition_empty": codec.boolean(log.begin_sequence == log.next_sequence),
        }
    )
