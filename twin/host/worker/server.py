"""Accepts connections on the socket that all workers of an app share, and hands them to uvicorn's HTTP protocol.

uvicorn's own server loop is not used: it takes every waiting connection at once, so that one of two workers may end up
with all of them. This one takes one connection per turn of the event loop, and lets a sibling that holds fewer have the
next one if it takes it soon: who is scheduled first on a busy machine would otherwise get them all.
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

from twin.host.loads import Loads

log = logging.getLogger("twin.host.http")

# Kestrel's documented default.
KEEP_ALIVE_S = 130
# How long a sibling that holds fewer connections is given to take the next one: an idle one needs some hundred us, on a
# busy machine a turn of the scheduler, which is a few ms.
GIVE_WAY_S = 0.005
# One that did not take it is blocked by a function or gets no processor: it is not waited for again during this time.
BLOCKED_S = 0.1
# How often is looked whether it took it.
LOOK_AGAIN_S = 0.001


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
        loads: What the siblings hold.
        place: Which of them this is.
    """

    def __init__(self, app: Any, listening: socket.socket, loads: Loads, place: int) -> None:
        self._listening = listening
        self._loads = loads
        self._place = place
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
        self._gave_way_at_s = 0.0
        self._taken_then = 0
        self._one_closed = asyncio.Event()

    def start(self) -> None:
        """Begin to accept."""
        self._tick()
        self._accepting = True
        self._note_load()
        self._resume()

    def close(self) -> None:
        """Stop accepting; what is open stays open."""
        self._accepting = False
        self._loads.leave(self._place)
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

    def _on_waiting(self) -> None:
        """A connection waits to be accepted."""
        if self._gives_way():
            self._loop.remove_reader(self._listening.fileno())
            self._loop.call_later(LOOK_AGAIN_S, self._resume)
        else:
            self._accept()

    def _gives_way(self) -> bool:
        """Whether a sibling that holds fewer connections may yet take the one that waits."""
        least = self._loads.least_of_others(self._place)
        if least is None or self._held <= least:
            return False
        now_s, taken = self._loop.time(), self._loads.taken_by_others(self._place)
        if taken != self._taken_then or now_s - self._gave_way_at_s >= BLOCKED_S:
            self._gave_way_at_s, self._taken_then = now_s, taken
        return now_s - self._gave_way_at_s < GIVE_WAY_S

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
        self._loads.took(self._place)
        self._note_load()
        opening.add_done_callback(self._opened)

    def _resume(self) -> None:
        if self._accepting:
            self._loop.add_reader(self._listening.fileno(), self._on_waiting)

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        self._note_load()

    @property
    def _held(self) -> int:
        return len(self._opening) + len(self._state.connections)

    def _note_load(self) -> None:
        if self._accepting:
            self._loads.note(self._place, self._held)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError as problem:
            log.debug("a connection broke before its first request: %s", problem)
            connection.close()

    def _protocol(self) -> _Connection:
        connection = _Connection(config=self._config, server_state=self._state, app_state={}, _loop=self._loop)
        connection.on_closed = self._closed
        return connection

    def _closed(self) -> None:
        self._note_load()
        self._one_closed.set()

    def _tick(self) -> None:
        """The date header, renewed once a second instead of per response."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode()), (b"server", b"Kestrel")]
        self._clock = self._loop.call_later(1.0, self._tick)
