"""Workers share connections: whoever holds fewer takes the next one, and nobody waits long for one who does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.broker.support import reached
from tests.host.hosting import ROOT
from twin.host.loads import Loads
from twin.host.worker.front import Receive, Scope, Send
from twin.host.worker.server import Server


@pytest.fixture
def loads() -> Iterator[Loads]:
    made = Loads.create(3)
    yield made
    made.close()


def test_only_who_accepts_is_counted(loads: Loads) -> None:
    assert loads.least_of_others(0) is None
    loads.note(0, 4)
    assert loads.least_of_others(0) is None, "its own cell is not another's"
    loads.note(1, 7)
    loads.note(2, 0)
    assert [loads.least_of_others(place) for place in range(3)] == [0, 0, 4]
    loads.leave(2)
    assert [loads.least_of_others(place) for place in range(3)] == [7, 4, 4]


def test_what_others_took_is_added_up(loads: Loads) -> None:
    for place in (0, 1, 1, 2):
        loads.took(place)
    loads.leave(1)
    assert [loads.taken_by_others(place) for place in range(3)] == [3, 2, 3]


def test_processes_see_one_anothers_cells(loads: Loads) -> None:
    code = (
        "import json, sys; from twin.host.loads import Loads; loads = Loads(int(sys.argv[1]), 3);"
        " print(json.dumps(loads.least_of_others(1))); loads.note(1, 5)"
    )
    loads.note(0, 2)
    command = [sys.executable, "-c", code, str(loads.descriptor)]
    done = subprocess.run(command, pass_fds=[loads.descriptor], cwd=ROOT, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout) == 2
    assert loads.least_of_others(0) == 5


def test_a_page_may_be_closed_twice() -> None:
    loads = Loads.create(1)
    loads.close()
    loads.close()


def answering(name: str) -> object:
    """An ASGI application that says who it is."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        body = name.encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    return app


class Client:
    """A connection that stays open."""

    def __init__(self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], served_by: str) -> None:
        self._writer = streams[1]
        self.served_by = served_by

    @classmethod
    async def of(cls, listening: socket.socket) -> Client:
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        return cls((reader, writer), (await reader.readexactly(1)).decode())

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def clients_of(listening: socket.socket, count: int) -> AsyncIterator[list[Client]]:
    """One after the other, each answered before the next comes."""
    made = [await Client.of(listening) for _ in range(count)]
    try:
        yield made
    finally:
        for client in made:
            await client.close()


@contextlib.asynccontextmanager
async def serving(listening: socket.socket, loads: Loads, names: str) -> AsyncIterator[None]:
    """Workers in this process: one loop serves all, so nobody is faster than another by the scheduler's chance."""
    with contextlib.ExitStack() as stack:
        own = [stack.enter_context(listening.dup()) for _ in names]
        servers = [
            Server(answering(name), end, loads, place) for place, (name, end) in enumerate(zip(names, own, strict=True))
        ]
        for server in servers:
            server.start()
        try:
            yield
        finally:
            for server in servers:
                await server.drain(5)


def test_workers_hold_equally_many(loads: Loads) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            async with serving(listening, loads, "abc"), clients_of(listening, 12) as clients:
                assert Counter(client.served_by for client in clients) == {"a": 4, "b": 4, "c": 4}
                for client in clients:
                    if client.served_by == "b":
                        await client.close()
                await reached(lambda: loads.least_of_others(0) == 0, "all that b held is closed")
                async with clients_of(listening, 4) as others:
                    assert {client.served_by for client in others} == {"b"}

    asyncio.run(asyncio.wait_for(run(), 60))


def test_who_does_not_take_a_connection_is_not_waited_for_long(loads: Loads) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            loads.note(1, 0)  # accepts, says the page, but a function blocks its loop
            async with serving(listening, loads, "a"), clients_of(listening, 30) as clients:
                assert [client.served_by for client in clients] == ["a"] * 30

    asyncio.run(asyncio.wait_for(run(), 60))
