"""The policy on the numbers: what is usual, what persists, how it is graded, and how it is kept."""

import math
from dataclasses import replace

import numpy as np
import pytest

from shared.domain.bundle_reference import SCORE, Reference, histogram_of
from shared.domain.drift_counts import HourCounts
from shared.domain.drift_policy import (
    PRIOR_NATURAL,
    Clusters,
    DriftPolicy,
    Measured,
    Rule,
    Usual,
    Watched,
    judge,
    measure,
    usual,
)
from shared.domain.drift_record import hours_of, measured_of, outcome_row, rows_of
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_HOUR
from shared.domain.pipeline import Cause, Priority, Severity

RNG = np.random.default_rng(1)
TIMES = np.arange(8_000) * 60_000_000
VALUES = RNG.lognormal(3, 1, 8_000).astype(np.float32)
WATCHED = Watched(Reference(0, 1, {name: histogram_of(VALUES, TIMES) for name in (*CARD_V1.names, SCORE)}), CARD_V1)
LEARNT = Usual(10, 0.0, 0.0, 0.005)


def hour(values: np.ndarray, number: int = 0) -> HourCounts:
    counts = {name: WATCHED.reference.histograms[name].count(values) for name in WATCHED.subjects}
    return HourCounts(number * US_PER_HOUR, len(values), counts, np.array([len(values), 0, 0]))


def amount(values: np.ndarray, known: Usual = LEARNT, *, clustered: int = 1) -> Measured:
    """What is measured of one hour of the first feature."""
    clusters = Clusters(len(values), len(values) * clustered, len(values) * clustered)
    return measure(WATCHED, [hour(values)], clusters, dict.fromkeys(WATCHED.subjects, known), 1)[0]


def test_an_hour_like_the_reference_breaks_no_rule() -> None:
    assert not amount(VALUES[:400]).broken


def test_a_large_move_breaks_all_rules_and_a_small_one_the_level() -> None:
    assert amount(VALUES[:400] * 2).broken == {Rule.DISTRIBUTION, Rule.LEVEL, Rule.JUMP}
    small = amount(np.tile(VALUES, 2) * np.float32(1.12), Usual(10, 0.0, 0.0, 0.0075))
    assert small.psi < DriftPolicy().floor
    assert small.broken == {Rule.LEVEL}


@pytest.mark.parametrize(
    ("deviations", "of_amount", "of_labels"),
    [
        (3.9, set(), set()),
        (4.1, {Rule.LEVEL}, set()),
        (4.6, {Rule.LEVEL}, {Rule.LEVEL}),
        (5.1, {Rule.LEVEL, Rule.JUMP}, {Rule.LEVEL}),
    ],
)
def test_what_labels_decide_on_must_lie_further_away_and_never_jumps(
    deviations: float, of_amount: set[Rule], of_labels: set[Rule]
) -> None:
    values = np.tile(VALUES, 2) * np.float32(1.12)
    moved = amount(values).level
    spread = 0.01  # more than chance makes of so many rows
    known = Usual(10, 0.0, moved - deviations * spread, spread)
    counted, clusters = [hour(values)], Clusters(len(values), len(values), len(values))
    found = measure(WATCHED, counted, clusters, dict.fromkeys(WATCHED.subjects, known), 1)
    rules = {one.subject: one.broken - {Rule.DISTRIBUTION} for one in found}
    assert rules["amount"] == rules["terminal_count_7d"] == of_amount
    by_labels = {name for name in rules if "fraud" in name or "label" in name or "genuine" in name} | {SCORE}
    assert len(by_labels) == 9
    assert all(rules[name] == of_labels for name in by_labels)


def test_what_is_usual_or_comes_from_few_cards_is_no_drift() -> None:
    moved = VALUES[:400] * 2
    assert amount(moved, Usual(30, 0.4, 0.2, 0.06)).broken == frozenset()
    assert amount(moved, clustered=60).broken == frozenset()


def test_the_level_is_judged_after_a_week_only() -> None:
    young = amount(VALUES[:400] * 2, Usual(6, 0.0, 0.0, 0.005))
    assert math.isnan(young.deviations)
    assert young.broken == {Rule.DISTRIBUTION}


def test_an_assumption_stands_for_usual_days_until_they_are_seen() -> None:
    assert Usual().natural == PRIOR_NATURAL
    assert usual(np.zeros(0), np.zeros(0)) == Usual()
    assert Usual(5, 0.03).natural == pytest.approx((0.03 + PRIOR_NATURAL) / 2)
    assert Usual(1_000_000, -0.5).natural == pytest.approx(0.0, abs=1e-6)
    seen = usual(np.array([0.1, 0.3]), np.array([0.0, 0.2]))
    assert (seen.n_windows, seen.distance, seen.level, seen.spread) == pytest.approx((2, 0.2, 0.1, 0.1))


