"""The private channel between the host process and a worker process.

A frame is two big-endian u32 (header length, number of blobs), one u32 length per blob, the header as JSON, the blobs.
Nothing is ever unpickled, so the worst a confused peer can do is to break its own channel. Both ends may ask; answers
carry the id of the question.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

HEAD = struct.Struct("!II")
MAX_HEADER_BYTES = 64 * 2**20
MAX_BLOBS = 100_000
MAX_BLOB_BYTES = 512 * 2**20

type Json = dict[str, object]


class ChannelClosed(Exception):
    """The other end is gone."""


class RemoteError(Exception):
    """The other end could not do what was asked; the text says why."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What one message carries: a JSON body and binary attachments."""

    body: Json = field(default_factory=dict)
    blobs: Sequence[bytes] = ()

    def text(self, name: str) -> str:
        """A string field of the body; raises KeyError or TypeError for a peer that speaks another protocol."""
        value = self.body[name]
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string")
        return value


type Handler = Callable[[str, Payload], Awaitable[Payload]]


def encode(header: Json, blobs: Sequence[bytes]) -> list[bytes]:
    """A frame as the pieces to write."""
    head = json.dumps(header, separators=(",", ":")).encode()
    sizes = struct.pack(f"!{len(blobs)}I", *map(len, blobs))
    return [HEAD.pack(len(head), len(blobs)), sizes, head, *blobs]


async def read_frame(reader: asyncio.StreamReader) -> tuple[Json, list[bytes]]:
    """The next frame. Raises IncompleteReadError at the end and ValueError for anything that is not a frame."""
    head_bytes, blob_count = HEAD.unpack(await reader.readexactly(HEAD.size))
    if head_bytes > MAX_HEADER_BYTES or blob_count > MAX_BLOBS:
        raise ValueError("frame over the limits")
    sizes = struct.unpack(f"!{blob_count}I", await reader.readexactly(4 * blob_count))
    if sum(sizes) > MAX_BLOB_BYTES:
        raise ValueError("attachments over the limit")
    header = json.loads(await reader.readexactly(head_bytes))
    if not isinstance(header, dict):
        raise ValueError("header is not an object")  # noqa: TRY004  (a malformed frame, not a caller's wrong type)
    return header, [await reader.readexactly(size) for size in sizes]


class Channel:
    """One end of the pair. `run` must be running for answers and questions to arrive.

    Args:
        reader: Incoming bytes.
        writer: Outgoing bytes.
        handler: Answers what the other end asks; an exception becomes a RemoteError over there.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Payload]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    async def over(cls, end: socket.socket, handler: Handler) -> Channel:
        """A channel over one end of a socketpair."""
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=2**20)
        return cls(reader, writer, handler)

    async def ask(self, op: str, body: Json | None = None, blobs: Sequence[bytes] = ()) -> Payload:
        """Ask the other end and wait for its answer.

        Raises:
            ChannelClosed: the other end went away before it answered.
            RemoteError: it answered that it could not.
        """
        if self._closed:
            raise ChannelClosed(op)
        number = next(self._ids)
        future: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await self._write({"id": number, "op": op, "body": body or {}}, blobs)
            return await future
        finally:
            self._waiting.pop(number, None)

    async def tell(self, op: str, body: Json | None = None) -> None:
        """Send without waiting for an answer."""
        await self._write({"id": 0, "op": op, "body": body or {}}, ())

    async def run(self) -> None:
        """Serve until the other end closes; then every open question fails with ChannelClosed."""
        try:
            while True:
                header, blobs = await read_frame(self._reader)
                self._dispatch(header, blobs)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except ValueError:
            log.exception("the peer broke the channel's protocol")
        finally:
            self.close()

    def close(self) -> None:
        """Close this end; idempotent."""
        self._closed = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ChannelClosed("the other end closed the channel"))
        self._writer.close()

    def _dispatch(self, header: Json, blobs: list[bytes]) -> None:
        body = header.get("body")
        payload = Payload(body if isinstance(body, dict) else {}, blobs)
        answer_to = header.get("re")
        if isinstance(answer_to, int):
            future = self._waiting.get(answer_to)
            if future is None or future.done():
                return
            error = header.get("error")
            if isinstance(error, str):
                future.set_exception(RemoteError(error))
            else:
                future.set_result(payload)
            return
        number = header.get("id")
        task = asyncio.create_task(
            self._answer(number if isinstance(number, int) else 0, str(header.get("op")), payload)
        )
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, number: int, op: str, payload: Payload) -> None:
        try:
            reply = await self._handler(op, payload)
        except Exception as problem:
            if not number:
                log.exception("a message of the peer failed", extra={"op": op})
                return
            header: Json = {"re": number, "error": f"{type(problem).__name__}: {problem}"}
            blobs: Sequence[bytes] = ()
        else:
            if not number:
                return
            header, blobs = {"re": number, "body": reply.body}, reply.blobs
        try:
            await self._write(header, blobs)
        except ChannelClosed:
            log.debug("the peer left before its answer")

    async def _write(self, header: Json, blobs: Sequence[bytes]) -> None:
        if self._closed:
            raise ChannelClosed(str(header.get("op")))
        self._writer.writelines(encode(header, blobs))
        try:
            await self._writer.drain()
        except ConnectionError as gone:
            raise ChannelClosed(str(header.get("op"))) from gone
