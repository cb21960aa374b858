"""Load from many clients that each wait for their answer before they ask again; kept connections, one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast


@dataclass(slots=True)
class Load:
    """What a load met.

    Attributes:
        seconds: How long it was measured.
        latencies_ms: Of every answer in that time.
        failures: Answers with another status than 200, by status.
    """

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    failures: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return (len(self.latencies_ms) - sum(self.failures.values())) / self.seconds

    def add(self, other: Load) -> None:
        """Count another load of the same kind as part of this one."""
        self.seconds += other.seconds
        self.latencies_ms += other.latencies_ms
        for status, count in other.failures.items():
            self.failures[status] = self.failures.get(status, 0) + count

    def quantile_ms(self, share: float) -> float:
        """Latency that this share of the answers stayed within."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class _Client(asyncio.Protocol):
    """Sends the next request as soon as an answer is complete."""

    def __init__(self, path: str, bodies: Iterator[bytes], load: Load) -> None:
        lines = (f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", "Content-Length: ")
        self._head = "\r\n".join(lines).encode()
        self._bodies = bodies
        self._load = load
        self._answer = b""
        self._sent_at = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self.measured = False
        self.idle = asyncio.Event()
        self.stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        if self.stopping:
            self.idle.set()
            return
        body = next(self._bodies)
        self._sent_at = time.perf_counter()
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    def data_received(self, data: bytes) -> None:
        self._answer = self._answer + data if self._answer else data
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._answer[:end].lower()
        place = head.find(b"content-length:")
        length = int(head[place + 15 : head.find(b"\r", place) if head.find(b"\r", place) > 0 else None])
        if len(self._answer) < end + 4 + length:
            return
        if self.measured:
            self._load.latencies_ms.append((time.perf_counter() - self._sent_at) * 1000)
            status = int(head[9:12])
            if status != 200:
                self._load.failures[status] = self._load.failures.get(status, 0) + 1
        self._answer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.idle.set()


async def _apply(
    port: int, path: str, *, clients: int, seconds: float, warm_up_s: float, bodies: Callable[[int], Iterator[bytes]]
) -> Load:
    loop, load = asyncio.get_running_loop(), Load()
    made = [_Client(path, bodies(number), load) for number in range(clients)]
    transports = [
        (await loop.create_connection(lambda client=client: client, "127.0.0.1", port))[0]  # type: ignore[misc]
        for client in made
    ]
    await asyncio.sleep(warm_up_s)
    began = time.perf_counter()
    for client in made:
        client.measured = True
    await asyncio.sleep(seconds)
    for client in made:
        client.measured = False
        client.stopping = True
    load.seconds = time.perf_counter() - began
    await asyncio.wait_for(asyncio.gather(*(client.idle.wait() for client in made)), 30)
    for transport in transports:
        transport.close()
    return load


def apply_load(
    port: int,
    path: str,
    *,
    clients: int,
    seconds: float,
    warm_up_s: float,
    bodies: Callable[[int], Iterator[bytes]],
) -> Load:
    """Ask from `clients` connections for a while.

    Args:
        port: Of a server on this machine.
        path: That is posted to.
        clients: How many wait at once.
        seconds: How long answers are counted.
        warm_up_s: How long before that they are not.
        bodies: An endless supply of bodies for each client.
    """
    import uvloop  # noqa: PLC0415 - only where load is made

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_apply(port, path, clients=clients, seconds=seconds, warm_up_s=warm_up_s, bodies=bodies))
