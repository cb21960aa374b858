"""The AMQP performatives: what a client's frames say, and the frames that answer them.

Incoming frames become frozen dataclasses with every field checked once. Outgoing frames are functions that return
bytes. They follow three rules that the Python SDK's reader needs (it indexes fields by position, and its fix is
unreleased, azure-sdk-for-python#47660): all fields are written, trailing nulls too; bodies are list32; descriptors are
smallulong.

Source: OASIS AMQP 1.0 part 2.7 and 5.3.3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from twin.broker import codec
from twin.broker.codec import FALSE, NULL, TRUE, DecodeError, Described
from twin.broker.framing import FrameType, frame

WINDOW: Final = 0x7FFFFFFF
"""The session windows the broker announces, in frames: so large that flow is governed by link credit alone."""


class Code(IntEnum):
    """Descriptor codes of performatives, SASL frames, termini and outcomes."""

    OPEN = 0x10
    BEGIN = 0x11
    ATTACH = 0x12
    FLOW = 0x13
    TRANSFER = 0x14
    DISPOSITION = 0x15
    DETACH = 0x16
    END = 0x17
    CLOSE = 0x18
    ERROR = 0x1D
    ACCEPTED = 0x24
    REJECTED = 0x25
    SOURCE = 0x28
    TARGET = 0x29
    SASL_MECHANISMS = 0x40
    SASL_INIT = 0x41
    SASL_OUTCOME = 0x44


class Fields:
    """The fields of a received list, read by position; what is absent or null takes the default."""

    __slots__ = ("_values",)

    def __init__(self, values: Sequence[object]) -> None:
        self._values = values

    @classmethod
    def of(cls, value: object) -> Fields:
        """The fields of a described list such as a source; none for null.

        Raises:
            DecodeError: it is something else.
        """
        inner = value.value if isinstance(value, Described) else value
        if inner is None:
            return cls(())
        if not isinstance(inner, list):
            raise DecodeError("expected a list of fields")
        return cls(inner)

    def raw(self, index: int) -> object:
        """The value as decoded."""
        return self._values[index] if index < len(self._values) else None

    def optional_text(self, index: int) -> str | None:
        """Text or a symbol; raises DecodeError for another type."""
        value = self.raw(index)
        if value is not None and not isinstance(value, str):
            raise DecodeError(f"field {index} is not text")
        return value

    def text(self, index: int) -> str:
        """Text or a symbol, empty when absent; raises DecodeError for another type."""
        return self.optional_text(index) or ""

    def optional_number(self, index: int) -> int | None:
        """An unsigned 32 bit integer; raises DecodeError for anything else."""
        value = self.raw(index)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0xFFFFFFFF:
            raise DecodeError(f"field {index} is not an unsigned 32 bit integer")
        return value

    def number(self, index: int, default: int | None = None) -> int:
        """An unsigned 32 bit integer; raises DecodeError for anything else, or when it is absent without a default."""
        value = self.optional_number(index)
        if value is not None:
            return value
        if default is None:
            raise DecodeError(f"field {index} is required")
        return default

    def flag(self, index: int) -> bool:
        """A boolean, false when absent; raises DecodeError for another type."""
        value = self.raw(index)
        if value is not None and not isinstance(value, bool):
            raise DecodeError(f"field {index} is not a boolean")
        return bool(value)

    def entries(self, index: int) -> dict[object, object]:
        """A map, empty when absent; raises DecodeError for another type."""
        value = self.raw(index)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise DecodeError(f"field {index} is not a map")
        return value

    def symbols(self, index: int) -> frozenset[str]:
        """One symbol or an array of them (both are legal for `multiple` fields); others are ignored."""
        value = self.raw(index)
        values = value if isinstance(value, list) else [value]
        return frozenset(item for item in values if isinstance(item, str))


# ------------------------------------------------------------------------------------------------ received


@dataclass(frozen=True, slots=True)
class Open:
    """The client's limits: bytes per frame, highest channel, and its silence limit in ms (None: no limit)."""

    container_id: str
    hostname: str | None
    max_frame_size: int
    channel_max: int
    idle_timeout_ms: int | None


@dataclass(frozen=True, slots=True)
class Begin:
    """A session starts; windows count transfer frames."""

    next_outgoing_id: int
    incoming_window: int


@dataclass(frozen=True, slots=True)
class Terminus:
    """A source or target: an address and, on a source, filters by name."""

    address: str | None
    filters: dict[object, object]


@dataclass(frozen=True, slots=True)
class Attach:
    """A link is asked for; `is_receiver` tells the client's side of it."""

    name: str
    handle: int
    is_receiver: bool
    source: Terminus
    target: Terminus
    desired_capabilities: frozenset[str]
    properties: dict[object, object]


@dataclass(frozen=True, slots=True)
class Flow:
    """Windows of a session and, with a handle, credit of one link."""

    next_incoming_id: int
    incoming_window: int
    next_outgoing_id: int
    handle: int | None
    delivery_count: int | None
    link_credit: int | None
    drain: bool
    echo: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    """One frame of a delivery; id and format are only in its first frame."""

    handle: int
    delivery_id: int | None
    message_format: int | None
    settled: bool
    more: bool
    aborted: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class Disposition:
    """The client's word on deliveries; the broker sends settled ones only and has no use for it."""


