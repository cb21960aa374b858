"""What has expired is deleted in pieces, within a time, all kinds one after the other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import azure.functions as func
import pytest

from shared.domain.instants import US_PER_DAY
from shared.domain.retention import Expiring, Keeping
from shared.entrypoints.expiry_timers import ExpiryParts, expire, expiry_timers
from shared.ports.retention import Expired
from shared.services.expiring import PIPELINE, Expiry
from shared.services.timed_runs import TimedRuns
from tests.fakes.pipelines import FakePipelineLog
from tests.fakes.probes import FakeClock


@dataclass
class FakeRows:
    """So many rows have expired of each kind."""

    waiting: Counter[Expiring] = field(default_factory=Counter)
    asked: list[tuple[Expiring, int, int]] = field(default_factory=list)

    def delete(self, what: Expiring, before_us: int, limit: int) -> Expired:
        self.asked.append((what, before_us, limit))
        count = min(limit, self.waiting[what])
        self.waiting[what] -= count
        return Expired({what.value: count}, more=count == limit)


def test_every_kind_is_asked_for_by_its_time_until_nothing_is_left() -> None:
    rows = FakeRows(Counter({Expiring.DRIFT: 25, Expiring.SHADOW_SCORES: 10}))
    clock, keeping = FakeClock(), Keeping(shadow_days=200)
    done = Expiry(rows, keeping, clock, batch=10).expire()
    assert done["drift"] == 25
    assert done["shadow scores"] == 10
    assert (done["rows"], done["behind"]) == (35, 0)
    assert list(dict.fromkeys(what for what, _, _ in rows.asked)) == list(Expiring)
    assert {before_us for what, before_us, _ in rows.asked if what is Expiring.SHADOW_SCORES} == {
        clock.now_us() - 200 * US_PER_DAY
    }
    assert {limit for _, _, limit in rows.asked} == {10}
    assert Expiry(rows, keeping, clock, batch=10).expire()["rows"] == 0


def test_the_timer_says_what_was_deleted(caplog: pytest.LogCaptureFixture) -> None:
    class Timer(func.TimerRequest):
        past_due = False

    rows, log, clock = FakeRows(Counter({Expiring.DRIFT: 7})), FakePipelineLog(), FakeClock()
    parts = ExpiryParts(Expiry(rows, Keeping(), clock).expire, TimedRuns(log, clock, "p"))
    with caplog.at_level("INFO", logger="shared"):
        expire(Timer(), parts)
        expire(Timer(), parts)
    assert '"drift":7' in caplog.text
    ((run_id, run),) = log.runs.items()
    assert (run.pipeline, run.details["rows"]) == (PIPELINE, 7)
    assert log.metrics[run_id, "run", "drift"] == 7
    (function,) = expiry_timers(lambda: parts)._function_builders
    assert function._function.get_function_name() == "expire_rows"


def test_a_run_stops_in_time_and_the_next_one_goes_on() -> None:
    rows = FakeRows(Counter({Expiring.SHADOW_SCORES: 100}))
    seconds = iter(range(1_000))
    use = Expiry(rows, Keeping(), FakeClock(), batch=10, budget_s=14.5, monotonic_s=lambda: float(next(seconds)))
    done = [use.expire() for _ in range(3)]
    assert [one["behind"] for one in done] == [1, 1, 0]
    assert sum(int(str(one["rows"])) for one in done) == 100
    assert all(int(str(one["rows"])) <= 60 for one in done)
