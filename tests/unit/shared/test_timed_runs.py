"""Firings of timers, noted by slot or sampled."""

from __future__ import annotations

from collections import Counter
from threading import Thread
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import Transient
from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND
from shared.domain.pipeline import Evidence, RunStatus, slot_of
from shared.services.timed_runs import FAILURE_SLOT_US, TASK, TimedRuns
from tests.fakes.pipelines import FakePipelineLog
from tests.fakes.probes import FakeClock

HOUR: Final = 472_222 * US_PER_HOUR


class Bench:
    """A log, a clock that both kinds of time follow, and what is under test."""

    def __init__(self, log: FakePipelineLog | None = None, process: str = "p1") -> None:
        self.log = log or FakePipelineLog()
        self.clock = FakeClock(HOUR)
        self.released = 0
        self.runs = TimedRuns(
            self.log, self.clock, process, release=self._release, monotonic_s=lambda: self.clock.time_us / 1e6
        )

    def _release(self) -> None:
        self.released += 1

    def work(self, rows: int = 3, takes_s: int = 2) -> Evidence:
        self.clock.time_us += takes_s * US_PER_SECOND
        return {"rows": rows, "words": "not a number"}

    def fail(self) -> Evidence:
        self.clock.time_us += US_PER_SECOND
        raise Transient("the hub is down")


def test_a_firing_is_noted_with_its_slot_duration_and_rows() -> None:
    bench = Bench()
    bench.clock.time_us += 90 * US_PER_SECOND
    assert bench.runs.run("maturing", US_PER_HOUR, bench.work)["rows"] == 3
    (run,) = bench.log.runs.values()
    assert (run.run_id, run.pipeline, run.status) == (slot_of("maturing", HOUR), "maturing", RunStatus.DONE)
    assert run.ended_at_us == run.started_at_us + 2 * US_PER_SECOND == HOUR + 92 * US_PER_SECOND
    assert run.details == {"rows": 3, "words": "not a number"}
    assert bench.log.metrics == {(run.run_id, TASK, "rows"): 3.0, (run.run_id, TASK, "seconds"): 2.0}
    assert bench.released == 2


def test_a_slot_that_is_done_is_worked_again_and_noted_once() -> None:
    bench = Bench()
    bench.runs.run("maturing", US_PER_HOUR, bench.work)
    assert bench.runs.run("maturing", US_PER_HOUR, lambda: bench.work(7))["rows"] == 7
    assert [run.details["rows"] for run in bench.log.runs.values()] == [3]
    bench.clock.time_us = HOUR + US_PER_HOUR
    bench.runs.run("maturing", US_PER_HOUR, bench.work)
    assert len(bench.log.runs) == 2


def test_a_slot_that_failed_or_was_killed_is_noted_as_another_attempt() -> None:
    bench = Bench()

    def killed() -> Evidence:
        raise KeyboardInterrupt

    with pytest.raises(Transient):
        bench.runs.run("quality", US_PER_HOUR, bench.fail)
    with pytest.raises(KeyboardInterrupt):
        bench.runs.run("quality", US_PER_HOUR, killed)
    bench.runs.run("quality", US_PER_HOUR, bench.work)
    slot = slot_of("quality", HOUR)
    assert [(run.run_id, run.status, run.error) for run in bench.log.runs.values()] == [
        (slot, RunStatus.FAILED, "the hub is down"),
        (f"{slot}/2", RunStatus.RUNNING, ""),
        (f"{slot}/3", RunStatus.DONE, ""),
    ]


def test_of_errors_that_are_not_ours_only_the_class_is_kept() -> None:
    bench = Bench()

    def leak() -> Evidence:
        raise ValueError("customer c-17")

    with pytest.raises(ValueError, match="c-17"):
        bench.runs.run("quality", US_PER_HOUR, leak)
    (run,) = bench.log.runs.values()
    assert run.error == "ValueError"


