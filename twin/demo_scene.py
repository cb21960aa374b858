"""What the demo plays: months of history to learn from, then live days that end today, with the truth about both.

The world is the simulator's. History is what a bank has: transactions, the labels that were known by then, and silence
that counts as genuine once it is mature. Live days come as the bytes that senders send, with everything that goes wrong
on the way, and as the labels that become known meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np

from shared.domain.errors import InvalidInput
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import MATURITY_US, PRECEDENCE, Label, LabelSource, matured_label
from shared.domain.training_split import TrainingPlan, split_by_time, targets_as_of
from shared.domain.transaction import Transaction
from simulator.batch import transaction_id
from simulator.changes import Change
from simulator.config import FraudConfig, WorldConfig
from simulator.history import history_of
from simulator.wire import Disturbance, Sending, WireEvent, label_body, played
from simulator.world import World

HISTORY_DAYS: Final = 105
"""Enough for training, calibration and test, a label delay between each, and the maturity of labels."""

LIVE_DAYS: Final = 6
"""Live events must not be older than the seven days that are allowed."""

CARDHOLDERS: Final = 3_000
PER_DAY: Final = 0.5
"""Transactions of a cardholder a day: a small bank, so that months of it are taken in within a minute or two."""

FRAUD_RATE: Final = 0.012
"""Twice the simulator's usual, so that a few live days of a small bank hold enough frauds to judge by."""

MIN_FRAUDS: Final = 30
"""Frauds in the live days, and in each span of training."""

_SEEDS: Final = 50

DISTURBANCE: Final = Disturbance(repeated=0.10, conflicting=0.005, late=0.02, malformed=0.01, shuffle_s=900)
"""A tenth is sent twice, events are shuffled over a quarter of an hour, some come days late, some are broken."""

BY_THE_CLOCK: Final = frozenset({"from-the-future"})
"""Broken only beside the clock of the day they are played on; all live days are played today."""


type Changes = Callable[[date], tuple[Change, ...]]
"""What changes in the world, given its first day."""


