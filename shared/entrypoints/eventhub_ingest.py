"""Batches from the hubs of transactions and labels to the use case.

An error leaves this module only when the whole batch has to come again: the platform moves its checkpoint on when a
function returns, and when its retries are used up, so the function retries without limit and nothing is acknowledged
that was not kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import cast

import azure.functions as func

from shared.domain.event import StreamEvent
from shared.ports.clock import Clock
from shared.services.ingestion import Ingestion
from shared.services.metering import Meters
from shared.services.metering_decisions import note_events
from shared.telemetry import log_context, with_fields

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IngestParts:
    """What batches are taken with.

    Attributes:
        ingestion: The use case; its ledger is for one thread at a time.
        turn: Held while a batch is taken: the worker runs batches of several partitions in threads.
        meters: Counts what was taken.
        clock: Says how long an event was under way.
    """

    ingestion: Ingestion
    turn: Lock
    meters: Meters
    clock: Clock


def receive(batch: Sequence[func.EventHubEvent], parts: IngestParts) -> None:
    """Take one batch of one partition.

    Raises:
        Exception: Nothing of the batch may be acknowledged; the platform delivers it again.
    """
    events = to_events(batch)
    if not events:
        return
    with log_context(hub=events[0].hub, partition=events[0].partition):
        with parts.turn:
            outcome = parts.ingestion.take(events)
        note_events(parts.meters, events, outcome, parts.clock.now_us())
        _log.info(with_fields("batch received", events=len(events), **asdict(outcome)))


def to_events(batch: Sequence[func.EventHubEvent]) -> list[StreamEvent]:
    """The messages of one batch as stream events; a batch comes from one partition."""
    if not batch:
        return []
    # Asked of one message only: each holds the metadata of the whole batch and decodes all of it.
    metadata = batch[0].metadata or {}
    where = cast("Mapping[str, str]", metadata.get("PartitionContext") or {})
    hub, partition = where.get("EventHubName", ""), str(where.get("PartitionId", ""))
    return [
        StreamEvent(
            hub=hub,
            partition=partition,
            sequence_number=int(message.sequence_number or 0),
            offset=str(message.offset or ""),
            enqueued_at_us=_microseconds(message.enqueued_time),
            body=message.get_body(),
        )
        for message in batch
    ]


def _microseconds(moment: datetime | None) -> int:
    if moment is None:
        return 0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
