"""A consumer as a process of its own, so that a test can kill it: prints one line of JSON per event and checkpoint.

Arguments: connection string of the broker, of the blob storage, container, batch size before each checkpoint.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from azure.eventhub.aio import EventHubConsumerClient
from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore


def _say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main(broker: str, storage: str, container: str, every: int) -> None:
    store = BlobCheckpointStore.from_connection_string(storage, container)
    client = EventHubConsumerClient.from_connection_string(
        broker,
        consumer_group="$Default",
        checkpoint_store=store,
        load_balancing_interval=1,
        partition_ownership_expiration_interval=3,
    )
    counts: dict[str, int] = {}

    async def on_event(context: Any, event: Any) -> None:
        count = counts[context.partition_id] = counts.get(context.partition_id, 0) + 1
        _say(partition=context.partition_id, sequence=event.sequence_number)
        if count % every == 0:
            await context.update_checkpoint(event)
            _say(partition=context.partition_id, checkpoint=event.sequence_number)

    async with client:
        await client.receive(on_event, starting_position="-1")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
