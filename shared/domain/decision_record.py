"""The decision record: all that the log commits to for one decision, and its canonical bytes.

It holds what replay needs (vector, bundle, thresholds, versions read) and what the answer said. It holds no durations
and no clock: the same decision has the same bytes whenever and wherever it is computed. People appear only as
surrogates; the transaction id is the sender's and must say nothing about a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.domain.canonical import Digest, Reader, Writer, digest_of
from shared.domain.decision import Decision, Outcome, Policy, RuleHit
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.identifiers import TransactionId
from shared.domain.reasons import Reason
from shared.domain.score import Score
from shared.domain.surrogates import Surrogate

DECISION_KIND: Final = 0x44
DECISION_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision as the log keeps it.

    Attributes:
        transaction_id: The idempotency key of its transaction.
        customer: Surrogate of the customer.
        terminal: Surrogate of the terminal.
        event_time_us: Of the transaction, microseconds since 1970 UTC.
        amount_minor: Of the transaction, minor units.
        currency: Of the transaction.
        customer_version: The customer's version that was read: the decision knew its events up to this one.
        terminal_version: The terminal's, likewise.
        view: Name of the feature view.
        vector: The feature vector, little-endian binary32.
        raw_score: The model's output before calibration.
        decision: Outcome, score, policy and rules.
        reasons: Ranked.
        fingerprint: Digest of the runtime that the promise of equal bits is tied to.
    """

    transaction_id: TransactionId
    customer: Surrogate
    terminal: Surrogate
    event_time_us: int
    amount_minor: int
    currency: str
    customer_version: int
    terminal_version: int
    view: str
    vector: bytes
    raw_score: float
    decision: Decision
    reasons: tuple[Reason, ...]
    fingerprint: Digest


def decision_bytes(record: DecisionRecord) -> bytes:
    """The canonical bytes of a decision record: a leaf of the log.

    Raises:
        BrokenInvariant: A number does not fit 64 bits.
    """
    decision = record.decision
    writer = (
        Writer(DECISION_KIND, DECISION_FORMAT)
        .text(record.transaction_id)
        .text(record.customer)
        .text(record.terminal)
        .integer(record.event_time_us)
        .integer(record.amount_minor)
        .text(record.currency)
        .integer(record.customer_version)
        .integer(record.terminal_version)
        .text(record.view)
        .data(record.vector)
        .real(record.raw_score)
        .real(decision.score.probability)
        .text(decision.score.bundle_digest)
        .text(decision.outcome)
        .text(decision.policy.name)
        .real(decision.policy.review_threshold)
        .real(decision.policy.decline_threshold)
        .text(decision.rules_version)
        .integer(len(decision.rule_hits))
    )
    for hit in decision.rule_hits:
        writer.text(hit.rule_id).text(hit.outcome)
    writer.integer(len(record.reasons))
    for reason in record.reasons:
        writer.text(reason.code).real(reason.contribution)
    return writer.data(record.fingerprint).finish()


def decision_digest(record: DecisionRecord) -> Digest:
    """SHA-256 of the canonical bytes."""
    return digest_of(decision_bytes(record))


def read_decision(data: bytes) -> DecisionRecord:
    """The record of canonical bytes; the inverse of `decision_bytes`.

    Raises:
        BrokenInvariant: The bytes are no such thing.
    """
    reader = Reader(data, DECISION_KIND, DECISION_FORMAT)
    transaction_id = TransactionId(reader.text())
    customer, terminal = Surrogate(reader.text()), Surrogate(reader.text())
    event_time_us, amount_minor, currency = reader.integer(), reader.integer(), reader.text()
    customer_version, terminal_version = reader.integer(), reader.integer()
    view, vector, raw_score = reader.text(), reader.data(), reader.real()
    score = Score(reader.real(), reader.text())
    outcome = _outcome(reader.text())
    policy = _policy(reader.text(), reader.real(), reader.real())
    rules_version = reader.text()
    hits = tuple(RuleHit(reader.text(), _outcome(reader.text())) for _ in range(reader.integer()))
    reasons = tuple(Reason(reader.text(), reader.real()) for _ in range(reader.integer()))
    fingerprint = Digest(reader.data())
    reader.finish()
    record = DecisionRecord(
        transaction_id=transaction_id,
        customer=customer,
        terminal=terminal,
        event_time_us=event_time_us,
        amount_minor=amount_minor,
        currency=currency,
        customer_version=customer_version,
        terminal_version=terminal_version,
        view=view,
        vector=vector,
        raw_score=raw_score,
        decision=Decision(outcome, score, policy, rules_version, hits),
        reasons=reasons,
        fingerprint=fingerprint,
    )
    if decision_bytes(record) != data:  # such as a negative count of reasons
        raise BrokenInvariant("the bytes of a decision are not in canonical form")
    return record


def _policy(name: str, review_threshold: float, decline_threshold: float) -> Policy:
    try:
        policy = Policy(review_threshold, decline_threshold)
    except InvalidInput as error:
        raise BrokenInvariant(f"a recorded threshold is none: {error}") from error
    if name != policy.name:
        raise BrokenInvariant(f"the policy {name} is none that this release reads")
    return policy


def _outcome(text: str) -> Outcome:
    if text not in {member.value for member in Outcome}:
        raise BrokenInvariant(f"{text} is no outcome")
    return Outcome(text)
