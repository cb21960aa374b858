"""Seeded streams for chaos: the same events once in order, and as a hostile world delivers them."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import Final

from shared.domain.event import StreamEvent
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.labels import LABEL_TYPE, Label, LabelSource, Verdict
from shared.domain.transaction import TRANSACTION_TYPE, Transaction

BASE_US: Final = 1_522_540_800_000_000  # 2018-04-01
SPAN_DAYS: Final = 70
NOW_US: Final = BASE_US + (SPAN_DAYS + 60) * US_PER_DAY
"""The clock of all writers: it stands still after the last event, so that a run can be repeated."""

HOT_SHARE: Final = 1 / 3
LATE_SHARE: Final = 0.01
LABELLED_SHARE: Final = 0.5
MALFORMED_SHARE: Final = 0.01
CONFLICT_SHARE: Final = 0.01
DUPLICATE_SHARE: Final = 0.5

type Batch = list[StreamEvent]


@dataclass(frozen=True)
class Streams:
    """One seed's events.

    Attributes:
        clean: Every event once, in order.
        hostile: Per writer what it is delivered, in batches: shuffled, half of it again, some of it to another writer.
        transactions: How many transactions there are.
    """

    clean: list[Batch]
    hostile: list[list[Batch]]
    transactions: int


def streams(seed: int, n_transactions: int, n_writers: int) -> Streams:
    """The streams of a seed."""
    rng = random.Random(seed)
    transactions = _transactions(rng, n_transactions)
    timeline: list[tuple[int, bytes]] = []
    for item in transactions:
        arrival_us = item.event_time_us
        if rng.random() < LATE_SHARE:
            arrival_us += rng.choice((1, 6, 9, 20)) * US_PER_DAY
        timeline.append((arrival_us, _body(TRANSACTION_TYPE, item.to_fields())))
        if rng.random() < CONFLICT_SHARE:
            other = item.to_fields() | {"amount_minor": item.amount_minor + 1}
            timeline.append((arrival_us + US_PER_HOUR, _body(TRANSACTION_TYPE, other)))
        if rng.random() < MALFORMED_SHARE:
            timeline.append((arrival_us, rng.choice(_malformed(item))))
        for label in _labels(rng, item):
            recorded_us = label.known_at_us + rng.choice((0, 0, 0, 2 * US_PER_DAY))
            timeline.append((recorded_us, _body(LABEL_TYPE, label.to_fields())))
    timeline.sort(key=lambda entry: entry[0])
    # A writer is a partition; conflicting bodies share one, so that which of them comes first is not left to chance.
    partitions: list[list[StreamEvent]] = [[] for _ in range(n_writers)]
    clean: list[StreamEvent] = []
    for _, body in timeline:
        partition = _partition(body, n_writers)
        own = partitions[partition]
        event = StreamEvent("transactions", str(partition), len(own), str(len(own)), BASE_US, body)
        own.append(event)
        clean.append(event)
    sent = Counter(_transaction_id(event) for event in clean)
    contested = frozenset(identifier for identifier, count in sent.items() if count > 1)
    hostile = [_hostile(rng, own, partitions, contested) for own in partitions]
    return Streams(_batches(random.Random(seed + 1), clean, 200), hostile, n_transactions)


def _transactions(rng: random.Random, count: int) -> list[Transaction]:
    made = []
    for number in range(count):
        time_us = BASE_US + rng.randrange(SPAN_DAYS * US_PER_DAY)
        if rng.random() < 0.05:
            time_us -= time_us % US_PER_DAY  # ties of the event time
        terminal = "hot" if rng.random() < HOT_SHARE else f"m{rng.randrange(25)}"
        customer = f"c{rng.randrange(60)}"
        amount = rng.choice((1, 999, 25_000)) if rng.random() < 0.1 else rng.randrange(100, 20_000)
        made.append(
            Transaction(
                TransactionId(f"t{number:06}"), CustomerId(customer), TerminalId(terminal), amount, "EUR", time_us
            )
        )
    made.sort(key=lambda item: item.order)
    return made


def _labels(rng: random.Random, of: Transaction) -> list[Label]:
    if rng.random() > LABELLED_SHARE:
        return []
    fraud = rng.random() < 0.2
    days = rng.choice((-1, 0, 1, 7, 20))  # -1: the label is there before its transaction arrives
    first = _label(of, fraud=fraud, source=LabelSource.ANALYST, after_us=days * US_PER_DAY)
    if rng.random() < 0.2:
        source = rng.choice((LabelSource.CHARGEBACK, LabelSource.CUSTOMER))
        return [first, _label(of, fraud=not fraud, source=source, after_us=(max(days, 0) + 15) * US_PER_DAY)]
    return [first]


def _label(of: Transaction, *, fraud: bool, source: LabelSource, after_us: int) -> Label:
    known_at_us = of.event_time_us + after_us
    verdict = Verdict.FRAUD if fraud else Verdict.GENUINE
    return Label(of.transaction_id, verdict, source, known_at_us, known_at_us, 90, "ann")


def _malformed(near: Transaction) -> list[bytes]:
    fields = near.to_fields()
    return [
        b"{",
        _body(TRANSACTION_TYPE, fields | {"transaction_id": f"x-{near.transaction_id}", "amount_minor": -1}),
        _body(TRANSACTION_TYPE, fields | {"transaction_id": f"y-{near.transaction_id}", "currency": "USD"}),
        _body("tollgate.unheard-of", fields),
    ]


def _body(kind: str, fields: dict[str, object]) -> bytes:
    return json.dumps({"type": kind} | fields).encode()


def _partition(body: bytes, count: int) -> int:
    """By transaction id, so that customers and terminals are everybody's and conflicts stay with their first body."""
    try:
        identifier = str(json.loads(body).get("transaction_id", ""))
    except ValueError:
        identifier = ""
    return sum(identifier.encode()) % count


