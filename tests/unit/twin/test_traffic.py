"""Schedules, percentiles, counts and lanes of `tollgate traffic`."""

from __future__ import annotations

import http.server
import io
import json
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from azure.eventhub import EventData
from azure.eventhub.exceptions import EventHubError
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from shared.domain.errors import InvalidInput
from shared.domain.event import parse_object
from shared.domain.instants import US_PER_SECOND
from shared.domain.transaction import Acceptance, Transaction, parse_transaction
from simulator.wire import Sending, WireEvent
from twin import traffic_senders
from twin.cli import app
from twin.traffic import summary, table
from twin.traffic_schedule import Profile, Stage, Traffic, goes_over_http, profile_of
from twin.traffic_senders import HttpLane, HubLane, Lane, Target
from twin.traffic_statistics import GROWTH, SMALLEST_MS, Answer, Latencies, Statistics, is_expected

if TYPE_CHECKING:
    from azure.eventhub import EventHubProducerClient

NOW_US = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()) * US_PER_SECOND
FLAT = (1.0,) * 24

profiles = st.builds(
    Profile,
    seconds=st.floats(0.1, 100),
    tps=st.floats(0.1, 50),
    factors=st.lists(st.floats(0, 10), min_size=1, max_size=30).map(tuple),
)


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage(3, date(2026, 11, 20))


def read(sent: WireEvent) -> Transaction:
    """What the product makes of it at the moment of sending."""
    return parse_transaction(parse_object(sent.body), Acceptance("EUR", sent.sent_at_us))


def offsets(profile: Profile, seed: int) -> list[float]:
    return [at for chunk in profile.arrivals(np.random.default_rng(seed)) for at in chunk.tolist()]


@given(profiles, st.integers(0, 1000))
@settings(max_examples=60)
def test_arrivals_rise_and_stay_within_the_run(profile: Profile, seed: int) -> None:
    found = offsets(profile, seed)
    assert found == sorted(found)
    assert all(0 <= at <= profile.seconds for at in found)
    assert found == offsets(profile, seed)


@given(profiles, st.integers(0, 1000))
@settings(max_examples=60)
def test_arrivals_are_as_many_as_the_rate_says(profile: Profile, seed: int) -> None:
    """Poisson: seven standard deviations are out of reach for good code."""
    assert abs(len(offsets(profile, seed)) - profile.expected) <= 7 * math.sqrt(profile.expected) + 7


@pytest.mark.parametrize("mode", Traffic)
def test_each_part_of_a_profile_gets_its_share(mode: Traffic) -> None:
    profile = profile_of(mode, 100, 200, FLAT)
    parts = len(profile.factors)
    counts = np.histogram(offsets(profile, 5), bins=parts, range=(0, profile.seconds))[0]
    wanted = np.array(profile.factors) * profile.tps * profile.seconds / parts
    assert np.all(np.abs(counts - wanted) <= 6 * np.sqrt(wanted))


def test_gaps_of_a_steady_rate_are_exponential() -> None:
    gaps = np.diff(offsets(Profile(1000, 20, (1.0,)), 8))
    assert gaps.mean() == pytest.approx(0.05, rel=0.03)
    assert gaps.std() == pytest.approx(0.05, rel=0.05)


def test_the_modes_have_their_shapes() -> None:
    burst, spike = profile_of(Traffic.BURST, 100, 2, FLAT), profile_of(Traffic.SPIKE, 100, 2, FLAT)
    assert [burst.rate_at(at) for at in (5, 15, 25, 95, 100, -1)] == [2, 10, 2, 10, 0, 0]
    assert [spike.rate_at(at) for at in (0, 44, 46, 54, 56, 99)] == [2, 2, 20, 20, 2, 2]


def test_the_rhythm_is_that_of_a_day(stage: Stage) -> None:
    rhythm = stage.rhythm()
    assert len(rhythm) == 24
    assert sum(rhythm) == pytest.approx(24)
    assert max(rhythm[10:21]) > 3 * max(rhythm[2:5])


def test_events_happen_when_they_are_sent(stage: Stage) -> None:
    profile = Profile(60, 30, FLAT)
    events = list(stage.events(profile, NOW_US, 0.2, 0.1))
    times = [event.sent_at_us for event in events]
    assert times == sorted(times)
    assert all(NOW_US <= at < NOW_US + 60 * US_PER_SECOND for at in times)
    kinds = Counter(event.sending for event in events)
    good = kinds[Sending.GOOD]
    assert good == pytest.approx(profile.expected, abs=6 * math.sqrt(profile.expected))
    assert kinds[Sending.REPEATED] == pytest.approx(0.18 * good, abs=80)
    assert kinds[Sending.MALFORMED] == pytest.approx(0.1 * good, abs=60)
    for event in events:
        if event.sending is Sending.GOOD:
            assert read(event).event_time_us == event.sent_at_us
    first = {event.transaction_id: event.sent_at_us for event in events if event.sending is Sending.GOOD}
    assert len(first) == good
    assert all(first[e.transaction_id] < e.sent_at_us for e in events if e.sending is Sending.REPEATED)


