"""One scrape of everything, on fakes."""

from __future__ import annotations

from collections.abc import Sequence

import azure.functions as func

from shared.domain.errors import Transient
from shared.entrypoints.metrics_routes import scrape
from shared.ports.metering import CountsRow
from shared.services.metering import LAYOUT, PREDICTIONS, REPLAYS, Meters, Sample
from shared.services.readings import FOLD_AFTER_US, KINDS, Watching
from tests.fakes.counts import FakeCells, FakeCounts
from tests.fakes.probes import FakeClock


class FakeReadings:
    def __init__(self, *told: Sample) -> None:
        self.told = told

    def read(self, now_us: int) -> Sequence[Sample]:
        return self.told

    def fold(self, now_us: int) -> int:
        del now_us
        return 0


def counted(app: str, writer: str, store: FakeCounts, number: int, at: int = 0) -> None:
    cells = FakeCells()
    Meters(cells).count(PREDICTIONS, "decline", by=number)
    store.put(CountsRow(app, writer, LAYOUT, cells.own(), at, at), known=False)


def lines(answer: func.HttpResponse) -> list[str]:
    return answer.get_body().decode().splitlines()


def test_a_scrape_tells_of_all_writers_and_of_what_was_read() -> None:
    store, clock = FakeCounts(), FakeClock()
    for app, writer, number in (("score", "a", 2), ("score", "b", 3), ("ingest", "c", 7)):
        counted(app, writer, store, number)
    field = Sample("tollgate_dead_letters_total", (("hub", "h"), ("field", 'a "field"\n\\')), 2.0)
    watching = Watching(store, FakeReadings(field), clock)
    told = lines(scrape(watching))
    assert 'model_predictions_total{app="score",decision="decline"} 5.0' in told
    assert 'model_predictions_total{app="ingest",decision="decline"} 7.0' in told
    assert 'api_request_duration_seconds_count{app="score",route="score"} 0.0' in told
    assert r'tollgate_dead_letters_total{hub="h",field="a \"field\"\n\\"} 2.0' in told
    assert told.count("# TYPE tollgate_dead_letters_total counter") == 1
    assert not any(line.startswith("# TYPE tollgate_notices") for line in told), "nothing to tell"
    clock.time_us += FOLD_AFTER_US
    assert watching.fold() == 3
    assert lines(scrape(watching)) == told


def test_replays_that_the_database_knows_of_are_added_to_those_that_were_counted() -> None:
    store, cells = FakeCounts(), FakeCells()
    Meters(cells).count(REPLAYS, "different", by=2)
    store.put(CountsRow("score", "w", LAYOUT, cells.own(), 0, 0), known=False)
    noted = [
        Sample(REPLAYS.name, (("app", app), ("verdict", "different")), value)
        for app, value in (("retrain", 3.0), ("score", 40.0))
    ]
    told = lines(scrape(Watching(store, FakeReadings(*noted), FakeClock())))
    assert told.count("# TYPE tollgate_replays_total counter") == 1
    assert [line for line in told if line.startswith("tollgate_replays_total") and "different" in line] == [
        'tollgate_replays_total{app="retrain",verdict="different"} 3.0',
        'tollgate_replays_total{app="score",verdict="different"} 42.0',
    ]
    assert not [line for line in told if 'app="retrain"' in line and not line.startswith("tollgate_replays_total")]


def test_names_follow_the_rules_of_prometheus() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert all(kind.name.endswith("_total") == (kind.kind == "counter") for kind in KINDS)


def test_a_database_that_is_away_is_a_target_that_is_down() -> None:
    store = FakeCounts()
    store.error = Transient("away")
    answer = scrape(Watching(store, FakeReadings(), FakeClock()))
    assert answer.status_code == 503
