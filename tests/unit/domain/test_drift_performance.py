"""Performance with intervals: coverage under clusters, estimates from calibrated scores, and what counts as drift."""

import math
from dataclasses import replace

import numpy as np
import pytest

from shared.domain.bundle import open_bundle
from shared.domain.drift_performance import (
    LEAST_FRAUDS,
    Estimate,
    Figure,
    MaturedRows,
    PerformancePolicy,
    declines,
    expected,
    figures,
    may_have_fallen,
    ratio,
    reference_figures,
)
from shared.domain.pipeline import Cause, Priority
from tests.fakes.bundles import golden_files


def test_a_ratio_of_rows_that_stand_alone_has_the_interval_of_a_share() -> None:
    hits = np.array([1.0] * 30 + [0.0] * 70)
    found = ratio(hits, np.ones(100), np.arange(100))
    assert found.value == pytest.approx(0.3)
    assert found.error == pytest.approx(math.sqrt(0.3 * 0.7 / 100))
    assert found.n_rows == 100


def test_the_widest_clusters_decide_and_cover() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        hits = np.repeat(rng.random(60) < 0.4, 5).astype(np.float64)  # five rows of a terminal are the same
        found = ratio(hits, np.ones(300), np.arange(300), np.repeat(np.arange(60), 5))
        inside += found.low <= 0.4 <= found.high
    assert 0.91 < inside / 400 < 0.98


def test_nothing_to_divide_by_has_no_value() -> None:
    assert math.isnan(ratio(np.zeros(3), np.zeros(3), np.arange(3)).value)


def test_figures_of_a_table_worked_by_hand() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.2, 0.1, 0.3])
    is_fraud = np.array([True, True, False, True, False, False])
    found = figures(MaturedRows(score, is_fraud, np.arange(6), np.arange(6)), 0.7)
    assert found[Figure.RECALL].value == pytest.approx(2 / 3)
    assert found[Figure.PRECISION].value == pytest.approx(2 / 3)
    assert found[Figure.CALIBRATION].value == pytest.approx(1.0)
    assert found[Figure.FRAUD_RATE].value == pytest.approx(0.5)
    assert found[Figure.RECALL].n_rows == 3


def test_calibrated_scores_lead_to_expect_what_happens() -> None:
    rng = np.random.default_rng(2)
    inside = dict.fromkeys((Figure.RECALL, Figure.PRECISION, Figure.FRAUD_RATE), 0)
    for _ in range(300):
        score = rng.beta(0.3, 3.0, 2_000)
        is_fraud = rng.random(2_000) < score
        happened = figures(MaturedRows(score, is_fraud, np.arange(2_000), np.arange(2_000)), 0.4)
        for figure, estimate in expected(score, 0.4).items():
            inside[figure] += estimate.low <= happened[figure].value <= estimate.high
    assert all(0.91 < count / 300 < 0.99 for count in inside.values())


def test_without_decisions_nothing_is_expected() -> None:
    assert all(math.isnan(one.value) for one in expected(np.zeros(0), 0.5).values())
    assert math.isnan(expected(np.zeros(4), 0.5)[Figure.RECALL].value)


def test_the_bundles_own_figures_come_with_intervals_of_95_percent() -> None:
    manifest = open_bundle(golden_files()).manifest
    (recall,) = (metric for metric in manifest.metrics if metric.name == "recall")
    found = reference_figures(manifest)
    assert found[Figure.RECALL].value == recall.value
    assert found[Figure.RECALL].low == pytest.approx(recall.low, abs=1e-9)
    assert found[Figure.RECALL].n_rows == manifest.spans["test"].n_frauds
    wider = reference_figures(replace(manifest, confidence=0.68))
    assert wider[Figure.RECALL].error == pytest.approx(found[Figure.RECALL].error * 1.9600 / 0.9945, rel=1e-3)
    spans = manifest.spans.values()
    rate = sum(span.n_frauds for span in spans) / sum(span.n_rows for span in spans)
    assert found[Figure.FRAUD_RATE].value == pytest.approx(rate)


def estimate(value: float, error: float, n_rows: int = 500) -> Estimate:
    return Estimate(value, value - 1.96 * error, value + 1.96 * error, n_rows)


BEFORE = {Figure.RECALL: estimate(0.6, 0.03), Figure.FRAUD_RATE: estimate(0.006, 0.0003)}


@pytest.mark.parametrize(
    ("recall", "rate", "causes"),
    [
        (estimate(0.59, 0.03), estimate(0.006, 0.0003), []),
        (estimate(0.30, 0.05), estimate(0.006, 0.0003), [Cause.CONCEPT_DRIFT]),
        (estimate(0.30, 0.20), estimate(0.006, 0.0003), []),  # not certain
        (estimate(0.56, 0.001), estimate(0.006, 0.0003), []),  # not enough
        (estimate(0.90, 0.03), estimate(0.006, 0.0003), []),  # better
        (estimate(0.60, 0.03), estimate(0.012, 0.0004), [Cause.TARGET_DRIFT]),
        (estimate(0.60, 0.03), estimate(0.002, 0.0003), [Cause.TARGET_DRIFT]),
        (estimate(0.60, 0.03), estimate(0.008, 0.0001), []),  # a third is not a half
        (estimate(0.10, 0.01, LEAST_FRAUDS - 1), estimate(0.012, 0.0004), []),  # too few frauds
    ],
)
def test_a_change_counts_if_it_is_certain_and_large(recall: Estimate, rate: Estimate, causes: list[Cause]) -> None:
    found = declines(PerformancePolicy(), BEFORE, {Figure.RECALL: recall, Figure.FRAUD_RATE: rate})
    assert [one.cause for one in found] == causes
    assert all((one.priority is Priority.IMMEDIATE) == (one.cause is Cause.CONCEPT_DRIFT) for one in found)


def test_a_window_of_equal_incidents_is_no_more_certain_than_the_bundle_was() -> None:
    now = {Figure.RECALL: estimate(0.4, 0.001, 50), Figure.FRAUD_RATE: estimate(0.006, 0.0003)}
    assert declines(PerformancePolicy(), BEFORE, now) == []  # .03 of 500 frauds is .095 of 50
    assert declines(PerformancePolicy(), BEFORE, {**now, Figure.RECALL: estimate(0.4, 0.001)})
    day = {**now, Figure.FRAUD_RATE: estimate(0.012, 0.0001, 2)}
    assert declines(PerformancePolicy(), BEFORE, day) == []  # .0003 of 500 decisions is .005 of two
    assert declines(PerformancePolicy(), BEFORE, {**day, Figure.FRAUD_RATE: estimate(0.012, 0.0001)})


def test_recall_has_to_be_more_certain_than_the_fraud_rate() -> None:
    now = {Figure.RECALL: estimate(0.45, 0.001), Figure.FRAUD_RATE: estimate(0.006, 0.0003)}
    assert declines(PerformancePolicy(), BEFORE, now) == []  # three and a half standard errors
    assert declines(PerformancePolicy(recall_error=0.001), BEFORE, now)


@pytest.mark.parametrize(
    ("now", "may"),
    [(estimate(0.54, 0.2), True), (estimate(0.56, 0.001), False), (estimate(0.1, 0.01, LEAST_FRAUDS - 1), False)],
)
def test_missed_incidents_are_asked_for_if_recall_may_have_fallen(now: Estimate, may: bool) -> None:
    assert may_have_fallen(PerformancePolicy(), BEFORE, {Figure.RECALL: now}) is may
    assert not may_have_fallen(PerformancePolicy(), {}, {Figure.RECALL: now})
