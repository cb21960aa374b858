"""One client's connection: headers, SASL, open, sessions, heartbeats, and what happens when any of it goes wrong.

Source: OASIS AMQP 1.0 part 2.4 (connections) and 5.3 (SASL).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, override

from twin.broker import performatives
from twin.broker.codec import DecodeError
from twin.broker.errors import Condition, ConnectionFault
from twin.broker.framing import (
    AMQP_HEADER,
    EMPTY_FRAME,
    MIN_MAX_FRAME_SIZE,
    SASL_HEADER,
    Frame,
    FrameBuffer,
    FrameType,
)
from twin.broker.links import MAX_MESSAGE_SIZE
from twin.broker.performatives import (
    TRANSFER_OVERHEAD,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    SaslInit,
    Transfer,
)
from twin.broker.sessions import Services, Session
from twin.broker.tokens import Grants

_log = logging.getLogger(__name__)

PRODUCT: Final = "tollgate-broker"
VERSION: Final = "1"
MAX_FRAME_SIZE: Final = 256 * 1024
CHANNEL_MAX: Final = 255
_CLOSE_GRACE_S: Final = 3
"""How long a closed connection may take to accept its last bytes."""
_MECHANISMS: Final = ("MSSBCBS", "ANONYMOUS", "EXTERNAL")
"""The .NET client asks for the first, Python and JavaScript for the second; access is decided on `$cbs`."""
_WRITE_HIGH: Final = 256 * 1024
_MAX_INCOMPLETE: Final = 8 * MAX_MESSAGE_SIZE
"""Bytes of unfinished multi-frame deliveries one connection may hold."""


class _Stage(Enum):
    HEADER = auto()
    SASL = auto()
    AMQP_HEADER = auto()
    OPEN = auto()
    OPENED = auto()
    CLOSED = auto()


class Connection(asyncio.Protocol):
    """A connection from accept to close; every fault of a client ends here, with its own connection."""

    def __init__(
        self,
        services: Services,
        container_id: str,
        *,
        on_made: Callable[[Connection], bool],
        on_lost: Callable[[Connection], None],
    ) -> None:
        """Set up; `on_made` tells whether there is room for this connection."""
        self.grants = Grants()
        self._services = services
        self._container_id = container_id
        self._on_made = on_made
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._buffer = FrameBuffer(MAX_FRAME_SIZE)
        self._stage = _Stage.HEADER
        self._sessions: dict[int, Session] = {}
        self._frame_room = MIN_MAX_FRAME_SIZE - TRANSFER_OVERHEAD
        self._incomplete = 0
        self._out: list[bytes] = []
        self._out_size = 0
        self._is_flush_scheduled = False
        self._is_paused = False
        self._is_stalled = False
        self._heartbeat_s: float | None = None
        self._started_at = self._received_at = self._sent_at = self._loop.time()
        self._closed_at = 0.0
        self._transport: asyncio.Transport | None = None

    # -------------------------------------------------------------------------------------------- socket

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- asyncio's own contract for stream protocols
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH)
        if not self._on_made(self):
            transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stage = _Stage.CLOSED
        self._end_sessions()
        self._out.clear()
        self._on_lost(self)

    @override
    def eof_received(self) -> bool:
        return False

    @override
    def pause_writing(self) -> None:
        # Whoever does not read gets nothing more and is not read from, so memory stays bounded on both sides.
        self._is_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        self._is_paused = self._is_stalled = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self.call_soon(self._on_writable)

    def _on_writable(self) -> None:
        for session in tuple(self._sessions.values()):
            session.on_writable()

    @override
    def data_received(self, data: bytes) -> None:
        if self._stage is _Stage.CLOSED:
            return
        self._received_at = self._loop.time()
        self._buffer.feed(data)
        try:
            self._consume()
        except ConnectionFault as fault:
            self.fail(fault)
        except DecodeError as error:
            self.fail(ConnectionFault(Condition.DECODE, str(error)))
        except Exception:  # noqa: BLE001 -- outermost line: a fault of ours must not reach other clients
            _log.exception("a connection failed")
            self.fail(ConnectionFault(Condition.INTERNAL, "The broker failed to process a frame."))
        self._flush()

    def send(self, data: bytes) -> None:
        """Queue an encoded frame; everything queued in one turn of the event loop goes out in one write."""
        if self._stage is _Stage.CLOSED:
            return
        self._out.append(data)
        self._out_size += len(data)
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_scheduled = False
        if not self._out or self._transport is None:
            return
        data = b"".join(self._out)
        self._out.clear()
        self._out_size = 0
        self._sent_at = self._loop.time()
        self._transport.write(data)
        if self._is_stalled and not self._is_paused:
            self._is_stalled = False
            self.call_soon(self._on_writable)

    @property
    def can_send(self) -> bool:
        """Whether the socket takes more; when this said no, all links hear of it once it does again."""
        takes_more = not self._is_paused and self._out_size < _WRITE_HIGH
        self._is_stalled = self._is_stalled or not takes_more
        return takes_more

    @property
    def frame_room(self) -> int:
        """Payload bytes that fit in a frame for this client."""
        return self._frame_room

    def reserve(self, size: int) -> bool:
        """Set aside memory for an incomplete delivery; False when there is too much of it."""
        if self._incomplete + size > _MAX_INCOMPLETE:
            return False
        self._incomplete += size
        return True

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run something in the next turn of the event loop."""
        self._loop.call_soon(callback)

    # -------------------------------------------------------------------------------------------- protocol

    def _consume(self) -> None:
        while self._stage is not _Stage.CLOSED:
            if self._stage in (_Stage.HEADER, _Stage.AMQP_HEADER):
                header = self._buffer.next_header()
                if header is None:
                    return
                self._on_header(header)
                continue
            frame = self._buffer.next_frame()
            if frame is None:
                return
            self._on_frame(frame)

    def _on_header(self, header: bytes) -> None:
        expected = SASL_HEADER if self._stage is _Stage.HEADER else AMQP_HEADER
        self.send(expected)
        if header != expected:
            # Part 2.2: the answer to a header that is not supported is the one that is, and the end.
            self._end()
        elif self._stage is _Stage.HEADER:
            self.send(performatives.sasl_mechanisms(_MECHANISMS))
            self._stage = _Stage.SASL
        else:
            self._stage = _Stage.OPEN

    def _on_frame(self, frame: Frame) -> None:
        expected = FrameType.SASL if self._stage is _Stage.SASL else FrameType.AMQP
        if frame.kind != expected:
            raise ConnectionFault(Condition.FRAMING, f"unexpected frame type {frame.kind}")
        if not frame.body:
            return
        performative = performatives.parse(frame.body)
        match self._stage, performative:
            case _Stage.OPENED, _:
                self._on_performative(frame.channel, performative)
            case _Stage.SASL, SaslInit() as chosen:
                self._on_sasl(chosen)
            case _Stage.OPEN, Open() as opening:
                self._on_open(opening)
            case _:
                raise ConnectionFault(Condition.NOT_ALLOWED, f"unexpected {type(performative).__name__.lower()}")

    def _on_sasl(self, chosen: SaslInit) -> None:
        if chosen.mechanism not in _MECHANISMS:
            self.send(performatives.sasl_outcome(1))
            self._end()
            return
        self.send(performatives.sasl_outcome(0))
        self._stage = _Stage.AMQP_HEADER

    def _on_open(self, opening: Open) -> None:
        self.send(
            performatives.opened(
                self._container_id,
                opening.hostname,
                max_frame_size=MAX_FRAME_SIZE,
                channel_max=CHANNEL_MAX,
                idle_timeout_ms=int(self._services.timeouts.idle_s * 1000),
                properties={"product": PRODUCT, "version": VERSION},
            )
        )
        self._stage = _Stage.OPENED
        if opening.max_frame_size < MIN_MAX_FRAME_SIZE:
            raise ConnectionFault(Condition.NOT_ALLOWED, f"max-frame-size must be at least {MIN_MAX_FRAME_SIZE}")
        # Large deliveries go out in frames of the broker's own limit, so that one never fills the write buffer alone.
        self._frame_room = min(opening.max_frame_size, MAX_FRAME_SIZE) - TRANSFER_OVERHEAD
        if opening.idle_timeout_ms:
            self._heartbeat_s = opening.idle_timeout_ms / 2000

    def _on_performative(self, channel: int, performative: performatives.Performative) -> None:
        match performative:
            case Begin():
                self._on_begin(channel, performative)
                return
            case Close():
                self.send(performatives.closed())
                self._end()
                return
            case Open() | SaslInit():
                raise ConnectionFault(Condition.NOT_ALLOWED, f"unexpected {type(performative).__name__.lower()}")
        session = self._sessions.get(channel)
        if session is None:
            # The SDK still detaches links of a session that it has ended.
            return
        match performative:
            case Transfer():
                session.on_transfer(performative)
            case Flow():
                session.on_flow(performative)
            case Attach():
                session.on_attach(performative)
            case Detach():
                session.on_detach(performative)
            case End():
                del self._sessions[channel]
                session.close()
                self.send(performatives.ended(channel))
            case Disposition():
                pass

    def _on_begin(self, channel: int, begin: Begin) -> None:
        if channel > CHANNEL_MAX or channel in self._sessions:
            raise ConnectionFault(Condition.NOT_ALLOWED, f"channel {channel} is in use or above {CHANNEL_MAX}")
        self._sessions[channel] = Session(self, self._services, channel, begin)

    # -------------------------------------------------------------------------------------------- the end

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection with an error; before open there is no way to tell the client why."""
        if self._stage is _Stage.OPENED:
            self.send(performatives.closed((fault.condition, fault.description)))
        self._end()

    def _end(self) -> None:
        if self._stage is _Stage.CLOSED:
            return
        self._flush()
        self._stage = _Stage.CLOSED
        self._closed_at = self._loop.time()
        self._buffer.clear()
        self._end_sessions()
        if self._transport is not None:
            self._transport.close()

    def _end_sessions(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def tick(self) -> None:
        """Look after timeouts; called a few times per second."""
        now = self._loop.time()
        if self._stage is _Stage.CLOSED:
            # A client that does not read would keep a closed connection, and what is queued for it, for ever.
            if now - self._closed_at > _CLOSE_GRACE_S:
                self.abort()
            return
        timeouts = self._services.timeouts
        if not self.grants and now - self._started_at > timeouts.handshake_s:
            self.fail(ConnectionFault(Condition.UNAUTHORIZED, f"No token within {timeouts.handshake_s} s."))
        elif now - self._received_at > timeouts.idle_s:
            self.fail(ConnectionFault(Condition.FORCED, f"Nothing was received for {timeouts.idle_s} s."))
        elif self._stage is _Stage.OPENED:
            if self._heartbeat_s is not None and now - self._sent_at >= self._heartbeat_s:
                self.send(EMPTY_FRAME)
            for session in tuple(self._sessions.values()):
                session.expire(self._services.clock())
