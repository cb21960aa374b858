"""AMQP frames and protocol headers on a byte stream.

Source: OASIS AMQP 1.0 part 2.3 (framing) and 5.3 (SASL).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from twin.broker.errors import Condition, ConnectionFault

AMQP_HEADER: Final = b"AMQP\x00\x01\x00\x00"
SASL_HEADER: Final = b"AMQP\x03\x01\x00\x00"
HEADER_SIZE: Final = 8
EMPTY_FRAME: Final = b"\x00\x00\x00\x08\x02\x00\x00\x00"
MIN_MAX_FRAME_SIZE: Final = 512
"""Every peer must accept frames of this many bytes (part 2.7.1)."""

_FRAME_HEADER: Final = struct.Struct(">IBBH")


class FrameType(IntEnum):
    """The two kinds of frames."""

    AMQP = 0
    SASL = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; an empty body is a heartbeat."""

    kind: int
    channel: int
    body: bytes


def frame(channel: int, body: bytes, kind: FrameType = FrameType.AMQP) -> bytes:
    """Wrap a body in a frame header."""
    return _FRAME_HEADER.pack(len(body) + 8, 2, kind, channel) + body


class FrameBuffer:
    """Bytes received and not yet understood.

    Holds at most one incomplete frame between calls, so memory is bounded by `max_frame_size` and one socket read.
    """

    __slots__ = ("_data", "_max_frame_size", "_position")

    def __init__(self, max_frame_size: int) -> None:
        self._data = bytearray()
        self._position = 0
        self._max_frame_size = max_frame_size

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self._position:
            del self._data[: self._position]
            self._position = 0
        self._data += data

    def clear(self) -> None:
        """Forget what was received."""
        self._data.clear()
        self._position = 0

    def next_header(self) -> bytes | None:
        """The next protocol header, or None while fewer than eight bytes are there."""
        stop = self._position + HEADER_SIZE
        if len(self._data) < stop:
            return None
        header = bytes(self._data[self._position : stop])
        self._position = stop
        return header

    def next_frame(self) -> Frame | None:
        """The next complete frame, or None.

        Raises:
            ConnectionFault: a size or data offset that no frame may have.
        """
        start = self._position
        available = len(self._data) - start
        if available < _FRAME_HEADER.size:
            return None
        size, data_offset, kind, channel = _FRAME_HEADER.unpack_from(self._data, start)
        if not _FRAME_HEADER.size <= size <= self._max_frame_size:
            raise ConnectionFault(Condition.FRAMING, f"frame of {size} bytes; allowed are 8 to {self._max_frame_size}")
        if not 2 <= data_offset <= size // 4:
            raise ConnectionFault(Condition.FRAMING, f"frame with data offset {data_offset}")
        if available < size:
            return None
        self._position = start + size
        return Frame(kind, channel, bytes(self._data[start + 4 * data_offset : start + size]))