def no_changes(_first_day: date) -> tuple[Change, ...]:
    """Nothing does."""
    return ()


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the past: what happened, and which labels became known."""

    transactions: list[Transaction]
    labels: list[Label]


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """History as columns, and how it is cut."""

    transactions: TransactionColumns
    labels: LabelColumns
    plan: TrainingPlan


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the live days: what is sent, and the labels that become known in it, as events."""

    events: list[WireEvent]
    labels: list[bytes]


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a scene is.

    Attributes:
        history_days: Days of the past.
        live_days: Days to be played live.
        customers: Cardholders at scale 1.
        per_day: Transactions of a cardholder a day.
        fraud_rate: Share of frauds.
        changes: What changes in the world, given its first day.
    """

    history_days: int = HISTORY_DAYS
    live_days: int = LIVE_DAYS
    customers: int = CARDHOLDERS
    per_day: float = PER_DAY
    fraud_rate: float = FRAUD_RATE
    changes: Changes = no_changes


class Scene:
    """A world, seeded: the same seed and date play the same scene."""

    def __init__(self, seed: int, now_us: int, scale: float = 1.0, shape: Shape = Shape()) -> None:
        """Draw the world, so that its last live day is yesterday.

        Args:
            seed: Of everything drawn.
            now_us: The clock, microseconds since 1970 UTC.
            scale: Of the number of cardholders.
            shape: How large it is.
        """
        today = datetime.fromtimestamp(now_us / 1e6, UTC).date()
        self.history_days, self.live_days = shape.history_days, shape.live_days
        self.first_date = today - timedelta(days=self.history_days + self.live_days)
        config = WorldConfig(
            first_date=self.first_date,
            customers=round(shape.customers * scale),
            transactions_per_day=shape.per_day,
            fraud=FraudConfig(rate=shape.fraud_rate),
            changes=shape.changes(self.first_date),
        )
        self._world = World.create(config, np.random.default_rng(seed))
        self._rng = np.random.default_rng(seed + 1)
        self.told = f"a simulated bank of {config.customers:,} cardholders, seed {seed}"
        self.starts_us = config.first_day * US_PER_DAY
        self.live_from_us = self.starts_us + self.history_days * US_PER_DAY
        self.live_until_us = self.live_from_us + self.live_days * US_PER_DAY

    @classmethod
    def with_frauds(cls, seed: int, now_us: int, scale: float = 1.0, shape: Shape = Shape()) -> Scene:
        """The scene of the first seed from this one on that has frauds to learn from and to judge by.

        Fraud comes in lumps: the same seed on another day may have quiet weeks.
        """
        for candidate in range(seed, seed + _SEEDS):
            scene = cls(candidate, now_us, scale, shape)
            if sum(scene.truth().values()) >= MIN_FRAUDS and scene._can_be_learnt():
                return scene
        return cls(seed, now_us, scale, shape)

    def _can_be_learnt(self) -> bool:
        """Whether each span that training cuts history into holds enough frauds."""
        given = self.training()
        targets = targets_as_of(len(given.transactions.event_time_us), given.labels, given.plan.as_of_us)
        try:
            split = split_by_time(given.transactions, targets, given.plan)
        except InvalidInput:
            return False
        return all(int(targets.is_fraud[rows].sum()) >= MIN_FRAUDS for rows in split.rows.values())

    def history(self) -> Iterator[Day]:
        """The days of history in order; silence becomes a label on the day on which it is mature.

        What matures during the live days comes with the last day: it is known by the time the scene is played.
        """
        silent: dict[int, list[Transaction]] = {}
        labelled: set[str] = set()
        for number, batch in enumerate(self._world.days(0, self.history_days)):
            transactions = list(batch.transactions())
            silent[number] = transactions
            known = self._world.labels_known_between(batch.first_us, batch.first_us + US_PER_DAY)
            labels = list(known.labels())
            labelled.update(label.transaction_id for label in labels)
            mature = silent.pop(number - MATURITY_US // US_PER_DAY - 1, [])
            if number == self.history_days - 1:
                first = number - MATURITY_US // US_PER_DAY
                mature += [item for day in range(first, first + self.live_days) for item in silent.pop(day, [])]
            labels += [matured_label(item) for item in mature if item.transaction_id not in labelled]
            yield Day(transactions, labels)

    def training(self, n_days: int | None = None) -> Training:
        """History as columns: all of it, or its first days as they were known at their end."""
        n_days = n_days or self.history_days
        end_us = self.starts_us + n_days * US_PER_DAY
        found = history_of(self._world, 0, n_days, end_us)
        transactions, labels = found.transactions, found.labels
        unlabelled = np.ones(len(transactions.event_time_us), dtype=np.bool_)
        unlabelled[labels.row] = False
        matured_us = transactions.event_time_us + MATURITY_US
        rows = np.flatnonzero(unlabelled & (matured_us < end_us))
        source = PRECEDENCE.index(LabelSource.MATURITY)
        whole = LabelColumns(
            row=np.concatenate([labels.row, rows]),
            is_fraud=np.concatenate([labels.is_fraud, np.zeros(len(rows), dtype=np.bool_)]),
            known_at_us=np.concatenate([labels.known_at_us, matured_us[rows]]),
            source=np.concatenate([labels.source, np.full(len(rows), source, dtype=labels.source.dtype)]),
            confidence=np.concatenate([labels.confidence, np.full(len(rows), 50, dtype=labels.confidence.dtype)]),
        )
        plan = TrainingPlan(as_of_us=end_us, train_days=40, calibration_days=10, test_days=10)
        return Training(transactions, whole, plan)

    def live(self) -> list[Chapter]:
        """The live days in one piece, in the order in which events are sent and labels become known."""
        events = played(self._world, self.history_days, self.live_days, DISTURBANCE, self._rng)
        known = self._world.labels_known_between(self.live_from_us, self.live_until_us)
        return [
            Chapter(
                [event for event in events if event.fault not in BY_THE_CLOCK],
                [label_body(label) for label in known.labels()],
            )
        ]

    def truth(self) -> dict[TransactionId, bool]:
        """Whether a live transaction was fraud; nobody but the demo's last page knows."""
        found = {}
        for batch in self._world.days(self.history_days, self.live_days):
            fraud = batch.is_fraud
            for row, key in enumerate(batch.key.tolist()):
                found[TransactionId(transaction_id(int(key)))] = bool(fraud[row])
        return found


def is_decided(event: WireEvent) -> bool:
    """Whether an event brings a decision that was not there before."""
    return event.sending in {Sending.GOOD, Sending.LATE}