def ended(end: int, *, subject: str = "amount", psi: float = 0.2, hours: int = 1, rules: tuple[Rule, ...]) -> Measured:
    """A window that ends at an hour."""
    one = amount(VALUES[:400])
    return replace(one, subject=subject, psi=psi, hours=hours, end_us=end * US_PER_HOUR, broken=frozenset(rules))


@pytest.mark.parametrize(
    ("ends", "found"), [((3,), False), ((2, 3), True), ((1, 3), True), ((0, 3), False), ((1, 2), False)]
)
def test_a_rule_must_be_broken_now_and_once_more_in_three_hours(ends: tuple[int, ...], found: bool) -> None:
    recent = [ended(end, rules=(Rule.LEVEL,)) for end in ends]
    assert bool(judge(DriftPolicy(), recent, 3 * US_PER_HOUR)) == found


def test_windows_of_all_lengths_add_up_but_not_other_rules_or_subjects() -> None:
    level, end_us = ended(2, rules=(Rule.LEVEL,)), 3 * US_PER_HOUR
    (found,) = judge(DriftPolicy(), [level, ended(3, hours=3, rules=(Rule.LEVEL,))], end_us)
    assert (found.rule, found.measured.hours) == (Rule.LEVEL, 3)
    assert not judge(DriftPolicy(), [level, ended(3, rules=(Rule.DISTRIBUTION,))], end_us)
    assert not judge(DriftPolicy(), [level, ended(3, subject="is_night", rules=(Rule.LEVEL,))], end_us)
    assert not judge(DriftPolicy(), [ended(3, rules=(Rule.LEVEL,)), ended(3, hours=3, rules=(Rule.LEVEL,))], end_us), (
        "two windows that end in one hour are one hour"
    )


def test_for_a_jump_one_hour_is_enough() -> None:
    jumped = ended(3, rules=(Rule.LEVEL, Rule.JUMP))
    (found,) = judge(DriftPolicy(), [jumped], 3 * US_PER_HOUR)
    assert found.rule is Rule.JUMP
    assert not judge(DriftPolicy(), [jumped], 4 * US_PER_HOUR), "it must be there now"


@pytest.mark.parametrize(
    ("psi", "severity", "priority"),
    [
        (0.2, Severity.WARNING, None),
        (0.3, Severity.WARNING, None),
        (0.31, Severity.ERROR, Priority.MEDIUM),
        (0.51, Severity.ERROR, Priority.HIGH),
    ],
)
def test_psi_grades_what_follows(psi: float, severity: Severity, priority: Priority | None) -> None:
    recent = [ended(end, subject=SCORE, psi=psi, rules=(Rule.DISTRIBUTION,)) for end in (2, 3)]
    (found,) = judge(DriftPolicy(), recent, 3 * US_PER_HOUR)
    assert (found.severity, found.priority, found.cause) == (severity, priority, Cause.SCORE_DRIFT)


def test_each_subject_is_found_once_the_worst_first() -> None:
    recent = [
        ended(end, subject=subject, psi=psi, hours=hours, rules=(Rule.DISTRIBUTION, Rule.LEVEL))
        for end in (2, 3)
        for subject, psi, hours in (("amount", 0.1, 1), ("amount", 0.2, 3), ("is_night", 0.4, 1))
    ]
    found = judge(DriftPolicy(), recent, 3 * US_PER_HOUR)
    assert [(one.subject, one.measured.hours) for one in found] == [("is_night", 1), ("amount", 3)]


@pytest.mark.parametrize("values", [VALUES[:400] * 2, VALUES[:0]])
def test_what_was_measured_and_counted_is_read_back(values: np.ndarray) -> None:
    counted = hour(values)
    one = amount(values, Usual())
    rows = rows_of(one, counted, is_usual=True)
    assert [row.statistic for row in rows] == ["psi", "ks", "js", "level"]
    assert rows[0].details["usual"] == bool(len(values))
    assert str(measured_of(rows[0])) == str(one)  # NaN is not equal to itself
    kept = [rows_of(replace(one, subject=name), counted, is_usual=True)[0] for name in WATCHED.subjects]
    (again,) = hours_of([*kept, outcome_row(counted, 8_000)])
    assert (again.start_us, again.n_rows) == (counted.start_us, counted.n_rows)
    assert all(np.array_equal(again.counts[name], counted.counts[name]) for name in WATCHED.subjects)
    assert not hours_of(kept)  # without its outcomes an hour is not whole


def test_rows_that_were_damaged_are_refused() -> None:
    rows = rows_of(amount(VALUES[:400]), hour(VALUES[:400]), is_usual=True)
    with pytest.raises(BrokenInvariant, match="amount"):
        measured_of(replace(rows[0], details={}))
    with pytest.raises(BrokenInvariant, match="counts"):
        hours_of([replace(rows[0], details={})])
