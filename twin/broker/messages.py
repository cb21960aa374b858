"""AMQP messages: the sections of an event, batches of events, and the annotations the broker stamps.

Source: OASIS AMQP 1.0 part 3.2 for sections; the batch format and the annotation names are those of Event Hubs
(measured with azure-eventhub 5.15.1 and @azure/event-hubs 6.0.4).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from twin.broker import codec
from twin.broker.codec import NULL, DecodeError

BATCH_FORMAT: Final = 0x80013700
"""Message format of a transfer whose data sections are complete messages of their own."""


class Section(IntEnum):
    """Descriptor codes of message sections."""

    HEADER = 0x70
    DELIVERY_ANNOTATIONS = 0x71
    MESSAGE_ANNOTATIONS = 0x72
    PROPERTIES = 0x73
    APPLICATION_PROPERTIES = 0x74
    DATA = 0x75
    SEQUENCE = 0x76
    VALUE = 0x77
    FOOTER = 0x78


_MAPS: Final = frozenset(
    {
        Section.DELIVERY_ANNOTATIONS,
        Section.MESSAGE_ANNOTATIONS,
        Section.APPLICATION_PROPERTIES,
        Section.FOOTER,
    }
)
_LISTS: Final = {Section.HEADER: 5, Section.PROPERTIES: 13}
"""Sections that are lists, with the most fields they may have."""

_REPEATABLE: Final = frozenset({Section.DATA, Section.SEQUENCE})

_PARTITION_KEY: Final = b"x-opt-partition-key"
_STAMPED: Final = frozenset({b"x-opt-sequence-number", b"x-opt-offset", b"x-opt-enqueued-time", _PARTITION_KEY})
"""Annotations that only the broker may set; a client's copies are dropped."""

_KEY_SEQUENCE: Final = codec.symbol("x-opt-sequence-number")
_KEY_OFFSET: Final = codec.symbol("x-opt-offset")
_KEY_TIME: Final = codec.symbol("x-opt-enqueued-time")
_KEY_PARTITION_KEY: Final = codec.symbol("x-opt-partition-key")
_ANNOTATIONS_HEAD: Final = struct.Struct(">4sII")
_I64: Final = struct.Struct(">q")
_MAX_PARTITION_KEY: Final = 128
"""Longest partition key in characters, as the service documents."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as received, taken apart so that the broker's annotations can be put in.

    `annotations` are the encoded pairs to keep, `annotation_count` their number; `rest` is everything from the
    properties on, unchanged.
    """

    header: bytes
    annotations: bytes
    annotation_count: int
    partition_key: str | None
    rest: bytes

    def stamp(self, sequence: int, offset: int, enqueued_ms: int) -> bytes:
        """The event as consumers get it, with sequence number, offset and enqueued time (ms, UTC)."""
        body = b"".join(
            (
                self.annotations,
                _KEY_SEQUENCE,
                b"\x81",
                _I64.pack(sequence),
                _KEY_OFFSET,
                # A string although it is a number: the SDK hands it to checkpoint stores as text.
                codec.string(str(offset)),
                _KEY_TIME,
                b"\x83",
                _I64.pack(enqueued_ms),
            )
        )
        count = self.annotation_count + 3
        if self.partition_key is not None:
            body += _KEY_PARTITION_KEY + codec.string(self.partition_key)
            count += 1
        head = _ANNOTATIONS_HEAD.pack(b"\x00\x53\x72\xd1", len(body) + 4, count * 2)
        return b"".join((self.header, head, body, self.rest))

    @property
    def header_length(self) -> int:
        """Bytes before the annotations, where delivery annotations go when a consumer asks for them."""
        return len(self.header)


