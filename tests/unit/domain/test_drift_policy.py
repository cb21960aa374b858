"""The policy on the numbers: what is usual, what persists, how it is graded, and how it is kept."""

import math
import re
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
    is_weekend,
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


def test_a_large_move_breaks_both_rules_and_a_small_one_that_of_values() -> None:
    assert amount(VALUES[:400] * 2).broken == {Rule.DISTRIBUTION, Rule.VALUE}
    small = amount(np.tile(VALUES, 2) * np.float32(1.12))
    assert small.psi < DriftPolicy().floor
    assert small.broken == {Rule.VALUE}


@pytest.mark.parametrize(
    ("deviations", "of_values", "of_lumps"),
    [(3.9, set(), set()), (4.1, {Rule.VALUE}, set()), (4.6, {Rule.VALUE}, {Rule.LUMPS})],
)
def test_what_counts_or_reads_labels_must_lie_further_away(
    deviations: float, of_values: set[Rule], of_lumps: set[Rule]
) -> None:
    values = np.tile(VALUES, 2) * np.float32(1.12)
    moved = amount(values).level
    spread = 0.0085  # more than chance makes of so many rows
    known = Usual(10, 0.0, moved - deviations * spread, spread)
    counted, clusters = [hour(values)], Clusters(len(values), len(values), len(values))
    found = measure(WATCHED, counted, clusters, dict.fromkeys(WATCHED.subjects, known), 1)
    rules = {one.subject: one.broken - {Rule.DISTRIBUTION} for one in found}
    lumps = {name for name in rules if re.search("count|outliers|fraud|label|genuine|score", name)}
    assert len(lumps) == 18
    assert all(rules[name] == (of_lumps if name in lumps else of_values) for name in rules)


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
    assert of_days([], []) == Usual()
    assert Usual(5, 0.03).natural == pytest.approx((0.03 + PRIOR_NATURAL) / 2)
    assert Usual(1_000_000, -0.5).natural == pytest.approx(0.0, abs=1e-6)


MONDAY = 4  # 1970-01-05, in days


def of_days(days: list[int], levels: list[float], *, hours: int = 1, judged: int = 50, hour: int = 12) -> Usual:
    """Windows that end at an hour of some days, their distance a tenth of the day's number."""
    ends = (np.array(days, dtype=np.int64) * 24 + hour) * US_PER_HOUR
    end_us = (judged * 24 + hour) * US_PER_HOUR
    return usual(ends, np.array(days) / 10, np.array(levels, dtype=np.float64), hours, end_us)


def test_a_prediction_is_as_uncertain_as_the_days_and_their_mean() -> None:
    days = [MONDAY + day for day in range(3)]
    found = of_days(days, [0.0, 0.1, 0.2])
    assert (found.n_windows, found.distance, found.level) == pytest.approx((3, (MONDAY + 1) / 10, 0.1))
    assert found.spread == pytest.approx(0.1 * math.sqrt(1 + 1 / 3))
    assert of_days(days[:1], [0.3]) == Usual(1, MONDAY / 10, 0.3, 0.0)


def test_weekends_are_held_against_weekends_once_two_were_seen() -> None:
    days = list(range(MONDAY, MONDAY + 14))
    is_free = [(day - MONDAY) % 7 >= 5 for day in days]
    levels = [0.1 + 0.01 * (day % 2) if free else 0.0 for day, free in zip(days, is_free, strict=True)]
    saturday = MONDAY + 19
    working, free = of_days(days, levels, judged=saturday - 1), of_days(days, levels, judged=saturday)
    assert (working.level, free.level) == pytest.approx((0.0, 0.105))
    pooled = 0.01 / math.sqrt(12)  # four times .005 squared, over 14 days less 2 means
    assert working.spread == pytest.approx(pooled * math.sqrt(1 + 1 / 10))
    assert free.spread == pytest.approx(pooled * math.sqrt(1 + 1 / 4))
    one_missing = of_days(days[:-1], levels[:-1], judged=saturday)
    assert one_missing.level == pytest.approx(sum(levels[:-1]) / 13), "three free days are too few"
    assert one_missing.spread > 0.04


