"""What arrives on an event stream, and what becomes of an event that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from shared.domain.errors import InvalidInput

MAX_BODY_BYTES = 256 * 1024
"""Largest body that is read, in bytes; a longer one is a dead letter."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event as the stream delivered it.

    Attributes:
        hub: Name of the hub.
        partition: Partition id.
        sequence_number: Position in the partition, dense and rising.
        offset: The stream's own cursor, opaque text.
        enqueued_at_us: When the stream accepted it, microseconds since 1970 UTC.
        body: The raw bytes.
    """

    hub: str
    partition: str
    sequence_number: int
    offset: str
    enqueued_at_us: int
    body: bytes


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """One event on its way to a stream.

    Attributes:
        key: Events of one key stay in their order.
        body: The raw bytes.
    """

    key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that no retry can make usable, with why, and all that is needed to send it again.

    Attributes:
        event: The event as it came, body included.
        field: The offending field; empty for the event as a whole.
        rule: The rule it breaks.
        recorded_at_us: When it was given up, microseconds since 1970 UTC.
    """

    event: StreamEvent
    field: str
    rule: str
    recorded_at_us: int


def parse_object(body: bytes, max_bytes: int = MAX_BODY_BYTES) -> Mapping[str, object]:
    """Read the body of an event as one JSON object.

    Stricter than the standard library's default: NaN, infinities and repeated keys are refused, because two readers
    could make two different things of them.

    >>> parse_object(b'{"type": "tollgate.probe"}')
    {'type': 'tollgate.probe'}

    Raises:
        InvalidInput: Too long, not UTF-8, not JSON, or not an object.
    """
    if len(body) > max_bytes:
        raise InvalidInput("", f"must not be longer than {max_bytes} bytes; it has {len(body)}")
    try:
        value = _READ(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidInput("", f"must be UTF-8; byte {error.start} is not") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        where = f" (character {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidInput("", f"must be JSON{where}") from error
    if not isinstance(value, dict):
        raise InvalidInput("", "must be a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInput("", f"must not hold {name}")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise InvalidInput(repeated[:64], "must not be given twice")
    return found


_READ: Final = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys).decode
"""Made once: `json.loads` makes a decoder for each text that it is given such rules for."""
