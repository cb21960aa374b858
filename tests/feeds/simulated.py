"""Hours of a simulated world or of a file, as the checks of data quality see them, and what the rules say of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # the library has no types
from numpy.typing import NDArray

from shared.domain.data_quality import (
    LARGE_AMOUNT_MINOR,
    NORM_WEEKS,
    WEEK_US,
    WINDOW_US,
    FeedFacts,
    RuleCheck,
    check_all,
)
from shared.domain.instants import US_PER_DAY
from shared.domain.quality_rules import RULES, VOLUME
from simulator.batch import LabelBatch, TransactionBatch
from simulator.changes import Change
from simulator.config import WorldConfig
from simulator.world import World

FIRST: Final = date(2026, 1, 5)
WARM_DAYS: Final = 42
"""Days before what is watched: six weeks of norms, and a world whose customers are known."""

_COLUMNS: Final = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT")


@dataclass
class SeenSoFar:
    """Customers and terminals that had an event."""

    customers: set[int] = field(default_factory=set)
    terminals: set[int] = field(default_factory=set)


def hours_of(batch: TransactionBatch, labels: LabelBatch, seen: SeenSoFar) -> list[FeedFacts]:
    """The hours of a day; every event arrives as soon as it happens, a repeated id once."""
    _, first_rows = np.unique(batch.key, return_index=True)
    once = batch.take(np.sort(first_rows))
    hour_of = (once.event_time_us - batch.first_us) // WINDOW_US
    label_hour = (labels.known_at_us - batch.first_us) // WINDOW_US
    found = []
    for hour in range(24):
        part, start_us = once.take(hour_of == hour), batch.first_us + hour * WINDOW_US
        found.append(
            FeedFacts(
                start_us=start_us,
                end_us=start_us + WINDOW_US,
                transactions=len(part),
                median_amount_minor=float(np.median(part.amount_minor)) if len(part) else None,
                most_frequent_amount=_most_frequent(part.amount_minor),
                large_amounts=int(np.sum(part.amount_minor >= LARGE_AMOUNT_MINOR)),
                copies=_copies(part),
                new_customers=_new(part.customer, seen.customers),
                new_terminals=_new(part.terminal, seen.terminals),
                labels=int(np.sum(label_hour == hour)),
            )
        )
    return found


def _most_frequent(amounts: NDArray[np.int64]) -> int:
    return int(np.unique(amounts, return_counts=True)[1].max()) if len(amounts) else 0


def _copies(part: TransactionBatch) -> int:
    rows = np.stack([part.customer, part.terminal, part.amount_minor, part.event_time_us])
    return len(part) - int(np.unique(rows, axis=1).shape[1])


def _new(keys: NDArray[np.int64], seen: set[int]) -> int:
    new = set(keys.tolist()) - seen
    seen |= new
    return len(new)


def watched(seed: int, changes: Sequence[Change] = (), days: int = 14, customers: int = 3_000) -> list[list[RuleCheck]]:
    """What the rules say of each hour of some days, after weeks in which all was quiet."""
    config = WorldConfig(customers=customers, first_date=FIRST, changes=tuple(changes))
    world = World.create(config, np.random.default_rng(seed))
    days_of = (
        (batch, world.labels_known_between(batch.first_us, batch.first_us + US_PER_DAY))
        for batch in world.days(0, WARM_DAYS + days)
    )
    return judged(days_of)


def of_file(path: Path) -> list[list[RuleCheck]]:
    """The same for the days of a file with the columns of the Handbook's data; without labels."""
    columns = {
        name: column.to_numpy()
        for name, column in zip(_COLUMNS, pq.read_table(path, columns=list(_COLUMNS)).itercolumns(), strict=True)
    }
    time_us = columns["TX_DATETIME"].astype("datetime64[us]").astype(np.int64)
    day_of = time_us // US_PER_DAY
    whole = TransactionBatch(
        day=int(day_of[0]),
        currency="EUR",
        terminal_ids=np.empty(0, dtype=np.str_),
        key=columns["TRANSACTION_ID"].astype(np.uint64),
        customer=columns["CUSTOMER_ID"].astype(np.int64),
        terminal=columns["TERMINAL_ID"].astype(np.int64),
        # The file has a few amounts of zero, which the product refuses; none of the rules looks at them.
        amount_minor=np.round(columns["TX_AMOUNT"] * 100).astype(np.int64),
        event_time_us=time_us,
        scenario=np.zeros(len(time_us), dtype=np.int8),
        incident=np.zeros(len(time_us), dtype=np.int64),
        category=np.zeros(len(time_us), dtype=np.int8),
    )
    return judged(
        (replace(whole.take(day_of == day), day=int(day)), LabelBatch.joined([])) for day in np.unique(day_of)
    )


def judged(days: Iterable[tuple[TransactionBatch, LabelBatch]]) -> list[list[RuleCheck]]:
    """What the rules say of each hour after the first `WARM_DAYS` days."""
    seen = SeenSoFar()
    history: dict[str, dict[int, float]] = {rule.name: {} for rule in RULES}
    found = []
    for number, (batch, labels) in enumerate(days):
        for facts in hours_of(batch, labels, seen):
            oldest_us = facts.start_us - NORM_WEEKS * WEEK_US - US_PER_DAY
            n_windows = sum(start_us >= oldest_us for start_us in history[VOLUME.name])
            checks = check_all(RULES, facts, history, n_windows)
            for check in checks:
                if check.observed is not None:
                    history[check.rule][check.start_us] = check.observed
            if number >= WARM_DAYS:
                found.append(checks)
    return found


def false_alarms(hours: Sequence[Sequence[RuleCheck]]) -> tuple[dict[str, int], int]:
    """Failed checks by rule, and notices: one for each rule and day."""
    failed: dict[str, int] = {}
    notices = set()
    for checks in hours:
        for check in checks:
            if not check.passed:
                failed[check.rule] = failed.get(check.rule, 0) + 1
                notices.add((check.rule, check.start_us // US_PER_DAY))
    return failed, len(notices)
