"""Typed values across the channel: JSON for what is text, attachments for what is bytes."""

from __future__ import annotations

from collections.abc import Sequence

from twin.host.ipc import Json
from twin.host.protos import Collection, TypedData

_INLINE = frozenset({"string", "json", "int", "double"})


def pack(datum: TypedData, blobs: list[bytes]) -> Json:
    """The JSON form of a value; bytes are appended to `blobs` and referred to by index.

    Raises:
        ValueError: for a kind that no binding of this host takes.
    """
    kind, value = datum.kind, datum.value
    if kind in _INLINE:
        return {"kind": kind, "value": value}
    if kind == "bytes" and isinstance(value, bytes | bytearray | memoryview):
        blobs.append(bytes(value))
        return {"kind": kind, "at": len(blobs) - 1}
    if kind == "collection_bytes" and isinstance(value, Collection):
        start = len(blobs)
        blobs.extend(value.bytes)
        return {"kind": kind, "at": start, "count": len(value.bytes)}
    if kind == "collection_string" and isinstance(value, Collection):
        return {"kind": kind, "value": value.string}
    raise ValueError(f"a value of kind {kind} cannot be passed on")


def unpack(packed: object, blobs: Sequence[bytes]) -> TypedData:
    """The inverse of `pack`. Raises ValueError or KeyError for anything else."""
    if not isinstance(packed, dict):
        raise ValueError("a packed value is an object")  # noqa: TRY004  (malformed data, not a caller's wrong type)
    kind = packed["kind"]
    if kind in _INLINE:
        return TypedData(**{kind: packed["value"]})
    if kind == "bytes":
        return TypedData(bytes=blobs[packed["at"]])
    if kind == "collection_bytes":
        start = packed["at"]
        return TypedData(collection_bytes=Collection(binary=list(blobs[start : start + packed["count"]])))
    if kind == "collection_string":
        return TypedData(collection_string=Collection(string=list(packed["value"])))
    raise ValueError(f"unknown kind {kind!r}")


def pack_all(values: Sequence[tuple[str, TypedData]], blobs: list[bytes]) -> list[object]:
    """Named values in order."""
    return [{"name": name, **pack(datum, blobs)} for name, datum in values]


def unpack_all(packed: object, blobs: Sequence[bytes]) -> list[tuple[str, TypedData]]:
    """The inverse of `pack_all`."""
    if not isinstance(packed, list):
        raise ValueError("packed values are a list")  # noqa: TRY004  (malformed data, not a caller's wrong type)
    return [(str(item["name"]), unpack(item, blobs)) for item in packed]
