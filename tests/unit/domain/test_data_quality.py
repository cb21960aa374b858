"""Rules on windows: what they say, when they cannot tell, and what they never do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.data_quality import (
    LEAST_WEEKS,
    NOT_ENOUGH_HISTORY,
    SEASONED_WINDOWS,
    TOO_FEW,
    WEEK_US,
    WINDOW_US,
    FeedFacts,
    LetterKind,
    Level,
    RuleCheck,
    Share,
    ShareRule,
    check,
    check_all,
    letter_kind,
    wilson_low,
    windows,
)
from shared.domain.errors import BrokenInvariant
from shared.domain.quality_rules import AMOUNT_UNIT, DAILY_VOLUME, LABEL_FLOW, RULES, VOLUME
from simulator.changes import AmountChange, Fault, FeedFault, Span
from tests.feeds.simulated import FIRST, WARM_DAYS, false_alarms, watched

START_US = 3_000 * WEEK_US
QUIET = FeedFacts(START_US, START_US + WINDOW_US, transactions=400, median_amount_minor=2_500.0, labels=9)

counts = st.integers(0, 5_000)
any_facts = st.builds(
    lambda n, median, parts, letters, labels: FeedFacts(
        START_US,
        START_US + WINDOW_US,
        transactions=n,
        median_amount_minor=median if n else None,
        most_frequent_amount=min(parts[0], n),
        large_amounts=min(parts[1], n),
        copies=min(parts[2], n),
        late=min(parts[3], n),
        ahead=min(parts[4], n),
        new_customers=min(parts[5], n),
        new_terminals=min(parts[6], n),
        letters=letters,
        labels=labels,
        old_labels=min(parts[7], labels),
    ),
    counts,
    st.floats(1, 1e9),
    st.lists(counts, min_size=8, max_size=8),
    st.dictionaries(st.sampled_from(list(LetterKind)), counts),
    counts,
)
histories = st.dictionaries(
    st.sampled_from([VOLUME.name, DAILY_VOLUME.name, AMOUNT_UNIT.name, LABEL_FLOW.name]),
    st.dictionaries(st.integers(1, 9 * 168).map(lambda hours: START_US - hours * WINDOW_US), st.floats(0, 1e6)),
)


def weeks(level: float, count: int = 8, hours: int = 1) -> dict[int, float]:
    """A level in the same hour of past weeks, and the hours before it."""
    return {
        START_US - week * WEEK_US - hour * WINDOW_US: level for week in range(1, count + 1) for hour in range(hours)
    }


@given(any_facts, histories, st.integers(0, 2_000))
def test_every_rule_says_one_thing_of_any_window(
    facts: FeedFacts, history: Mapping[str, Mapping[int, float]], n_windows: int
) -> None:
    found = check_all(RULES, facts, history, n_windows)
    assert [one.rule for one in found] == [rule.name for rule in RULES]
    for one in found:
        assert one.passed or one.words
        assert one.passed or not one.words.startswith((NOT_ENOUGH_HISTORY, TOO_FEW))
        assert one.observed is None or math.isfinite(one.observed)
        assert "\n" not in one.words
    assert found == check_all(RULES, facts, history, n_windows)


@given(any_facts)
def test_no_level_fails_without_history(facts: FeedFacts) -> None:
    for rule in (VOLUME, DAILY_VOLUME, AMOUNT_UNIT, LABEL_FLOW):
        assert check(rule, facts, {}, 0).passed
        assert check(rule, facts, weeks(1e6, LEAST_WEEKS - 1, 24), 0).passed


@given(
    st.integers(0, 3_000),
    st.integers(1, 3_000),
    st.sampled_from([rule for rule in RULES if isinstance(rule, ShareRule)]),
)
def test_a_share_fails_only_above_its_limit_and_for_certain(count: int, of: int, rule: ShareRule) -> None:
    count = min(count, of)
    low = wilson_low(count, of)
    assert 0.0 <= low <= count / of
    assert wilson_low(min(count + 1, of), of) >= low
    if low > rule.limit:
        assert count / of > rule.limit


@pytest.mark.parametrize(
    ("changed", "rule", "breaks"),
    [
        ({"letters": {LetterKind.MISSING: 40}}, "missing", False),
        ({"letters": {LetterKind.INVALID: 60}}, "invalid", False),
        ({"letters": {LetterKind.CATEGORY: 40}}, "category", False),
        ({"letters": {LetterKind.CONFLICT: 40}}, "conflict", False),
        ({"letters": {LetterKind.LATENESS: 40}}, "too old", False),
        ({"letters": {LetterKind.FAILED: 10}}, "failed", False),
        ({"letters": {LetterKind.INVALID: 900}}, "unusable", True),
        ({"large_amounts": 40}, "large amount", False),
        ({"most_frequent_amount": 250}, "equal amount", True),
        ({"copies": 40}, "copy", False),
        ({"late": 90}, "late", False),
        ({"ahead": 60}, "ahead", False),
        ({"new_customers": 200}, "new customer", False),
        ({"new_terminals": 200}, "new terminal", False),
        ({"labels": 100, "old_labels": 90}, "old label", False),
    ],
)
def test_each_share_is_noticed_and_a_quiet_window_fails_nothing(changed: Any, rule: str, breaks: bool) -> None:
    history = {VOLUME.name: weeks(400), AMOUNT_UNIT.name: weeks(2_500)}
    assert all(one.passed for one in check_all(RULES, QUIET, history, SEASONED_WINDOWS))
    found = check_all(RULES, replace(QUIET, **changed), history, SEASONED_WINDOWS)
    failed = {one.rule: one.breaks for one in found if not one.passed}
    assert failed[rule] is breaks
    assert set(failed) <= {rule, "invalid"}


def test_new_entities_say_nothing_until_most_are_known() -> None:
    facts = replace(QUIET, new_customers=400, new_terminals=400)
    found = check_all(RULES, facts, {}, SEASONED_WINDOWS - 1)
    assert all(one.passed for one in found)
    assert {one.rule for one in found if one.words == NOT_ENOUGH_HISTORY} >= {"new customer", "new terminal", "volume"}


@pytest.mark.parametrize(
    ("transactions", "passed", "breaks"),
    [
        (400, True, False),
        (180, True, False),
        (150, False, False),
        (40, False, True),
        (0, False, True),
        (1_500, False, False),
    ],
)
def test_volume_is_held_against_the_hour_of_the_week(transactions: int, passed: bool, breaks: bool) -> None:
    found = check(VOLUME, replace(QUIET, transactions=transactions), weeks(400), 0)
    assert (found.passed, found.breaks) == (passed, breaks)
    assert found.observed == transactions


def test_a_broken_week_is_not_the_norm_of_the_next() -> None:
    history = weeks(400) | {START_US - WEEK_US: 0.0, START_US - 2 * WEEK_US: 0.0}
    assert check(VOLUME, QUIET, history, 0).passed
    assert not check(VOLUME, replace(QUIET, transactions=0), history, 0).passed


def test_a_small_deployment_is_judged_by_the_day() -> None:
    facts = replace(QUIET, transactions=0)
    assert check(VOLUME, facts, weeks(3), 0).words == TOO_FEW
    silent = {START_US - hour * WINDOW_US: 0.0 for hour in range(1, 24)}
    found = check(DAILY_VOLUME, facts, weeks(3, hours=24) | silent, 0)
    assert found.breaks
    assert found.details["norm"] == 72
    assert check(DAILY_VOLUME, facts, weeks(3, hours=24), 0).words == NOT_ENOUGH_HISTORY  # the day has gaps


def test_labels_that_stop_are_noticed_and_are_no_broken_feed() -> None:
    silent = {START_US - hour * WINDOW_US: 0.0 for hour in range(1, 24)}
    found = check(LABEL_FLOW, replace(QUIET, labels=0), weeks(4, hours=24) | silent, 0)
    assert (found.passed, found.breaks, found.source) == (False, False, "labels")


@pytest.mark.parametrize(("factor", "passed"), [(1.5, True), (4.9, True), (0.21, True), (100, False), (0.01, False)])
def test_another_unit_breaks_the_feed_and_drift_does_not(factor: float, passed: bool) -> None:
    found = check(AMOUNT_UNIT, replace(QUIET, median_amount_minor=2_500 * factor), weeks(2_500), 0)
    assert (found.passed, found.breaks) == (passed, not passed)


@pytest.mark.parametrize(
    ("field", "rule", "kind"),
    [
        ("transaction_id", "is missing", LetterKind.MISSING),
        ("currency", "must be EUR, the only currency of this deployment", LetterKind.CATEGORY),
        ("transaction_id", "was used before with another body", LetterKind.CONFLICT),
        ("event_time", "must not lie more than 300 s in the future", LetterKind.INVALID),
        ("", "must be a JSON object", LetterKind.INVALID),
        ("", "could not be processed: state is damaged", LetterKind.FAILED),
    ],
)
def test_letters_are_sorted_by_what_is_wrong(field: str, rule: str, kind: LetterKind) -> None:
    assert letter_kind(field, rule) is kind


@given(st.integers(0, 10**15), st.integers(1, 50 * WINDOW_US))
def test_windows_cover_a_span_and_no_more(start_us: int, length_us: int) -> None:
    found = windows(start_us, start_us + length_us)
    assert found[0][0] <= start_us < found[0][1]
    assert found[-1][0] < start_us + length_us <= found[-1][1]
    assert all(end - start == WINDOW_US for start, end in found)
    assert all(first[1] == second[0] for first, second in pairwise(found))


def test_names_are_unique_and_a_check_cannot_contradict_itself() -> None:
    assert len({(rule.source, rule.name) for rule in RULES}) == len(RULES)
    assert {rule.share for rule in RULES if isinstance(rule, ShareRule)} == set(Share)
    assert {rule.level for rule in (VOLUME, AMOUNT_UNIT, LABEL_FLOW)} == set(Level)
    with pytest.raises(BrokenInvariant):
        RuleCheck("transactions", "volume", True, 1.0, 0, 1, True, "")
    with pytest.raises(BrokenInvariant):
        RuleCheck("transactions", "volume", True, 1.0, 1, 1, False, "")


def test_two_quiet_weeks_alarm_nobody() -> None:
    failed, notices = false_alarms(watched(5))
    assert (failed, notices) == ({}, 0)


SPAN = Span(FIRST + timedelta(days=WARM_DAYS + 1), FIRST + timedelta(days=WARM_DAYS + 3))


@pytest.mark.parametrize(
    ("change", "rule", "at_least"),
    [
        (FeedFault(SPAN, Fault.MISSING_HOURS, hours=(9, 10, 11)), "volume", 6),
        (FeedFault(SPAN, Fault.CONSTANT_AMOUNTS), "equal amount", 36),
        (AmountChange(SPAN, 100.0), "amount unit", 36),
    ],
)
def test_a_broken_feed_of_the_simulator_is_called_broken(change: Any, rule: str, at_least: int) -> None:
    hours = watched(7, [change], days=3)
    broken = [one for checks in hours for one in checks if one.breaks and one.rule == rule]
    assert at_least <= len(broken) <= 48
    first_us = (FIRST - FIRST.replace(year=1970, month=1, day=1)).days * 86_400_000_000 + (
        WARM_DAYS + 1
    ) * 86_400_000_000
    assert all(first_us <= one.start_us < first_us + 2 * 86_400_000_000 for one in broken)


@pytest.mark.parametrize("factor", [1.2, 1.5])
def test_drift_of_amounts_is_no_broken_feed(factor: float) -> None:
    failed, _ = false_alarms(watched(7, [AmountChange(SPAN, factor)], days=3))
    assert failed == {}
