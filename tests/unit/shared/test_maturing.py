"""How the maturing run goes through time: every span once, nothing passed over, no longer than it may."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.postgres_maturing import SESSION
from shared.adapters.postgres_session import TIMEOUTS
from shared.domain.decision import Policy
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.labels import MATURITY_US
from shared.domain.pipeline import Run, RunStatus
from shared.domain.transaction import FUTURE_TOLERANCE_US
from shared.entrypoints.maturing_timers import MaturingParts, mature, maturing_timers
from shared.ports.maturing import Silent
from shared.services import maturing
from shared.services.labelling import Labelling
from shared.services.maturing import PIPELINE, Maturing
from shared.services.scoring import Scoring
from shared.services.timed_runs import TimedRuns
from tests.fakes.ledger import FakeLedger, Tables
from tests.fakes.maturing import FakeSilentTransactions
from tests.fakes.pipelines import FakePipelineLog
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers
from tests.unit.domain.worlds import BASE_US, transaction
from tests.unit.shared.test_scoring import KEYS


@dataclass
class Moments:
    """Recorded times of decisions; a label that is recorded takes its decision away."""

    times: list[int]
    labelled: set[str] = field(default_factory=set)
    asked: int = 0

    def first_us(self) -> int | None:
        return min(self.times, default=None)

    def recorded(self, start_us: int, end_us: int, limit: int) -> Sequence[Silent]:
        self.asked += 1
        waiting = [(time_us, f"t{place}") for place, time_us in enumerate(self.times)]
        found = sorted(item for item in waiting if start_us <= item[0] < end_us and item[1] not in self.labelled)
        return [Silent(TransactionId(name), time_us) for time_us, name in found[:limit]]


class Noted(Labelling):
    """Records into a set, without a ledger."""

    def __init__(self, moments: Moments) -> None:
        super().__init__(FakeLedger(), KEYS, FakeClock())
        self._moments = moments

    def record(self, labels: Any) -> Any:
        self._moments.labelled |= {label.transaction_id for label in labels}
        # Nobody knows the transactions here, so the ledger lets their labels wait; that is not counted.
        return super().record(labels)


NOW_US = BASE_US + 400 * US_PER_DAY
END_US = NOW_US - MATURITY_US - FUTURE_TOLERANCE_US


@given(st.lists(st.integers(BASE_US, NOW_US) | st.integers(END_US - 3, END_US + 3), max_size=30))
def test_everything_before_the_edge_is_labelled_and_nothing_after_it(times: list[int]) -> None:
    moments = Moments(times)
    run = Maturing(moments, Noted(moments), FakePipelineLog(), FakeClock(NOW_US))
    found = run.mature()
    assert moments.labelled == {f"t{place}" for place, time_us in enumerate(times) if time_us < END_US}
    assert found["behind_s"] == 0
    assert moments.asked < 120  # a year of silence is passed over in weeks and not in minutes


@pytest.mark.parametrize("apart_us", [0, 1, 1_000_000])
def test_more_than_a_page_is_taken_page_by_page(apart_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maturing, "PAGE", 10)
    ledger = FakeLedger(Tables())
    items = [transaction(number, number * apart_us, customer="c") for number in range(35)]
    log, clock = FakePipelineLog(), FakeClock(NOW_US)
    Scoring(ledger, FixedScorers(), policy=Policy(0.999, 1.0), keys=KEYS, clock=clock).decide(items)
    labelling = Labelling(ledger, KEYS, clock)
    found = Maturing(FakeSilentTransactions(ledger.tables), labelling, log, clock).mature()
    assert found["rows"] == len(ledger.tables.labels) == 35


def test_a_run_stops_when_its_time_is_up_and_the_next_one_goes_on() -> None:
    moments = Moments([BASE_US + day * US_PER_DAY for day in range(300)])
    log, clock, ticks = FakePipelineLog(), FakeClock(NOW_US), iter(range(10_000))
    runs = TimedRuns(log, clock, "p")
    counts = []
    for _ in range(40):
        run = Maturing(moments, Noted(moments), log, clock, budget_s=34, monotonic_s=lambda: float(next(ticks)))
        found = runs.run(PIPELINE, maturing.EVERY_US, run.mature)
        counts.append(len(moments.labelled))
        clock.time_us += US_PER_HOUR
        if found["behind_s"] == 0:
            break
    assert counts == sorted(counts)
    assert len(counts) > 3
    assert counts[-1] == 300


def test_a_look_that_was_slow_is_not_followed_by_hundreds_of_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look may begin just before the time is up and bring a whole page."""
    monkeypatch.setattr(maturing, "BATCH", 2)
    moments, seconds = Moments([BASE_US + number for number in range(20)]), [0.0]

    class Slow(Noted):
        def record(self, labels: Any) -> Any:
            seconds[0] += 45.0
            return super().record(labels)

    class SlowMoments(Moments):
        def recorded(self, start_us: int, end_us: int, limit: int) -> Sequence[Silent]:
            seconds[0] += 90.0
            return super().recorded(start_us, end_us, limit)

    slow, log = SlowMoments(moments.times), FakePipelineLog()
    ended: list[float] = []
    for hour in range(60):
        seconds[0] = 0.0
        run = Maturing(slow, Slow(slow), log, FakeClock(NOW_US + hour * US_PER_HOUR), monotonic_s=lambda: seconds[0])
        TimedRuns(log, FakeClock(NOW_US + hour * US_PER_HOUR), "p").run(PIPELINE, maturing.EVERY_US, run.mature)
        ended.append(seconds[0])
        if len(slow.labelled) == 20:
            break
    assert max(ended) <= maturing.BUDGET_S + 90.0
    assert len(slow.labelled) == 20, "each run comes further"


