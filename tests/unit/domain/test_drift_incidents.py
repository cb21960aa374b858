"""Missed incidents: how they are counted, when a day has too many, and how seldom quiet days do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.drift_incidents import (
    LEAST_DAYS,
    USUAL_DAYS,
    Frauds,
    Missed,
    frauds,
    missed_incidents,
    spread,
)
from shared.domain.drift_performance import Figure, MaturedRows, PerformancePolicy
from shared.domain.pipeline import Cause, Priority


def day(*rows: tuple[int, int, bool], n_rows: int = 1_000) -> Frauds:
    """A day of frauds, each a customer, a terminal and whether it was missed."""
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Frauds(n_rows, columns[:, 0], columns[:, 1], columns[:, 2].astype(np.bool_))


def independent(count: int, n_rows: int = 8_000) -> Missed:
    """A day of missed frauds that have nothing to do with one another."""
    return Missed(n_rows, float(count), float(count))


def test_frauds_are_taken_from_decisions_with_known_outcome() -> None:
    rows = MaturedRows(
        np.array([0.1, 0.9, 0.5, 0.2]),
        np.array([True, True, True, False]),
        np.array([1, 2, 3, 4]),
        np.array([5, 6, 7, 8]),
    )
    found = frauds(rows, 0.5)
    assert found.n_rows == 4
    assert found.customer.tolist() == [1, 2, 3]
    assert found.terminal.tolist() == [5, 6, 7]
    assert found.is_missed.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("before", "now", "incidents", "squares"),
    [
        ([], day(), 0, 0),
        ([], day((1, 1, True)), 1, 1),
        ([], day((1, 1, True), (1, 2, True), (1, 3, True)), 1, 1),  # a card's spree
        ([], day((1, 1, True), (2, 1, True), (3, 1, True)), 1, 1),  # a till
        ([], day((1, 1, True), (1, 2, False)), 0.5, 0.25),  # half of a spree was found
        ([], day((1, 1, True), (2, 2, True)), 2, 2),
        ([day((1, 1, False))], day((1, 2, True)), 0.5, 0.25),  # the card was known
        (
            [day(*[(card, 1, True) for card in range(24)])],
            day(*[(card, 1, True) for card in range(30, 34)]),
            1 / 7,
            1 / 49,
        ),
        ([day((7, 7, True)), day((8, 8, True))], day((9, 9, True)), 1, 1),  # others' frauds are others'
        ([], day((1, 1, True), (1, 2, True), (2, 2, True), (3, 2, True)), 0.5 + 3 / 3, 0.25 + 1),  # card 1 met till 2
    ],
)
def test_missed_frauds_count_by_the_incident_that_they_belong_to(
    before: list[Frauds], now: Frauds, incidents: float, squares: float
) -> None:
    found = missed_incidents(before, now)
    assert found.n_rows == 1_000
    assert found.incidents == pytest.approx(incidents)
    assert found.squares == pytest.approx(squares)


rows = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=40)


@given(rows, st.lists(rows, max_size=3), st.randoms(use_true_random=False))
def test_incidents_are_at_most_missed_cards_and_terminals_and_know_no_order(now, before, random) -> None:  # type: ignore[no-untyped-def]
    found = missed_incidents([day(*one) for one in before], day(*now))
    passed = [row for row in now if row[2]]
    assert 0 <= found.incidents <= min(len(passed), len({row[0] for row in passed}) + len({row[1] for row in passed}))
    assert found.squares <= found.incidents + 1e-9
    shuffled = random.sample(now, len(now))
    again = missed_incidents([day(*[row for one in before for row in one])], day(*shuffled))
    assert again.incidents == pytest.approx(found.incidents)
    renamed = [(-row[0] - 5, row[1] * 1_000_003, row[2]) for row in now]
    others = [day(*[(-row[0] - 5, row[1] * 1_000_003, row[2]) for row in one]) for one in before]
    assert missed_incidents(others, day(*renamed)).squares == pytest.approx(found.squares)


def test_three_times_as_many_missed_incidents_are_concept_drift_that_cannot_wait() -> None:
    rng = np.random.default_rng(3)
    usual = [independent(int(count)) for count in rng.poisson(4, USUAL_DAYS)]
    found = spread(PerformancePolicy(), usual, independent(14))
    assert found is not None
    assert (found.cause, found.figure, found.priority) == (
        Cause.CONCEPT_DRIFT,
        Figure.MISSED_INCIDENTS,
        Priority.IMMEDIATE,
    )
    assert found.now.value == pytest.approx(14)
    assert found.now.low < 14 < found.now.high
    assert found.before.value == pytest.approx(4, abs=1)
    assert spread(PerformancePolicy(), usual, independent(8)) is None
    assert spread(PerformancePolicy(), usual, independent(14, n_rows=22_000)) is None  # three times the traffic
    assert spread(PerformancePolicy(), usual[: LEAST_DAYS - 1], independent(14)) is None
    assert spread(PerformancePolicy(), usual, independent(0, n_rows=0)) is None


def test_days_without_decisions_are_none_of_the_usual_ones() -> None:
    usual = [independent(4)] * LEAST_DAYS
    assert spread(PerformancePolicy(), [independent(0, n_rows=0), *usual[1:]], independent(40)) is None
    assert spread(PerformancePolicy(), [independent(0, n_rows=0), *usual], independent(40)) is not None


def test_days_that_differ_more_than_chance_are_allowed_for() -> None:
    usual = [independent(count) for count in (1, 4, 12) * 9]
    assert spread(PerformancePolicy(), usual, independent(14)) is None


def test_equal_days_are_not_taken_for_certain() -> None:
    usual = [independent(4)] * USUAL_DAYS
    assert spread(PerformancePolicy(), usual, independent(11)) is None
    assert spread(PerformancePolicy(), usual, independent(16)) is not None


def test_incidents_that_go_on_for_days_vary_less_than_new_ones() -> None:
    steady = [Missed(8_000, 4.0, 1.0)] * USUAL_DAYS  # sixteen, each a quarter a day
    assert spread(PerformancePolicy(), steady, Missed(8_000, 9.0, 6.0)) is not None
    assert spread(PerformancePolicy(), [independent(4)] * USUAL_DAYS, independent(9)) is None


def test_a_quiet_past_without_any_missed_fraud_can_be_judged() -> None:
    quiet = [independent(0)] * USUAL_DAYS
    assert spread(PerformancePolicy(), quiet, independent(0)) is None
    assert spread(PerformancePolicy(), quiet, independent(9)) is not None


@pytest.mark.parametrize("mean", [3.0, 16.0])
@pytest.mark.parametrize("days_differ", [False, True])
def test_usual_days_are_found_different_by_chance_about_as_seldom_as_is_said(mean: float, days_differ: bool) -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(2_000):
        rate = mean * (rng.gamma(10, 1 / 10, USUAL_DAYS + 1) if days_differ else np.ones(USUAL_DAYS + 1))
        *usual, now = (independent(int(count)) for count in rng.poisson(rate))
        found += spread(PerformancePolicy(error=0.01), usual, now) is not None
    assert 0.001 < found / 2_000 < 0.025