@dataclass(frozen=True, slots=True)
class Detach:
    """A link ends."""

    handle: int
    closed: bool


@dataclass(frozen=True, slots=True)
class End:
    """A session ends."""


@dataclass(frozen=True, slots=True)
class Close:
    """The connection ends."""


@dataclass(frozen=True, slots=True)
class SaslInit:
    """The mechanism the client chose."""

    mechanism: str


Performative = Open | Begin | Attach | Flow | Transfer | Disposition | Detach | End | Close | SaslInit


def parse(body: bytes) -> Performative:
    """Read the performative at the start of a frame body.

    Raises:
        DecodeError: malformed, a required field missing, a field of the wrong type, or an unknown performative.
    """
    value, stop = codec.decode(body)
    if not isinstance(value, Described) or not isinstance(value.value, list):
        raise DecodeError("a frame must hold a described list")
    fields = Fields(value.value)
    match value.descriptor:
        case Code.TRANSFER:
            return _transfer(fields, body[stop:])
        case Code.FLOW:
            return _flow(fields)
        case Code.DISPOSITION:
            return Disposition()
        case Code.ATTACH:
            return _attach(fields)
        case Code.DETACH:
            return Detach(fields.number(0), fields.flag(1))
        case Code.OPEN:
            return Open(
                fields.text(0),
                fields.optional_text(1),
                fields.number(2, 0xFFFFFFFF),
                fields.number(3, 0xFFFF),
                fields.optional_number(4),
            )
        case Code.BEGIN:
            return Begin(fields.number(1), fields.number(2))
        case Code.END:
            return End()
        case Code.CLOSE:
            return Close()
        case Code.SASL_INIT:
            return SaslInit(fields.text(0))
        case _:
            raise DecodeError("unknown performative")


def _terminus(value: object) -> Terminus:
    fields = Fields.of(value)
    filters = fields.entries(7) if isinstance(value, Described) and value.descriptor == Code.SOURCE else {}
    return Terminus(fields.optional_text(0), filters)


def _attach(fields: Fields) -> Attach:
    return Attach(
        name=fields.text(0),
        handle=fields.number(1),
        is_receiver=fields.flag(2),
        source=_terminus(fields.raw(5)),
        target=_terminus(fields.raw(6)),
        desired_capabilities=fields.symbols(12),
        properties=fields.entries(13),
    )


def _flow(fields: Fields) -> Flow:
    return Flow(
        next_incoming_id=fields.number(0, 0),
        incoming_window=fields.number(1),
        next_outgoing_id=fields.number(2),
        handle=fields.optional_number(4),
        delivery_count=fields.optional_number(5),
        link_credit=fields.optional_number(6),
        drain=fields.flag(8),
        echo=fields.flag(9),
    )


def _transfer(fields: Fields, payload: bytes) -> Transfer:
    return Transfer(
        handle=fields.number(0),
        delivery_id=fields.optional_number(1),
        message_format=fields.optional_number(3),
        settled=fields.flag(4),
        more=fields.flag(5),
        aborted=fields.flag(9),
        payload=payload,
    )


# ------------------------------------------------------------------------------------------------ sent


def _performative(channel: int, code: Code, *fields: bytes) -> bytes:
    return frame(channel, codec.described(code, codec.listing(fields)))


def sasl_mechanisms(names: Sequence[str]) -> bytes:
    """Offer SASL mechanisms."""
    body = codec.described(Code.SASL_MECHANISMS, codec.listing([codec.array_of(names, codec.symbol)]))
    return frame(0, body, FrameType.SASL)


def sasl_outcome(code: int) -> bytes:
    """Tell the result of SASL: 0 is success, 1 a refusal."""
    body = codec.described(Code.SASL_OUTCOME, codec.listing([codec.ubyte(code), NULL]))
    return frame(0, body, FrameType.SASL)


def opened(
    container_id: str,
    hostname: str | None,
    *,
    max_frame_size: int,
    channel_max: int,
    idle_timeout_ms: int,
    properties: dict[str, str],
) -> bytes:
    """Answer an open with the broker's own limits; the host name is echoed."""
    return _performative(
        0,
        Code.OPEN,
        codec.string(container_id),
        NULL if hostname is None else codec.string(hostname),
        codec.uint(max_frame_size),
        codec.ushort(channel_max),
        codec.uint(idle_timeout_ms),
        NULL,
        NULL,
        NULL,
        NULL,
        codec.mapping({codec.symbol(key): codec.string(value) for key, value in properties.items()}),
    )


def begun(channel: int, handle_max: int) -> bytes:
    """Answer a begin on the same channel."""
    return _performative(
        channel,
        Code.BEGIN,
        codec.ushort(channel),
        codec.uint(0),
        codec.uint(WINDOW),
        codec.uint(WINDOW),
        codec.uint(handle_max),
        NULL,
        NULL,
        NULL,
    )