def _hostile(
    rng: random.Random, own: list[StreamEvent], partitions: list[list[StreamEvent]], contested: frozenset[str]
) -> list[Batch]:
    """Batches of one writer: locally shuffled, with duplicates of its own and of other partitions' events.

    A conflicting body stays behind its first one: only what lies between two such events is shuffled.
    """
    seen: list[StreamEvent] = []
    order: list[StreamEvent] = []
    for start in range(0, len(own), 40):
        window = own[start : start + 40]
        keyed = [(place + rng.uniform(0, 12), event) for place, event in enumerate(window)]
        order += [event for _, event in sorted(keyed, key=lambda pair: pair[0])]
    order = _conflicts_last(order)
    delivered: list[StreamEvent] = []
    for event in order:
        delivered.append(event)
        seen.append(event)
        if rng.random() < DUPLICATE_SHARE:
            delivered.append(rng.choice(seen[-200:]))
        if rng.random() < 0.05:
            # An event of another partition, at about the time when that one takes it: whoever is quicker decides it.
            other = rng.choice(partitions)
            foreign = other[min(len(other) - 1, len(seen) * 9 // 10)]
            if _transaction_id(foreign) not in contested:
                delivered.append(foreign)
    return _batches(rng, _conflicts_last(delivered), 60)


def _conflicts_last(order: list[StreamEvent]) -> list[StreamEvent]:
    """The same events, a conflicting body never before the first delivery of the body it conflicts with."""
    first: dict[str, tuple[int, StreamEvent]] = {}
    for event in order:
        identifier = _transaction_id(event)
        if identifier and (identifier not in first or event.sequence_number < first[identifier][0]):
            first[identifier] = (event.sequence_number, event)
    result: list[StreamEvent] = []
    delivered: set[str] = set()
    for event in order:
        identifier = _transaction_id(event)
        if identifier and identifier not in delivered:
            original = first[identifier][1]
            if original is not event:
                result.append(original)
            delivered.add(identifier)
        result.append(event)
    return result


def _transaction_id(event: StreamEvent) -> str:
    """The id of a transaction that can be decided; empty for anything else."""
    try:
        fields = json.loads(event.body)
    except ValueError:
        return ""
    if fields.get("type") != TRANSACTION_TYPE or fields["amount_minor"] < 1 or fields["currency"] != "EUR":
        return ""
    return str(fields["transaction_id"])


def _batches(rng: random.Random, order: list[StreamEvent], most: int) -> list[Batch]:
    batches: list[Batch] = []
    place = 0
    while place < len(order):
        size = rng.randint(1, most)
        batches.append(order[place : place + size])
        place += size
    return batches
