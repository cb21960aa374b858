"""The policy by expected loss: by the definition, by exact arithmetic, and against every pair of thresholds."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.domain.cost_policy import BASIS_POINTS, CostPolicy, Costs, Floats, fit_capacity
from shared.domain.decision import STRICTNESS, Outcome
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.score import Score
from shared.domain.transaction import MAX_AMOUNT_MINOR

AMOUNTS = st.integers(1, 200_000) | st.integers(1, MAX_AMOUNT_MINOR)
PROBABILITIES = st.floats(0, 1) | st.sampled_from([0.0, 5e-324, 0.5, 1.0 - 2**-53, 1.0])
COSTS = st.builds(
    Costs,
    review_minor=st.integers(1, 5_000) | st.integers(1, MAX_AMOUNT_MINOR),
    margin_bp=st.integers(0, BASIS_POINTS),
    goodwill_minor=st.integers(0, 20_000) | st.integers(0, MAX_AMOUNT_MINOR),
    declines=st.booleans(),
)
POLICIES = st.builds(CostPolicy, COSTS, st.integers(0, 10_000) | st.integers(0, MAX_AMOUNT_MINOR))
SPANS = st.lists(st.tuples(PROBABILITIES, AMOUNTS), min_size=1, max_size=60)


def columns(rows: list[tuple[float, int]]) -> tuple[Floats, NDArray[np.int64]]:
    scores, amounts = zip(*rows, strict=True)
    return np.array(scores), np.array(amounts, dtype=np.int64)


def exact(costs: Costs, probability: float, amount: int) -> dict[Outcome, Fraction]:
    """The expected losses without any rounding, as the definition has them."""
    fraud = Fraction(probability)
    found = {Outcome.APPROVE: fraud * amount, Outcome.REVIEW: Fraction(costs.review_minor)}
    if costs.declines:
        wrong = Fraction(costs.margin_bp * amount, BASIS_POINTS) + costs.goodwill_minor
        found[Outcome.DECLINE] = (1 - fraud) * wrong
    return found


def world(n_rows: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Scores as a model has them, mostly near nothing, and amounts of a long tail."""
    rng = np.random.default_rng(seed)
    return rng.beta(0.05, 3.0, n_rows), np.rint(rng.lognormal(8.3, 1.0, n_rows)).astype(np.int64) + 1


@given(POLICIES, SPANS)
def test_many_equals_one(policy: CostPolicy, rows: list[tuple[float, int]]) -> None:
    one_by_one = [policy.outcome(Score(probability, ""), amount) for probability, amount in rows]
    assert [STRICTNESS[place] for place in policy.outcomes(*columns(rows))] == one_by_one


@given(POLICIES, AMOUNTS, st.lists(PROBABILITIES, min_size=2, max_size=20))
def test_a_higher_score_is_never_treated_more_mildly(policy: CostPolicy, amount: int, scores: list[float]) -> None:
    places = [STRICTNESS.index(policy.outcome(Score(score, ""), amount)) for score in sorted(scores)]
    assert places == sorted(places)


@given(POLICIES, PROBABILITIES, AMOUNTS)
def test_what_is_chosen_costs_least_by_exact_arithmetic(policy: CostPolicy, probability: float, amount: int) -> None:
    losses = exact(policy.costs, probability, amount)
    losses[Outcome.REVIEW] += policy.shadow_price_minor
    chosen = losses[policy.outcome(Score(probability, ""), amount)]
    assert chosen <= min(losses.values()) * (1 + Fraction(1, 2**50))  # three roundings of at most 2**-53 each


def test_ties_are_approved_first_and_reviewed_last() -> None:
    even = Costs(review_minor=500, margin_bp=0, goodwill_minor=1_000)
    assert CostPolicy(even).outcome(Score(0.5, ""), 1_000) is Outcome.APPROVE  # 500 each
    assert CostPolicy(even).outcome(Score(0.5, ""), 1_001) is Outcome.DECLINE  # 500.5, 500 and 500
    assert CostPolicy(replace(even, goodwill_minor=1_001)).outcome(Score(0.5, ""), 1_001) is Outcome.REVIEW
    assert CostPolicy(even).outcome(Score(0.0, ""), MAX_AMOUNT_MINOR) is Outcome.APPROVE
    assert CostPolicy(even).outcome(Score(1.0, ""), 1) is Outcome.DECLINE


@given(COSTS, SPANS, st.floats(0.001, 1), st.floats(0.001, 1))
def test_no_pair_of_thresholds_expects_less(
    costs: Costs, rows: list[tuple[float, int]], left: float, right: float
) -> None:
    review, decline = sorted((left, right))
    expected = ours = Fraction(0)
    for probability, amount in rows:
        losses = exact(costs, probability, amount)
        fixed = Outcome.APPROVE if probability < review else Outcome.REVIEW
        if probability >= decline and costs.declines:
            fixed = Outcome.DECLINE
        expected += losses[fixed]
        ours += losses[CostPolicy(costs).outcome(Score(probability, ""), amount)]
    assert ours <= expected * (1 + Fraction(1, 2**50))


