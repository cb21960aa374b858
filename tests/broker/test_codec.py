"""The AMQP type system: what is encoded comes back, and hostile bytes only ever raise DecodeError."""

from __future__ import annotations

import contextlib
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.broker import codec, messages, performatives
from twin.broker.codec import MAX_DEPTH, DecodeError, Described, Symbol
from twin.broker.errors import ConnectionFault
from twin.broker.framing import EMPTY_FRAME, FrameBuffer, frame

TEXT = st.text(max_size=300)
ASCII = st.text(st.characters(max_codepoint=127), max_size=300)
SCALARS: st.SearchStrategy[tuple[bytes, object]] = st.one_of(
    st.just((codec.NULL, None)),
    st.booleans().map(lambda v: (codec.boolean(v), v)),
    st.integers(0, 2**8 - 1).map(lambda v: (codec.ubyte(v), v)),
    st.integers(0, 2**16 - 1).map(lambda v: (codec.ushort(v), v)),
    st.integers(0, 2**32 - 1).map(lambda v: (codec.uint(v), v)),
    st.integers(0, 2**64 - 1).map(lambda v: (codec.ulong(v), v)),
    st.integers(-(2**31), 2**31 - 1).map(lambda v: (codec.integer(v), v)),
    st.integers(-(2**63), 2**63 - 1).map(lambda v: (codec.long(v), v)),
    st.integers(-(2**63), 2**63 - 1).map(lambda v: (codec.timestamp(v), v)),
    st.binary(max_size=600).map(lambda v: (codec.binary(v), v)),
    TEXT.map(lambda v: (codec.string(v), v)),
    ASCII.map(lambda v: (codec.symbol(v), Symbol(v))),
)


def _list(items: list[tuple[bytes, object]]) -> tuple[bytes, object]:
    return codec.listing([raw for raw, _ in items]), [value for _, value in items]


def _map(items: list[tuple[str, tuple[bytes, object]]]) -> tuple[bytes, object]:
    entries = dict(items)
    encoded = {codec.string(key): raw for key, (raw, _) in entries.items()}
    return codec.mapping(encoded), {key: value for key, (_, value) in entries.items()}


def _described(code: int, item: tuple[bytes, object]) -> tuple[bytes, object]:
    return codec.described(code, item[0]), Described(code, item[1])


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5).map(_list),
        st.lists(st.tuples(TEXT, inner), max_size=5).map(_map),
        st.builds(_described, st.integers(0, 255), inner),
        st.lists(TEXT, max_size=5).map(lambda v: (codec.array_of(v, codec.string), v)),
    ),
    max_leaves=20,
)


@given(VALUES, st.binary(max_size=8))
def test_what_is_encoded_comes_back(item: tuple[bytes, object], behind: bytes) -> None:
    raw, value = item
    assert codec.decode(raw + behind) == (value, len(raw))
    assert codec.skip(raw + behind, 0, len(raw) + len(behind)) == len(raw)


@given(VALUES)
def test_every_truncation_is_a_decode_error(item: tuple[bytes, object]) -> None:
    raw, _ = item
    for size in range(len(raw)):
        with pytest.raises(DecodeError):
            codec.decode(raw[:size])
        with pytest.raises(DecodeError):
            codec.skip(raw[:size], 0, size)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    for read in (codec.decode, performatives.parse, messages.parse_event, messages.parse_batch, messages.parse_request):
        try:
            read(data)
        except DecodeError:
            continue