def sections(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The sections of a message as (code, start, start of the value, end).

    Raises:
        DecodeError: something that is no section.
    """
    position, end, previous = 0, len(data), 0
    while position < end:
        if end - position < 4 or data[position] != 0:
            raise DecodeError("not a message section")
        if data[position + 1] == 0x53:
            code, value = data[position + 2], position + 3
        elif data[position + 1] == 0x80 and end - position > 10:
            code, value = int.from_bytes(data[position + 2 : position + 10]), position + 10
        else:
            raise DecodeError("not a section descriptor")
        if not Section.HEADER <= code <= Section.FOOTER:
            raise DecodeError(f"unknown message section 0x{code:02x}")
        if code < previous or (code == previous and code not in _REPEATABLE):
            raise DecodeError("message sections out of order")
        previous = code
        stop = codec.skip(data, value, end)
        yield code, position, value, stop
        position = stop


def parse_event(data: bytes, batch_key: str | None = None) -> Event:
    """Take one message apart; `batch_key` is the partition key of the batch around it.

    Every section but the body is decoded and checked here, once, because a malformed one would otherwise be stored and
    break each consumer that meets it.

    Raises:
        DecodeError: not a message, an empty one, or one with a malformed section.
    """
    header, annotations, count, key = b"", b"", 0, batch_key
    rest_start: int | None = None
    for code, start, value, stop in sections(data):
        if code == Section.DATA:
            if data[value] not in (0xA0, 0xB0):
                raise DecodeError("a data section must be binary")
        else:
            _check_section(code, data, value)
        if code == Section.HEADER:
            header = data[start:stop]
        elif code == Section.MESSAGE_ANNOTATIONS:
            annotations, count, own_key = _kept_annotations(data, value, stop)
            key = own_key or key
        # Delivery annotations are meant for the next hop only and end here.
        elif code != Section.DELIVERY_ANNOTATIONS and rest_start is None:
            rest_start = start
    if rest_start is None:
        raise DecodeError("a message without a body")
    return Event(header, annotations, count, key, data[rest_start:])


def _check_section(code: int, data: bytes, value: int) -> None:
    content, _ = codec.decode(data, value)
    if code in _MAPS:
        if not isinstance(content, dict):
            raise DecodeError("a section that must be a map is none")
    elif code in (Section.HEADER, Section.PROPERTIES):
        if not isinstance(content, list) or len(content) > _LISTS[Section(code)]:
            raise DecodeError("a section that must be a list of fields is none")
    elif code == Section.SEQUENCE and not isinstance(content, list):
        raise DecodeError("a sequence section that is no list")


def _kept_annotations(data: bytes, value: int, stop: int) -> tuple[bytes, int, str | None]:
    """The encoded annotations to keep, their number, and the partition key."""
    position = value + (3 if data[value] == 0xC1 else 9)
    kept: list[bytes] = []
    key: str | None = None
    while position < stop:
        after_name = codec.skip(data, position, stop)
        after_value = codec.skip(data, after_name, stop)
        name = _text_bytes(data, position, after_name)
        if name == _PARTITION_KEY:
            content, _ = codec.decode(data, after_name)
            if content is not None and (not isinstance(content, str) or len(content) > _MAX_PARTITION_KEY):
                raise DecodeError(f"the partition key must be text of at most {_MAX_PARTITION_KEY} characters")
            key = content or None
        elif name not in _STAMPED:
            kept.append(data[position:after_value])
        position = after_value
    return b"".join(kept), len(kept), key


def _text_bytes(data: bytes, start: int, stop: int) -> bytes:
    """The characters of an encoded string or symbol; empty for another type."""
    if data[start] in (0xA1, 0xA3):
        return data[start + 2 : stop]
    return data[start + 5 : stop] if data[start] in (0xB1, 0xB3) else b""


def parse_batch(data: bytes) -> list[Event]:
    """All events of a batch; either all of them are sound or none is returned.

    Raises:
        DecodeError: the batch or any event in it is malformed, or there is no event in it.
    """
    key: str | None = None
    members: list[bytes] = []
    for code, _, value, stop in sections(data):
        if code == Section.DATA:
            if data[value] not in (0xA0, 0xB0):
                raise DecodeError("a data section must be binary")
            members.append(data[value + (2 if data[value] == 0xA0 else 5) : stop])
            continue
        _check_section(code, data, value)
        if code == Section.MESSAGE_ANNOTATIONS:
            _, _, key = _kept_annotations(data, value, stop)
    if not members:
        raise DecodeError("a batch without events")
    return [parse_event(member, key) for member in members]


def delivery_annotations(entries: Mapping[bytes, bytes]) -> bytes:
    """An encoded delivery-annotations section."""
    return codec.described(Section.DELIVERY_ANNOTATIONS, codec.mapping(entries))


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a control node; `message_id` stays encoded so that the reply repeats its exact type."""

    message_id: bytes
    reply_to: str | None
    properties: dict[object, object]
    body: object

    def text(self, name: str) -> str:
        """An application property as text; empty when absent or of another type."""
        value = self.properties.get(name)
        return value if isinstance(value, str) else ""


def parse_request(data: bytes) -> Request:
    """Read a request message.

    Raises:
        DecodeError: not a message.
    """
    message_id, reply_to, properties, body = NULL, None, dict[object, object](), object()
    for code, _, value, stop in sections(data):
        _check_section(code, data, value)
        content, _ = codec.decode(data, value)
        if code == Section.PROPERTIES and isinstance(content, list):
            message_id = _first_field(data, value, stop) if content else NULL
            reply_to = content[4] if len(content) > 4 and isinstance(content[4], str) else None
        elif code == Section.APPLICATION_PROPERTIES and isinstance(content, dict):
            properties = content
        elif code == Section.VALUE:
            body = content
    return Request(message_id, reply_to, properties, body)


def _first_field(data: bytes, value: int, stop: int) -> bytes:
    start = value + (3 if data[value] == 0xC0 else 9)
    return data[start : codec.skip(data, start, stop)]


def reply(request: Request, status: int, description: str, body: bytes = NULL) -> bytes:
    """Answer a request with a status as HTTP has them; `body` is an encoded value."""
    properties = [NULL] * 13
    properties[5] = request.message_id
    status_map = codec.mapping(
        {
            codec.string("status-code"): codec.integer(status),
            codec.string("status-description"): codec.string(description),
        }
    )
    return b"".join(
        (
            codec.described(Section.PROPERTIES, codec.listing(properties)),
            codec.described(Section.APPLICATION_PROPERTIES, status_map),
            codec.described(Section.VALUE, body),
        )
    )
