"""What a service is told that adds up by itself, on fakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import Transient
from shared.ports.metering import CountsRow
from shared.services.metering import CONFIDENCE, LAYOUT, PREDICTIONS, REPLAYS, Meters, Sample
from shared.services.readings import Watching
from shared.services.telling import AGAIN_US, Telling
from tests.fakes.counts import FakeCells, FakeCounts
from tests.fakes.probes import FakeClock

CHAMPION = "tollgate_champion_present"


class FakeTeller:
    """Adds up counters as the service would, and keeps the last readings."""

    def __init__(self) -> None:
        self.added: Counter[str] = Counter()
        self.readings: list[Sample] = []
        self.error: Exception | None = None

    def tell(self, added: Sequence[Sample], readings: Sequence[Sample]) -> None:
        if self.error is not None:
            raise self.error
        for sample in added:
            self.added["/".join((sample.name, *(value for _, value in sample.labels)))] += sample.value  # type: ignore[assignment]  # a sum of seconds
        self.readings = list(readings)


class FakeReadings:
    def __init__(self) -> None:
        self.champion = 1.0
        self.replays: list[Sample] = []

    def read(self, now_us: int) -> Sequence[Sample]:
        return [Sample(CHAMPION, (), self.champion), *self.replays]

    def fold(self, now_us: int) -> int:
        del now_us
        return 0


class Bench:
    def __init__(self) -> None:
        self.store, self.clock, self.teller = FakeCounts(), FakeClock(), FakeTeller()
        self.readings, self.cells = FakeReadings(), FakeCells()
        self.meters = Meters(self.cells)
        self.telling = self.process()

    def process(self) -> Telling:
        return Telling(Watching(self.store, self.readings, self.clock), self.store, self.teller, self.clock)

    def write(self) -> None:
        self.store.put(CountsRow("score", "w", LAYOUT, self.cells.own(), 0, self.clock.time_us), known=False)


def test_what_was_added_is_told_once_and_bins_do_not_add_up() -> None:
    bench = Bench()
    bench.meters.count(PREDICTIONS, "decline", by=2)
    bench.meters.record(CONFIDENCE, 0.59375)
    bench.meters.record(CONFIDENCE, 0.96875)
    bench.write()
    bench.telling.tell()
    assert bench.teller.added == {
        "model_predictions_total/score/decline": 2,
        "model_prediction_confidence_bucket/score/0.6": 1,
        "model_prediction_confidence_bucket/score/0.99": 1,
        "model_prediction_confidence_sum/score": 1.5625,
        "model_prediction_confidence_count/score": 2,
    }
    assert bench.telling.tell() == (0, 0)
    bench.meters.count(PREDICTIONS, "decline")
    bench.write()
    assert bench.process().tell() == (1, 1), "another process goes on where the last one ended"
    assert bench.teller.added["model_predictions_total/score/decline"] == 3


def test_readings_are_told_when_they_change_and_every_ten_minutes() -> None:
    bench = Bench()
    assert bench.telling.tell() == (0, 1)
    assert bench.telling.tell() == (0, 0)
    bench.readings.champion = 0
    assert bench.telling.tell() == (0, 1)
    bench.clock.time_us += AGAIN_US
    assert bench.telling.tell() == (0, 1)
    assert bench.teller.readings == [Sample(CHAMPION, (), 0)]


def test_replays_that_the_database_knows_of_are_told_as_what_was_added() -> None:
    bench = Bench()
    for total in (0.0, 2.0, 2.0, 3.0):
        bench.readings.replays = [Sample(REPLAYS.name, (("app", "retrain"), ("verdict", "different")), total)]
        bench.process().tell()
        assert bench.teller.added["tollgate_replays_total/retrain/different"] == total
    assert [sample.name for sample in bench.teller.readings] == [CHAMPION]


def test_what_was_not_taken_is_told_again() -> None:
    bench = Bench()
    bench.meters.count(PREDICTIONS, "review", by=5)
    bench.write()
    bench.teller.error = Transient("away")
    with pytest.raises(Transient):
        bench.telling.tell()
    bench.teller.error = None
    bench.telling.tell()
    assert bench.teller.added == {"model_predictions_total/score/review": 5}
    assert [sample.name for sample in bench.teller.readings] == [CHAMPION]


def test_counts_that_began_anew_are_told_from_nought() -> None:
    bench = Bench()
    bench.meters.count(PREDICTIONS, "review", by=5)
    bench.write()
    bench.telling.tell()
    bench.cells.cells = FakeCells().cells
    bench.meters.count(PREDICTIONS, "review", by=2)
    bench.write()
    bench.telling.tell()
    assert bench.teller.added == {"model_predictions_total/score/review": 7}


@given(st.lists(st.sampled_from(["count", "write", "tell", "fail", "fold", "restart"]), max_size=30))
def test_the_service_ends_with_what_was_written(steps: list[str]) -> None:
    bench = Bench()
    written = 0.0
    for step in steps:
        bench.clock.time_us += 1
        match step:
            case "count":
                bench.meters.count(PREDICTIONS, "approve")
            case "write":
                bench.write()
                written = bench.cells.cells[bench.cells.cells.index(max(bench.cells.cells))]
            case "tell":
                bench.telling.tell()
            case "fail":
                bench.teller.error = Transient("away")
                with pytest.raises(Transient):
                    bench.process().tell()
                bench.teller.error = None
            case "restart":
                bench.telling = bench.process()
            case "fold":
                bench.store.fold(0, bench.clock.time_us)
    bench.telling.tell()
    assert sum(bench.teller.added.values()) == written