@given(VALUES, st.integers(0x10, 0x18))
def test_arbitrary_fields_raise_nothing_else(item: tuple[bytes, object], code: int) -> None:
    with contextlib.suppress(DecodeError):
        performatives.parse(codec.described(code, codec.listing([item[0]] * 11)))


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"\x45", []),
        (b"\x56\x01", True),
        (b"\x56\x00", False),
        (b"\x51\xff", -1),
        (b"\x54\x80", -128),
        (b"\x55\x7f", 127),
        (b"\x61\xff\xfe", -2),
        (b"\x72" + struct.pack(">f", 1.5), 1.5),
        (b"\x82" + struct.pack(">d", -2.25), -2.25),
        (b"\x73\x00\x01\xf6\x00", "\U0001f600"),
        (b"\x98" + uuid.UUID(int=7).bytes, uuid.UUID(int=7)),
        (b"\x94" + bytes(16), bytes(16)),
        (b"\xc0\x03\x02\x41\x42", [True, False]),
        (b"\xc1\x04\x02\xa1\x00\x43", {"": 0}),
        (b"\xe0\x06\x02\xa3\x01a\x01b", ["a", "b"]),
        (b"\xe0\x01\x00", []),
    ],
)
def test_forms_that_only_clients_send(raw: bytes, value: object) -> None:
    assert codec.decode(raw) == (value, len(raw))


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 5000,
        b"\xc0\xff\x01" * 100,
        (b"\xd0" + struct.pack(">II", 0xFFFFFFFF, 1)),
        (b"\xf0" + struct.pack(">II", 5, 0xFFFFFFFF) + b"\x40"),
        b"\xc1\x02\x01\x40",
        b"\xd1\x00\x00\x00\x07\x00\x00\x00\x02\xc0\x01\x00\x40",
        b"\xa1\x01\xff",
        b"\xa3\x01\xff",
        b"\xe0\x03\x01\x00\x00",
        b"\x3f",
        b"\xa2\x00",
    ],
)
def test_hostile_values_are_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        codec.decode(raw)


def test_nesting_is_bounded() -> None:
    def nested(depth: int) -> bytes:
        raw = codec.NULL
        for _ in range(depth):
            raw = codec.listing([raw])
        return raw

    codec.decode(nested(MAX_DEPTH))
    with pytest.raises(DecodeError, match="nested deeper"):
        codec.decode(nested(MAX_DEPTH + 1))


@given(st.lists(st.binary(max_size=100), max_size=6), st.integers(1, 40))
def test_frames_survive_any_cut_of_the_stream(bodies: list[bytes], step: int) -> None:
    stream = b"".join(frame(index, body) for index, body in enumerate(bodies)) + EMPTY_FRAME
    buffer = FrameBuffer(512)
    found: list[tuple[int, bytes]] = []
    for start in range(0, len(stream), step):
        buffer.feed(stream[start : start + step])
        while (received := buffer.next_frame()) is not None:
            found.append((received.channel, received.body))
    assert found == [*enumerate(bodies), (0, b"")]


@pytest.mark.parametrize("raw", ["00000007 02000000", "00000201 02000000", "00000008 01000000", "00000008 03000000"])
def test_impossible_frames_are_refused(raw: str) -> None:
    buffer = FrameBuffer(512)
    buffer.feed(bytes.fromhex(raw))
    with pytest.raises(ConnectionFault, match="framing"):
        buffer.next_frame()


def test_frames_are_those_measured_with_the_sdk() -> None:
    """The reference bytes of the measured facts, section 3."""
    assert performatives.sasl_outcome(0).hex() == "0000001702010000005344d000000007000000025000 40".replace(" ", "")
    assert performatives.begun(1, 255).hex() == (
        "00000027020000010053 11d00000001700000008 6000014370 7fffffff 707fffffff 52ff404040".replace(" ", "")
    )
    accepted = performatives.disposition(1, 1, performatives.ACCEPTED)
    assert accepted.hex() == (
        "00000027020000010053 15d00000001700000006 415201520141 005324d00000000400000000 40".replace(" ", "")
    )
    head = performatives.transfer(0, 3, 0, b"", more=False)
    assert head.hex() == "00000022020000000053 14d0000000120000000b 5203 43 a00100 43 41 42 4040404040".replace(" ", "")


def test_a_stamped_event_is_byte_for_byte_as_measured() -> None:
    event = messages.parse_event(bytes.fromhex("005375a00173"))
    stamped = event.stamp(7, 512, 0x1A1FBDCE440)
    assert stamped.hex() == (
        "005372d10000005500000006a315"
        + b"x-opt-sequence-number".hex()
        + "810000000000000007a30c"
        + b"x-opt-offset".hex()
        + "a103353132a313"
        + b"x-opt-enqueued-time".hex()
        + "83000001a1fbdce440005375a00173"
    )
