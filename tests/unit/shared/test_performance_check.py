"""Which windows are measured when, and that twice is as good as once."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import Transient
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import MATURITY_US
from shared.domain.performance import ALL, NO_DECISION, Metric
from shared.services.performance_check import (
    BUDGET_S,
    MAX_CATCH_UP,
    NOTHING,
    READ_S,
    SETTLING_US,
    WINDOW_DAYS,
    PerformanceCheck,
)
from tests.fakes.performance import FakeLabelledWindows, FakePerformanceLog
from tests.fakes.probes import FakeClock
from tests.unit.domain.test_performance import rows_of

FIRST, SECOND = "a" * 64, "b" * 64
WEEK_END_US = 20_007 * US_PER_DAY
"""The end of the week in which `rows_of` decides."""

MATURE_US = WEEK_END_US + MATURITY_US + SETTLING_US


def test_a_window_is_measured_once_it_is_mature_and_settled() -> None:
    windows, log, clock = FakeLabelledWindows({FIRST: rows_of(400)}), FakePerformanceLog(), FakeClock(MATURE_US - 1)
    check = PerformanceCheck(windows, log, clock)
    assert check.check_due()["rows"] != 400
    clock.time_us = MATURE_US
    found = check.check_due()
    assert (found["windows"], found["models"], found["rows"]) == (1, 1, 400)
    assert log.last_end_us() == WEEK_END_US
    assert check.check_due() == {"windows": 0, "models": 0, "rows": 0, "figures": 0, "behind": 0}
    recall = [one for one in log.trend(ALL, WEEK_END_US) if one.measured.metric is Metric.RECALL_ALERT]
    assert [(one.bundle_digest, one.end_us - one.start_us) for one in recall] == [(FIRST, WINDOW_DAYS * US_PER_DAY)]


def test_two_that_measure_at_once_keep_the_same_figures_once() -> None:
    windows, log = FakeLabelledWindows({FIRST: rows_of(400)}), FakePerformanceLog()
    other = FakePerformanceLog()
    for kept in (log, other):
        PerformanceCheck(windows, kept, FakeClock(MATURE_US)).check_due()
    assert log.kept == other.kept
    assert log.record(list(other.kept.values()), 5) == 0


def test_models_are_measured_apart_and_one_that_decided_not_by_its_shadow() -> None:
    shadow = replace(rows_of(300, seed=3), outcome=np.full(300, NO_DECISION, dtype=np.int8))
    windows = FakeLabelledWindows({FIRST: rows_of(400)}, {FIRST: shadow, SECOND: shadow})
    log = FakePerformanceLog()
    found = PerformanceCheck(windows, log, FakeClock(MATURE_US)).check_due()
    assert (found["models"], found["rows"]) == (2, 400)
    metrics = {digest: {one.measured.metric for one in log.trend(ALL, 0, digest)} for digest in (FIRST, SECOND)}
    assert Metric.MISSED in metrics[FIRST]
    assert Metric.MISSED not in metrics[SECOND]
    assert Metric.AUC in metrics[SECOND]


def test_an_empty_window_is_known_to_be_measured() -> None:
    log, clock = FakePerformanceLog(), FakeClock(MATURE_US)
    check = PerformanceCheck(FakeLabelledWindows(), log, clock)
    assert check.check_due()["windows"] == 1
    assert check.check_due()["windows"] == 0
    (one,) = log.kept.values()
    assert (one.bundle_digest, one.measured.value) == (NOTHING, None)
    assert one.measured.note


def test_a_fault_leaves_the_window_to_the_next_run() -> None:
    windows, log = FakeLabelledWindows({FIRST: rows_of(50)}, fault=Transient("down")), FakePerformanceLog()
    check = PerformanceCheck(windows, log, FakeClock(MATURE_US))
    with pytest.raises(Transient):
        check.check_due()
    windows.fault = None
    assert check.check_due()["windows"] == 1


def test_who_has_no_time_left_leaves_windows_to_the_next_run() -> None:
    log, clock = FakePerformanceLog(), FakeClock(MATURE_US)
    ticks = itertools.count(0.0, BUDGET_S / 3 + 1)
    check = PerformanceCheck(FakeLabelledWindows(), log, clock, monotonic_s=lambda: next(ticks))
    check.check_due()
    clock.time_us += 5 * US_PER_DAY
    found = [check.check_due() for _ in range(3)]
    assert [(one["windows"], one["behind"]) for one in found] == [(2, 3), (2, 1), (1, 0)]
    ends = sorted({one.end_us for one in log.kept.values()})
    assert ends == [WEEK_END_US + day * US_PER_DAY for day in range(6)]


def test_a_run_ends_before_the_host_ends_it() -> None:
    host = json.loads((Path(__file__).parents[3] / "functions" / "drift" / "host.json").read_text(encoding="utf-8"))
    hours, minutes, seconds = map(int, host["functionTimeout"].split(":"))
    assert hours * 3600 + minutes * 60 + seconds > BUDGET_S + 2 * READ_S


@given(st.lists(st.integers(0, 20 * US_PER_DAY), min_size=1, max_size=12))
def test_whenever_the_timer_fires_windows_end_at_midnight_and_none_is_measured_early(firings: list[int]) -> None:
    log, clock = FakePerformanceLog(), FakeClock(MATURE_US)
    check = PerformanceCheck(FakeLabelledWindows(), log, clock)
    last_us = None
    for at_us in sorted(firings):
        clock.time_us = MATURE_US + at_us
        check.check_due()
        ends = sorted({one.end_us for one in log.kept.values()})
        assert all(end_us % US_PER_DAY == 0 for end_us in ends)
        assert ends[-1] + MATURITY_US + SETTLING_US <= clock.time_us < ends[-1] + MATURITY_US + SETTLING_US + US_PER_DAY
        new = [end_us for end_us in ends if last_us is None or end_us > last_us]
        assert len(new) <= (1 if last_us is None else MAX_CATCH_UP)
        last_us = ends[-1]
