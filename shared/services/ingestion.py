"""The use case that takes batches off the stream: transactions are decided, labels recorded, probes acknowledged.

What no retry can mend becomes a dead letter with its reason, and the rest of the batch goes on. A transient fault fails
the whole batch, which is then delivered again. A fault that nobody classified is narrowed down to the events at fault;
if most of the batch is at fault, the fault is ours and not the events': then nothing is acknowledged either, because a
broken release must not turn a stream into dead letters.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.domain.errors import InvalidInput, TollgateError, UnknownEventType
from shared.domain.event import DeadLetter, StreamEvent, parse_object
from shared.domain.labels import LABEL_TYPE, Label, parse_label
from shared.domain.probe import PROBE_TYPE, Probe, ProbeReceipt
from shared.domain.transaction import TRANSACTION_TYPE, Acceptance, Transaction, parse_transaction
from shared.ports.clock import Clock
from shared.ports.letters import DeadLetters
from shared.ports.probes import ProbeReceipts
from shared.services.halving import halved
from shared.services.labelling import Labelling, LabelOutcome, LabelVerdict
from shared.services.scoring import Decided, Refused, Scoring, Verdict

_log = logging.getLogger(__name__)

_TYPES = f"{TRANSACTION_TYPE}, {LABEL_TYPE} or {PROBE_TYPE}"


type _Fault = tuple[StreamEvent, Exception]
"""An event that cannot be used, and why; it is the event's own fault if the error is an `InvalidInput`."""


@dataclass(slots=True)
class IngestOutcome:
    """What became of the events of one batch; all but `waiting` add up to its length.

    Attributes:
        decided: Transactions that got a decision.
        labelled: Labels that were recorded.
        waiting: Of these, how many name a transaction that is not known yet.
        probes: Probes that got a receipt.
        repeated: Events that had been taken before.
        dead_lettered: Events that cannot be used.
    """

    decided: int = 0
    labelled: int = 0
    waiting: int = 0
    probes: int = 0
    repeated: int = 0
    dead_lettered: int = 0


@dataclass(slots=True)
class _Sorted:
    """A batch by what its events are."""

    transactions: list[tuple[StreamEvent, Transaction]] = field(default_factory=list)
    labels: list[tuple[StreamEvent, Label]] = field(default_factory=list)
    probes: list[tuple[StreamEvent, Probe]] = field(default_factory=list)
    unusable: list[tuple[StreamEvent, InvalidInput]] = field(default_factory=list)


class Ingestion:
    """Takes batches; one per thread, because the ledger behind it is."""

    def __init__(
        self,
        scoring: Scoring,
        labelling: Labelling,
        *,
        receipts: ProbeReceipts,
        dead_letters: DeadLetters,
        clock: Clock,
        currency: str,
        lateness_us: int | None,
    ) -> None:
        self._scoring = scoring
        self._labelling = labelling
        self._receipts = receipts
        self._dead_letters = dead_letters
        self._clock = clock
        self._currency = currency
        self._lateness_us = lateness_us

    def take(self, events: Sequence[StreamEvent]) -> IngestOutcome:
        """Take one batch; returns once everything in it is durable.

        Idempotent: delivery is at least once, and what was taken before changes nothing.

        Args:
            events: Events of one partition, in their order.

        Raises:
            Transient: The whole batch has to be delivered again.
            Exception: Most of the batch fails for a reason that is not in the events; likewise.
        """
        batch = self._sort(events)
        outcome = IngestOutcome()
        faults: list[_Fault] = [*batch.unusable]
        faults += self._decide(batch.transactions, outcome)
        faults += self._label(batch.labels, outcome)
        broken = [error for _, error in faults if not isinstance(error, InvalidInput)]
        if len(broken) > 1 and 2 * len(broken) > len(events):
            raise broken[0]
        for event, probe in batch.probes:
            first = self._receipts.record(ProbeReceipt.of(probe, event, self._clock.now_us()))
            outcome.probes += first
            outcome.repeated += not first
        for event, error in faults:
            self._bury(event, error)
            outcome.dead_lettered += 1
        return outcome

    def _sort(self, events: Sequence[StreamEvent]) -> _Sorted:
        """Read the events; one that cannot be read stands alone."""
        batch = _Sorted()
        now_us = self._clock.now_us()
        acceptance = Acceptance(self._currency, now_us, lateness_us=self._lateness_us)
        for event in events:
            try:
                fields = parse_object(event.body)
                kind = fields.get("type", TRANSACTION_TYPE)  # as over HTTP, where it may be left out
                if kind == TRANSACTION_TYPE:
                    batch.transactions.append((event, parse_transaction(fields, acceptance)))
                elif kind == LABEL_TYPE:
                    batch.labels.append((event, parse_label(fields, now_us)))
                elif kind == PROBE_TYPE:
                    batch.probes.append((event, Probe.from_fields(fields)))
                else:
                    shown = json.dumps(kind)[:64]
                    raise UnknownEventType("type", f"must be a type this release reads ({_TYPES}), not {shown}")
            except InvalidInput as error:
                batch.unusable.append((event, error))
        return batch

    def _decide(self, items: Sequence[tuple[StreamEvent, Transaction]], outcome: IngestOutcome) -> list[_Fault]:
        """Decide transactions; a batch that fails for an unknown reason is halved."""

        def decide(part: Sequence[tuple[StreamEvent, Transaction]]) -> Sequence[Verdict | Exception]:
            return self._scoring.decide([transaction for _, transaction in part])

        faults: list[_Fault] = []
        for (event, _), verdict in zip(items, halved(items, decide, _itself, Exception), strict=True):
            if isinstance(verdict, Decided):
                outcome.decided += not verdict.repeated
                outcome.repeated += verdict.repeated
            else:
                faults.append((event, verdict.error if isinstance(verdict, Refused) else verdict))
        return faults

    def _label(self, items: Sequence[tuple[StreamEvent, Label]], outcome: IngestOutcome) -> list[_Fault]:
        """Record labels; a batch that fails for an unknown reason, or meets a broken invariant, is halved."""

        def record(part: Sequence[tuple[StreamEvent, Label]]) -> Sequence[LabelVerdict | Exception]:
            return self._labelling.record([label for _, label in part])

        faults: list[_Fault] = []
        counts: Counter[LabelOutcome] = Counter()
        for (event, _), verdict in zip(items, halved(items, record, _itself, Exception), strict=True):
            error = verdict if isinstance(verdict, Exception) else verdict.error
            if error is not None:
                faults.append((event, error))
            elif isinstance(verdict, LabelVerdict):
                counts[verdict.outcome] += 1
        outcome.labelled += counts[LabelOutcome.RECORDED] + counts[LabelOutcome.WAITING]
        outcome.waiting += counts[LabelOutcome.WAITING]
        outcome.repeated += counts[LabelOutcome.REPEATED]
        return faults

    def _bury(self, event: StreamEvent, error: Exception) -> None:
        """Keep a dead letter with the field and the rule, or with what broke."""
        if isinstance(error, InvalidInput):
            field_name, rule = error.field, error.rule
        else:
            message = str(error) if isinstance(error, TollgateError) else type(error).__name__
            field_name, rule = "", f"could not be processed: {message}"
            _log.error(
                "an event cannot be processed",
                exc_info=error,
                extra={"hub": event.hub, "partition": event.partition, "sequence_number": event.sequence_number},
            )
        self._dead_letters.put(DeadLetter(event, field_name, rule, self._clock.now_us()))


def _itself(_item: object, error: Exception) -> Exception:
    return error
