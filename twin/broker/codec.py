"""The AMQP 1.0 type system: encoders for what the broker says, one decoder for what a client may say.

Source: OASIS AMQP 1.0 part 1 (types). Encoders return ready bytes, so that a frame is one `join`. The decoder treats
its input as hostile: nesting is bounded, sizes are checked against the buffer and every fault is a `DecodeError`.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

MAX_DEPTH: Final = 32
"""Deepest nesting of lists, maps, arrays and described values that is decoded."""

NULL: Final = b"\x40"
TRUE: Final = b"\x41"
FALSE: Final = b"\x42"

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_I32: Final = struct.Struct(">i")
_I64: Final = struct.Struct(">q")
_SIZE_COUNT: Final = struct.Struct(">II")


class DecodeError(ValueError):
    """The bytes are not valid AMQP 1.0, or exceed a limit of this decoder."""


class Symbol(str):
    """An AMQP symbol: ASCII text from a constrained domain, equal to the `str` of the same characters."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Described:
    """A value with a descriptor in front, such as a filter or an outcome."""

    descriptor: object
    value: object


# ------------------------------------------------------------------------------------------------ encoding


def boolean(value: bool) -> bytes:
    """Encode a boolean in one byte."""
    return TRUE if value else FALSE


def ubyte(value: int) -> bytes:
    """Encode an unsigned 8 bit integer."""
    return b"\x50" + value.to_bytes(1)


def ushort(value: int) -> bytes:
    """Encode an unsigned 16 bit integer."""
    return b"\x60" + _U16.pack(value)


def uint(value: int) -> bytes:
    """Encode an unsigned 32 bit integer in its shortest form."""
    if value == 0:
        return b"\x43"
    return b"\x52" + value.to_bytes(1) if value < 256 else b"\x70" + _U32.pack(value)


def ulong(value: int) -> bytes:
    """Encode an unsigned 64 bit integer in its shortest form."""
    if value == 0:
        return b"\x44"
    return b"\x53" + value.to_bytes(1) if value < 256 else b"\x80" + _U64.pack(value)


def integer(value: int) -> bytes:
    """Encode a signed 32 bit integer."""
    return b"\x71" + _I32.pack(value)


def long(value: int) -> bytes:
    """Encode a signed 64 bit integer."""
    return b"\x81" + _I64.pack(value)


def timestamp(milliseconds: int) -> bytes:
    """Encode a moment as milliseconds since the Unix epoch, UTC."""
    return b"\x83" + _I64.pack(milliseconds)


def binary(value: bytes) -> bytes:
    """Encode a byte string."""
    return _variable(0xA0, value)


def string(value: str) -> bytes:
    """Encode text as UTF-8."""
    return _variable(0xA1, value.encode())


def symbol(value: str) -> bytes:
    """Encode a symbol; raises UnicodeEncodeError for anything but ASCII."""
    return _variable(0xA3, value.encode("ascii"))


def _variable(code: int, value: bytes) -> bytes:
    size = len(value)
    if size < 256:
        return bytes((code, size)) + value
    return bytes((code + 0x10,)) + _U32.pack(size) + value


def array_of(values: Iterable[str], encode: Callable[[str], bytes]) -> bytes:
    """Encode text values as an array whose elements all have the wide form of `encode` (`string` or `symbol`)."""
    raw = [value.encode() for value in values]
    constructor = b"\xb1" if encode is string else b"\xb3"
    body = b"".join(_U32.pack(len(value)) + value for value in raw)
    return b"\xf0" + _SIZE_COUNT.pack(len(body) + 5, len(raw)) + constructor + body


def listing(fields: Iterable[bytes]) -> bytes:
    """Encode a list of encoded fields, always as list32.

    The SDK's decoder reads a count behind the constructor even for an empty list, so list0 is never used.
    """
    items = list(fields)
    body = b"".join(items)
    return b"\xd0" + _SIZE_COUNT.pack(len(body) + 4, len(items)) + body


