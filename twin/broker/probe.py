"""A health check from outside: the handshake of a client up to `open`, on a blocking socket."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

from twin.broker import codec
from twin.broker.codec import NULL, DecodeError, Described
from twin.broker.errors import BrokerError, ConnectionFault
from twin.broker.framing import AMQP_HEADER, SASL_HEADER, Frame, FrameBuffer, FrameType, frame
from twin.broker.performatives import Code

_MAX_FRAME_SIZE: Final = 64 * 1024
_PROPERTIES: Final = 9
"""Where an open has its properties."""


class ProbeFailed(BrokerError):
    """Nothing answers there, not in time, or not as an AMQP 1.0 broker does."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Who answered, and how long the handshake took."""

    product: str
    version: str
    elapsed_s: float


def probe(host: str, port: int, timeout_s: float, tls: ssl.SSLContext | None = None) -> ProbeResult:
    """Ask whoever listens there for its product and version; takes at most about `timeout_s`.

    Raises:
        ProbeFailed: nobody listens, the answer takes too long, or it is not that of an AMQP 1.0 broker.
    """
    started = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout_s) as plain:
            plain.settimeout(timeout_s)
            if tls is None:
                properties = _Handshake(plain, started + timeout_s).run(host)
            else:
                with tls.wrap_socket(plain, server_hostname=host) as encrypted:
                    properties = _Handshake(encrypted, started + timeout_s).run(host)
    except (OSError, DecodeError, ConnectionFault) as error:
        raise ProbeFailed(f"{host}:{port}: {error}") from error
    return ProbeResult(
        str(properties.get("product", "unknown")),
        str(properties.get("version", "unknown")),
        time.monotonic() - started,
    )


class _Handshake:
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._socket = connection
        self._deadline = deadline
        self._buffer = FrameBuffer(_MAX_FRAME_SIZE)

    def run(self, host: str) -> dict[object, object]:
        """Go through SASL and open; returns the broker's properties."""
        self._exchange_headers(SASL_HEADER)
        self._expect(Code.SASL_MECHANISMS)
        self._send(Code.SASL_INIT, [codec.symbol("ANONYMOUS"), NULL, NULL], FrameType.SASL)
        if self._expect(Code.SASL_OUTCOME)[0] != 0:
            raise ConnectionRefusedError("SASL refused")
        self._exchange_headers(AMQP_HEADER)
        self._send(Code.OPEN, [codec.string("tollgate-probe"), codec.string(host), *[NULL] * 8], FrameType.AMQP)
        fields = self._expect(Code.OPEN)
        self._send(Code.CLOSE, [NULL], FrameType.AMQP)
        properties = fields[_PROPERTIES] if len(fields) > _PROPERTIES else None
        return properties if isinstance(properties, dict) else {}

    def _exchange_headers(self, header: bytes) -> None:
        self._socket.sendall(header)
        while (answer := self._buffer.next_header()) is None:
            self._receive()
        if answer != header:
            raise ConnectionRefusedError("not an AMQP 1.0 broker with SASL")

    def _send(self, code: Code, fields: list[bytes], kind: FrameType) -> None:
        self._socket.sendall(frame(0, codec.described(code, codec.listing(fields)), kind))

    def _expect(self, code: Code) -> list[object]:
        body = self._next_frame().body
        value, _ = codec.decode(body)
        if not isinstance(value, Described) or value.descriptor != code or not isinstance(value.value, list):
            raise ConnectionRefusedError(f"expected {code.name.lower()}")
        return value.value

    def _next_frame(self) -> Frame:
        while (received := self._buffer.next_frame()) is None:
            self._receive()
        return received

    def _receive(self) -> None:
        self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
        data = self._socket.recv(16 * 1024)
        if not data:
            raise ConnectionResetError("the connection was closed")
        self._buffer.feed(data)
