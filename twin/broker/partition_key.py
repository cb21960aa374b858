"""Which partition a partition key belongs to.

The SDK's buffered producer chooses the partition on the client with Jenkins' lookup3 hash and sends to a partition id;
other producers leave the choice to the broker. Both must agree, or one key would live in two partitions.

Source: Bob Jenkins, "lookup3.c" (2006, public domain), in the variant of azure-eventhub 5.15.1. The Python client takes
`abs(hash % n)` with floor modulo; which modulo the service uses for negative hashes is not known.
"""

from __future__ import annotations

from typing import Final

_MASK: Final = 0xFFFFFFFF
_SEED: Final = 0xDEADBEEF
_BLOCK: Final = 12


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = ((a - c) & _MASK) ^ _rotate(c, 4)
    c = (c + b) & _MASK
    b = ((b - a) & _MASK) ^ _rotate(a, 6)
    a = (a + c) & _MASK
    c = ((c - b) & _MASK) ^ _rotate(b, 8)
    b = (b + a) & _MASK
    a = ((a - c) & _MASK) ^ _rotate(c, 16)
    c = (c + b) & _MASK
    b = ((b - a) & _MASK) ^ _rotate(a, 19)
    a = (a + c) & _MASK
    c = ((c - b) & _MASK) ^ _rotate(b, 4)
    b = (b + a) & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> tuple[int, int]:
    c = ((c ^ b) - _rotate(b, 14)) & _MASK
    a = ((a ^ c) - _rotate(c, 11)) & _MASK
    b = ((b ^ a) - _rotate(a, 25)) & _MASK
    c = ((c ^ b) - _rotate(b, 16)) & _MASK
    a = ((a ^ c) - _rotate(c, 4)) & _MASK
    b = ((b ^ a) - _rotate(a, 14)) & _MASK
    c = ((c ^ b) - _rotate(b, 24)) & _MASK
    return c, b


def lookup3(data: bytes) -> tuple[int, int]:
    """The two 32 bit results (c, b) of lookup3 over `data`."""
    a = b = c = (_SEED + len(data)) & _MASK
    position = 0
    while len(data) - position > _BLOCK:
        a = (a + int.from_bytes(data[position : position + 4], "little")) & _MASK
        b = (b + int.from_bytes(data[position + 4 : position + 8], "little")) & _MASK
        c = (c + int.from_bytes(data[position + 8 : position + 12], "little")) & _MASK
        a, b, c = _mix(a, b, c)
        position += _BLOCK
    if position == len(data):
        return c, b
    # Missing bytes count as zero, which is what the case-by-case tail of the original amounts to.
    tail = data[position:].ljust(_BLOCK, b"\0")
    a = (a + int.from_bytes(tail[0:4], "little")) & _MASK
    b = (b + int.from_bytes(tail[4:8], "little")) & _MASK
    c = (c + int.from_bytes(tail[8:12], "little")) & _MASK
    return _final(a, b, c)


def hash_key(key: str) -> int:
    """The signed 16 bit hash of a partition key; 0 for the empty key."""
    if not key:
        return 0
    c, b = lookup3(key.encode())
    folded = (c ^ b) & 0xFFFF
    return folded - 0x10000 if folded & 0x8000 else folded


def partition_for(key: str, partition_count: int) -> int:
    """The partition (0 to partition_count - 1) that events with this key go to."""
    return abs(hash_key(key) % partition_count)