def mapping(entries: Mapping[bytes, bytes]) -> bytes:
    """Encode a map of encoded keys and values, always as map32."""
    body = b"".join(key + value for key, value in entries.items())
    return b"\xd1" + _SIZE_COUNT.pack(len(body) + 4, 2 * len(entries)) + body


def described(code: int, value: bytes) -> bytes:
    """Put the numeric descriptor `code` (0..255) in front of an encoded value, as smallulong: the SDK looks there."""
    return b"\x00\x53" + code.to_bytes(1) + value


# ------------------------------------------------------------------------------------------------ decoding

_WIDTHS: Final = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
"""Bytes behind a fixed-width constructor, by its high half."""

_CONSTANTS: Final[dict[int, object]] = {0x40: None, 0x41: True, 0x42: False, 0x43: 0, 0x44: 0}
_SIMPLE: Final[dict[int, struct.Struct]] = {
    code: struct.Struct(">" + form)
    for code, form in {
        0x50: "B",
        0x51: "b",
        0x52: "B",
        0x53: "B",
        0x54: "b",
        0x55: "b",
        0x60: "H",
        0x61: "h",
        0x70: "I",
        0x71: "i",
        0x72: "f",
        0x80: "Q",
        0x81: "q",
        0x82: "d",
        0x83: "q",
    }.items()
}
_DECIMALS: Final = frozenset({0x74, 0x84, 0x94})
_COMPOUND: Final = frozenset({0xC0, 0xC1, 0xD0, 0xD1})
_ARRAYS: Final = frozenset({0xE0, 0xF0})


def decode(data: bytes, start: int = 0) -> tuple[object, int]:
    """Decode the value at `start`.

    Symbols come back as `Symbol`, timestamps as int milliseconds, uuids as `uuid.UUID`, decimals as their raw bytes,
    arrays and lists as `list`, described values as `Described`.

    Returns:
        The value and the index just after it.

    Raises:
        DecodeError: truncated, malformed, nested deeper than `MAX_DEPTH`, or a map key that cannot be one.
    """
    try:
        return _decode(data, start, len(data), 0)
    except (IndexError, struct.error, UnicodeDecodeError, TypeError) as error:
        raise DecodeError(f"malformed value at byte {start}") from error


def _decode(data: bytes, start: int, end: int, depth: int) -> tuple[object, int]:
    if start >= end:
        raise DecodeError("truncated value")
    code = data[start]
    if code != 0:
        return _decode_as(code, data, start + 1, end, depth)
    if depth >= MAX_DEPTH:
        raise DecodeError(f"nested deeper than {MAX_DEPTH}")
    descriptor, position = _decode(data, start + 1, end, depth + 1)
    value, position = _decode(data, position, end, depth + 1)
    return Described(descriptor, value), position


def _decode_as(code: int, data: bytes, start: int, end: int, depth: int) -> tuple[object, int]:
    if code in _CONSTANTS:
        return _CONSTANTS[code], start
    if code in _SIMPLE:
        form = _SIMPLE[code]
        stop = _checked(start + form.size, end)
        return form.unpack_from(data, start)[0], stop
    kind = code >> 4
    if kind in (0xA, 0xB):
        return _decode_variable(code, data, start, end)
    if code in _COMPOUND:
        return _decode_compound(code, data, start, end, depth)
    if code in _ARRAYS:
        return _decode_array(code, data, start, end, depth)
    return _decode_rare(code, data, start, end)


def _decode_rare(code: int, data: bytes, start: int, end: int) -> tuple[object, int]:
    if code == 0x45:
        return [], start
    if code == 0x56:
        stop = _checked(start + 1, end)
        return data[start] == 1, stop
    if code == 0x73:
        stop = _checked(start + 4, end)
        return data[start:stop].decode("utf-32-be"), stop
    if code == 0x98:
        stop = _checked(start + 16, end)
        return uuid.UUID(bytes=data[start:stop]), stop
    if code in _DECIMALS:
        stop = _checked(start + _WIDTHS[code >> 4], end)
        return data[start:stop], stop
    raise DecodeError(f"unknown constructor 0x{code:02x}")


