"""Output bindings: what functions set or return goes to event hubs, queues and blobs."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence

from twin.host.bindings import BlobOutput, Function, HubOutput, QueueOutput
from twin.host.connections import Connections
from twin.host.errors import BindingFailed
from twin.host.outputs.elements import elements
from twin.host.outputs.tokens import fill
from twin.host.protos import TypedData

log = logging.getLogger(__name__)


class Outputs:
    """Writes for all functions of an app."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._known_containers: set[tuple[str, str]] = set()
        self._known_queues: set[tuple[str, str]] = set()

    async def write(
        self, function: Function, values: Sequence[tuple[str, TypedData]], data: Mapping[str, object]
    ) -> None:
        """Write what a function produced, binding by binding.

        Args:
            function: Whose outputs.
            values: By binding name; a name without a binding is not this class's business.
            data: The trigger's data, for names in blob paths.

        Raises:
            BindingFailed: naming the binding; the invocation fails. Bindings before it have been written.
        """
        produced = dict(values)
        for output in function.outputs:
            value = produced.get(output.name)
            if value is None:
                continue
            try:
                match output:
                    case HubOutput():
                        await self._send(output, value)
                    case QueueOutput():
                        await self._enqueue(output, value)
                    case BlobOutput():
                        await self._upload(output, value, data)
            except Exception as problem:
                raise BindingFailed(
                    f"output binding {output.name!r} of 'Functions.{function.name}' failed: "
                    f"{type(problem).__name__}: {problem}"
                ) from problem

    async def _send(self, output: HubOutput, value: TypedData) -> None:
        from azure.eventhub import EventData  # noqa: PLC0415  (slow to import)

        producer = self._connections.producer(output.connection, output.hub)
        bodies = elements(value)
        if not bodies:
            return
        batch = await producer.create_batch()
        for body in bodies:
            try:
                batch.add(EventData(body))
            except ValueError:
                if not len(batch):
                    raise  # one event that is over the hub's limit
                await producer.send_batch(batch)
                batch = await producer.create_batch()
                batch.add(EventData(body))
        await producer.send_batch(batch)

    async def _enqueue(self, output: QueueOutput, value: TypedData) -> None:
        from azure.core.exceptions import ResourceExistsError  # noqa: PLC0415  (slow to import)

        queue = self._connections.queues(output.connection).get_queue_client(output.queue)
        key = (output.connection, output.queue)
        if key not in self._known_queues:
            try:
                await queue.create_queue()
            except ResourceExistsError:
                log.debug("queue %s is there", output.queue)
            self._known_queues.add(key)
        for body in elements(value):
            raw = body.encode() if isinstance(body, str) else body
            # The queue extension's default message encoding.
            await queue.send_message(base64.b64encode(raw).decode())

    async def _upload(self, output: BlobOutput, value: TypedData, data: Mapping[str, object]) -> None:
        from azure.core.exceptions import ResourceExistsError  # noqa: PLC0415  (slow to import)

        path = fill(output.path, data)
        container_name, _, name = path.partition("/")
        service = self._connections.blobs(output.connection)
        container = service.get_container_client(container_name)
        key = (output.connection, container_name)
        if key not in self._known_containers:
            try:
                await container.create_container()
            except ResourceExistsError:
                log.debug("container %s is there", container_name)
            self._known_containers.add(key)
        content = value.value if isinstance(value.value, bytes) else str(value.value).encode()
        await container.upload_blob(name, content, overwrite=True)
