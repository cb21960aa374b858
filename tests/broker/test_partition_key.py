"""Partition keys land where the SDK's buffered producer puts them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from azure.eventhub._buffered_producer._partition_resolver import PartitionResolver
from hypothesis import given
from hypothesis import strategies as st

from twin.broker.partition_key import hash_key, lookup3, partition_for

VECTORS = [
    ("a", 0x58D68708, 0x582647AC, -16220, (0, 0, 4, 4)),
    ("card-0", 0xE4CB1957, 0x652BCD36, -11167, (1, 1, 1, 1)),
    ("card-1", 0x7FC2C234, 0xF0393A3C, -2040, (0, 0, 0, 8)),
    ("card-7", 0xDCCA1C6A, 0x2D73E77A, -1264, (0, 0, 0, 16)),
    ("customer-4711", 0x0D1DDD4A, 0xEA40618E, -17212, (0, 0, 4, 4)),
    ("0123456789ab", 0x1065E50A, 0xF0EC5868, -17054, (0, 2, 2, 2)),
    ("0123456789abc", 0x7351CE56, 0x595621EF, -4167, (1, 1, 1, 25)),
    ("The quick brown fox jumps", 0x9D279883, 0x704A8A50, 4819, (1, 3, 3, 19)),
]


@pytest.mark.parametrize(("key", "c", "b", "value", "partitions"), VECTORS)
def test_vectors(key: str, c: int, b: int, value: int, partitions: tuple[int, ...]) -> None:
    assert lookup3(key.encode()) == (c, b)
    assert hash_key(key) == value
    assert tuple(partition_for(key, count) for count in (2, 4, 8, 32)) == partitions


def test_the_empty_key_is_zero() -> None:
    assert hash_key("") == 0


@given(st.text(st.characters(min_codepoint=1, max_codepoint=126), min_size=1, max_size=60), st.integers(1, 32))
def test_it_agrees_with_the_sdk(key: str, count: int) -> None:
    # The SDK's internals have no types.
    resolver: Any = cast("Any", PartitionResolver)([str(number) for number in range(count)])
    assert str(partition_for(key, count)) == resolver.get_partition_id_by_partition_key(key)
