"""Transactions and labels as the bytes a sender would send, and what goes wrong on the way.

Nothing is sent here: `disturbed` says which bytes to send when, and what should become of them.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_SECOND, format_instant
from shared.domain.labels import LABEL_TYPE, Label
from shared.domain.transaction import ALLOWED_LATENESS_US, TRANSACTION_TYPE, Transaction
from simulator.batch import LabelBatch, TransactionBatch, transaction_id
from simulator.errors import check
from simulator.malformed import KINDS, encoded
from simulator.world import World

LATENESS_MARGIN_US: Final = 2 * US_PER_HOUR
"""A late event stays within the allowed lateness by this: it may be repeated within an hour, and the way takes time."""


class Sending(StrEnum):
    """What an event on the wire is, beside what it says."""

    GOOD = "good"
    LATE = "late"
    REPEATED = "repeated"
    CONFLICTING = "conflicting"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class WireEvent:
    """One event to send.

    Attributes:
        body: The bytes.
        sent_at_us: When it is sent, microseconds since 1970 UTC.
        sending: What it is. GOOD and LATE are decided; REPEATED gets the answer of the first; CONFLICTING and
            MALFORMED are refused and change nothing.
        transaction_id: The transaction it belongs to; of a malformed body, the one that it was made from.
        customer: Number of the cardholder, for whoever wants to keep the order of one.
        fault: Name of the malformed kind; empty for all others.
        field: The field at fault in a malformed body.
    """

    body: bytes
    sent_at_us: int
    sending: Sending
    transaction_id: str
    customer: int
    fault: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """How often things go wrong, as shares of the transactions.

    Attributes:
        repeated: Sent once more, same transaction; every second time written differently (key order, spaces, offset).
        conflicting: Sent once more with the same id and another amount, after the first.
        late: Sent hours to days late, and still within the allowed lateness.
        malformed: Accompanied by a body of another, new transaction that breaks a rule.
        shuffle_s: Good events are sent up to so many seconds after they happened, each by its own delay.
        repeat_after_s: Repeated and conflicting events follow the first within so many seconds.
        most_late_s: Late events are late by at most so many seconds.
    """

    repeated: float = 0.0
    conflicting: float = 0.0
    late: float = 0.0
    malformed: float = 0.0
    shuffle_s: float = 0.0
    repeat_after_s: float = 600.0
    most_late_s: float = 2 * US_PER_DAY / US_PER_SECOND

    def __post_init__(self) -> None:
        for name in ("repeated", "conflicting", "late", "malformed"):
            check(0 <= getattr(self, name) <= 1, f"disturbance.{name}", "must lie in 0 to 1")
        for name in ("shuffle_s", "repeat_after_s"):
            value = getattr(self, name)
            check(math.isfinite(value) and 0 <= value <= 3_600, f"disturbance.{name}", "must lie in 0 to 3,600")
        most = (ALLOWED_LATENESS_US - LATENESS_MARGIN_US) / US_PER_SECOND
        check(3_600 <= self.most_late_s <= most, "disturbance.most_late_s", f"must lie in 3,600 to {most:,.0f}")


QUIET: Final = Disturbance()
"""Nothing goes wrong."""


def transaction_body(transaction: Transaction) -> bytes:
    """A transaction as the body of an event."""
    return encoded({"type": TRANSACTION_TYPE, **transaction.to_fields()})


def label_body(label: Label) -> bytes:
    """A label as the body of an event."""
    return encoded({"type": LABEL_TYPE, **label.to_fields()})


def label_bodies(labels: LabelBatch) -> Iterator[tuple[int, bytes]]:
    """Labels in order, each with when it is known, microseconds since 1970 UTC."""
    for label in labels.labels():
        yield label.known_at_us, label_body(label)


def disturbed(batch: TransactionBatch, disturbance: Disturbance, rng: np.random.Generator) -> list[WireEvent]:
    """The events of a day in the order in which they are sent, those that go wrong among them.

    Late events of the day are in it too, sent on a later day; `played` merges those of several days.

    Args:
        batch: The day.
        disturbance: How often what goes wrong.
        rng: Where chance comes from; the same state and batch give the same events.
    """
    n_rows = len(batch)
    shuffled_us = (rng.random(n_rows) * disturbance.shuffle_s * US_PER_SECOND).astype(np.int64)
    late = rng.random(n_rows) < disturbance.late
    lateness_us = rng.integers(US_PER_HOUR // 2, max(US_PER_HOUR, int(disturbance.most_late_s * US_PER_SECOND)), n_rows)
    sent_us = batch.event_time_us + np.where(late, lateness_us, shuffled_us)
    repeated = rng.random(n_rows) < disturbance.repeated
    conflicting = rng.random(n_rows) < disturbance.conflicting
    malformed = rng.random(n_rows) < disturbance.malformed
    again_us = 1 + (rng.random((2, n_rows)) * disturbance.repeat_after_s * US_PER_SECOND).astype(np.int64)
    kinds = rng.integers(0, len(KINDS), n_rows)
    spare = rng.integers(0, 1 << 63, n_rows)
    events: list[WireEvent] = []
    first_sent_us: dict[str, int] = {}
    for row, transaction in enumerate(batch.transactions()):
        customer, sent_at_us = int(batch.customer[row]), int(sent_us[row])
        identifier = str(transaction.transaction_id)
        sending = Sending.LATE if late[row] else Sending.GOOD
        if identifier in first_sent_us:  # a broken feed gave the id to another transaction before
            sending = Sending.CONFLICTING
            sent_at_us = max(sent_at_us, first_sent_us[identifier] + 1)
        body = transaction_body(transaction)
        events.append(WireEvent(body, sent_at_us, sending, identifier, customer))
        if first_sent_us.setdefault(identifier, sent_at_us) != sent_at_us:
            continue
        if repeated[row]:
            repeat = body if spare[row] % 2 else _rewritten(transaction)
            at_us = sent_at_us + int(again_us[0, row])
            events.append(WireEvent(repeat, at_us, Sending.REPEATED, identifier, customer))
        if conflicting[row]:
            fields = transaction.to_fields() | {"amount_minor": transaction.amount_minor + 1 + int(spare[row]) % 10_000}
            at_us = sent_at_us + int(again_us[1, row])
            other = encoded({"type": TRANSACTION_TYPE, **fields})
            events.append(WireEvent(other, at_us, Sending.CONFLICTING, identifier, customer))
        if malformed[row]:
            # An id of its own: where the fault is not seen, a decision too many is, instead of a repeat.
            new = transaction_id(int(spare[row]) | 1 << 63)
            fields = {"type": TRANSACTION_TYPE, **transaction.to_fields(), "transaction_id": new}
            kind = KINDS[kinds[row]]
            broken = kind.body(fields, sent_at_us)
            events.append(WireEvent(broken, sent_at_us, Sending.MALFORMED, new, customer, kind.name, kind.field))
    events.sort(key=_sent_at_us)  # stable: what is sent at one moment keeps its order
    return events


def played(
    world: World, start: int, n_days: int, disturbance: Disturbance, rng: np.random.Generator
) -> Iterator[WireEvent]:
    """The events of several days in the order in which they are sent, late ones among those of later days.

    Memory: one day's events and those that are still to be sent.

    Args:
        world: Which world.
        start: The first day; 0 is the world's first.
        n_days: How many; what is sent after the last of them follows at the end.
        disturbance: How often what goes wrong.
        rng: Where chance comes from.
    """
    pending: list[WireEvent] = []
    for batch in world.days(start, n_days):
        pending.extend(disturbed(batch, disturbance, rng))
        pending.sort(key=_sent_at_us)
        # Nothing of a later day is sent before that day begins.
        ready = bisect_left(pending, batch.first_us + US_PER_DAY, key=_sent_at_us)
        yield from pending[:ready]
        del pending[:ready]
    yield from pending


def _sent_at_us(event: WireEvent) -> int:
    return event.sent_at_us


def _rewritten(transaction: Transaction) -> bytes:
    """The same transaction in other bytes: keys backwards, spaces, no type, and the time at another offset."""
    shifted = format_instant(transaction.event_time_us + 2 * US_PER_HOUR)
    fields = transaction.to_fields() | {"event_time": shifted.removesuffix("Z") + "+02:00"}
    return json.dumps(dict(reversed(fields.items())), indent=1).encode()
