"""The use case that forgets a customer and leaves a log that verifies (see docs/verification.md for what stays)."""

from __future__ import annotations

from typing import Final

from shared.domain.archive import Erased
from shared.domain.errors import InvalidInput, NotFound
from shared.domain.identifiers import CustomerId
from shared.ports.clock import Clock
from shared.ports.ledger import Erasure

MAX_REASON_LENGTH: Final = 200
"""Longest reason, in characters: a reference and a sentence."""


def forget(erasure: Erasure, clock: Clock, customer_id: CustomerId, reason: str) -> Erased:
    """Forget a customer: identifier, salt and state go; raw transactions stay under a name that leads nowhere.

    Once it is done the same identifier is unknown, so doing it again finds nobody; a customer who comes back starts
    anew under another surrogate.

    Args:
        erasure: Where.
        clock: Our clock.
        customer_id: Who.
        reason: Why, for the record; it must not name the customer.

    Raises:
        InvalidInput: No reason, too long a one, or one that names the customer.
        NotFound: No such customer is known.
        Transient: Asking again tells whether it was done.
    """
    text = reason.strip()
    if not text or len(text) > MAX_REASON_LENGTH or not text.isprintable():
        raise InvalidInput("reason", f"must be a printable text of 1 to {MAX_REASON_LENGTH} characters")
    if customer_id in text:
        raise InvalidInput("reason", "must not name the customer: it is kept")
    erased = erasure.erase(customer_id, text, clock.now_us())
    if erased is None:
        raise NotFound("customer_id", "is not known here: never seen, or forgotten already")
    return erased