@given(COSTS, SPANS, st.integers(1, 9), st.floats(0, 20))
def test_a_fitted_capacity_holds_on_its_span_with_the_least_price(
    costs: Costs, rows: list[tuple[float, int]], days: int, reviews_per_day: float
) -> None:
    scores, amounts = columns(rows)
    policy = fit_capacity(costs, scores, amounts, days=days, reviews_per_day=reviews_per_day)
    review = STRICTNESS.index(Outcome.REVIEW)
    assert int((policy.outcomes(scores, amounts) == review).sum()) <= days * reviews_per_day
    if policy.shadow_price_minor:
        cheaper = replace(policy, shadow_price_minor=policy.shadow_price_minor - 1)
        assert int((cheaper.outcomes(scores, amounts) == review).sum()) > days * reviews_per_day


@pytest.mark.parametrize("reviews_per_day", [5, 40, 200])
@pytest.mark.parametrize("declines", [True, False])
def test_within_its_capacity_no_ranking_by_score_expects_less(reviews_per_day: int, *, declines: bool) -> None:
    """Also in what is expected of the whole span, and not by a rounding: amounts differ."""
    scores, amounts = world(20_000, 1)
    costs = Costs(declines=declines)
    policy = fit_capacity(costs, scores, amounts, days=2, reviews_per_day=reviews_per_day)
    losses = policy.losses(scores, amounts)
    outcomes = policy.outcomes(scores, amounts)
    ours = float(np.choose(outcomes, losses).sum())
    n_reviews = int((outcomes == STRICTNESS.index(Outcome.REVIEW)).sum())
    assert 0 < n_reviews <= 2 * reviews_per_day
    unreviewed = np.minimum(losses.approve, losses.decline)
    by_score = np.argsort(-scores, kind="stable")[:n_reviews]
    theirs = float(unreviewed.sum() - (unreviewed[by_score] - losses.review[by_score]).sum())
    assert ours < theirs


def test_calibrated_scores_come_to_cost_what_they_expect() -> None:
    scores, amounts = world(200_000, 2)
    is_fraud = np.random.default_rng(3).random(len(scores)) < scores
    policy = CostPolicy()
    outcomes = policy.outcomes(scores, amounts)
    assert set(outcomes.tolist()) == {0, 1, 2}
    expected = np.choose(outcomes, policy.losses(scores, amounts))
    incurred = policy.costs.incurred(outcomes, is_fraud, amounts)
    error = float(np.std(incurred - expected)) * len(scores) ** 0.5
    assert abs(float(incurred.sum() - expected.sum())) < 4 * error
    for threshold in (0.02, 0.1, 0.3, 0.5, 0.9):
        for place in (1, 2):
            fixed = np.where(scores >= threshold, place, 0).astype(np.int8)
            assert policy.costs.incurred(fixed, is_fraud, amounts).sum() > incurred.sum()


def test_nothing_is_declined_where_declining_is_none_of_the_choices() -> None:
    scores, amounts = world(5_000, 4)
    policy = CostPolicy(Costs(declines=False), shadow_price_minor=10_000)
    assert set(policy.outcomes(scores, amounts).tolist()) == {0, 1}
    assert policy.outcome(Score(1.0, ""), 100) is Outcome.APPROVE  # worth less than its review


@pytest.mark.parametrize(
    ("name", "costs"),
    [
        ("REVIEW_COST_MINOR", {"review_minor": 0}),
        ("REVIEW_COST_MINOR", {"review_minor": MAX_AMOUNT_MINOR + 1}),
        ("DECLINE_MARGIN_BP", {"margin_bp": -1}),
        ("DECLINE_MARGIN_BP", {"margin_bp": BASIS_POINTS + 1}),
        ("GOODWILL_COST_MINOR", {"goodwill_minor": -1}),
        ("GOODWILL_COST_MINOR", {"goodwill_minor": MAX_AMOUNT_MINOR + 1}),
    ],
)
def test_costs_that_make_no_sense_are_refused(name: str, costs: dict[str, int]) -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(Costs(), **costs)  # type: ignore[arg-type]  # the only one that is no integer is not among them
    assert refused.value.field == name


@pytest.mark.parametrize("price", [-1, MAX_AMOUNT_MINOR + 1])
def test_a_shadow_price_that_is_none_is_refused(price: int) -> None:
    with pytest.raises(InvalidInput, match="REVIEW_SHADOW_PRICE_MINOR"):
        CostPolicy(shadow_price_minor=price)


@pytest.mark.parametrize(("days", "reviews"), [(0.0, 1.0), (float("nan"), 1.0), (1.0, -1.0), (1.0, float("nan"))])
def test_a_capacity_needs_days_and_reviews(days: float, reviews: float) -> None:
    with pytest.raises(InvalidInput):
        fit_capacity(Costs(), np.array([0.5]), np.array([100]), days=days, reviews_per_day=reviews)


@pytest.mark.parametrize("scores", [[0.5], [0.5, float("nan")], [0.5, 1.1]])
def test_a_capacity_needs_a_probability_for_each_amount(scores: list[float]) -> None:
    with pytest.raises(BrokenInvariant):
        fit_capacity(Costs(), np.array(scores), np.array([100, 200]), days=1, reviews_per_day=1)


def test_without_a_limit_no_price_is_asked() -> None:
    scores, amounts = world(1_000, 5)
    fitted = fit_capacity(Costs(), scores, amounts, days=1, reviews_per_day=float("inf"))
    assert fitted == CostPolicy(Costs())
