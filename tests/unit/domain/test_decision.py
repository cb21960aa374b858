"""Scores, calibration, thresholds, rules and reasons."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.decision import NO_RULES, STRICTNESS, Outcome, Policy, Rule, RuleSet, decide_outcome
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.feature_view import CARD_V1, VIEWS, Feature, FeatureView, Measure
from shared.domain.reasons import CATALOGUE, MAX_REASONS, TEXTS, ranked_reasons
from shared.domain.score import CalibrationTable, Score

BUNDLE = "ab" * 32
PROBABILITIES = st.floats(0, 1)
POLICIES = st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)).map(lambda pair: Policy(min(pair), max(pair)))
VECTOR = [0.0] * len(CARD_V1.features)


@st.composite
def tables(draw: st.DrawFn) -> CalibrationTable:
    edges = sorted(draw(st.sets(st.floats(-5, 5).map(float), max_size=8)))
    edges = [edge for place, edge in enumerate(edges) if place == 0 or edge > edges[place - 1]]
    values = sorted(draw(st.lists(PROBABILITIES, min_size=len(edges) + 1, max_size=len(edges) + 1)))
    return CalibrationTable(tuple(edges), tuple(values))


@pytest.mark.parametrize("probability", [-0.001, 1.001, math.nan, math.inf])
def test_a_score_is_a_probability(probability: float) -> None:
    with pytest.raises(BrokenInvariant):
        Score(probability, BUNDLE)


@given(tables(), st.lists(st.floats(-6, 6, width=32), max_size=10))
def test_calibration_many_equals_one(table: CalibrationTable, raw: list[float]) -> None:
    expected = [table.probability(value) for value in raw]
    assert table.probability_many(np.array(raw, dtype=np.float32)).tolist() == expected
    assert table.probability_many(np.array(raw, dtype=np.float64)).tolist() == expected


@given(tables(), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_calibration_keeps_the_order(table: CalibrationTable, left: float, right: float) -> None:
    low, high = sorted((left, right))
    assert table.probability(low) <= table.probability(high)


def test_a_step_starts_at_its_edge() -> None:
    table = CalibrationTable((0.25, 0.5), (0.0, 0.1, 1.0))
    below = math.nextafter(0.5, 0.0)
    assert [table.probability(raw) for raw in (-math.inf, 0.25, below, 0.5, math.inf)] == [0.0, 0.1, 0.1, 1.0, 1.0]


@pytest.mark.parametrize(
    ("edges", "probabilities"),
    [
        ((), ()),
        ((0.5,), (0.1,)),
        ((0.5, 0.5), (0.1, 0.2, 0.3)),
        ((0.5, 0.4), (0.1, 0.2, 0.3)),
        ((math.nan,), (0.1, 0.2)),
        ((math.inf,), (0.1, 0.2)),
        ((0.5,), (0.2, 0.1)),
        ((0.5,), (0.1, 1.1)),
        ((0.5,), (math.nan, 0.1)),
    ],
)
def test_other_tables_are_refused(edges: tuple[float, ...], probabilities: tuple[float, ...]) -> None:
    with pytest.raises(BrokenInvariant):
        CalibrationTable(edges, probabilities)


def test_no_probability_is_made_of_nan() -> None:
    table = CalibrationTable((0.5,), (0.1, 0.2))
    with pytest.raises(BrokenInvariant):
        table.probability(math.nan)
    with pytest.raises(BrokenInvariant):
        table.probability_many(np.array([0.1, np.nan]))


@given(POLICIES, PROBABILITIES)
def test_thresholds_are_reached_from_below(policy: Policy, probability: float) -> None:
    outcome = policy.outcome(Score(probability, BUNDLE))
    assert (outcome is Outcome.DECLINE) == (probability >= policy.decline_threshold)
    assert (outcome is Outcome.APPROVE) == (probability < policy.review_threshold)
    assert policy.outcome(Score(policy.decline_threshold, BUNDLE)) is Outcome.DECLINE


@pytest.mark.parametrize(
    ("review", "decline", "setting"),
    [
        (0.0, 0.5, "REVIEW_THRESHOLD"),
        (-0.1, 0.5, "REVIEW_THRESHOLD"),
        (math.nan, 0.5, "REVIEW_THRESHOLD"),
        (0.5, 1.1, "FRAUD_THRESHOLD"),
        (0.5, math.nan, "FRAUD_THRESHOLD"),
        (0.5, math.inf, "FRAUD_THRESHOLD"),
        (0.6, 0.5, "REVIEW_THRESHOLD"),
    ],
)
def test_thresholds_that_cannot_be_meant_are_refused(review: float, decline: float, setting: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Policy(review, decline)
    assert caught.value.field == setting


@given(POLICIES, PROBABILITIES)
def test_the_empty_rule_set_changes_nothing(policy: Policy, probability: float) -> None:
    score = Score(probability, BUNDLE)
    decision = decide_outcome(score, 100, policy, NO_RULES, view=CARD_V1, vector=VECTOR)
    assert decision.outcome is policy.outcome(score)
    assert (decision.score, decision.policy, decision.rules_version) == (score, policy, "rules-0")
    assert decision.rule_hits == ()


@given(PROBABILITIES, st.lists(st.sampled_from(Outcome), max_size=3), st.sampled_from([0.0, 5.0, math.nan]))
def test_rules_only_escalate_and_never_on_nan(probability: float, outcomes: list[Outcome], value: float) -> None:
    rules = RuleSet("rules-9", tuple(Rule(f"r{9 - n}", "amount", 5.0, out) for n, out in enumerate(outcomes)))
    policy, score = Policy(0.5, 0.9), Score(probability, BUNDLE)
    decision = decide_outcome(score, 100, policy, rules, view=CARD_V1, vector=[value, *VECTOR[1:]])
    assert STRICTNESS.index(decision.outcome) >= STRICTNESS.index(policy.outcome(score))
    ids = [hit.rule_id for hit in decision.rule_hits]
    assert ids == (sorted(rule.rule_id for rule in rules.rules) if value == 5 else [])
    assert all(STRICTNESS.index(decision.outcome) >= STRICTNESS.index(hit.outcome) for hit in decision.rule_hits)


def test_a_rule_reads_only_what_the_view_has() -> None:
    rules = RuleSet("rules-9", (Rule("r1", "colour", 1.0, Outcome.DECLINE),))
    with pytest.raises(BrokenInvariant, match="colour"):
        rules.hits(CARD_V1, VECTOR)


def test_every_feature_of_every_view_has_a_reason_of_its_own() -> None:
    for view in VIEWS.values():
        assert set(view.names) <= set(CATALOGUE)
    assert len(TEXTS) == len(CATALOGUE)
    assert len(set(TEXTS.values())) == len(TEXTS)
    assert all(text.endswith(".") for text in TEXTS.values())


def test_codes_never_change_their_meaning() -> None:
    """Golden: integrators store these."""
    assert {code: name for name, (code, _) in CATALOGUE.items()} == {
        "A01": "amount", "A02": "amount_to_median_30d", "A03": "amount_to_genuine_mean_90d",
        "T01": "is_weekend", "T02": "is_night",
        "C01": "customer_count_1d", "C02": "customer_mean_amount_1d",
        "C03": "customer_count_7d", "C04": "customer_mean_amount_7d",
        "C05": "customer_count_30d", "C06": "customer_mean_amount_30d",
        "C07": "customer_outliers_1d", "C08": "customer_outliers_7d", "C09": "customer_outliers_14d",
        "C10": "customer_largest_to_median_14d", "C11": "customer_known_frauds_30d",
        "M01": "terminal_count_1d", "M02": "terminal_fraud_rate_1d", "M03": "terminal_count_7d",
        "M04": "terminal_fraud_rate_7d", "M05": "terminal_count_30d", "M06": "terminal_fraud_rate_30d",
        "M07": "terminal_last_label", "M08": "terminal_fraud_run", "M09": "terminal_fraud_run_age",
    }  # fmt: skip


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.5, 1.0, 2.0]), min_size=25, max_size=25), st.integers(0, 30))
def test_reasons_are_ranked_and_ties_follow_the_view(contributions: list[float], limit: int) -> None:
    reasons = ranked_reasons(CARD_V1, contributions, limit)
    places = [next(n for n, name in enumerate(CARD_V1.names) if CATALOGUE[name][0] == item.code) for item in reasons]
    ranks = [(-contributions[place], place) for place in places]
    assert ranks == sorted(ranks)
    assert all(item.contribution == contributions[place] > 0 for item, place in zip(reasons, places, strict=True))
    assert len(reasons) == min(limit, sum(value > 0 for value in contributions))
    assert len(ranked_reasons(CARD_V1, np.array(contributions).tolist())) <= MAX_REASONS


def test_contributions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BrokenInvariant, match="24 contributions for 25"):
        ranked_reasons(CARD_V1, [0.0] * 24)
    with pytest.raises(BrokenInvariant, match="finite"):
        ranked_reasons(CARD_V1, [math.nan] + [0.0] * 24)
    unknown = FeatureView("other", (Feature("colour", Measure.AMOUNT, "none"),))
    with pytest.raises(BrokenInvariant, match="colour"):
        ranked_reasons(unknown, [1.0])
