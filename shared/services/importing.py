"""The use case that takes history in: transactions of the past become state and raw events, without a decision.

They go through the same claims, locks and folds as live ones, so features of the first live transaction see them. What
imported labels are worth is said by their source and by when they were known (design decision 9); they are recorded by
`labelling`, in the order in which they were known.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from shared.domain.canonical import transaction_digest
from shared.domain.feature_view import Entity
from shared.domain.identifiers import TransactionId
from shared.domain.ledger import Claim, Claimed, DecisionWrites, LabelVersions, TransactionRow
from shared.domain.surrogates import KeyRing
from shared.domain.transaction import Transaction
from shared.ports.clock import Clock
from shared.ports.ledger import DecidingWork, Ledger
from shared.services.entity_work import EntityWorks
from shared.services.scoring import fold_transaction


class ImportOutcome(StrEnum):
    """What became of a transaction of the past."""

    IMPORTED = "imported"
    REPEATED = "repeated"
    CONFLICT = "conflict"


class Importing:
    """Takes history in; one per thread, because its ledger is."""

    def __init__(self, ledger: Ledger, keys: KeyRing, clock: Clock) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock

    def take(self, transactions: Sequence[Transaction]) -> list[ImportOutcome]:
        """Take transactions in, in one unit of work; returns once they are durable.

        Batches should come in the order of event time: state that has moved past an event leaves it out.

        Args:
            transactions: In any order, ids repeated or not.

        Returns:
            One outcome for each, in their order.

        Raises:
            Transient: Nothing or all of them may have been stored; taking them again is safe.
            BrokenInvariant: State of one of the entities cannot be read; nothing was stored.
        """
        claims: dict[TransactionId, Claim] = {}
        digests = [transaction_digest(transaction) for transaction in transactions]
        for transaction, digest in zip(transactions, digests, strict=True):
            claims.setdefault(transaction.transaction_id, Claim(transaction, digest))
        if not claims:
            return []
        with self._ledger.deciding() as work:
            claimed = work.claim(list(claims.values()))
            fresh = [
                claim.transaction for claim in claims.values() if claim.transaction.transaction_id in claimed.fresh
            ]
            if fresh:
                self._write(work, claimed, fresh)
        outcomes = []
        answered = set()
        for transaction, digest in zip(transactions, digests, strict=True):
            identifier = transaction.transaction_id
            repeat = claimed.repeats.get(identifier)
            held = claims[identifier].digest if repeat is None else repeat.digest
            if held != digest:
                outcomes.append(ImportOutcome.CONFLICT)
            elif repeat is not None or identifier in answered:
                outcomes.append(ImportOutcome.REPEATED)
            else:
                outcomes.append(ImportOutcome.IMPORTED)
            answered.add(identifier)
        return outcomes

    def _write(self, work: DecidingWork, claimed: Claimed, fresh: list[Transaction]) -> None:
        """Fold in the order of events, and commit."""
        customers = EntityWorks(Entity.CUSTOMER, claimed.customers, self._keys)
        terminals = EntityWorks(Entity.TERMINAL, claimed.terminals, self._keys)
        rows: list[TransactionRow] = []
        waited: list[LabelVersions] = []
        for transaction in sorted(fresh, key=lambda item: item.order):
            row, labels = fold_transaction(
                customers.of(transaction.customer_id), terminals.of(transaction.terminal_id), transaction, claimed
            )
            rows.append(row)
            waited += labels
        work.write(
            DecisionWrites(
                transactions=tuple(rows),
                decisions=(),
                waited=tuple(waited),
                entities=(*customers.changes(), *terminals.changes()),
                block=None,
                recorded_at_us=self._clock.now_us(),
            )
        )
