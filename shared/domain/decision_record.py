"""The decision record: all that the log commits to for one decision, and its canonical bytes.

It holds what replay needs (vector, bundle, policy, versions read) and what the answer said. It holds no durations
and no clock: the same decision has the same bytes whenever and wherever it is computed. People appear only as
surrogates; the transaction id is the sender's and must say nothing about a person.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache
from typing import Final

from shared.domain.canonical import Digest, Reader, digest_of, text_bytes
from shared.domain.cost_policy import CostPolicy, Costs
from shared.domain.decision import DecidingPolicy, Decision, Outcome, Policy, RuleHit
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.identifiers import TransactionId
from shared.domain.reasons import Reason
from shared.domain.score import Score
from shared.domain.surrogates import Surrogate

DECISION_KIND: Final = 0x44
DECISION_FORMAT: Final = 1

# The fields are packed directly and not through `canonical.Writer`, in the same form: each decision is written under a
# lock, and one call per field was a tenth of all it costs.
_START: Final = bytes((DECISION_KIND, DECISION_FORMAT))
_INTEGER: Final = struct.Struct(">q").pack
_TWO_INTEGERS: Final = struct.Struct(">qq").pack
_FIVE_INTEGERS: Final = struct.Struct(">qqqqq").pack
_REAL: Final = struct.Struct(">d").pack
_TWO_REALS: Final = struct.Struct(">dd").pack
_REAL_AND_INTEGER: Final = struct.Struct(">dq").pack


class Lateness(IntFlag):
    """Whether a transaction came later than the state of an entity promises to know its past for."""

    NONE = 0
    CUSTOMER = 1
    TERMINAL = 2


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
        lateness: Whose state the transaction was too late for; what lay before it was decided without.
        model_name: Name of the model.
        model_version: Its version.
        raw_score: The model's output before calibration.
        decision: Outcome, score, policy and rules.
        base: The model's output for nothing known, in log-odds.
        reasons: Ranked.
        others: Sum of the other contributions; base, reasons and others add up to the logit of `raw_score`.
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
    lateness: Lateness
    model_name: str
    model_version: int
    raw_score: float
    decision: Decision
    base: float
    reasons: tuple[Reason, ...]
    others: float
    fingerprint: Digest


def decision_bytes(record: DecisionRecord) -> bytes:
    """The canonical bytes of a decision record: a leaf of the log.

    Raises:
        BrokenInvariant: A number does not fit 64 bits.
    """
    decision = record.decision
    try:
        head = b"".join(
            (
                _START,
                text_bytes(record.transaction_id),
                text_bytes(record.customer),
                text_bytes(record.terminal),
                _TWO_INTEGERS(record.event_time_us, record.amount_minor),
                _constant(record.currency),
                _TWO_INTEGERS(record.customer_version, record.terminal_version),
                _constant(record.view),
                len(record.vector).to_bytes(4),
                record.vector,
                _INTEGER(record.lateness),
                _constant(record.model_name),
                _INTEGER(record.model_version),
                _TWO_REALS(record.raw_score, decision.score.probability),
                _constant(decision.score.bundle_digest),
                _constant(decision.outcome),
                _policy_bytes(decision.policy),
                _constant(decision.rules_version),
                _INTEGER(len(decision.rule_hits)),
            )
        )
    except struct.error as error:
        raise BrokenInvariant("a number of a decision does not fit 64 bits") from error
    parts = [head]
    for hit in decision.rule_hits:
        parts += (text_bytes(hit.rule_id), text_bytes(hit.outcome))
    parts.append(_REAL_AND_INTEGER(record.base, len(record.reasons)))
    for reason in record.reasons:
        parts += (_constant(reason.code), _REAL(reason.contribution))
    parts += (_REAL(record.others), len(record.fingerprint).to_bytes(4), record.fingerprint)
    return b"".join(parts)


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
    view, vector, lateness = reader.text(), reader.data(), reader.integer()
    model_name, model_version, raw_score = reader.text(), reader.integer(), reader.real()
    score = Score(reader.real(), reader.text())
    outcome = _outcome(reader.text())
    policy = _policy(reader)
    rules_version = reader.text()
    hits = tuple(RuleHit(reader.text(), _outcome(reader.text())) for _ in range(reader.integer()))
    base = reader.real()
    reasons = tuple(Reason(reader.text(), reader.real()) for _ in range(reader.integer()))
    others = reader.real()
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
        lateness=Lateness(lateness),
        model_name=model_name,
        model_version=model_version,
        raw_score=raw_score,
        decision=Decision(outcome, score, policy, rules_version, hits),
        base=base,
        reasons=reasons,
        others=others,
        fingerprint=fingerprint,
    )
    if decision_bytes(record) != data:  # such as a negative count of reasons
        raise BrokenInvariant("the bytes of a decision are not in canonical form")
    return record


_constant = lru_cache(maxsize=512)(text_bytes)
"""For text that most decisions share: names, codes, versions."""


@lru_cache(maxsize=64)
def _policy_bytes(policy: DecidingPolicy) -> bytes:
    """The policy's name, then its parameters: how many follow, and of which kind, is the name's to say."""
    name = text_bytes(policy.name)
    if isinstance(policy, Policy):
        return name + _TWO_REALS(policy.review_threshold, policy.decline_threshold)
    if isinstance(policy, CostPolicy):
        costs = policy.costs
        return name + _FIVE_INTEGERS(
            costs.review_minor, costs.margin_bp, costs.goodwill_minor, costs.declines, policy.shadow_price_minor
        )
    raise BrokenInvariant(f"the policy {policy.name} has no canonical form")


def _policy(reader: Reader) -> DecidingPolicy:
    """The inverse of `_policy_bytes`."""
    name = reader.text()
    try:
        if name == "fixed-v1":
            return Policy(reader.real(), reader.real())
        if name == "expected-loss-v1":
            review, margin, goodwill = reader.integer(), reader.integer(), reader.integer()
            declines = bool(reader.integer())  # another number than 0 and 1 is not canonical
            return CostPolicy(Costs(review, margin, goodwill, declines), reader.integer())
    except InvalidInput as error:
        raise BrokenInvariant(f"a recorded parameter of a policy is none: {error}") from error
    raise BrokenInvariant(f"the policy {name} is none that this release reads")


def _outcome(text: str) -> Outcome:
    if text not in {member.value for member in Outcome}:
        raise BrokenInvariant(f"{text} is no outcome")
    return Outcome(text)
