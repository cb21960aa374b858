from __future__ import annotations

import json
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import azure.functions as func
import pytest
from azure.functions.meta import Datum

from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.ledger import OutboxEntry
from shared.entrypoints import eventhub_ingest, http_health, http_probes, timer_outbox, timer_probes
from shared.ports.letters import DeadLetters
from shared.services import probing
from shared.services.dead_lettering import CopiedDeadLetters
from shared.services.ingestion import Ingestion
from shared.services.labelling import Labelling
from shared.services.metering import EVENTS, STREAM_LAG, Meters
from shared.services.scoring import Scoring
from shared.services.timed_runs import TimedRuns
from tests.fakes.counts import FakeCells
from tests.fakes.ledger import FakeLedger
from tests.fakes.outbox import FakeOutbox, FakePublisher
from tests.fakes.pipelines import FakePipelineLog
from tests.fakes.probes import FakeClock, FakeDeadLetters, FakeDependency, FakeProbeReceipts
from tests.fakes.scorers import FixedScorers
from tests.unit.domain.worlds import transaction
from tests.unit.shared.test_scoring import KEYS, POLICY, scoring

_CONTEXT = {"PartitionId": "2", "EventHubName": "transactions"}


def request(**route: str) -> func.HttpRequest:
    return func.HttpRequest("GET", "http://localhost/api/x", route_params=route, body=b"")


def parts(
    receipts: FakeProbeReceipts | None = None,
    dead_letters: DeadLetters | None = None,
    clock: FakeClock | None = None,
    meters: Meters | None = None,
) -> eventhub_ingest.IngestParts:
    moment, ledger = clock or FakeClock(), FakeLedger()
    ingestion = Ingestion(
        Scoring(ledger, FixedScorers(), policy=POLICY, keys=KEYS, clock=moment),
        Labelling(ledger, KEYS, moment),
        receipts=receipts or FakeProbeReceipts(),
        dead_letters=dead_letters or FakeDeadLetters(),
        clock=moment,
        currency="EUR",
        lateness_us=None,
    )
    return eventhub_ingest.IngestParts(ingestion, Lock(), meters or Meters(FakeCells()), moment)


def body(response: func.HttpResponse) -> Any:
    return json.loads(response.get_body())


def message(raw: bytes, sequence: int = 3) -> func.EventHubEvent:
    return func.EventHubEvent(
        body=raw,
        trigger_metadata={"PartitionContext": Datum(json.dumps(_CONTEXT), "json")},
        enqueued_time=datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC),
        sequence_number=sequence,
        offset="900",
    )


def test_a_batch_is_counted_with_how_long_it_was_under_way() -> None:
    meters, clock = Meters(FakeCells()), FakeClock(1_767_225_602_123_456)  # two seconds after it was enqueued
    eventhub_ingest.receive([message(b"{}"), message(b"[]", 4)], parts(clock=clock, meters=meters))
    counted = {sample.labels: sample.value for sample in meters.samples(EVENTS)}
    assert counted[(("result", "dead_lettered"),)] == 2
    assert sum(counted.values()) == 2
    assert [sample.value for sample in meters.samples(STREAM_LAG)][-2:] == [4.0, 2.0]


def test_live_asks_nobody() -> None:
    assert http_health.live(request()).status_code == 200


def test_ready_names_what_is_missing() -> None:
    answer = http_health.ready(request(), [FakeDependency("store", Transient("is down")), FakeDependency("other")])
    assert answer.status_code == 503
    assert answer.mimetype == "application/problem+json"
    assert answer.headers["Retry-After"] == "1"
    assert body(answer)["detail"] == "not ready: store"
    assert body(answer)["dependencies"][0] == {"name": "store", "usable": False, "problem": "is down"}


def test_ready_when_all_can_be_used() -> None:
    answer = http_health.ready(request(), [FakeDependency("store")])
    assert (answer.status_code, body(answer)["status"]) == (200, "ready")


def test_a_receipt_is_answered_with_its_lag() -> None:
    clock, receipts = FakeClock(), FakeProbeReceipts()
    sent = probing.compose("p-1", clock)
    clock.time_us += 1_500
    eventhub_ingest.receive([message(sent.encode())], parts(receipts, clock=clock))
    answer = http_probes.receipt(request(probe_id="p-1"), receipts)
    assert answer.status_code == 200
    assert body(answer) == {
        "probe_id": "p-1",
        "sent_at_us": clock.time_us - 1_500,
        "enqueued_at_us": 1_767_225_600_123_456,
        "received_at_us": clock.time_us,
        "lag_ms": 1.5,
        "hub": "transactions",
        "partition": "2",
        "sequence_number": 3,
    }


