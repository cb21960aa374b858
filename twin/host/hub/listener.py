"""An Event Hub trigger: one consumer per function, with checkpoints where the cloud's extension keeps them.

Per partition: receive a batch, run the function (with its retry policy) to the end, then note the checkpoint; the
partition hands out nothing meanwhile. The checkpoint moves on after failure too, once retries are exhausted: there is
no dead letter in the platform. A host that stops or dies in a batch notes nothing, so the batch comes again.

The aio client is used because the sync one waits for a full prefetch before it delivers (seconds at low rates).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.eventhub import EventData
from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore

from twin.host.attempts import run_attempts
from twin.host.bindings import DEFAULT_STORAGE, Function, HubTrigger
from twin.host.generation import Attempt, Generation, Result
from twin.host.hub.payload import Event, many_payload, one_payload
from twin.host.protos import TypedData

if TYPE_CHECKING:
    from azure.eventhub.aio import EventHubConsumerClient, PartitionContext
    from azure.storage.blob.aio import ContainerClient

log = logging.getLogger(__name__)

CONTAINER = "azure-webjobs-eventhub"
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
# How often a partition that gathers a minimum batch looks at the clock.
GATHER_TICK_S = 0.25

type Metadata = list[tuple[str, TypedData]]


@dataclass(slots=True)
class _Partition:
    """What this process knows of a partition that it owns.

    Attributes:
        gathered: Events that wait for a minimum batch.
        first_at: Monotonic time of the oldest of them.
        batches: Batches since the last checkpoint.
    """

    gathered: list[EventData] = field(default_factory=list)
    first_at: float = 0.0
    batches: int = 0


class HubListener:
    """Consumes a hub for one function."""

    def __init__(self, generation: Generation, function: Function) -> None:
        if not isinstance(function.trigger, HubTrigger):
            raise TypeError(f"{function.name} has no Event Hub trigger")
        self._generation = generation
        self._function = function
        self._trigger = function.trigger
        self._options = generation.hostjson.hubs
        self._partitions: dict[str, _Partition] = {}
        self._stopping = asyncio.Event()
        self._busy: set[asyncio.Task[Any]] = set()
        self._client: EventHubConsumerClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._chance = random.Random()
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether storage and broker have answered."""
        return self._ready

    async def start(self) -> None:
        """Begin to consume; trouble with broker or storage is retried for ever and logged."""
        self._task = asyncio.create_task(self._run(), name=f"hub {self._function.name}")

    async def stop(self, grace_s: float) -> None:
        """Let batches in flight end (their checkpoints are written), then release the partitions."""
        self._stopping.set()
        if self._busy:
            await asyncio.wait(self._busy, timeout=grace_s)
        if self._client is not None:
            with contextlib.suppress(Exception):  # the broker may be gone; ownership then expires by itself
                await asyncio.wait_for(self._client.close(), 10)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._ready = False

    async def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                await self._consume()
                pause = FIRST_PAUSE_S
            except Exception as problem:  # noqa: BLE001  (logged and tried again: a listener outlives its broker)
                self._ready = False
                log.warning(
                    "'Functions.%s' cannot consume %s (%s: %s); next attempt in %g s",
                    self._function.name,
                    self._trigger.hub,
                    type(problem).__name__,
                    problem,
                    pause,
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _consume(self) -> None:
        """Receive until closed. Raises when broker or storage are not there at the start."""
        container = await self._container()
        store = BlobCheckpointStore("", CONTAINER, container_client=container)
        options = self._options
        client = self._generation.connections.consumer(
            self._trigger.connection,
            self._trigger.hub,
            self._trigger.group,
            checkpoint_store=store,
            load_balancing_interval=options.balance_interval_s,
            partition_ownership_expiration_interval=options.ownership_expiry_s,
        )
        async with client:
            await client.get_eventhub_properties()
            self._client = client
            self._ready = True
            log.info("'Functions.%s' consumes %s as %s", self._function.name, self._trigger.hub, self._trigger.group)
            await client.receive_batch(
                self._on_batch,
                max_batch_size=options.max_batch,
                max_wait_time=GATHER_TICK_S if options.min_batch > 1 else None,
                starting_position=self._starting_position(),
                prefetch=options.prefetch,
                on_error=self._on_error,
                on_partition_close=self._on_close,
            )

    async def _container(self) -> ContainerClient:
        """The checkpoints' container, made if it is not there."""
        container = self._generation.connections.blobs(DEFAULT_STORAGE).get_container_client(CONTAINER)
        with contextlib.suppress(ResourceExistsError):
            await container.create_container()
        return container

    def _starting_position(self) -> str | datetime:
        if self._options.start == "fromEnd":
            return "@latest"
        if self._options.start == "fromEnqueuedTime" and self._options.start_time_utc:
            moment = datetime.fromisoformat(self._options.start_time_utc)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return "-1"

    async def _on_error(self, context: PartitionContext | None, problem: Exception) -> None:
        where = "balancing partitions" if context is None else f"partition {context.partition_id}"
        log.warning("'Functions.%s': %s: %s: %s", self._function.name, where, type(problem).__name__, problem)
        if isinstance(problem, ResourceNotFoundError):
            # Azurite acknowledges before it saves, so a killed one may have lost what it had made. Partitions then
            # start from where a new consumer starts: events come again, none is left out.
            with contextlib.suppress(AzureError):  # asked again at the next balancing
                await self._container()

    async def _on_close(self, context: PartitionContext, reason: object) -> None:
        self._partitions.pop(context.partition_id, None)
        log.info("'Functions.%s' lets go of partition %s (%s)", self._function.name, context.partition_id, reason)

    async def _on_batch(self, context: PartitionContext, events: list[EventData]) -> None:
        """The SDK's callback; it waits for this before it hands over more of the partition."""
        partition = self._partitions.setdefault(context.partition_id, _Partition())
        if not partition.gathered:
            partition.first_at = time.monotonic()
        partition.gathered.extend(events)
        waited = time.monotonic() - partition.first_at
        if len(partition.gathered) < self._options.min_batch and waited < self._options.max_wait_s:
            return
        while partition.gathered:
            if self._stopping.is_set():
                await asyncio.Event().wait()  # until cancelled: what is left belongs to the next owner
            batch = partition.gathered[: self._options.max_batch]
            del partition.gathered[: self._options.max_batch]
            await self._tracked(self._process(context, partition, batch))

    async def _tracked(self, work: Any) -> None:
        """Run in a task that `stop` can wait for, cancelled together with the partition."""
        task = asyncio.ensure_future(work)
        self._busy.add(task)
        try:
            await task
        finally:
            task.cancel()
            self._busy.discard(task)

    async def _process(self, context: PartitionContext, partition: _Partition, batch: list[EventData]) -> None:
        events = [_event(raw) for raw in batch]
        ended = await self._run_function(context.partition_id, events)
        if not ended:
            return
        partition.batches += 1
        if partition.batches >= self._options.checkpoint_every or ended < len(batch):
            partition.batches = 0
            await self._checkpoint(context, batch[ended - 1])

    async def _checkpoint(self, context: PartitionContext, last: EventData) -> None:
        """Note how far the partition is done; storage that is away for a moment must not bring the batch again."""
        for pause in (0.2, 1.0, 5.0, None):
            try:
                await context.update_checkpoint(last)
            except Exception as problem:
                if pause is None:
                    raise
                log.warning("'Functions.%s': checkpoint not written (%s)", self._function.name, problem)
                await asyncio.sleep(pause)
            else:
                return

    async def _run_function(self, partition: str, events: list[Event]) -> int:
        """Run the function over a batch; how many events are done, fewer than all if the host stopped first."""
        if self._trigger.many:
            value, metadata = many_payload(self._trigger, partition, events)
            return len(events) if await self._attempts(value, metadata, {"PartitionId": partition}) else 0
        for done, event in enumerate(events):
            value, metadata = one_payload(self._trigger, partition, event)
            data: dict[str, object] = {"SequenceNumber": event.sequence_number, "Offset": event.offset}
            if self._stopping.is_set() or not await self._attempts(value, metadata, data):
                return done
        return len(events)

    async def _attempts(self, value: TypedData, metadata: Metadata, data: dict[str, object]) -> bool:
        async def invoke(attempt: Attempt) -> Result:
            inputs = [(self._trigger.name, value)]
            return await self._generation.invoke(self._function, inputs, metadata, attempt=attempt, data=data)

        return await run_attempts(self._function, invoke, self._stopping, self._chance)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _event(raw: EventData) -> Event:
    """The SDK's event as ours."""
    body = raw.body
    content = body if isinstance(body, bytes) else b"".join(body)  # type: ignore[arg-type]  # data sections are bytes
    properties = {
        _text(name): _text(value) if isinstance(value, bytes) else value
        for name, value in (raw.properties or {}).items()
    }
    return Event(
        body=content,
        sequence_number=raw.sequence_number or 0,
        offset=raw.offset or "",
        enqueued=raw.enqueued_time or datetime.now(UTC),
        partition_key=None if raw.partition_key is None else _text(raw.partition_key),
        properties=properties,
    )