def test_the_same_seed_and_start_send_the_same_and_another_start_sends_other_ids(stage: Stage) -> None:
    profile = Profile(5, 30, FLAT)
    again = Stage(3, date(2026, 11, 20))
    events = list(stage.events(profile, NOW_US, 0.1, 0.1))
    assert events == list(again.events(profile, NOW_US, 0.1, 0.1))
    later = list(stage.events(profile, NOW_US + 1, 0.1, 0.1))
    assert not {event.transaction_id for event in events} & {event.transaction_id for event in later}


def test_a_long_run_plays_the_day_again(stage: Stage) -> None:
    events = list(stage.events(Profile(10, 1500, FLAT), NOW_US, 0, 0))
    assert len(events) > 12_000
    assert len({event.transaction_id for event in events}) == len(events)


@given(st.floats(0, 1), st.integers(0, 10_000_000))
def test_a_cardholder_goes_one_way_and_more_share_takes_none_away(share: float, customer: int) -> None:
    if goes_over_http(customer, share):
        assert goes_over_http(customer, min(1.0, share + 0.1))
    assert not goes_over_http(customer, 0)
    assert goes_over_http(customer, 1)


def test_cardholders_are_shared_out_as_asked() -> None:
    assert sum(goes_over_http(customer, 0.2) for customer in range(5000)) == pytest.approx(1000, abs=50)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.floats(0, 1))
def test_percentiles_lie_just_above_the_true_ones(values: list[float], share: float) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    ordered = sorted(max(value, SMALLEST_MS) for value in values)
    true = ordered[max(1, math.ceil(share * len(ordered))) - 1]
    assert true * (1 - 1e-9) <= latencies.percentile(share) <= true * GROWTH * (1 + 1e-9)


def test_no_values_no_percentile() -> None:
    assert Latencies().document() == {"p50": 0, "p95": 0, "p99": 0, "max": 0}


@pytest.mark.parametrize(
    ("status", "good", "retry_after", "expected"),
    [
        (200, True, False, True),
        (200, False, False, False),
        (400, False, False, True),
        (413, False, False, True),
        (400, True, False, False),
        (401, False, False, False),
        (409, True, False, False),
        (500, True, False, False),
        (500, False, False, False),
        (503, True, True, True),
        (503, False, True, True),
        (503, True, False, False),
        (502, True, True, False),
    ],
)
def test_what_may_be_answered(status: int, *, good: bool, retry_after: bool, expected: bool) -> None:
    assert is_expected(status, good=good, retry_after=retry_after) is expected


def test_decisions_count_once_and_only_ours() -> None:
    statistics = Statistics()
    statistics.awaits("a", 1.0)
    statistics.awaits("b", 1.0)
    statistics.awaits("c", 1.0)
    statistics.gives_up("c")
    for identifier in ("a", "a", "of-another", "c"):
        statistics.decided(identifier, "approve", 1.5)
    assert statistics.decisions_hub == {"approve": 1}
    assert statistics.awaited == 1
    assert statistics.decided_ms.document()["max"] == 500


def test_the_summary_tells_what_went_wrong() -> None:
    statistics = Statistics()
    statistics.due(over_http=True, taken=True)
    statistics.due(over_http=False, taken=False)
    statistics.begun()
    statistics.answered(Answer(500), 12.0, good=True)
    assert not statistics.is_sound
    document = {"seconds": 1.0, "interrupted": True, "sound": statistics.is_sound, **statistics.document()}
    text = "\n".join(summary(document))
    assert "interrupted after 1.0 s: 2 events were due, 1 sent over HTTP, 0 to the hub" in text
    assert "0 HTTP and 1 hub (queue full)" in text
    assert "unexpected     500: 1" in text
    assert "NOT as it should be" in text