def test_a_log_that_is_down_stops_no_work(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(FakePipelineLog(fault=Transient("down")))
    assert bench.runs.run("quality", US_PER_HOUR, bench.work)["rows"] == 3
    assert bench.runs.sample("publishing", bench.work)["rows"] == 3
    assert "a run could not be noted" in caplog.text
    assert bench.released > 0


def test_a_timer_of_every_five_seconds_makes_two_rows_an_hour() -> None:
    bench = Bench()
    for _ in range(2 * 720):
        before_us = bench.clock.time_us
        bench.runs.sample("publishing", lambda: bench.work(10, 1))
        bench.clock.time_us = before_us + 5 * US_PER_SECOND
    bench.runs.sample("publishing", lambda: bench.work(10, 1))
    runs = list(bench.log.runs.values())
    assert [run.run_id for run in runs] == [
        slot_of("publishing", HOUR),
        slot_of("publishing", HOUR) + "/p1",
        slot_of("publishing", HOUR + US_PER_HOUR),
        slot_of("publishing", HOUR + US_PER_HOUR) + "/p1",
        slot_of("publishing", HOUR + 2 * US_PER_HOUR),
    ]
    assert runs[1].details == {
        "sum": True,
        "firings": 720.0,
        "failures": 0.0,
        "longest_s": 1.0,
        "seconds": 720.0,
        "rows": 7200.0,
    }
    assert (runs[1].started_at_us, runs[1].ended_at_us) == (HOUR, HOUR + US_PER_HOUR)


def test_failures_of_a_sampled_timer_are_noted_but_do_not_flood() -> None:
    bench = Bench()
    bench.runs.sample("publishing", bench.work)
    for _ in range(700):
        with pytest.raises(Transient):
            bench.runs.sample("publishing", bench.fail)
        bench.clock.time_us += 4 * US_PER_SECOND
    failed = [run for run in bench.log.runs.values() if run.status is RunStatus.FAILED]
    assert len(failed) == -(-700 * 5 * US_PER_SECOND // FAILURE_SLOT_US)
    bench.clock.time_us = HOUR + US_PER_HOUR
    bench.runs.sample("publishing", bench.work)
    sums = [run.details for run in bench.log.runs.values() if "sum" in run.details]
    assert [(one["firings"], one["failures"]) for one in sums] == [(701.0, 700.0)]


def test_two_processes_share_a_sample_and_have_a_sum_each() -> None:
    log = FakePipelineLog()
    benches = [Bench(log, name) for name in ("a", "b")]
    for hour in range(2):
        for bench in benches:
            bench.clock.time_us = HOUR + hour * US_PER_HOUR
            bench.runs.sample("sealing", bench.work)
    ids = Counter(run.run_id.removeprefix(slot_of("sealing", HOUR)) for run in log.runs.values())
    assert set(ids) == {"", "/a", "/b", slot_of("sealing", HOUR + US_PER_HOUR)}


def test_threads_lose_no_firing() -> None:
    bench = Bench()
    threads = [
        Thread(target=lambda: [bench.runs.sample("sealing", lambda: {"rows": 1}) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.clock.time_us += US_PER_HOUR
    bench.runs.sample("sealing", bench.work)
    (whole,) = [run.details for run in bench.log.runs.values() if "sum" in run.details]
    assert (whole["firings"], whole["rows"]) == (200.0, 200.0)


@given(
    st.lists(st.tuples(st.integers(0, 5 * US_PER_HOUR), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([US_PER_MINUTE, US_PER_HOUR, US_PER_DAY]),
)
def test_each_slot_has_at_most_one_run_that_is_done(firings: list[tuple[int, bool]], every_us: int) -> None:
    bench = Bench()
    for at_us, fails in sorted(firings):
        bench.clock.time_us = HOUR + at_us
        try:
            bench.runs.run("quality", every_us, bench.fail if fails else bench.work)
        except Transient:
            assert fails
    done = Counter(run.started_at_us // every_us for run in bench.log.runs.values() if run.status is RunStatus.DONE)
    assert set(done.values()) <= {1}
    assert set(done) == {(HOUR + at_us) // every_us for at_us, fails in firings if not fails}
