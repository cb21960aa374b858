"""The use case that decides: one path for HTTP, the stream and batches.

A batch is one unit of work: claim ids, read what is known of the entities, features, model, calibration, rules, policy,
reasons, and one commit of transactions, decisions, states, log block and outbox (design decision 1). Effects happen
once: a repeated id gets the stored decision, the same id with another body is a conflict and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import fsum

import numpy as np

from shared.domain.canonical import Digest, label_digest, transaction_digest
from shared.domain.decision import NO_RULES, DecidingPolicy, RuleSet, decide_outcome
from shared.domain.decision_record import DecisionRecord, Lateness, decision_bytes, read_decision
from shared.domain.entity_state import fold
from shared.domain.entity_state_read import StateReader
from shared.domain.errors import BrokenInvariant, Conflict, TollgateError
from shared.domain.feature_view import Entity, FeatureView
from shared.domain.features import PastTransaction
from shared.domain.identifiers import TransactionId
from shared.domain.ledger import Claim, Claimed, DecisionRow, DecisionWrites, LabelVersions, Repeat, TransactionRow
from shared.domain.log_block import next_block
from shared.domain.policy_choice import PolicyRule
from shared.domain.reasons import ranked_reasons
from shared.domain.score import Score
from shared.domain.surrogates import KeyRing
from shared.domain.transaction import ALLOWED_LATENESS_US, Transaction
from shared.ports.clock import Clock
from shared.ports.ledger import DecidingWork, Ledger
from shared.ports.models import Scorer, Scorers
from shared.services.entity_work import EntityWork, EntityWorks
from shared.services.halving import halved
from shared.services.stages import StageTimes

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Decided:
    """A transaction that has a durable decision.

    Attributes:
        record: The decision.
        data: Its canonical bytes, as stored.
        repeated: Whether it was decided before this call, or earlier within it.
        body: What a caller is answered, where somebody wrote that already.
    """

    record: DecisionRecord
    data: bytes
    repeated: bool
    body: bytes | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """A transaction without a decision; nothing of it was stored by this call.

    Attributes:
        transaction_id: Which one.
        error: Why: a conflict, or a broken invariant that concerns this transaction alone.
    """

    transaction_id: TransactionId
    error: TollgateError


type Verdict = Decided | Refused

type _Body = tuple[TransactionId, Digest]
"""An id and the digest of the body that came with it."""


class Scoring:
    """Decides transactions; one per thread, because its ledger is."""

    def __init__(
        self,
        ledger: Ledger,
        scorers: Scorers,
        *,
        policy: DecidingPolicy | PolicyRule,
        keys: KeyRing,
        clock: Clock,
        rules: RuleSet = NO_RULES,
        stages: StageTimes | None = None,
        foretell: Callable[[list[Decided]], None] | None = None,
    ) -> None:
        """Set up.

        Args:
            ledger: Where decisions are stored.
            scorers: Which model is the champion.
            policy: What a score leads to.
            keys: For surrogates.
            clock: For the time of recording.
            rules: What overrules the policy.
            stages: Told how long everything takes.
            foretell: Told of decisions that are about to be stored, so that what follows from them can be prepared
                meanwhile. They may be decided otherwise yet, so nobody else may learn of them.
        """
        self._foretell = foretell
        self._ledger = ledger
        self._scorers = scorers
        self._policy = policy if isinstance(policy, PolicyRule) else PolicyRule(policy)
        self._keys = keys
        self._clock = clock
        self._rules = rules
        self._mark = (stages or StageTimes()).mark
        self._readers: dict[str, StateReader] = {}

    def decide(self, transactions: Sequence[Transaction]) -> list[Verdict]:
        """Decide a batch; returns once every decision in it is durable.

        A batch that meets a broken invariant is halved until the transactions at fault stand alone, so that the others
        are decided.

        Args:
            transactions: Accepted transactions, in any order, ids repeated or not.

        Returns:
            One verdict for each, in their order.

        Raises:
            Transient: Nothing or all of the batch may have been stored; deciding it again is safe.
        """
        claims = [Claim(transaction, transaction_digest(transaction)) for transaction in transactions]
        verdicts = self._decide_each({(claim.transaction.transaction_id, claim.digest): claim for claim in claims})
        answers: list[Verdict] = []
        answered = set()
        for transaction, digest in claims:
            key = transaction.transaction_id, digest
            verdict = verdicts[key]
            if key in answered and isinstance(verdict, Decided):
                verdict = replace(verdict, repeated=True)
            answered.add(key)
            answers.append(verdict)
        return answers

    def _decide_each(self, claims: dict[_Body, Claim]) -> dict[_Body, Verdict]:
        """Decide every body once.

        Bodies that share an id go one after the other: only what is stored says which of them is the right one.
        """
        verdicts: dict[_Body, Verdict] = {}
        while len(verdicts) < len(claims):
            batch: dict[TransactionId, Claim] = {}
            for (identifier, digest), claim in claims.items():
                if (identifier, digest) not in verdicts:
                    batch.setdefault(identifier, claim)
            found = halved(list(batch.values()), self._decide, _refuse, BrokenInvariant)
            verdicts |= {(name, claim.digest): one for (name, claim), one in zip(batch.items(), found, strict=True)}
        return verdicts

    def _decide(self, claims: Sequence[Claim]) -> list[Verdict]:
        """One unit of work, on claims with unique ids."""
        scorer = self._scorers.current()
        self._mark("")
        with self._ledger.deciding() as work:
            claimed = work.claim(claims)
            self._mark("claim")
            fresh = [claim.transaction for claim in claims if claim.transaction.transaction_id in claimed.fresh]
            decided = self._decide_fresh(work, claimed, scorer, fresh) if fresh else {}
        verdicts: list[Verdict] = []
        for transaction, digest in claims:
            identifier = transaction.transaction_id
            verdict = decided.get(identifier) or _of_repeat(identifier, digest, claimed.repeats[identifier])
            verdicts.append(verdict)
        return verdicts

    def _decide_fresh(
        self, work: DecidingWork, claimed: Claimed, scorer: Scorer, fresh: list[Transaction]
    ) -> dict[TransactionId, Decided]:
        """Decide what is this unit's, in the order of events, and commit."""
        fresh.sort(key=lambda transaction: transaction.order)
        customers = EntityWorks(Entity.CUSTOMER, claimed.customers, self._keys)
        terminals = EntityWorks(Entity.TERMINAL, claimed.terminals, self._keys)
        vectors = np.empty((len(fresh), len(scorer.view.features)), dtype=np.float32)
        known: list[tuple[EntityWork, EntityWork, TransactionRow]] = []
        waited: list[LabelVersions] = []
        reader = self._reader(scorer.view)
        for place, transaction in enumerate(fresh):
            customer, terminal = customers.of(transaction.customer_id), terminals.of(transaction.terminal_id)
            vectors[place] = reader.read(customer.state, terminal.state, transaction)
            row, labels = fold_transaction(customer, terminal, transaction, claimed)
            known.append((customer, terminal, row))
            waited += labels
        self._mark("features")
        records = self._records(scorer, vectors, known)
        block = next_block(work.writer, work.head, [decided.data for decided in records])
        self._mark("record")
        if self._foretell is not None:
            self._foretell(records)
        work.write(
            DecisionWrites(
                transactions=tuple([row for _, _, row in known]),
                decisions=tuple([_row(decided) for decided in records]),
                waited=tuple(waited),
                entities=(*customers.changes(), *terminals.changes()),
                block=block,
                recorded_at_us=self._clock.now_us(),
            )
        )
        self._mark("write")
        return {decided.record.transaction_id: decided for decided in records}

    def _records(
        self,
        scorer: Scorer,
        vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]],
        known: list[tuple[EntityWork, EntityWork, TransactionRow]],
    ) -> list[Decided]:
        """Score vectors and decide, one record each."""
        scored = scorer.score(vectors)
        self._mark("model")
        digest, fingerprint, base = scorer.bundle_digest, scorer.fingerprint, scorer.base
        calibrated = scorer.calibration.probability
        raws, explained = scored.raw.tolist(), scored.contributions.tolist()
        data, width = vectors.tobytes(), vectors.shape[1] * vectors.itemsize
        policy = self._policy.choice(scorer.advice).policy
        rows = []
        for place, (customer, terminal, row) in enumerate(known):
            transaction = row.transaction
            contributions = explained[place]
            reasons = ranked_reasons(scorer.view, contributions)
            record = DecisionRecord(
                transaction_id=transaction.transaction_id,
                customer=customer.surrogate,
                terminal=terminal.surrogate,
                event_time_us=transaction.event_time_us,
                amount_minor=transaction.amount_minor,
                currency=transaction.currency,
                customer_version=row.customer_version - 1,
                terminal_version=row.terminal_version - 1,
                view=scorer.view.name,
                vector=data[place * width : (place + 1) * width],
                lateness=row.lateness,
                model_name=scorer.name,
                model_version=scorer.version,
                raw_score=raws[place],
                decision=decide_outcome(
                    Score(calibrated(raws[place]), digest),
                    transaction.amount_minor,
                    policy,
                    self._rules,
                    view=scorer.view,
                    vector=vectors[place],
                ),
                base=base,
                reasons=reasons,
                others=fsum([*contributions, *(-reason.contribution for reason in reasons)]),
                fingerprint=fingerprint,
            )
            rows.append(Decided(record, decision_bytes(record), repeated=False))
        return rows

    def _reader(self, view: FeatureView) -> StateReader:
        reader = self._readers.get(view.name)
        if reader is None:
            reader = self._readers[view.name] = StateReader(view)
        return reader


