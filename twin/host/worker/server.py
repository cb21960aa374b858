"""Accepts connections on the socket that all workers of an app share, and hands them to uvicorn's HTTP protocol.

uvicorn's own server loop is not used: it takes every waiting connection at once, so that one of two workers may end up
with all of them. This one takes one connection per turn of the event loop, so whoever is idle gets the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

log = logging.getLogger("twin.host.http")

# Kestrel's documented default.
KEEP_ALIVE_S = 130


class _Connection(HttpToolsProtocol):
    """uvicorn's protocol, which also says when it is closed."""

    on_closed: Callable[[], None]

    def connection_lost(self, exc: Exception | None) -> None:
        """Every response byte has left, or cannot leave any more."""
        super().connection_lost(exc)
        self.on_closed()


class Server:
    """HTTP/1.1 on an inherited listening socket.

    Args:
        app: The ASGI application.
        listening: Bound and listening, shared with sibling processes.
    """

    def __init__(self, app: Any, listening: socket.socket) -> None:
        self._listening = listening
        self._listening.setblocking(False)
        self._config = Config(
            app,
            http=HttpToolsProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._config.load()
        self._state = ServerState()
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()
        self._clock: asyncio.TimerHandle | None = None
        self._accepting = False
        self._one_closed = asyncio.Event()

    def start(self) -> None:
        """Begin to accept."""
        self._tick()
        self._accepting = True
        self._loop.add_reader(self._listening.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting; what is open stays open."""
        self._accepting = False
        self._loop.remove_reader(self._listening.fileno())

    async def drain(self, grace_s: float) -> None:
        """Stop accepting, then wait up to `grace_s` seconds for requests in flight; idle connections are closed."""
        self.close()
        deadline = time.monotonic() + grace_s
        if self._opening:
            await asyncio.wait(self._opening)
        for connection in list(self._state.connections):
            connection.shutdown()
        while self._state.connections and time.monotonic() < deadline:
            self._one_closed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._one_closed.wait(), deadline - time.monotonic())
        if self._clock is not None:
            self._clock.cancel()

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # a sibling was faster, or the client is gone
        except OSError as problem:  # out of file descriptors: let some close
            log.warning("cannot accept a connection: %s", problem)
            self._loop.remove_reader(self._listening.fileno())
            self._loop.call_later(0.2, self._resume)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening = self._loop.create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def _resume(self) -> None:
        if self._accepting:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError as problem:
            log.debug("a connection broke before its first request: %s", problem)
            connection.close()

    def _protocol(self) -> _Connection:
        connection = _Connection(config=self._config, server_state=self._state, app_state={}, _loop=self._loop)
        connection.on_closed = self._one_closed.set
        return connection

    def _tick(self) -> None:
        """The date header, renewed once a second instead of per response."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode()), (b"server", b"Kestrel")]
        self._clock = self._loop.call_later(1.0, self._tick)
