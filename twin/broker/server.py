"""The broker as a whole: one data directory, its listeners, its clients, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import ssl
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from twin.broker.config import Settings
from twin.broker.connection import Connection
from twin.broker.errors import BrokerError, Condition, ConnectionFault
from twin.broker.hubs import Namespace
from twin.broker.sessions import Services
from twin.broker.tokens import TokenVerifier

_log = logging.getLogger(__name__)

_TICK_S: Final = 0.5
"""How often timeouts are looked at: a token is noticed as expired at most so much later."""
_RETENTION_MAX_S: Final = 60.0
_RETENTION_MIN_S: Final = 0.25
_DRAIN_S: Final = 2.0
"""How long connections may take to say goodbye at the end."""
_LOCK: Final = "broker.lock"


class PortTaken(BrokerError):
    """Somebody listens there already."""


class DataDirectoryTaken(BrokerError):
    """Another broker uses the data directory."""


class Broker:
    """A running broker; use it as an asynchronous context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = -1
        self._namespace: Namespace | None = None
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._all_lost = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._container_id = f"tollgate-{uuid.uuid4()}"
        self.port = 0
        self.tls_port: int | None = None

    async def __aenter__(self) -> Self:
        """Open the data directory and listen.

        Raises:
            DataDirectoryTaken: another broker runs on it.
            NamespaceShrunk: it has more hubs or partitions than the settings.
            LogCorrupt: stored events are damaged.
            PortTaken: a port is in use.
            OSError: a file or port cannot be used.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            await self._start()
            stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _start(self) -> None:
        settings = self._settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = _acquire(settings.data_dir / _LOCK)
        # Before the ports: nobody must connect to a broker that cannot read its data.
        self._namespace = Namespace(settings.data_dir, settings.hubs, settings.limits)
        verifier = TokenVerifier(settings.keys, settings.jwt_rules, time.time)
        services = Services(self._namespace, verifier, settings.timeouts)
        self.port = await self._listen(services, settings.port, None)
        if settings.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(settings.tls.certificate, settings.tls.key)
            self.tls_port = await self._listen(services, settings.tls.port, context)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._tick()), loop.create_task(self._retain(self._namespace))]

    async def _listen(self, services: Services, port: int, context: ssl.SSLContext | None) -> int:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                self._connect(services),
                self._settings.host,
                port,
                ssl=context,
                ssl_handshake_timeout=None if context is None else 10,
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(f"port {port} of {self._settings.host} is taken") from error
            raise
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    def _connect(self, services: Services) -> Callable[[], Connection]:
        return lambda: Connection(services, self._container_id, on_made=self._admit, on_lost=self._forget)

    def _admit(self, connection: Connection) -> bool:
        if len(self._connections) >= self._settings.max_connections:
            _log.warning("too many connections", extra={"limit": self._settings.max_connections})
            return False
        self._connections.add(connection)
        return True

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections and not any(server.is_serving() for server in self._servers):
            self._all_lost.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            for connection in tuple(self._connections):
                connection.tick()

    async def _retain(self, namespace: Namespace) -> None:
        pause = min(max(self._settings.limits.retention_ms / 10_000, _RETENTION_MIN_S), _RETENTION_MAX_S)
        while True:
            await asyncio.sleep(pause)
            for partition in namespace.partitions:
                try:
                    partition.log.retain()
                except OSError:
                    # Old segments stay until the next turn; that harms nobody, so the broker goes on.
                    _log.exception("retention failed", extra={"partition": partition.id})

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._connections:
            self._all_lost.set()
        for connection in tuple(self._connections):
            connection.fail(ConnectionFault(Condition.FORCED, "The broker stops."))
        await self._wait_for_goodbyes()
        if self._namespace is not None:
            await self._namespace.close()
            self._namespace = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def _wait_for_goodbyes(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self._all_lost.wait()
        for connection in tuple(self._connections):
            connection.abort()


def _acquire(path: Path) -> int:
    """Lock the data directory for this process; the lock ends with the process, however it ends."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise DataDirectoryTaken(f"another broker uses {path.parent}") from error
    return descriptor
