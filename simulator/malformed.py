"""Bodies that break a rule, one kind for each rule of `shared.domain` about a transaction on the wire.

A test walks through the raise statements of those modules and fails where one is broken by no kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from shared.domain.event import MAX_BODY_BYTES
from shared.domain.identifiers import MAX_IDENTIFIER_LENGTH
from shared.domain.instants import US_PER_DAY, US_PER_HOUR, format_instant
from shared.domain.transaction import ALLOWED_LATENESS_US, MAX_AMOUNT_MINOR

type Fields = dict[str, object]


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to break a body.

    Attributes:
        name: Unique.
        field: The field that is at fault; empty for the body as a whole.
        body: From the fields of a good transaction and the moment of sending, microseconds since 1970 UTC.
    """

    name: str
    field: str
    body: Callable[[Mapping[str, object], int], bytes]


def encoded(fields: Mapping[str, object]) -> bytes:
    """The fields as compact JSON."""
    return json.dumps(fields, separators=(",", ":")).encode()


def _with(name: str, field: str, value: object) -> Kind:
    """A field gets a value that breaks its rule."""
    return Kind(name, field, lambda fields, _: encoded({**fields, field: value}))


def _without(name: str, field: str) -> Kind:
    """A field is left out."""
    return Kind(name, field, lambda fields, _: encoded({key: fields[key] for key in fields if key != field}))


def _text(name: str, field: str, change: Callable[[bytes], bytes]) -> Kind:
    """The bytes are changed."""
    return Kind(name, field, lambda fields, _: change(encoded(fields)))


def _sent(name: str, offset_us: int) -> Kind:
    """The event time lies at a distance from the moment of sending."""
    return Kind(
        name,
        "event_time",
        lambda fields, sent_at_us: encoded({**fields, "event_time": format_instant(sent_at_us + offset_us)}),
    )


KINDS: Final = (
    _text("empty", "", lambda _: b""),
    _text("cut-off", "", lambda body: body[: len(body) // 2]),
    _text("not-utf-8", "", lambda body: body.replace(b"c-", b"\xff\xfe", 1)),
    _text("too-long", "", lambda body: body + b" " * (MAX_BODY_BYTES + 1 - len(body))),
    _text("an-array", "", lambda body: b"[" + body + b"]"),
    _text("not-a-number", "", lambda body: body.replace(b'"amount_minor":', b'"amount_minor":NaN,"before":')),
    _text("repeated-key", "currency", lambda body: body[:-1] + b',"currency":"EUR"}'),
    _with("unknown-field", "card_number", "4242"),
    _with("other-type", "type", "tollgate.refund"),
    _without("no-transaction-id", "transaction_id"),
    _without("no-amount", "amount_minor"),
    _without("no-event-time", "event_time"),
    _with("id-a-number", "transaction_id", 17),
    _with("id-empty", "transaction_id", ""),
    _with("id-too-long", "transaction_id", "t" * (MAX_IDENTIFIER_LENGTH + 1)),
    _with("id-control-character", "customer_id", "c-1\u0000"),
    _with("id-space", "terminal_id", "m 1"),
    _with("amount-text", "amount_minor", "12.50"),
    _with("amount-fraction", "amount_minor", 12.5),
    _text("amount-infinite", "amount_minor", lambda body: re.sub(rb'(?<="amount_minor":)\d+', b"9e999", body)),
    _with("amount-nought", "amount_minor", 0),
    _with("amount-negative", "amount_minor", -1250),
    _with("amount-too-large", "amount_minor", MAX_AMOUNT_MINOR + 1),
    _with("currency-a-number", "currency", 978),
    _with("other-currency", "currency", "XTS"),
    _with("time-a-number", "event_time", 1_522_540_800),
    _with("time-without-offset", "event_time", "2026-01-01T00:00:00"),
    _with("time-too-fine", "event_time", "2026-01-01T00:00:00.1234567Z"),
    _with("time-leap-second", "event_time", "2026-01-01T23:59:60Z"),
    _with("time-no-such-day", "event_time", "2026-02-30T12:00:00Z"),
    _sent("from-the-future", US_PER_HOUR),
    _sent("too-old", -ALLOWED_LATENESS_US - US_PER_DAY),
)
"""Every kind, each of another rule or of another way to break it."""
