"""A hand-made AMQP client on a blocking socket, for frames and timings that no SDK would produce."""

from __future__ import annotations

import base64
import contextlib
import hmac
import socket
import time
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote_plus

from tests.broker.support import KEY, KEY_NAME
from twin.broker import codec
from twin.broker.codec import NULL, Described
from twin.broker.framing import AMQP_HEADER, SASL_HEADER, Frame, FrameBuffer, FrameType, frame
from twin.broker.performatives import Code, source, target


@dataclass(frozen=True)
class Said:
    """One frame of the broker: the performative's code, its fields, and what follows them."""

    channel: int
    code: int
    fields: list[Any]
    payload: bytes


class WireClient:
    """Speaks exactly as told."""

    def __init__(self, port: int, timeout_s: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.buffer = FrameBuffer(1 << 20)
        self.timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # ---------------------------------------------------------------- bytes

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def say(self, code: int, *fields: bytes, channel: int = 0, payload: bytes = b"", sasl: bool = False) -> None:
        kind = FrameType.SASL if sasl else FrameType.AMQP
        self.send(frame(channel, codec.described(code, codec.listing(fields)) + payload, kind))

    def header(self) -> bytes:
        while (found := self.buffer.next_header()) is None:
            self._receive()
        return found

    def next(self) -> Said:
        """The next frame that is no heartbeat; raises ConnectionResetError at the end of the stream."""
        while not (found := self._frame()).body:
            continue
        value, stop = codec.decode(found.body)
        assert isinstance(value, Described)
        assert isinstance(value.value, list)
        assert isinstance(value.descriptor, int)
        return Said(found.channel, value.descriptor, value.value, found.body[stop:])

    def _frame(self) -> Frame:
        while (found := self.buffer.next_frame()) is None:
            self._receive()
        return found

    def _receive(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("the broker closed")
        self.buffer.feed(data)

    def expect(self, code: int) -> Said:
        """The next frame with a code; others in between are passed over."""
        while True:
            said = self.next()
            if said.code == code:
                return said

    def ends(self) -> bool:
        """Whether the broker closes the socket in time."""
        with contextlib.suppress(ConnectionError):
            while True:
                try:
                    if not self.socket.recv(1 << 16):
                        return True
                except TimeoutError:
                    return False
        return True

    # ---------------------------------------------------------------- steps

    def open(self, max_frame_size: int = 65536, idle_timeout_ms: int | None = None) -> Self:
        self.send(SASL_HEADER)
        assert self.header() == SASL_HEADER
        self.expect(Code.SASL_MECHANISMS)
        self.say(Code.SASL_INIT, codec.symbol("ANONYMOUS"), NULL, NULL, sasl=True)
        assert self.expect(Code.SASL_OUTCOME).fields[0] == 0
        self.send(AMQP_HEADER)
        assert self.header() == AMQP_HEADER
        idle = NULL if idle_timeout_ms is None else codec.uint(idle_timeout_ms)
        self.say(Code.OPEN, codec.string("wire"), NULL, codec.uint(max_frame_size), NULL, idle)
        self.expect(Code.OPEN)
        return self

    def begin(self, channel: int = 0, incoming_window: int = 1000) -> None:
        self.say(Code.BEGIN, NULL, codec.uint(0), codec.uint(incoming_window), codec.uint(1000), channel=channel)
        self.expect(Code.BEGIN)

    def attach(self, handle: int, address: str, *, receive: bool, filters: bytes = NULL, channel: int = 0) -> Said:
        """Attach a link; returns the broker's attach."""
        here = codec.string(f"link-{handle}")
        if receive:
            from_node = codec.described(Code.SOURCE, codec.listing([codec.string(address), *[NULL] * 6, filters]))
            termini = (from_node, target("here"))
        else:
            termini = (source("here"), target(address))
        role = codec.boolean(receive)
        self.say(Code.ATTACH, here, codec.uint(handle), role, NULL, NULL, *termini, channel=channel)
        return self.expect(Code.ATTACH)

    def credit(self, handle: int, credit: int, count: int = 0, *, drain: bool = False, window: int = 1000) -> None:
        link = (codec.uint(handle), codec.uint(count), codec.uint(credit))
        head = (codec.uint(0), codec.uint(window), codec.uint(0), codec.uint(1000))
        self.say(Code.FLOW, *head, *link, NULL, codec.boolean(drain))

    def transfer(
        self, handle: int, delivery_id: int, payload: bytes, *, more: bool = False, aborted: bool = False
    ) -> None:
        fields = [codec.uint(handle), codec.uint(delivery_id), codec.binary(b"t"), codec.uint(0), codec.FALSE]
        fields += [codec.boolean(more), NULL, NULL, NULL, codec.boolean(aborted)]
        self.say(Code.TRANSFER, *fields, payload=payload)

    def put_token(self, resource: str, life_s: float = 600, key: str = KEY) -> int:
        """Put a shared access token on handles 100 and 101; returns the status."""
        if not getattr(self, "_has_cbs", False):
            self.attach(100, "$cbs", receive=True)
            self.attach(101, "$cbs", receive=False)
            self.credit(100, 100)
            self.expect(Code.FLOW)
            self._has_cbs = True
            self._tokens = 0
        return self.put_raw_token(sas(resource, life_s, key), f"sb://127.0.0.1/{resource}")

    def put_raw_token(self, token: str, audience: str, kind: str = "servicebus.windows.net:sastoken") -> int:
        request = b"".join(
            (
                codec.described(0x73, codec.listing([codec.ulong(7)])),
                codec.described(
                    0x74,
                    codec.mapping(
                        {
                            codec.string("operation"): codec.string("put-token"),
                            codec.string("type"): codec.string(kind),
                            codec.string("name"): codec.string(audience),
                        }
                    ),
                ),
                codec.described(0x77, codec.string(token)),
            )
        )
        self.transfer(101, self._tokens, request)
        self._tokens += 1
        reply = self.expect(Code.TRANSFER)
        self.said_by_cbs, self.reply_handle = reply.payload, reply.fields[0]
        _, stop = codec.decode(reply.payload)
        properties, _ = codec.decode(reply.payload, stop)
        assert isinstance(properties, Described)
        assert isinstance(properties.value, dict)
        return int(properties.value["status-code"])

    def ready(self, resource: str = "tx", **options: Any) -> Self:
        """Open, begin and put a token for a hub."""
        self.open(**options)
        self.begin()
        assert self.put_token(resource) == 202
        return self


def sas(resource: str, life_s: float = 600, key: str = KEY, name: str = KEY_NAME) -> str:
    """A shared access signature for a path, as the service's documentation describes it."""
    scope, expiry = quote_plus(f"sb://127.0.0.1/{resource}"), str(int(time.time()) + int(life_s))
    digest = hmac.digest(key.encode(), f"{scope}\n{expiry}".encode(), "sha256")
    signature = quote_plus(base64.b64encode(digest))
    return f"SharedAccessSignature sr={scope}&sig={signature}&se={expiry}&skn={name}"


def event(body: bytes = b"x") -> bytes:
    """The encoding of a smallest event."""
    return codec.described(0x75, codec.binary(body))


def condition(said_fields: list[object]) -> str:
    """The condition of the error that ends a detach, close or rejection."""
    error = said_fields[-1]
    assert isinstance(error, Described)
    assert isinstance(error.value, list)
    return str(error.value[0])
