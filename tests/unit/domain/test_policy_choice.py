"""Which policy decides with a model: a bundle's numbers hold for what they were fitted for, and for nothing else."""

from __future__ import annotations

import pytest

from shared.domain.bundle_manifest import Thresholds
from shared.domain.cost_policy import MAX_REVIEWS_PER_DAY, Capacity, CostPolicy, Costs, FittedCapacity
from shared.domain.decision import Policy
from shared.domain.errors import InvalidInput
from shared.domain.policy_choice import Advice, Choice, Origin, PolicyRule

COSTS = Costs(review_minor=700)
ASKED = Capacity(50, COSTS)
BY_SETTINGS = CostPolicy(COSTS, shadow_price_minor=42)
FIXED = Policy(0.3, 0.8)
THRESHOLDS = Thresholds(0.2, 0.6)


def advice(capacity: Capacity, price: int = 1_300) -> Advice:
    return Advice(THRESHOLDS, FittedCapacity(capacity, CostPolicy(capacity.costs, price)))


def test_a_price_that_was_fitted_for_what_is_asked_decides() -> None:
    rule = PolicyRule(BY_SETTINGS, ASKED)
    assert rule.choice(advice(ASKED)) == Choice(CostPolicy(COSTS, 1_300), Origin.BUNDLE)
    assert rule.choice(advice(ASKED, price=0)).policy == CostPolicy(COSTS, 0)  # none is needed: it is no missing one


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (Advice(THRESHOLDS), "the bundle has no shadow price"),
        (advice(Capacity(51, COSTS)), "the bundle's shadow price is for 51 reviews a day"),
        (advice(Capacity(50, Costs(review_minor=701))), "the bundle's shadow price is for other costs"),
        (advice(Capacity(50, Costs(review_minor=700, margin_bp=0))), "the bundle's shadow price is for other costs"),
        (
            advice(Capacity(50, Costs(review_minor=700, goodwill_minor=1))),
            "the bundle's shadow price is for other costs",
        ),
        (advice(Capacity(50, Costs(review_minor=700, declines=False))), "the bundle's shadow price is for other costs"),
    ],
)
def test_a_price_for_anything_else_leaves_the_settings_to_decide(told: Advice, why: str) -> None:
    assert PolicyRule(BY_SETTINGS, ASKED).choice(told) == Choice(BY_SETTINGS, Origin.SETTINGS, why)


def test_without_a_capacity_no_bundle_is_asked_for_a_price() -> None:
    assert PolicyRule(BY_SETTINGS).choice(advice(ASKED)) == Choice(BY_SETTINGS, Origin.SETTINGS)


def test_thresholds_are_those_of_the_settings_unless_the_bundles_are_asked_for() -> None:
    told = advice(ASKED)
    assert PolicyRule(FIXED, ASKED).choice(told) == Choice(FIXED, Origin.SETTINGS)
    asked = PolicyRule(FIXED, ASKED, Origin.BUNDLE)
    assert asked.choice(told) == Choice(Policy(0.2, 0.6), Origin.BUNDLE)
    # They are none of the costs' business.
    assert PolicyRule(BY_SETTINGS, None, Origin.BUNDLE).choice(told) == Choice(BY_SETTINGS, Origin.SETTINGS)


@pytest.mark.parametrize("reviews", [0, -1, MAX_REVIEWS_PER_DAY + 1])
def test_a_capacity_that_is_none_is_refused(reviews: int) -> None:
    with pytest.raises(InvalidInput, match="REVIEWS_PER_DAY"):
        Capacity(reviews)