class Scorer(http.server.BaseHTTPRequestHandler):
    """Closes every connection after its second answer without saying so, as a server does with idle ones."""

    protocol_version = "HTTP/1.1"
    held = threading.Event()

    def setup(self) -> None:
        super().setup()
        self.answered = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert type(self).held.wait(60)
        text = json.dumps({"decision": "review" if body["n"] % 2 else "approve"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.answered += 1
        self.close_connection = self.answered == 2

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@pytest.fixture
def scorer() -> Iterator[str]:
    Scorer.held = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scorer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def event(number: int) -> WireEvent:
    return WireEvent(json.dumps({"n": number}).encode(), 0, Sending.GOOD, f"t-{number}", number)


def finished(lane: Lane) -> bool:
    lane.close()
    deadline_s = time.monotonic() + 60
    while not lane.is_done and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return lane.is_done


def test_a_stall_counts_from_when_each_was_due(scorer: str) -> None:
    """No coordinated omission: what waited behind a slow answer is as late as it was."""
    statistics = Statistics()
    lane = HttpLane(statistics, Target(scorer, {}))
    began_s = time.monotonic()
    lane.start(1)
    assert all(lane.offer((began_s, event(number))) for number in range(5))
    Scorer.held.wait(0.3)
    Scorer.held.set()
    assert finished(lane)
    assert statistics.statuses == {200: 5}
    assert statistics.decisions == {"approve": 3, "review": 2}
    assert statistics.failures == {}
    assert statistics.http_ms.percentile(0) >= 300


def test_a_full_queue_refuses_and_what_waits_can_be_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic_senders, "QUEUE_LIMIT", 3)
    statistics = Statistics()
    lane = HttpLane(statistics, Target("http://127.0.0.1:9", {}))
    assert [lane.offer((0.0, event(number))) for number in range(5)] == [True, True, True, False, False]
    lane.abandon()
    assert statistics.document()["dropped"] == {"http": 0, "hub": 0, "abandoned": 3}


def test_nobody_there_is_a_failure() -> None:
    statistics = Statistics()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can
        lane = HttpLane(statistics, Target(f"http://127.0.0.1:{taken.getsockname()[1]}", {}))
        lane.start(1)
        lane.offer((time.monotonic(), event(1)))
        assert finished(lane)
    assert statistics.failures == {"ConnectionRefusedError": 1}
    assert not statistics.is_sound


def test_each_broken_body_is_refused_and_each_other_is_not(stage: Stage) -> None:
    for sent in stage.events(Profile(20, 30, FLAT), NOW_US, 0.5, 1.0):
        if sent.sending is Sending.MALFORMED:
            with pytest.raises(InvalidInput):
                read(sent)
        else:
            assert read(sent).transaction_id == sent.transaction_id


class SmallBatch(list[str]):
    """A batch of the SDK's that is full with two events."""

    def __init__(self, partition: str) -> None:
        super().__init__()
        self.partition = partition

    def add(self, event_data: EventData) -> None:
        if len(self) == 2:
            raise ValueError("EventDataBatch has reached its size limit")
        self.append(event_data.body_as_str())


class Hub:
    """A hub of two partitions, of which the second is broken."""

    def __init__(self) -> None:
        self.taken: list[SmallBatch] = []

    def get_partition_ids(self) -> list[str]:
        return ["1", "0"]

    def create_batch(self, partition_id: str) -> SmallBatch:
        return SmallBatch(partition_id)

    def send_batch(self, batch: SmallBatch) -> None:
        if batch.partition == "1":
            raise EventHubError("broken")
        self.taken.append(batch)


def test_the_hub_gets_full_batches_in_order_and_failures_are_counted() -> None:
    statistics, hub = Statistics(), Hub()
    lane = HubLane(statistics, cast("EventHubProducerClient", hub))
    for number in (0, 2, 1, 4, 3):
        assert lane.offer((time.monotonic(), event(number)))
    lane.start(1)
    assert finished(lane)
    assert [[json.loads(body)["n"] for body in batch] for batch in hub.taken] == [[0, 2], [4]]
    assert statistics.document()["sent"] == {"http": 0, "hub": 3}
    assert statistics.failures == {"EventHubError": 2}
    assert statistics.awaited == 3
    assert not statistics.is_sound


def test_the_table_shows_what_is_counted() -> None:
    statistics = Statistics()
    statistics.begun()
    statistics.answered(Answer(503, retry_after=True), 5.0, good=True)
    statistics.failed("TimeoutError")
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(statistics, Profile(10, 2, (1.0,)), 4.0, 1.5))
    shown = console.export_text()
    assert "4 of 10 s: 2.0 transactions/s wanted, 1.5 events/s sent" in shown
    assert "503: 1" in shown
    assert "failures: TimeoutError: 1" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--url", "http://h"], "--over http"),
        (["--url", "ftp://h", "--over", "http"], "--url must be"),
        (["--url", "http://h:x", "--over", "http"], "--url must be"),
        (["--hub", "Endpoint=sb://h/"], "--over hub"),
        (["--hub", "secret-nonsense", "--over", "hub"], "Connection string"),
    ],
)
def test_options_that_mean_nothing_are_refused_in_a_line(options: list[str], said: str) -> None:
    found = CliRunner().invoke(app, ["traffic", *options])
    assert found.exit_code == 2
    assert said in found.output
    assert "secret" not in found.output
    assert found.output.startswith("tollgate: ")
