"""Days of a world and what was known of them by a time, as `feature_columns.transform_many` reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.instants import US_PER_DAY
from simulator.batch import LabelBatch, TransactionBatch
from simulator.errors import check
from simulator.world import World


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Days of a world. Of transactions with one id, as a feed fault makes them, the first is here.

    Attributes:
        transactions: n transactions as columns.
        labels: The labels of these transactions that were known in time, as columns.
        scenario: (n,) int8, the truth (`changes.Scenario`).
    """

    transactions: TransactionColumns
    labels: LabelColumns
    scenario: NDArray[np.int8]

    @property
    def is_fraud(self) -> NDArray[np.bool_]:
        """(n,) bool, the truth."""
        is_fraud: NDArray[np.bool_] = self.scenario != 0
        return is_fraud


def history_of(world: World, start: int, n_days: int, known_before_us: int | None = None) -> History:
    """Draw days with the labels that became known before a time.

    Args:
        world: Which world.
        start: The first day; 0 is the world's first.
        n_days: How many, at least one.
        known_before_us: Microseconds since 1970 UTC; None for the end of the last day.
    """
    check(n_days >= 1, "n_days", "must be at least one")
    batches: list[TransactionBatch] = []
    parts: list[LabelBatch] = []
    for day, batch in enumerate(world.days(start, n_days), start=start):
        batches.append(batch)
        parts.append(world.labels_of(day))
    end_us = batches[-1].first_us + US_PER_DAY if known_before_us is None else known_before_us
    labels = LabelBatch.joined(parts)
    labels = labels.take(labels.known_at_us < end_us)
    key = np.concatenate([batch.key for batch in batches])
    by_key, first = np.unique(key, return_index=True)
    kept = np.sort(first)
    place = np.empty(len(key), dtype=np.int64)
    place[kept] = np.arange(len(kept))
    row = place[first[np.searchsorted(by_key, labels.key)]]
    return History(
        TransactionColumns(
            transaction_id=key[kept],
            event_time_us=np.concatenate([batch.event_time_us for batch in batches])[kept],
            amount_minor=np.concatenate([batch.amount_minor for batch in batches])[kept],
            customer=np.concatenate([batch.customer for batch in batches])[kept],
            terminal=np.concatenate([batch.terminal for batch in batches])[kept],
        ),
        LabelColumns(row, labels.is_fraud, labels.known_at_us, labels.source, labels.confidence),
        np.concatenate([batch.scenario for batch in batches])[kept],
    )
