from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import BrokenInvariant, InvalidInput, NotFound, Transient
from shared.domain.event import StreamEvent
from shared.domain.probe import Probe, ProbeReceipt
from shared.services import probing, readiness
from tests.fakes.probes import FakeClock, FakeDeadLetters, FakeDependency, FakeProbeReceipts


def event(body: bytes | str, sequence: int = 0) -> StreamEvent:
    raw = body if isinstance(body, bytes) else body.encode()
    return StreamEvent("transactions", "0", sequence, str(sequence * 100), 1_700_000_000_000_000, raw)


def test_a_probe_leaves_a_receipt_that_says_where_it_went_and_how_long_it_took() -> None:
    clock, receipts, dead = FakeClock(), FakeProbeReceipts(), FakeDeadLetters()
    body = probing.compose("p-1", clock)
    clock.time_us += 2_500
    outcome = probing.receive([event(body, 7)], receipts, dead, clock)
    assert outcome == probing.BatchOutcome(recorded=1, repeated=0, dead_lettered=0)
    found = probing.look_up("p-1", receipts)
    assert (found.partition, found.sequence_number, found.lag_us) == ("0", 7, 2_500)


def test_a_repeated_batch_changes_nothing() -> None:
    clock, receipts, dead = FakeClock(), FakeProbeReceipts(), FakeDeadLetters()
    batch = [event(probing.compose("p-1", clock), 1), event(b"garbage", 2)]
    probing.receive(batch, receipts, dead, clock)
    before = (dict(receipts.kept), list(dead.kept))
    clock.time_us += 1
    outcome = probing.receive(batch, receipts, dead, clock)
    assert outcome == probing.BatchOutcome(recorded=0, repeated=1, dead_lettered=1)
    assert (dict(receipts.kept), list(dead.kept)) == before


def test_what_cannot_be_read_is_a_dead_letter_and_the_rest_goes_on() -> None:
    clock, receipts, dead = FakeClock(), FakeProbeReceipts(), FakeDeadLetters()
    bodies: list[bytes | str] = [
        b"\xff\x00",
        json.dumps({"type": "transaction", "id": "t-1"}),
        json.dumps({"type": "tollgate.probe", "probe_id": "ok", "sent_at_us": "soon"}),
        probing.compose("p-2", clock),
    ]
    outcome = probing.receive([event(body, n) for n, body in enumerate(bodies)], receipts, dead, clock)
    assert outcome == probing.BatchOutcome(recorded=1, repeated=0, dead_lettered=3)
    assert [letter.field for letter in dead.kept.values()] == ["", "type", "sent_at_us"]
    assert all(letter.rule for letter in dead.kept.values())
    assert next(letter.event.body for letter in dead.kept.values()) == b"\xff\x00"


@pytest.mark.parametrize("broken", ["receipts", "dead letters"])
def test_a_store_that_cannot_be_reached_fails_the_batch(broken: str) -> None:
    fault = Transient("down")
    receipts = FakeProbeReceipts(fault=fault if broken == "receipts" else None)
    dead = FakeDeadLetters(fault=fault if broken == "dead letters" else None)
    clock = FakeClock()
    with pytest.raises(Transient):
        probing.receive([event(b"garbage"), event(probing.compose("p", clock), 1)], receipts, dead, clock)


def test_receipts_are_forgotten_after_a_day() -> None:
    clock, receipts = FakeClock(), FakeProbeReceipts()
    probing.receive([event(probing.compose("old", clock))], receipts, FakeDeadLetters(), clock)
    clock.time_us += probing.RETENTION_US
    assert probing.forget(receipts, clock) == 0
    clock.time_us += 1
    assert probing.forget(receipts, clock) == 1
    with pytest.raises(NotFound, match="old has no receipt"):
        probing.look_up("old", receipts)


@pytest.mark.parametrize("probe_id", ["", "-a", "a" * 65, "a/b", "a\n", "ä", "..", None, 7])
def test_malformed_ids_are_refused(probe_id: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        Probe.from_fields({"type": "tollgate.probe", "probe_id": probe_id, "sent_at_us": 1})
    assert caught.value.field == "probe_id"


@pytest.mark.parametrize("sent_at_us", [True, -1, 1.5, "1", None, 4_102_444_800_000_000])
def test_malformed_times_are_refused(sent_at_us: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        Probe.from_fields({"type": "tollgate.probe", "probe_id": "a", "sent_at_us": sent_at_us})
    assert caught.value.field == "sent_at_us"


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(InvalidInput, match="colour is not a field of a probe"):
        Probe.from_fields({"type": "tollgate.probe", "probe_id": "a", "sent_at_us": 1, "colour": "red"})


@given(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z"), st.integers(0, 4_102_444_799_999_999))
def test_a_probe_survives_the_wire(probe_id: str, sent_at_us: int) -> None:
    probe = Probe(probe_id, sent_at_us)
    assert Probe.from_fields(json.loads(json.dumps(probe.to_fields()))) == probe


def test_a_clock_that_runs_behind_gives_no_negative_lag() -> None:
    receipt = ProbeReceipt(Probe("a", 100), "h", "0", 0, 0, received_at_us=90)
    assert receipt.lag_us == 0


def test_readiness_asks_everyone_and_names_what_is_missing() -> None:
    states = readiness.check(
        [FakeDependency("a", Transient("is down")), FakeDependency("b"), FakeDependency("c", BrokenInvariant())]
    )
    assert [(state.name, state.usable, state.problem) for state in states] == [
        ("a", False, "is down"),
        ("b", True, ""),
        ("c", False, "BrokenInvariant"),
    ]
