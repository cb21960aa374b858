from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import azure.functions as func
import pytest
from azure.functions.meta import Datum

from shared.domain.errors import BrokenInvariant, Transient
from shared.entrypoints import eventhub_ingest, http_health, http_probes, timer_probes
from shared.services import probing
from tests.fakes.probes import FakeClock, FakeDeadLetters, FakeDependency, FakeProbeReceipts

_CONTEXT = {"PartitionId": "2", "EventHubName": "transactions"}


def request(**route: str) -> func.HttpRequest:
    return func.HttpRequest("GET", "http://localhost/api/x", route_params=route, body=b"")


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
    eventhub_ingest.receive([message(sent.encode())], receipts, FakeDeadLetters(), clock)
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
        eventhub_ingest.receive(
            [message(b"garbage")], FakeProbeReceipts(), FakeDeadLetters(fault=Transient("down")), FakeClock()
        )


def test_an_empty_batch_is_no_error() -> None:
    eventhub_ingest.receive([], FakeProbeReceipts(), FakeDeadLetters(), FakeClock())


def test_log_lines_hold_no_payload(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    eventhub_ingest.receive(
        [message(b'{"type": "transaction", "card": "4111111111111111"}')],
        FakeProbeReceipts(),
        FakeDeadLetters(),
        FakeClock(),
    )
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
    timer_probes.send(_Timer(), out, clock)
    eventhub_ingest.receive([message(out.value.encode())], receipts, FakeDeadLetters(), clock)
    assert len(receipts.kept) == 1
    clock.time_us += probing.RETENTION_US + 1
    timer_probes.forget(_Timer(), receipts, clock)
    assert not receipts.kept


def test_an_event_without_times_or_place_is_still_read() -> None:
    (event,) = eventhub_ingest.to_events([func.EventHubEvent(body=b"x")])
    assert (event.hub, event.partition, event.sequence_number, event.enqueued_at_us) == ("", "", 0, 0)
