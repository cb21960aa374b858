"""Approved transactions without a label, in memory: over the tables of the fake ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.domain.decision import Outcome
from shared.domain.decision_record import read_decision
from shared.ports.maturing import Silent
from tests.fakes.ledger import Tables


@dataclass
class FakeSilentTransactions:
    """Decisions of the tables, recorded at their event time."""

    tables: Tables

    def first_us(self) -> int | None:
        return min((row.event_time_us for row in self.tables.decisions.values()), default=None)

    def recorded(self, start_us: int, end_us: int, limit: int) -> Sequence[Silent]:
        labelled = {transaction_id for transaction_id, _ in self.tables.labels}
        found = []
        for transaction_id, row in self.tables.decisions.items():
            record = read_decision(row.record)
            if (
                start_us <= record.event_time_us < end_us
                and record.decision.outcome is Outcome.APPROVE
                and transaction_id not in labelled
            ):
                found.append(Silent(transaction_id, record.event_time_us))
        return sorted(found, key=lambda item: (item.event_time_us, item.transaction_id))[:limit]