def test_a_window_is_of_the_day_on_which_its_middle_lies() -> None:
    monday_us = MONDAY * 24 * US_PER_HOUR
    ends = np.array([monday_us + hours * US_PER_HOUR for hours in (0, 1, 5, 12, 13, 24)])
    assert is_weekend(ends, 1).tolist() == [True, False, False, False, False, False]
    assert is_weekend(ends, 24).tolist() == [True, True, True, False, False, False]


def test_windows_without_a_level_say_nothing_of_it() -> None:
    days = [MONDAY + day for day in range(14)]
    found = of_days(days, [math.nan] * 7 + [0.1] * 7)
    assert found.n_windows == 14
    assert (found.level, found.spread) == pytest.approx((0.1, 0.0), abs=1e-9)
    none = of_days(days, [math.nan] * 14)
    assert none.n_windows == 14
    assert math.isnan(none.level)
    assert Rule.VALUE not in amount(VALUES[:400] * 2, none).broken


def ended(end: int, *, subject: str = "amount", psi: float = 0.2, hours: int = 1, rules: tuple[Rule, ...]) -> Measured:
    """A window that ends at an hour."""
    one = amount(VALUES[:400])
    return replace(one, subject=subject, psi=psi, hours=hours, end_us=end * US_PER_HOUR, broken=frozenset(rules))


@pytest.mark.parametrize(
    ("ends", "found"), [((3,), False), ((2, 3), True), ((1, 3), True), ((0, 3), False), ((1, 2), False)]
)
@pytest.mark.parametrize("rule", [Rule.DISTRIBUTION, Rule.LUMPS])
def test_a_rule_must_be_broken_now_and_once_more_in_three_hours(rule: Rule, ends: tuple[int, ...], found: bool) -> None:
    recent = [ended(end, rules=(rule,)) for end in ends]
    assert bool(judge(DriftPolicy(), recent, 3 * US_PER_HOUR)) == found


def test_windows_of_all_lengths_add_up_but_not_other_rules_or_subjects() -> None:
    lumps, end_us = ended(2, rules=(Rule.LUMPS,)), 3 * US_PER_HOUR
    (found,) = judge(DriftPolicy(), [lumps, ended(3, hours=3, rules=(Rule.LUMPS,))], end_us)
    assert (found.rule, found.measured.hours) == (Rule.LUMPS, 3)
    assert not judge(DriftPolicy(), [lumps, ended(3, rules=(Rule.DISTRIBUTION,))], end_us)
    assert not judge(DriftPolicy(), [lumps, ended(3, subject="is_night", rules=(Rule.LUMPS,))], end_us)
    one_hour = [ended(3, rules=(Rule.LUMPS,)), ended(3, hours=3, rules=(Rule.LUMPS,))]
    assert not judge(DriftPolicy(), one_hour, end_us), "two windows that end in one hour are one hour"


def test_a_value_is_believed_at_once() -> None:
    moved = ended(3, rules=(Rule.VALUE,))
    (found,) = judge(DriftPolicy(), [moved], 3 * US_PER_HOUR)
    assert found.rule is Rule.VALUE
    assert not judge(DriftPolicy(), [moved], 4 * US_PER_HOUR), "it must be there now"


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
        ended(end, subject=subject, psi=psi, hours=hours, rules=(Rule.DISTRIBUTION, Rule.LUMPS))
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


def test_rules_of_another_release_are_passed_over() -> None:
    rows = rows_of(amount(VALUES[:400] * 2), hour(VALUES[:400]), is_usual=True)
    kept = replace(rows[0], details={**rows[0].details, "broken": ["value", "of a later release"]})
    assert measured_of(kept).broken == {Rule.VALUE}


def test_rows_that_were_damaged_are_refused() -> None:
    rows = rows_of(amount(VALUES[:400]), hour(VALUES[:400]), is_usual=True)
    with pytest.raises(BrokenInvariant, match="amount"):
        measured_of(replace(rows[0], details={}))
    with pytest.raises(BrokenInvariant, match="counts"):
        hours_of([replace(rows[0], details={})])
