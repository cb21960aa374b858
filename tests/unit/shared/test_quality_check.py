"""Windows that are due, who is told, and whether the feed can be trusted, on fakes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import azure.functions as func
import pytest

from shared.domain.data_quality import ANNOUNCED, WEEK_US, WINDOW_US, FeedFacts, LetterKind
from shared.domain.errors import Transient
from shared.domain.instants import US_PER_MINUTE
from shared.domain.pipeline import Severity
from shared.domain.quality_rules import RULES, VOLUME
from shared.entrypoints.quality_timers import QualityParts, check, measure, quality_timers
from shared.services import performance_check
from shared.services.quality_check import MAX_CATCH_UP, PIPELINE, SETTLING_US, QualityCheck
from shared.services.timed_runs import TimedRuns
from tests.fakes.notices import FakeNotices
from tests.fakes.pipelines import FakePipelineLog
from tests.fakes.probes import FakeClock
from tests.fakes.quality import FakeFeedWindows, FakeQualityLog

START_US = 2_900 * WEEK_US


def quiet(start_us: int, end_us: int) -> FeedFacts:
    return FeedFacts(start_us, end_us, transactions=400, median_amount_minor=2_500.0, labels=9)


@dataclass
class Bench:
    """A check at the beginning of a week, with norms."""

    feed: FakeFeedWindows = field(default_factory=lambda: FakeFeedWindows(otherwise=quiet))
    log: FakeQualityLog = field(default_factory=FakeQualityLog)
    notices: FakeNotices = field(default_factory=FakeNotices)
    clock: FakeClock = field(default_factory=lambda: FakeClock(START_US + SETTLING_US))

    @property
    def check(self) -> QualityCheck:
        return QualityCheck(self.feed, self.log, self.notices, self.clock)

    def with_norms(self, weeks: int = 4) -> Bench:
        """Weeks of the hours that the tests look at, as if they had been checked."""
        for week in range(1, weeks + 1):
            for hour in range(-30, 12):
                start_us = START_US - week * WEEK_US + hour * WINDOW_US
                self._record(start_us)
        for hour in range(-30, 0):
            self._record(START_US + hour * WINDOW_US)
        return self

    def _record(self, start_us: int) -> None:
        facts = quiet(start_us, start_us + WINDOW_US)
        check = self.check
        self.feed.by_start.setdefault(start_us, facts)
        found, _ = check._check(start_us, start_us + WINDOW_US)
        assert all(one.passed for one in found)

    def breaks(self, start_us: int, **changed: object) -> None:
        self.feed.by_start[start_us] = replace(quiet(start_us, start_us + WINDOW_US), **changed)  # type: ignore[arg-type]

    def titles(self) -> list[str]:
        return [row.notice.title for row in self.notices.rows]


def test_the_first_run_checks_the_last_window_and_the_next_ones_what_has_passed() -> None:
    bench = Bench()
    assert bench.check.check_due() == {"windows": 1, "failed": 0, "rows": 409}
    assert bench.check.check_due()["windows"] == 0
    assert len(bench.log.kept) == len(RULES)
    bench.clock.time_us += 3 * WINDOW_US
    assert bench.check.check_due()["windows"] == 3
    bench.clock.time_us += 1_000 * WINDOW_US
    assert bench.check.check_due()["windows"] == MAX_CATCH_UP
    starts = {key[2] for key in bench.log.kept}
    assert len(starts) == 1 + 3 + MAX_CATCH_UP


def test_a_window_is_left_alone_until_it_has_settled() -> None:
    bench = Bench()
    bench.check.check_due()
    bench.clock.time_us = START_US + WINDOW_US + SETTLING_US - 1
    assert bench.check.check_due()["windows"] == 0
    bench.clock.time_us += 1
    assert bench.check.check_due()["windows"] == 1


def test_a_failure_is_told_once_for_each_rule_and_day() -> None:
    bench = Bench().with_norms()
    for hour in range(3):
        bench.breaks(START_US + hour * WINDOW_US, transactions=0, median_amount_minor=None)
    bench.clock.time_us = START_US + 3 * WINDOW_US + SETTLING_US
    assert bench.check.check_due()["failed"] == 3
    (row,) = bench.notices.rows
    assert row.notice.dedup_key.startswith("quality/volume/")
    assert row.notice.severity is Severity.ERROR
    assert "times the norm of 400" in row.notice.title
    assert row.notice.evidence["norm"] == 400


def test_what_only_deserves_a_look_is_a_warning() -> None:
    bench = Bench().with_norms()
    bench.breaks(START_US, letters={LetterKind.MISSING: 40})
    bench.clock.time_us = START_US + WINDOW_US + SETTLING_US
    bench.check.check_due()
    assert [row.notice.severity for row in bench.notices.rows] == [Severity.WARNING]
    assert bench.check.broken(START_US, START_US + WINDOW_US) == ""


def test_a_broken_feed_says_why_for_its_windows_and_for_no_others() -> None:
    bench = Bench().with_norms()
    bench.breaks(START_US + WINDOW_US, most_frequent_amount=400)
    bench.clock.time_us = START_US + 3 * WINDOW_US + SETTLING_US
    # Nothing was checked yet: asking checks what is due.
    words = bench.check.broken(START_US, START_US + 3 * WINDOW_US)
    assert "equal amount is 100.0% of 400" in words
    assert words.count(";") == 0
    assert bench.check.broken(START_US + WINDOW_US + 5, START_US + WINDOW_US + 6) == words
    assert bench.check.broken(START_US, START_US + WINDOW_US) == ""
    assert bench.check.broken(START_US + 2 * WINDOW_US, START_US + 3 * WINDOW_US) == ""


def test_an_announced_change_of_volume_is_no_failure_but_a_standstill_is() -> None:
    bench = Bench().with_norms()
    bench.feed.announcements = [("volume", START_US, START_US + 5 * WINDOW_US)]
    bench.breaks(START_US, transactions=1_600)
    bench.breaks(START_US + WINDOW_US, transactions=3)
    bench.clock.time_us = START_US + 2 * WINDOW_US + SETTLING_US
    assert bench.check.check_due()["failed"] == 1
    excused = bench.log.kept[VOLUME.source, VOLUME.name, START_US, START_US + WINDOW_US]
    assert excused.passed
    assert excused.words.startswith(ANNOUNCED)
    assert bench.check.broken(START_US, START_US + 2 * WINDOW_US)


def test_a_run_that_dies_tells_again_and_marks_nothing() -> None:
    bench = Bench().with_norms()
    bench.breaks(START_US, transactions=0, median_amount_minor=None)
    bench.clock.time_us = START_US + WINDOW_US + SETTLING_US
    before = len(bench.log.kept)
    bench.notices.fault = Transient("down")
    with pytest.raises(Transient):
        bench.check.check_due()
    assert len(bench.log.kept) == before
    assert bench.check.check_due()["failed"] == 1
    assert len(bench.notices.rows) == 1


def test_the_timer_says_what_came_of_it(caplog: pytest.LogCaptureFixture) -> None:
    class Timer(func.TimerRequest):
        past_due = False

    bench, log = Bench(), FakePipelineLog()
    bench.clock.time_us += US_PER_MINUTE
    parts = QualityParts(bench.check.check_due, lambda: {"windows": 4}, TimedRuns(log, bench.clock, "p"))
    with caplog.at_level("INFO", logger="shared"):
        check(Timer(), parts)
        measure(Timer(), parts)
    assert '"windows":1' in caplog.text
    assert '"windows":4' in caplog.text
    assert [run.pipeline for run in log.runs.values()] == [PIPELINE, performance_check.PIPELINE]
    functions = quality_timers(lambda: parts)._function_builders
    names = [one._function.get_function_name() for one in functions]
    assert names == ["check_quality", "measure_performance"]
