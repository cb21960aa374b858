"""Decided transactions that nobody said anything about, as a port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from shared.domain.identifiers import TransactionId


class Silent(NamedTuple):
    """An approved transaction without any label.

    Attributes:
        transaction_id: Its id.
        event_time_us: When it happened, microseconds since 1970 UTC.
    """

    transaction_id: TransactionId
    event_time_us: int


class SilentTransactions(Protocol):
    """Where they are found. Every method raises Transient if the store cannot be reached now."""

    def first_us(self) -> int | None:
        """When the first decision that is kept was recorded, by our clock; None before it. May read all decisions."""
        ...

    def recorded(self, start_us: int, end_us: int, limit: int) -> Sequence[Silent]:
        """Those whose decision was recorded in a span, its end not included, oldest first; at most `limit`."""
        ...
