"""History taken in on the ledger in memory."""

from __future__ import annotations

import pytest

from shared.domain.errors import Transient
from shared.domain.instants import US_PER_DAY
from shared.services.importing import Importing, ImportOutcome
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock
from tests.unit.domain.worlds import label, transaction
from tests.unit.shared.test_scoring import KEYS, labelling, recomputed, record, scoring


def importing(ledger: FakeLedger) -> Importing:
    return Importing(ledger, KEYS, FakeClock())


def test_history_is_known_to_the_first_live_decision() -> None:
    ledger = FakeLedger()
    past = [transaction(number, number * US_PER_DAY) for number in range(20)]
    assert importing(ledger).take(past[::-1]) == [ImportOutcome.IMPORTED] * 20
    labelling(ledger).record([label(item, fraud=True) for item in past])
    live = transaction(99, 20 * US_PER_DAY)
    made = record(scoring(ledger).decide([live])[0])
    assert (made.customer_version, made.terminal_version) == (40, 40)
    assert made.vector == recomputed(ledger.tables)["t0099"]
    assert (len(ledger.tables.decisions), len(ledger.tables.blocks), len(ledger.tables.outbox)) == (1, 1, 1)


def test_history_is_taken_once_and_conflicts_change_nothing() -> None:
    ledger = FakeLedger()
    one, other = transaction(1, 0), transaction(1, 0, amount=9)
    take = importing(ledger).take
    assert take([one, one, other]) == [ImportOutcome.IMPORTED, ImportOutcome.REPEATED, ImportOutcome.CONFLICT]
    assert take([one, other]) == [ImportOutcome.REPEATED, ImportOutcome.CONFLICT]
    assert [row.transaction for row in ledger.tables.transactions.values()] == [one]


def test_labels_that_waited_are_folded_with_their_transaction() -> None:
    ledger = FakeLedger()
    own = transaction(1, 0)
    labelling(ledger).record([label(own, fraud=True)])
    importing(ledger).take([own])
    assert record(scoring(ledger).decide([transaction(2, 5)])[0]).customer_version == 2


def test_nothing_is_no_unit_of_work() -> None:
    ledger = FakeLedger()
    ledger.fault_at_claim = Transient("not reached")
    assert importing(ledger).take([]) == []


@pytest.mark.parametrize("fault", ["fault_at_claim", "fault_at_write"])
def test_a_transient_fault_leaves_nothing(fault: str) -> None:
    ledger = FakeLedger()
    setattr(ledger, fault, Transient("gone"))
    with pytest.raises(Transient):
        importing(ledger).take([transaction(1, 0)])
    assert not ledger.tables.transactions
    assert importing(ledger).take([transaction(1, 0)]) == [ImportOutcome.IMPORTED]