def source(address: str | None) -> bytes:
    """A source with an address and nothing else."""
    return codec.described(Code.SOURCE, codec.listing([_address(address), *[NULL] * 10]))


def target(address: str | None) -> bytes:
    """A target with an address and nothing else."""
    return codec.described(Code.TARGET, codec.listing([_address(address), *[NULL] * 6]))


def _address(address: str | None) -> bytes:
    return NULL if address is None else codec.string(address)


def attached(
    channel: int,
    request: Attach,
    node_address: str,
    max_message_size: int,
    offered_capabilities: Sequence[str],
) -> bytes:
    """Answer an attach with the opposite role; also sent before a refusal, which must name both termini."""
    if request.is_receiver:
        from_address: str | None = node_address
        to_address, settle_mode = request.target.address, 1
    else:
        from_address, to_address, settle_mode = request.source.address, node_address, 0
    return _performative(
        channel,
        Code.ATTACH,
        codec.string(request.name),
        codec.uint(request.handle),
        codec.boolean(not request.is_receiver),
        codec.ubyte(settle_mode),
        codec.ubyte(0),
        source(from_address),
        target(to_address),
        NULL,
        NULL,
        codec.uint(0) if request.is_receiver else NULL,
        codec.ulong(max_message_size),
        codec.array_of(offered_capabilities, codec.symbol) if offered_capabilities else NULL,
        NULL,
        codec.mapping({}),
    )


def flow(
    channel: int,
    next_incoming_id: int,
    next_outgoing_id: int,
    link: tuple[int, int, int] | None = None,
    *,
    drain: bool = False,
) -> bytes:
    """Tell windows and, with `link` = (handle, delivery count, credit), the state of one link."""
    link_fields = (NULL, NULL, NULL) if link is None else tuple(codec.uint(number) for number in link)
    return _performative(
        channel,
        Code.FLOW,
        codec.uint(next_incoming_id),
        codec.uint(WINDOW),
        codec.uint(next_outgoing_id),
        codec.uint(WINDOW),
        *link_fields,
        NULL,
        codec.boolean(drain),
        FALSE,
        NULL,
    )


ACCEPTED: Final = codec.described(Code.ACCEPTED, codec.listing([]))


def rejected(condition: str, description: str) -> bytes:
    """The outcome for a delivery that is refused."""
    return codec.described(Code.REJECTED, codec.listing([error(condition, description)]))


def disposition(channel: int, delivery_id: int, outcome: bytes) -> bytes:
    """Settle one received delivery with an outcome."""
    number = codec.uint(delivery_id)
    return _performative(channel, Code.DISPOSITION, TRUE, number, number, TRUE, outcome, NULL)


def error(condition: str, description: str) -> bytes:
    """An error with its condition and a text for people."""
    return codec.described(Code.ERROR, codec.listing([codec.symbol(condition), codec.string(description), NULL]))


def detached(channel: int, handle: int, failure: tuple[str, str] | None = None, *, closed: bool = True) -> bytes:
    """End a link, with (condition, description) when it did not end by wish of the client."""
    return _performative(
        channel, Code.DETACH, codec.uint(handle), codec.boolean(closed), NULL if failure is None else error(*failure)
    )


def ended(channel: int, failure: tuple[str, str] | None = None) -> bytes:
    """End a session."""
    return _performative(channel, Code.END, NULL if failure is None else error(*failure))


def closed(failure: tuple[str, str] | None = None) -> bytes:
    """End the connection."""
    return _performative(0, Code.CLOSE, NULL if failure is None else error(*failure))


_TRANSFER_HEAD: Final = struct.Struct(">IBBH 4s II")
_TRANSFER_DESCRIPTOR: Final = b"\x00\x53\x14\xd0"
_TRANSFER_TAIL_LAST: Final = b"\xa0\x01\x00" + b"\x43" + TRUE + FALSE + NULL * 3 + NULL * 2
_TRANSFER_TAIL_MORE: Final = b"\xa0\x01\x00" + b"\x43" + TRUE + TRUE + NULL * 3 + NULL * 2


def transfer(channel: int, handle: int, delivery_id: int, payload: bytes, *, more: bool) -> bytes:
    """One settled transfer frame.

    The tag is the same single byte for every delivery, legal because each is settled when sent: the SDK keeps every tag
    it sees in a set for the life of the link.
    """
    fields = codec.uint(handle) + codec.uint(delivery_id) + (_TRANSFER_TAIL_MORE if more else _TRANSFER_TAIL_LAST)
    size = _TRANSFER_HEAD.size + len(fields) + len(payload)
    head = _TRANSFER_HEAD.pack(size, 2, FrameType.AMQP, channel, _TRANSFER_DESCRIPTOR, len(fields) + 4, 11)
    return head + fields + payload


TRANSFER_OVERHEAD: Final = 64
"""Bytes set aside in a frame for everything but the payload; the real overhead is at most 40."""
