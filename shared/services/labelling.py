"""The use case that records labels: each once, with the versions it creates, its transaction known or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.domain.canonical import label_digest
from shared.domain.entity_state import LaterLabel, fold
from shared.domain.errors import NotFound, TollgateError
from shared.domain.feature_view import Entity
from shared.domain.labels import Label
from shared.domain.ledger import LabelClaim, LabelsClaimed, LabelVersions, LabelWrites
from shared.domain.surrogates import KeyRing
from shared.ports.clock import Clock
from shared.ports.ledger import LabellingWork, Ledger
from shared.services.entity_work import EntityWorks


class LabelOutcome(StrEnum):
    """What became of a label."""

    RECORDED = "recorded"
    WAITING = "waiting"
    REPEATED = "repeated"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class LabelVerdict:
    """What became of one label.

    Attributes:
        outcome: Recorded for a known transaction; waiting for an unknown one; repeated; or refused.
        error: Why it was refused.
    """

    outcome: LabelOutcome
    error: TollgateError | None = None


class Labelling:
    """Records labels; one per thread, because its ledger is."""

    def __init__(self, ledger: Ledger, keys: KeyRing, clock: Clock) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock

    def record(self, labels: Sequence[Label]) -> list[LabelVerdict]:
        """Record labels in one unit of work; returns once they are durable.

        Args:
            labels: In any order; the same label may stand there twice.

        Returns:
            One verdict for each, in their order.

        Raises:
            Transient: Nothing or all of them may have been stored; recording them again is safe.
            BrokenInvariant: State of one of the entities cannot be read; nothing was stored.
        """
        claims = [LabelClaim(label, label_digest(label)) for label in labels]
        unique = {(claim.label.transaction_id, claim.digest): claim for claim in claims}
        if not unique:
            return []
        with self._ledger.labelling() as work:
            claimed = work.claim(list(unique.values()))
            fresh = [claim for key, claim in unique.items() if key in claimed.fresh]
            if fresh:
                self._write(work, claimed, fresh)
        verdicts = []
        answered = set()
        for claim in claims:
            key = (claim.label.transaction_id, claim.digest)
            verdicts.append(_verdict(claim, claimed, is_first=key not in answered))
            answered.add(key)
        return verdicts

    def _write(self, work: LabellingWork, claimed: LabelsClaimed, fresh: list[LabelClaim]) -> None:
        """Fold labels of known transactions, let the others wait, and commit."""
        customers = EntityWorks(Entity.CUSTOMER, claimed.customers, self._keys)
        terminals = EntityWorks(Entity.TERMINAL, claimed.terminals, self._keys)
        folded: list[LabelVersions] = []
        waiting: list[LabelClaim] = []
        # In a fixed order, so that equal batches give equal versions.
        for claim in sorted(fresh, key=lambda item: (item.label.known_at_us, item.digest)):
            if claim.label.transaction_id in claimed.forgotten:
                continue
            of = claimed.known.get(claim.label.transaction_id)
            if of is None:
                waiting.append(claim)
                continue
            later = (LaterLabel(of.event_time_us, claim.label),)
            entities = (customers.of(of.customer_id), terminals.of(of.terminal_id))
            for entity in entities:
                entity.take(fold(entity.state, (), later))
            versions = [entity.state.header.version for entity in entities]
            folded.append(LabelVersions(claim.label, claim.digest, versions[0], versions[1]))
        work.write(
            LabelWrites(
                folded=tuple(folded),
                waiting=tuple(waiting),
                entities=(*customers.changes(), *terminals.changes()),
                recorded_at_us=self._clock.now_us(),
            )
        )


def _verdict(claim: LabelClaim, claimed: LabelsClaimed, *, is_first: bool) -> LabelVerdict:
    """What one label is answered."""
    identifier = claim.label.transaction_id
    if identifier in claimed.forgotten:
        return LabelVerdict(LabelOutcome.REFUSED, NotFound("transaction_id", "belongs to a customer who was forgotten"))
    if not is_first or (identifier, claim.digest) not in claimed.fresh:
        return LabelVerdict(LabelOutcome.REPEATED)
    return LabelVerdict(LabelOutcome.RECORDED if identifier in claimed.known else LabelOutcome.WAITING)
