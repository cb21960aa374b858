"""One life of an app between two reloads: its workers, its functions, its listeners, its outputs."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from twin.host import datums, settings
from twin.host.bindings import Function, HttpTrigger, HubTrigger, TimerTrigger, parse_functions
from twin.host.config import HostConfig
from twin.host.connections import Connections
from twin.host.errors import BindingFailed, BrokenApp, WorkerLost
from twin.host.hostjson import HostJson, load_hostjson
from twin.host.ipc import Json, Payload, RemoteError
from twin.host.keyring import Keyring, load_or_create
from twin.host.outputs import Outputs
from twin.host.pool import Pool
from twin.host.protos import TypedData
from twin.host.workerproc import WorkerOrder

log = logging.getLogger(__name__)

type AdminAnswer = Callable[[Payload], Awaitable[Payload]]


class Listener(Protocol):
    """A trigger source that runs beside the workers."""

    @property
    def ready(self) -> bool:
        """Whether it has begun its work."""

    async def start(self) -> None:
        """Begin; returns soon, trouble with the source is retried in the background."""

    async def stop(self, grace_s: float) -> None:
        """Finish the call in flight within `grace_s` seconds, note how far it came, release what it holds."""


@dataclass(frozen=True, slots=True)
class Result:
    """How an invocation ended, outputs included.

    Attributes:
        error: None when all of it succeeded.
        lost: The worker died in it, so nobody knows how far it came.
    """

    error: str | None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """Where an invocation stands in its retry policy."""

    count: int = 0
    maximum: int = 0
    error: str | None = None


_FIRST = Attempt()


class Generation:
    """Everything that a reload replaces.

    In this order: `prepare` (makes it), `serve`, `listen`, `stop_listening`, `drain`.
    """

    def __init__(
        self, config: HostConfig, hostjson: HostJson, listening: socket.socket, host_id: str, number: int
    ) -> None:
        self.host_id = host_id
        self.config = config
        self.hostjson = hostjson
        self.functions: dict[str, Function] = {}
        self.keyring: Keyring | None = None
        self.env = settings.environment(config.settings, str(config.app_dir))
        self.connections = Connections(self.env, hostjson.hubs.client_retry)
        self.listeners: list[Listener] = []
        self._outputs = Outputs(self.connections)
        self._admin_answer: AdminAnswer = _no_admin
        order = WorkerOrder(config.app_dir, config.site_packages, self.env, config.log_level, config.log_format)
        count = settings.worker_count(self.env)
        self.pool = Pool(order, count, listening, self._answer, f"worker-{number}." if number else "worker-")

    @classmethod
    async def prepare(cls, config: HostConfig, listening: socket.socket, host_id: str, number: int) -> Generation:
        """Check host.json and settings, start the workers, let them import the app, check its functions.

        Raises:
            BrokenApp: the app cannot run here; nothing is left running.
        """
        hostjson = load_hostjson(config.app_dir)
        try:
            settings.body_limit(config.settings)
            generation = cls(config, hostjson, listening, host_id, number)
        except ValueError as problem:
            raise BrokenApp([str(problem)]) from problem
        try:
            found = await generation.pool.load()
            functions = parse_functions(found, generation.env, hostjson)
            generation.functions = {function.name: function for function in functions}
            generation.connections.check(functions)
            generation.listeners = generation._make_listeners()
        except BaseException:
            await generation.pool.kill()
            raise
        return generation

    async def serve(self, admin: AdminAnswer) -> None:
        """Let the workers answer HTTP; `admin` answers the admin routes."""
        self._admin_answer = admin
        if self.config.enforce_keys and self.config.keys_file is not None:
            self.keyring = load_or_create(self.config.keys_file, self.functions)
        await self.pool.serve(self._worker_orders())

    async def listen(self) -> None:
        """Start timers and hub consumers."""
        for listener in self.listeners:
            await listener.start()

    @property
    def running(self) -> bool:
        """Whether all workers and listeners are up."""
        return self.pool.all_ready and all(listener.ready for listener in self.listeners)

    async def stop_listening(self, grace_s: float) -> None:
        """Stop accepting connections, end timers and consumers after what they run, release what they hold."""
        await self.pool.close()
        await asyncio.gather(*(listener.stop(grace_s) for listener in self.listeners))

    async def drain(self, grace_s: float) -> None:
        """End the workers after what they run, then close the connections."""
        await self.pool.drain(grace_s)
        await self.connections.close()

    async def invoke(
        self,
        function: Function,
        inputs: Sequence[tuple[str, TypedData]],
        metadata: Sequence[tuple[str, TypedData]] = (),
        attempt: Attempt = _FIRST,
        data: Mapping[str, object] | None = None,
    ) -> Result:
        """Run a function on a worker and write its outputs. Never raises for what the function or a binding does."""
        invocation_id = str(uuid.uuid4())
        blobs: list[bytes] = []
        body: Json = {
            "function": function.name,
            "invocation_id": invocation_id,
            "inputs": datums.pack_all(inputs, blobs),
            "metadata": datums.pack_all(metadata, blobs),
            "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00",
            "retry": {"count": attempt.count, "maximum": attempt.maximum, "error": attempt.error},
        }
        try:
            answer = await self.pool.invoke(body, blobs)
        except WorkerLost as problem:
            self._failed(function, invocation_id, str(problem), "")
            return Result(str(problem), lost=True)
        except RemoteError as problem:
            return self._failed(function, invocation_id, str(problem), "")
        error = answer.body.get("error")
        if error is not None:
            return self._failed(function, invocation_id, str(error), str(answer.body.get("stack")))
        try:
            values = datums.unpack_all(answer.body["outputs"], answer.blobs)
            await self._outputs.write(function, values, data or {})
        except BindingFailed as problem:
            return self._failed(function, invocation_id, str(problem), "")
        log.info("Executed 'Functions.%s' (Succeeded, Id=%s)", function.name, invocation_id)
        return Result(None)

    def _failed(self, function: Function, invocation_id: str, error: str, stack: str) -> Result:
        log.error("Executed 'Functions.%s' (Failed, Id=%s): %s\n%s", function.name, invocation_id, error, stack)
        return Result(error)

    async def _answer(self, op: str, payload: Payload) -> Payload:
        """What workers ask: write the outputs of an HTTP function, answer an admin route."""
        if op == "outputs":
            values = datums.unpack_all(payload.body["outputs"], payload.blobs)
            data = payload.body["data"]
            function = self.functions[payload.text("function")]
            await self._outputs.write(function, values, data if isinstance(data, dict) else {})
            return Payload()
        if op == "admin":
            return await self._admin_answer(payload)
        raise ValueError(f"unknown operation {op!r}")

    def _make_listeners(self) -> list[Listener]:
        made: list[Listener] = []
        for function in self.functions.values():
            if isinstance(function.trigger, TimerTrigger):
                from twin.host.timers.listener import TimerListener  # noqa: PLC0415  (the storage SDK is slow to import)

                made.append(TimerListener(self, function))
            elif isinstance(function.trigger, HubTrigger):
                from twin.host.hub.listener import HubListener  # noqa: PLC0415  (the hub SDK is slow to import)

                made.append(HubListener(self, function))
        return made

    def _worker_orders(self) -> Json:
        http = self.hostjson.http
        count = settings.worker_count(self.env)
        routes = [
            {
                "function": function.name,
                "trigger": function.trigger.name,
                "template": function.trigger.template,
                "methods": None if function.trigger.methods is None else list(function.trigger.methods),
                "level": function.trigger.level,
                "outputs": bool(function.outputs),
            }
            for function in self.functions.values()
            if isinstance(function.trigger, HttpTrigger)
        ]
        cors = self.config.cors
        return {
            "routes": routes,
            "prefix": http.route_prefix,
            "timeout_s": self.hostjson.timeout_s,
            "body_bytes": settings.body_limit(self.env),
            # Each worker enforces its share, because requests never pass through this process.
            "outstanding": _share(http.max_outstanding, count),
            "concurrent": _share(http.max_concurrent, count),
            "headers": [list(header) for header in http.custom_headers],
            "keys": None if self.keyring is None else self.keyring.as_json(),
            "cors": None if cors is None else {"origins": sorted(cors.origins), "credentials": cors.credentials},
            "homepage": not settings.is_true(self.env, "AzureWebJobsDisableHomepage"),
        }


def _share(limit: int | None, count: int) -> int | None:
    return None if limit is None else max(1, -(-limit // count))


async def _no_admin(_: Payload) -> Payload:
    return Payload({"status": 503})