def _decode_variable(code: int, data: bytes, start: int, end: int) -> tuple[object, int]:
    if code >> 4 == 0xA:
        size, start = data[start], start + 1
    else:
        size, start = _U32.unpack_from(data, start)[0], start + 4
    stop = _checked(start + size, end)
    raw = data[start:stop]
    match code & 0x0F:
        case 0x0:
            return raw, stop
        case 0x1:
            return raw.decode(), stop
        case 0x3:
            return Symbol(raw.decode("ascii")), stop
    raise DecodeError(f"unknown constructor 0x{code:02x}")


def _compound_bounds(wide: bool, data: bytes, start: int, end: int) -> tuple[int, int, int]:
    """The element count, the index of the first element and the index just after the last."""
    if wide:
        size, count = _SIZE_COUNT.unpack_from(data, start)
        first, stop = start + 8, _checked(start + 4 + size, end)
    else:
        size, count = data[start], data[start + 1]
        first, stop = start + 2, _checked(start + 1 + size, end)
    # Elements without a byte of their own could otherwise claim four billion places in one small frame.
    if count > size or first > stop:
        raise DecodeError("more elements than bytes")
    return count, first, stop


def _decode_compound(code: int, data: bytes, start: int, end: int, depth: int) -> tuple[object, int]:
    if depth >= MAX_DEPTH:
        raise DecodeError(f"nested deeper than {MAX_DEPTH}")
    count, position, stop = _compound_bounds(code >= 0xD0, data, start, end)
    values: list[object] = []
    for _ in range(count):
        value, position = _decode(data, position, stop, depth + 1)
        values.append(value)
    if position != stop:
        raise DecodeError("size and content differ")
    if code & 0x0F == 0:
        return values, stop
    if count % 2:
        raise DecodeError("a map key without a value")
    return dict(zip(values[::2], values[1::2], strict=True)), stop


def _decode_array(code: int, data: bytes, start: int, end: int, depth: int) -> tuple[object, int]:
    if depth >= MAX_DEPTH:
        raise DecodeError(f"nested deeper than {MAX_DEPTH}")
    count, position, stop = _compound_bounds(code == 0xF0, data, start, end)
    if count == 0:
        return [], stop
    if position >= stop:
        raise DecodeError("an array without a constructor")
    constructor = data[position]
    if constructor == 0:
        raise DecodeError("arrays of described values are not supported")
    position += 1
    values: list[object] = []
    for _ in range(count):
        value, position = _decode_as(constructor, data, position, stop, depth + 1)
        values.append(value)
    if position != stop:
        raise DecodeError("size and content differ")
    return values, stop


def skip(data: bytes, start: int, end: int) -> int:
    """The index just after the value at `start`, without looking inside it.

    Raises:
        DecodeError: truncated, or an unknown constructor.
    """
    remaining = 1
    position = start
    while remaining:
        if position >= end:
            raise DecodeError("truncated value")
        code = data[position]
        position += 1
        if code == 0:
            # A descriptor and a value follow. Every such byte advances, so hostile input ends at `end`.
            remaining += 1
            continue
        position = _after(code, data, position, end)
        remaining -= 1
    return position


def _after(code: int, data: bytes, position: int, end: int) -> int:
    kind = code >> 4
    if kind in _WIDTHS:
        return _checked(position + _WIDTHS[kind], end)
    try:
        if kind in (0xA, 0xC, 0xE):
            return _checked(position + 1 + data[position], end)
        if kind in (0xB, 0xD, 0xF):
            return _checked(position + 4 + _U32.unpack_from(data, position)[0], end)
    except (IndexError, struct.error) as error:
        raise DecodeError("truncated value") from error
    raise DecodeError(f"unknown constructor 0x{code:02x}")


def _checked(stop: int, end: int) -> int:
    if stop > end:
        raise DecodeError("truncated value")
    return stop
