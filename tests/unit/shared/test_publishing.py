"""Decisions on their way out, on fakes."""

from __future__ import annotations

import pytest

from shared.domain.decision_record import DecisionRecord
from shared.domain.errors import Transient
from shared.domain.ledger import OutboxEntry
from shared.services.publishing import publish_decisions
from tests.fakes.ledger import FakeLedger
from tests.fakes.outbox import FakeOutbox, FakePublisher
from tests.unit.domain.worlds import transaction
from tests.unit.shared.test_scoring import scoring


def render(record: DecisionRecord) -> bytes:
    return record.transaction_id.encode()


@pytest.fixture
def outbox() -> FakeOutbox:
    ledger = FakeLedger()
    scoring(ledger).decide([transaction(number, number, customer=f"c{number % 2}") for number in range(7)])
    rows = ledger.tables.decisions.values()
    return FakeOutbox([OutboxEntry(place, row.record) for place, row in enumerate(rows)])


def test_all_leave_in_order_under_their_customers_surrogate(outbox: FakeOutbox) -> None:
    publisher = FakePublisher()
    assert publish_decisions(outbox, publisher, render, batch=3) == 7
    assert [event.body for event in publisher.sent] == [f"t{number:04}".encode() for number in range(7)]
    keys = [event.key for event in publisher.sent]
    assert len(set(keys)) == 2
    assert all(key.startswith("k1.") for key in keys)
    assert publish_decisions(outbox, publisher, render) == 0


def test_a_run_ends_although_more_wait(outbox: FakeOutbox) -> None:
    assert publish_decisions(outbox, FakePublisher(), render, batch=2, is_over=lambda: len(outbox.entries) < 4) == 4
    assert len(outbox.entries) == 3


@pytest.mark.parametrize("where", ["sending", "removing"])
def test_a_fault_loses_nothing_and_order_holds_per_customer(outbox: FakeOutbox, where: str) -> None:
    publisher = FakePublisher()
    if where == "sending":
        publisher.fault = Transient("down")
    else:
        outbox.fault_at_removal = Transient("down")
    with pytest.raises(Transient):
        publish_decisions(outbox, publisher, render, batch=4)
    assert publish_decisions(outbox, publisher, render, batch=4) == 7
    for key in {event.key for event in publisher.sent}:
        bodies = [event.body for event in publisher.sent if event.key == key]
        first_seen = list(dict.fromkeys(bodies))
        assert first_seen == sorted(first_seen)
    assert {event.body for event in publisher.sent} == {f"t{number:04}".encode() for number in range(7)}
