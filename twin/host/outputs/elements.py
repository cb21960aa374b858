"""From one value that a function set to the messages that the host sends.

The cloud's host reads a value as a sequence: a JSON array, or text that parses as one, is one message per element; text
that parses as a JSON object is parsed and written again, so nobody may rely on its exact bytes; other text and bytes go
as they are.
"""

from __future__ import annotations

import json

from twin.host.protos import Collection, TypedData


def _again(item: object) -> str:
    """An element of an array, or an object, as text."""
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, separators=(",", ":"))


def _of_text(text: str) -> list[str | bytes]:
    if text.lstrip()[:1] not in {"[", "{"}:
        return [text]
    try:
        parsed = json.loads(text)
    except ValueError:
        return [text]
    if isinstance(parsed, list):
        return [_again(item) for item in parsed]
    return [_again(parsed)]


def elements(value: TypedData) -> list[str | bytes]:
    """The messages in a value, in order. Raises ValueError for a kind that cannot be a message."""
    content = value.value
    match value.kind:
        case "string" | "json" if isinstance(content, str):
            return _of_text(content)
        case "bytes" if isinstance(content, bytes):
            return [content]
        case "int" | "double":
            return [str(content)]
        case "collection_string" if isinstance(content, Collection):
            return list(content.string)
        case "collection_bytes" if isinstance(content, Collection):
            return list(content.bytes)
    raise ValueError(f"a value of kind {value.kind} cannot be sent")
