"""From a score to a decision: rules first, then the policy.

The pipeline is fixed: score, calibration, rules, policy, reasons. A rule can only escalate (approve < review <
decline): what the policy says is the least that happens. No rules are deployed yet; the set is there, empty and
versioned, so that a decision already records which one it went through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.feature_view import FeatureView
from shared.domain.score import Score


class Outcome(StrEnum):
    """What is answered; a later member is stricter than an earlier one."""

    APPROVE = "approve"
    REVIEW = "review"
    DECLINE = "decline"


STRICTNESS: Final = tuple(Outcome)
"""From the mildest to the strictest."""


class DecidingPolicy(Protocol):
    """What a score and an amount alone lead to; a value that can be compared and hashed, recorded by each decision."""

    @property
    def name(self) -> str:
        """Name and version of the policy."""
        ...

    @property
    def parameters(self) -> Mapping[str, int | float | bool]:
        """All that its outcomes depend on beside score and amount, by name, in the order they are shown in."""
        ...

    def outcome(self, score: Score, amount_minor: int, /) -> Outcome:
        """The outcome for a score and an amount in minor units."""
        ...

    def __hash__(self) -> int:
        """Of all parameters."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy `fixed-v1`: decline at or above one threshold, review at or above a lower one.

    Attributes:
        review_threshold: `REVIEW_THRESHOLD`, greater than 0; equal to the other one, nothing is reviewed.
        decline_threshold: `FRAUD_THRESHOLD`, at most 1.
    """

    review_threshold: float
    decline_threshold: float

    def __post_init__(self) -> None:
        """Refuse thresholds that contradict each other or would treat all transactions alike.

        Raises:
            InvalidInput: Names the setting.
        """
        for setting, value in (
            ("REVIEW_THRESHOLD", self.review_threshold),
            ("FRAUD_THRESHOLD", self.decline_threshold),
        ):
            if not 0.0 < value <= 1.0:  # NaN fails too
                raise InvalidInput(setting, "must be greater than 0 and at most 1")
        if self.review_threshold > self.decline_threshold:
            raise InvalidInput("REVIEW_THRESHOLD", "must not be greater than FRAUD_THRESHOLD")

    @property
    def name(self) -> str:
        """Name and version of the policy."""
        return "fixed-v1"

    @property
    def parameters(self) -> Mapping[str, int | float | bool]:
        """The thresholds, by name."""
        return {"review_threshold": self.review_threshold, "decline_threshold": self.decline_threshold}

    def outcome(self, score: Score, _amount_minor: int = 0, /) -> Outcome:
        """What the score leads to, whatever the amount; a score on a threshold has reached it.

        >>> Policy(0.5, 0.9).outcome(Score(0.9, "")).value
        'decline'
        """
        if score.probability >= self.decline_threshold:
            return Outcome.DECLINE
        if score.probability >= self.review_threshold:
            return Outcome.REVIEW
        return Outcome.APPROVE


@dataclass(frozen=True, slots=True)
class RuleHit:
    """A rule that applied.

    Attributes:
        rule_id: Stable identifier of the rule.
        outcome: The mildest outcome it allows.
    """

    rule_id: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that escalates without the model: a feature reaches a minimum.

    Attributes:
        rule_id: Stable identifier.
        feature: Name of a feature of the view.
        minimum: The rule applies from this value on; never to NaN.
        outcome: The mildest outcome it allows.
    """

    rule_id: str
    feature: str
    minimum: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A versioned set of rules; what is deployed today is the empty one.

    Attributes:
        version: Recorded by every decision.
        rules: In any order, each id once.
    """

    version: str
    rules: tuple[Rule, ...] = ()

    def hits(self, view: FeatureView, vector: Sequence[float]) -> tuple[RuleHit, ...]:
        """The rules that apply to a feature vector, ordered by id.

        Raises:
            BrokenInvariant: A rule names a feature that the view lacks.
        """
        if not self.rules:
            return ()
        values = dict(zip(view.names, vector, strict=True))
        unknown = [rule.feature for rule in self.rules if rule.feature not in values]
        if unknown:
            raise BrokenInvariant(f"a rule reads {unknown[0]}, which {view.name} lacks")
        found = [RuleHit(rule.rule_id, rule.outcome) for rule in self.rules if values[rule.feature] >= rule.minimum]
        return tuple(sorted(found, key=lambda hit: hit.rule_id))


NO_RULES: Final = RuleSet("rules-0")
"""The empty rule set."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and by what.

    Attributes:
        outcome: The answer.
        score: The score it rests on.
        policy: The policy with its parameters.
        rules_version: The rule set it went through.
        rule_hits: The rules that applied, ordered by id.
    """

    outcome: Outcome
    score: Score
    policy: DecidingPolicy
    rules_version: str
    rule_hits: tuple[RuleHit, ...] = ()


def decide_outcome(
    score: Score,
    amount_minor: int,
    policy: DecidingPolicy,
    rules: RuleSet,
    *,
    view: FeatureView,
    vector: Sequence[float],
) -> Decision:
    """Apply rules, then the policy; the strictest outcome holds.

    Args:
        score: The calibrated score.
        amount_minor: The transaction's amount, minor units.
        policy: The policy.
        rules: The rule set.
        view: The feature view of the vector.
        vector: (n_features,) the feature vector that was scored.
    """
    hits = rules.hits(view, vector)
    return Decision(strictest(policy.outcome(score, amount_minor), hits), score, policy, rules.version, hits)


def strictest(outcome: Outcome, hits: tuple[RuleHit, ...]) -> Outcome:
    """The strictest of what the policy says and what rules demand.

    >>> strictest(Outcome.APPROVE, (RuleHit("r1", Outcome.REVIEW),)).value
    'review'
    """
    return max((outcome, *(hit.outcome for hit in hits)), key=STRICTNESS.index)