@pytest.mark.parametrize(
    ("probe_id", "fault", "status", "detail"),
    [
        ("nobody", None, 404, "probe_id nobody has no receipt"),
        ("-", None, 400, "probe_id must be 1 to 64 letters, digits and hyphens, and not start with a hyphen"),
        ("p", Transient("the secret address is down"), 503, "try again"),
        ("p", BrokenInvariant("the secret address is wrong"), 500, "the fault was logged"),
    ],
)
def test_errors_become_problem_details(probe_id: str, fault: Any, status: int, detail: str) -> None:
    answer = http_probes.receipt(request(probe_id=probe_id), FakeProbeReceipts(fault=fault))
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    document = body(answer)
    assert (document["status"], document["detail"]) == (status, detail)
    assert document["type"] == "about:blank"
    assert (document.get("field") == "probe_id") == (fault is None)


def test_a_fault_that_is_not_the_senders_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    http_probes.receipt(request(probe_id="p"), FakeProbeReceipts(fault=BrokenInvariant("the container is gone")))
    assert "the container is gone" in caplog.text


def test_a_batch_fails_as_a_whole_when_a_store_is_down() -> None:
    with pytest.raises(Transient):
        eventhub_ingest.receive([message(b"garbage")], parts(dead_letters=FakeDeadLetters(fault=Transient("down"))))


def test_an_empty_batch_is_no_error() -> None:
    eventhub_ingest.receive([], parts())


def test_log_lines_hold_no_payload(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    eventhub_ingest.receive([message(b'{"type": "transaction", "card": "4111111111111111"}')], parts())
    assert "batch received" in caplog.text
    assert "4111" not in caplog.text


class _Out(func.Out[str]):
    def __init__(self) -> None:
        self.value = ""

    def set(self, val: str) -> None:
        self.value = val

    def get(self) -> str:
        return self.value


class _Timer(func.TimerRequest):
    past_due = False


def test_the_timer_sends_a_probe_that_ingest_can_read() -> None:
    clock, receipts, out = FakeClock(), FakeProbeReceipts(), _Out()
    timer_probes.send(_Timer(), out, clock, TimedRuns(FakePipelineLog(), clock, "p"))
    eventhub_ingest.receive([message(out.value.encode())], parts(receipts, clock=clock))
    assert len(receipts.kept) == 1
    clock.time_us += probing.RETENTION_US + 1
    timer_probes.forget(_Timer(), receipts, clock, TimedRuns(FakePipelineLog(), clock, "p"))
    assert not receipts.kept


def test_an_event_without_times_or_place_is_still_read() -> None:
    (event,) = eventhub_ingest.to_events([func.EventHubEvent(body=b"x")])
    assert (event.hub, event.partition, event.sequence_number, event.enqueued_at_us) == ("", "", 0, 0)


def test_decisions_leave_as_they_are_answered_with_the_customers_surrogate() -> None:
    ledger, publisher = FakeLedger(), FakePublisher()
    scoring(ledger).decide([transaction(1, 0), transaction(2, 1)])
    entries = [OutboxEntry(place, row.record) for place, row in enumerate(ledger.tables.decisions.values())]
    log = FakePipelineLog()
    runs = TimedRuns(log, FakeClock(), "p")
    timer_outbox.publish(_Timer(), timer_outbox.OutboxParts(FakeOutbox(entries), publisher), runs)
    assert [run.details for run in log.runs.values()] == [{"rows": 2}]
    first, second = (json.loads(event.body) for event in publisher.sent)
    assert (first["type"], first["transaction_id"], second["transaction_id"]) == ("tollgate.decision", "t0001", "t0002")
    assert first["customer"].startswith("k1.")
    assert {"decision", "score", "reasons", "model", "policy"} <= set(first)
    assert "customer_id" not in json.dumps(first)


def test_a_dead_letter_is_kept_even_if_its_copy_is_not(caplog: pytest.LogCaptureFixture) -> None:
    authority, copies = FakeDeadLetters(), FakeDeadLetters(fault=Transient("down"))
    eventhub_ingest.receive([message(b"x")], parts(dead_letters=CopiedDeadLetters(authority, copies)))
    assert len(authority.kept) == 1
    assert "not copied" in caplog.text
    copies.fault = None
    eventhub_ingest.receive([message(b"x")], parts(dead_letters=CopiedDeadLetters(authority, copies)))
    assert copies.kept == authority.kept
    authority.fault = Transient("down")
    with pytest.raises(Transient):
        eventhub_ingest.receive([message(b"y")], parts(dead_letters=CopiedDeadLetters(authority, copies)))
    assert copies.kept == authority.kept
