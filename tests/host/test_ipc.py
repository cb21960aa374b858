"""The channel between host and workers: what goes in comes out, and rubbish only breaks its own channel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.host import datums
from twin.host.ipc import HEAD, Channel, ChannelClosed, Payload, RemoteError
from twin.host.protos import Collection, TypedData


async def echo(op: str, payload: Payload) -> Payload:
    if op == "fail":
        raise ValueError("on purpose")
    if op == "hang":
        await asyncio.Event().wait()
    return payload


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Channel, Channel]]:
    left, right = socket.socketpair()
    channels = await Channel.over(left, echo), await Channel.over(right, echo)
    tasks = [asyncio.create_task(channel.run()) for channel in channels]
    try:
        yield channels
    finally:
        for channel in channels:
            channel.close()
        await asyncio.gather(*tasks)


def test_questions_overlap_in_both_directions() -> None:
    async def run() -> None:
        async with pair() as (left, right):
            asks = [side.ask("echo", {"n": n}, [bytes([n]) * n]) for n in range(50) for side in (left, right)]
            answers = await asyncio.gather(*asks)
            assert [answer.body["n"] for answer in answers] == [n for n in range(50) for _ in range(2)]
            assert all(
                answer.blobs == [bytes([int(str(answer.body["n"]))]) * len(answer.blobs[0])] for answer in answers
            )

    asyncio.run(run())


def test_failure_over_there_is_told_here() -> None:
    async def run() -> None:
        async with pair() as (left, _):
            with pytest.raises(RemoteError, match="ValueError: on purpose"):
                await left.ask("fail")
            assert (await left.ask("echo", {"still": True})).body == {"still": True}

    asyncio.run(run())


def test_open_questions_fail_when_the_other_end_goes() -> None:
    async def run() -> None:
        async with pair() as (left, right):
            question = asyncio.create_task(left.ask("hang"))
            await left.ask("echo")
            right.close()
            with pytest.raises(ChannelClosed):
                await question
            with pytest.raises(ChannelClosed):
                await left.ask("echo")

    asyncio.run(run())


@pytest.mark.parametrize(
    "rubbish",
    [
        HEAD.pack(2**31, 0),
        HEAD.pack(2, 2**31),
        HEAD.pack(4, 0) + b"nope",
        HEAD.pack(2, 0) + b"[]",
        HEAD.pack(9, 0) + b'{"re":"x"',
        b"\x00",
    ],
)
def test_rubbish_closes_the_channel(rubbish: bytes) -> None:
    async def run() -> None:
        left, right = socket.socketpair()
        channel = await Channel.over(left, echo)
        right.sendall(rubbish)
        right.close()
        await asyncio.wait_for(channel.run(), 60)
        with pytest.raises(ChannelClosed):
            await channel.ask("echo")

    asyncio.run(run())


VALUES = st.one_of(
    st.text().map(lambda text: TypedData(string=text)),
    st.binary().map(lambda data: TypedData(bytes=data)),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: TypedData(int=number)),
    st.floats(allow_nan=False).map(lambda number: TypedData(double=number)),
    st.lists(st.binary(), max_size=5).map(lambda items: TypedData(collection_bytes=Collection(binary=items))),
    st.lists(st.text(), max_size=5).map(lambda items: TypedData(collection_string=Collection(string=items))),
)


def shown(value: TypedData) -> object:
    content = value.value
    if isinstance(content, Collection):
        content = (content.bytes, content.string)
    return value.kind, content


@given(st.lists(VALUES, max_size=6))
@settings(max_examples=80)
def test_values_survive_the_channel(values: list[TypedData]) -> None:
    named = [(f"v{number}", value) for number, value in enumerate(values)]
    blobs: list[bytes] = []
    back = datums.unpack_all(datums.pack_all(named, blobs), blobs)
    assert [(name, shown(value)) for name, value in back] == [(name, shown(value)) for name, value in named]


def test_values_without_a_binding_are_refused() -> None:
    with pytest.raises(ValueError, match="kind http cannot be passed on"):
        datums.pack(TypedData(http=object()), [])
    with pytest.raises(ValueError, match="unknown kind"):
        datums.unpack({"kind": "pickle"}, [])
