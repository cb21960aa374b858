"""A transaction, and every rule by which one from the wire is accepted or refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.domain.errors import InvalidInput, OtherCurrency
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId, parse_identifier
from shared.domain.instants import US_PER_DAY, US_PER_MINUTE, format_instant, parse_instant

TRANSACTION_TYPE: Final = "tollgate.transaction"
"""The `type` field of a transaction on the stream; over HTTP it may be left out."""

MAX_AMOUNT_MINOR: Final = 10_000_000_000
"""Largest amount, in minor units (100 million in a currency with two decimals): more is a unit mistake.

It also keeps sums of 900,000 amounts below 2**53, so that they become floats without rounding.
"""

FUTURE_TOLERANCE_US: Final = 5 * US_PER_MINUTE
"""How far ahead of our clock an event time may lie, in microseconds: clocks of senders that are not in step."""

ALLOWED_LATENESS_US: Final = 7 * US_PER_DAY
"""How far behind our clock an event time may lie and still be scored, and for how long state waits for late events."""

_FIELDS: Final = ("transaction_id", "customer_id", "terminal_id", "amount_minor", "currency", "event_time")


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a transaction is held against when it arrives.

    Attributes:
        currency: The deployment's reference currency, an ISO 4217 code.
        now_us: Our clock, microseconds since 1970 UTC.
        future_tolerance_us: How far ahead of `now_us` an event time may lie.
        lateness_us: How far behind `now_us` it may lie; None where history is imported.
    """

    currency: str
    now_us: int
    future_tolerance_us: int = FUTURE_TOLERANCE_US
    lateness_us: int | None = ALLOWED_LATENESS_US


@dataclass(frozen=True, slots=True)
class Transaction:
    """One card payment attempt.

    Attributes:
        transaction_id: The idempotency key, chosen by the sender; it must say nothing about a person.
        customer_id: Whose card; personal, so it never enters the log (see `surrogates`).
        terminal_id: Where.
        amount_minor: Amount in minor units, 1 to `MAX_AMOUNT_MINOR`.
        currency: ISO 4217 code of the amount.
        event_time_us: When it happened at the source, microseconds since 1970 UTC.
    """

    transaction_id: TransactionId
    customer_id: CustomerId
    terminal_id: TerminalId
    amount_minor: int
    currency: str
    event_time_us: int

    @property
    def order(self) -> tuple[int, str]:
        """The place among the events of an entity: event time, then id."""
        return self.event_time_us, self.transaction_id

    def to_fields(self) -> dict[str, object]:
        """The transaction as the fields of a body; the inverse of `parse_transaction`."""
        return {
            "transaction_id": self.transaction_id,
            "customer_id": self.customer_id,
            "terminal_id": self.terminal_id,
            "amount_minor": self.amount_minor,
            "currency": self.currency,
            "event_time": format_instant(self.event_time_us),
        }


def parse_transaction(fields: Mapping[str, object], acceptance: Acceptance) -> Transaction:
    """Read a transaction from the fields of a body.

    >>> parse_transaction(
    ...     {"transaction_id": "t-1", "customer_id": "c-1", "terminal_id": "m-1", "amount_minor": 1250,
    ...      "currency": "EUR", "event_time": "1970-01-01T00:00:00Z"},
    ...     Acceptance(currency="EUR", now_us=0),
    ... ).amount_minor
    1250

    Raises:
        InvalidInput: Names the first field that is unknown, missing, or breaks its rule.
    """
    check_names(fields, _FIELDS, TRANSACTION_TYPE)
    return Transaction(
        transaction_id=TransactionId(parse_identifier("transaction_id", fields["transaction_id"])),
        customer_id=CustomerId(parse_identifier("customer_id", fields["customer_id"])),
        terminal_id=TerminalId(parse_identifier("terminal_id", fields["terminal_id"])),
        amount_minor=parse_amount("amount_minor", fields["amount_minor"]),
        currency=_parse_currency(fields["currency"], acceptance.currency),
        event_time_us=_parse_event_time(fields["event_time"], acceptance),
    )


def check_names(fields: Mapping[str, object], required: tuple[str, ...], event_type: str) -> None:
    """Refuse unknown and missing fields; `type` may be left out, but not be another one.

    Raises:
        InvalidInput: Names the first such field.
    """
    for name in fields:
        if name not in required and name != "type":
            raise InvalidInput(name[:64], "is not a known field")
    for name in required:
        if name not in fields:
            raise InvalidInput(name, "is missing")
    if fields.get("type", event_type) != event_type:
        raise InvalidInput("type", f"must be {event_type}")


def parse_amount(field: str, value: object) -> int:
    """Check an amount in minor units.

    A whole number as a float (`12.0`) is refused too: a sender of floats has amounts that are not whole, sometimes.

    >>> parse_amount("amount_minor", 1250)
    1250

    Raises:
        InvalidInput: Not a whole number, not finite, not positive, or beyond `MAX_AMOUNT_MINOR`.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(field, "must be a finite number")
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(field, "must be a whole number of minor units, such as 1250 for 12.50")
    if value <= 0:
        raise InvalidInput(field, "must be greater than zero")
    if value > MAX_AMOUNT_MINOR:
        raise InvalidInput(field, f"must not be greater than {MAX_AMOUNT_MINOR} minor units")
    return value


def _parse_currency(value: object, reference: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput("currency", "must be text")
    if value != reference:
        kind = OtherCurrency if re.fullmatch(r"[A-Z]{3}", value, re.ASCII) else InvalidInput
        raise kind("currency", f"must be {reference}, the only currency of this deployment")
    return value


def _parse_event_time(value: object, acceptance: Acceptance) -> int:
    event_time_us = parse_instant("event_time", value)
    if event_time_us > acceptance.now_us + acceptance.future_tolerance_us:
        seconds = acceptance.future_tolerance_us / 1_000_000
        raise InvalidInput("event_time", f"must not lie more than {seconds:g} s in the future")
    if acceptance.lateness_us is not None and event_time_us < acceptance.now_us - acceptance.lateness_us:
        days = acceptance.lateness_us / US_PER_DAY
        raise InvalidInput("event_time", f"must not lie more than {days:g} days in the past")
    return event_time_us
