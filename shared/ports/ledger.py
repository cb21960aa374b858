"""The durable account and what leaves it, as ports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from shared.domain.archive import (
    Erased,
)
from shared.domain.event import OutgoingEvent
from shared.domain.identifiers import CustomerId
from shared.domain.ledger import Claim, Claimed, DecisionWrites, LabelClaim, LabelsClaimed, LabelWrites, OutboxEntry
from shared.domain.log_block import Head


class DecidingWork(Protocol):
    """One unit of work on transactions: claimed, computed, written, all or nothing."""

    @property
    def writer(self) -> str:
        """Whose chain of the log the unit's block belongs to; one writer writes one unit at a time."""
        ...

    @property
    def head(self) -> Head | None:
        """Where that chain ends; None before its first block."""
        ...

    def claim(self, claims: Sequence[Claim]) -> Claimed:
        """Claim ids and lock their entities, in an order that cannot deadlock; called once, ids unique.

        Cost: a fixed number of round trips, and one more where there are repeats or labels that waited.

        Raises:
            Transient: The store cannot be reached now, or the unit lost against another one.
            BrokenInvariant: Stored state cannot be read.
        """
        ...

    def write(self, writes: DecisionWrites) -> None:
        """Write everything and commit; returns once it is durable. Called at most once, and ends the unit.

        Raises:
            Transient: It may or may not have been committed; claiming the same ids again tells.
            BrokenInvariant: The store refuses what is written.
        """
        ...


class LabellingWork(Protocol):
    """One unit of work on labels."""

    def claim(self, claims: Sequence[LabelClaim]) -> LabelsClaimed:
        """Claim labels and lock the entities of their transactions; called once, (transaction id, digest) unique.

        Raises:
            Transient: As for transactions.
            BrokenInvariant: As for transactions.
        """
        ...

    def write(self, writes: LabelWrites) -> None:
        """Write everything and commit; as for transactions."""
        ...


class Ledger(Protocol):
    """The durable account of transactions, decisions, labels and entity state; one per thread.

    A unit of work that is left without `write` leaves no trace. Several ledgers, in any number of processes, may work
    on the same entities: the order in which they lock them is the order in which they know of one another.
    """

    def deciding(self) -> AbstractContextManager[DecidingWork]:
        """A unit of work on transactions; new entities get state of the layout that is in force."""
        ...

    def labelling(self) -> AbstractContextManager[LabellingWork]:
        """A unit of work on labels."""
        ...


class Outbox(Protocol):
    """Decisions that have not left yet."""

    def drain(self, limit: int, send: Callable[[Sequence[OutboxEntry]], None]) -> int:
        """Hand the oldest entries to `send`, and remove them once it has returned.

        Only one drains at a time, whatever the number of processes, so that the order of each customer holds; another
        one finds nothing to do. If `send` raises, nothing is removed; if the removal fails after it, the entries are
        sent again: delivery is at least once.

        Returns:
            How many were removed; 0 when there are none or another one drains.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class EventPublisher(Protocol):
    """A stream that events are sent to."""

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        """Send events; returns once all are accepted. Those of one key keep their order.

        Raises:
            Transient: Some may have been accepted; sending them again is safe.
        """
        ...


class Partitions(Protocol):
    """Time partitions of the tables that grow with event time."""

    def make(self, start_us: int, end_us: int) -> int:
        """Make the partitions that are missing for event times of a span, its end not included; returns how many.

        Idempotent, also when several do it at once; deciding does not wait for it.

        Raises:
            InvalidInput: The span is empty or out of range.
            Transient: The store cannot be reached now.
        """
        ...


class Erasure(Protocol):
    """Where customers are forgotten."""

    def erase(self, customer_id: CustomerId, reason: str, forgotten_at_us: int) -> Erased | None:
        """Forget a customer, all or nothing; None if none of this name is known.

        The raw transactions stay, under a name that leads nowhere, so that everything about other customers can still
        be computed. It takes the locks that deciding takes, in the same order.

        Raises:
            Transient: Nothing was changed, or everything was: asking again tells.
        """
        ...