def fold_transaction(
    customer: EntityWork, terminal: EntityWork, transaction: Transaction, claimed: Claimed
) -> tuple[TransactionRow, list[LabelVersions]]:
    """Fold a fresh transaction, and the labels that waited for it, into its two entities.

    Returns:
        Its row with the versions it created, and its labels with theirs: each entity's next ones, in their order.

    Raises:
        BrokenInvariant: State holds a transaction whose id was free until now.
    """
    labels = claimed.waiting.get(transaction.transaction_id, ())
    event = PastTransaction(transaction.transaction_id, transaction.event_time_us, transaction.amount_minor, labels)
    lateness = Lateness.NONE
    created = []
    for work, flag in ((customer, Lateness.CUSTOMER), (terminal, Lateness.TERMINAL)):
        header = work.state.header
        if header.is_too_late(transaction.event_time_us, ALLOWED_LATENESS_US):
            lateness |= flag
        folded = fold(work.state, (event,))
        if folded.absorbed:
            raise BrokenInvariant(f"state of a {work.entity} holds {transaction.transaction_id}, whose id was free")
        work.take(folded)
        created.append(header.version + 1)
    row = TransactionRow(transaction, created[0], created[1], lateness)
    versions = [
        LabelVersions(label, label_digest(label), created[0] + place, created[1] + place)
        for place, label in enumerate(labels, start=1)
    ]
    return row, versions


def _refuse(claim: Claim, error: BrokenInvariant) -> Verdict:
    """The verdict on a transaction that breaks an invariant when it is decided alone."""
    transaction_id = claim.transaction.transaction_id
    _log.error("a transaction cannot be decided", exc_info=error, extra={"transaction_id": transaction_id})
    return Refused(transaction_id, error)


def _of_repeat(transaction_id: TransactionId, digest: bytes, repeat: Repeat) -> Verdict:
    """What a repeated id is answered."""
    if repeat.digest != digest:
        return Refused(transaction_id, _other_body())
    if repeat.record is None:
        return Refused(transaction_id, Conflict("transaction_id", "was imported as history and has no decision"))
    return Decided(read_decision(repeat.record), repeat.record, repeated=True)


def _other_body() -> Conflict:
    return Conflict("transaction_id", "was used before with another body")


def _row(decided: Decided) -> DecisionRow:
    record = decided.record
    score = record.decision.score
    return DecisionRow(
        record.transaction_id,
        record.event_time_us,
        decided.data,
        record.decision.outcome,
        score.probability,
        score.bundle_digest,
    )