def test_a_run_ends_before_the_host_ends_it() -> None:
    host = json.loads((Path(__file__).parents[3] / "functions" / "ingest" / "host.json").read_text(encoding="utf-8"))
    hours, minutes, seconds = map(int, host["functionTimeout"].split(":"))
    look_s = int(SESSION["statement_timeout"].removesuffix("s"))
    noting_s = 3 * int(TIMEOUTS["statement_timeout"].removesuffix("s"))
    assert maturing.BUDGET_S + look_s + noting_s < hours * 3600 + minutes * 60 + seconds


def test_where_the_last_run_that_was_done_stopped_is_where_the_next_one_begins() -> None:
    moments = Moments([BASE_US, BASE_US + US_PER_DAY])
    log = FakePipelineLog()
    log.begin(Run("a", PIPELINE, RunStatus.DONE, 1, 2, details={"recorded_until_us": BASE_US + 1}))
    log.begin(Run("b", PIPELINE, RunStatus.FAILED, 3, 4, "down"))
    Maturing(moments, Noted(moments), log, FakeClock(NOW_US)).mature()
    assert moments.labelled == {"t1"}


def test_without_decisions_there_is_nothing_to_do() -> None:
    moments = Moments([])
    found = Maturing(moments, Noted(moments), FakePipelineLog(), FakeClock(NOW_US)).mature()
    assert (found["rows"], found["recorded_until_us"]) == (0, END_US)


def test_the_timer_says_what_came_of_it(caplog: pytest.LogCaptureFixture) -> None:
    class Timer(func.TimerRequest):
        past_due = False

    log = FakePipelineLog()
    parts = MaturingParts(lambda: {"rows": 4, "behind_s": 0}, TimedRuns(log, FakeClock(), "p"))
    with caplog.at_level("INFO", logger="shared"):
        mature(Timer(), parts)
    assert '"rows":4' in caplog.text
    assert [run.pipeline for run in log.runs.values()] == [PIPELINE]
    (function,) = maturing_timers(lambda: parts)._function_builders
    assert function._function.get_function_name() == "mature_labels"
