"""Which policy decides with a model: what settings say, and what was fitted to the model's scores.

A shadow price and thresholds belong to one model: another one's scores mean other transactions by the same numbers. So
a bundle brings those that were fitted to it, and with a new champion they change in the same moment. A price holds for
one capacity and one set of costs; where settings name others it says nothing, and the setting holds. What was chosen
is recorded by each decision, so that nothing here is needed to decide again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from shared.domain.bundle_manifest import Manifest, Thresholds
from shared.domain.cost_policy import Capacity, CostPolicy, FittedCapacity
from shared.domain.decision import DecidingPolicy, Policy


class Origin(StrEnum):
    """Who says the numbers that belong to a model."""

    SETTINGS = "settings"
    BUNDLE = "bundle"


@dataclass(frozen=True, slots=True)
class Advice:
    """What a bundle says of policies.

    Attributes:
        thresholds: For `fixed-v1`.
        capacity: For `expected-loss-v1`; None if no capacity was asked for when it was trained.
    """

    thresholds: Thresholds
    capacity: FittedCapacity | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Advice:
        """That of a bundle."""
        return cls(manifest.thresholds, manifest.capacity)


class Choice(NamedTuple):
    """The policy that decides with one model.

    Attributes:
        policy: The policy.
        origin: Who says its thresholds, or its shadow price.
        why: Why the bundle does not although it was asked, for people; empty if it does, or was not asked.
    """

    policy: DecidingPolicy
    origin: Origin
    why: str = ""


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """How the policy follows from settings and model.

    Attributes:
        configured: The policy by settings alone.
        capacity: What a bundle's shadow price must be for; None for no limit, and then no bundle is asked.
        thresholds: Who says those of `fixed-v1`.
    """

    configured: DecidingPolicy
    capacity: Capacity | None = None
    thresholds: Origin = Origin.SETTINGS

    def choice(self, advice: Advice) -> Choice:
        """The policy that decides with a model.

        >>> rule = PolicyRule(CostPolicy(), capacity=Capacity(reviews_per_day=50))
        >>> fitted = FittedCapacity(Capacity(reviews_per_day=50), CostPolicy(shadow_price_minor=1_200))
        >>> rule.choice(Advice(Thresholds(0.3, 0.8), fitted)).policy.parameters["review_shadow_price_minor"]
        1200
        >>> rule.choice(Advice(Thresholds(0.3, 0.8))).why
        'the bundle has no shadow price'
        """
        configured = self.configured
        if isinstance(configured, Policy) and self.thresholds is Origin.BUNDLE:
            return Choice(Policy(advice.thresholds.review, advice.thresholds.decline), Origin.BUNDLE)
        if not isinstance(configured, CostPolicy) or self.capacity is None:
            return Choice(configured, Origin.SETTINGS)
        fitted = advice.capacity
        if fitted is None:
            why = "the bundle has no shadow price"
        elif fitted.capacity.reviews_per_day != self.capacity.reviews_per_day:
            why = f"the bundle's shadow price is for {fitted.capacity.reviews_per_day} reviews a day"
        elif fitted.capacity != self.capacity:
            why = "the bundle's shadow price is for other costs"
        else:
            return Choice(fitted.policy, Origin.BUNDLE)
        return Choice(configured, Origin.SETTINGS, why)
