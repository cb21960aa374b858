"""Probes: send them, receive them, answer where they are, and forget them in time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from shared.domain.errors import InvalidInput, NotFound, UnknownEventType
from shared.domain.event import DeadLetter, StreamEvent, parse_object
from shared.domain.probe import PROBE_TYPE, Probe, ProbeReceipt, parse_probe_id
from shared.ports.clock import Clock
from shared.ports.letters import DeadLetters
from shared.ports.probes import ProbeReceipts

RETENTION_US = 24 * 3600 * 1_000_000
"""How long receipts are kept: a day, long enough to look at last night's, microseconds."""


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of the events of one batch; the three counts add up to its length."""

    recorded: int
    repeated: int
    dead_lettered: int


def compose(probe_id: str, clock: Clock) -> str:
    """The event body of a new probe."""
    return json.dumps(Probe(parse_probe_id(probe_id), clock.now_us()).to_fields())


def receive(
    events: Sequence[StreamEvent], receipts: ProbeReceipts, dead_letters: DeadLetters, clock: Clock
) -> BatchOutcome:
    """Take a batch off the stream: a receipt for each probe, a dead letter for everything that cannot be read.

    Idempotent: delivery is at least once, and a repeated batch changes nothing.

    Raises:
        Transient: A store cannot be reached; the whole batch has to be delivered again.
    """
    recorded = repeated = dead = 0
    for event in events:
        try:
            probe = _read(event)
        except InvalidInput as error:
            dead_letters.put(DeadLetter(event, error.field, error.rule, clock.now_us()))
            dead += 1
            continue
        if receipts.record(ProbeReceipt.of(probe, event, clock.now_us())):
            recorded += 1
        else:
            repeated += 1
    return BatchOutcome(recorded, repeated, dead)


def look_up(probe_id: str, receipts: ProbeReceipts) -> ProbeReceipt:
    """The receipt of a probe.

    Raises:
        InvalidInput: The id is malformed.
        NotFound: No receipt: the probe is still under way, was lost, or is older than the retention.
        Transient: The store cannot be reached.
    """
    receipt = receipts.find(parse_probe_id(probe_id))
    if receipt is None:
        raise NotFound("probe_id", f"{probe_id} has no receipt")
    return receipt


def forget(receipts: ProbeReceipts, clock: Clock) -> int:
    """Drop receipts older than the retention; returns how many."""
    return receipts.expire(clock.now_us() - RETENTION_US)


def _read(event: StreamEvent) -> Probe:
    fields = parse_object(event.body)
    kind = fields.get("type")
    if kind != PROBE_TYPE:
        shown = json.dumps(kind)[:64]
        raise UnknownEventType("type", f"must be a type this release reads ({PROBE_TYPE}), not {shown}")
    return Probe.from_fields(fields)
