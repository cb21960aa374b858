"""Real bundles for tests: a small recorded one, and small histories to train more from."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from shared.adapters.onnx_scorer import OnnxScorer
from shared.domain.bundle import open_bundle
from shared.domain.bundle_manifest import FILES, MANIFEST
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import PRECEDENCE, LabelSource
from shared.domain.training_split import TrainingPlan

GOLDEN: Final = Path(__file__).resolve().parents[1] / "golden" / "bundles"

START_US: Final = 1_700_006_400_000_000
"""2023-11-15 00:00 UTC."""


def golden_files(folder: str = "format-1") -> dict[str, bytes]:
    """The files of a recorded bundle, as they were written."""
    return {name: (GOLDEN / folder / name).read_bytes() for name in (MANIFEST, *FILES)}


@cache
def trained_scorer() -> OnnxScorer:
    """A scorer of the recorded bundle: a real model of a few trees over `card-v1`."""
    return OnnxScorer(open_bundle(golden_files()))


def history(
    n_rows: int = 32_000, *, days: int = 80, seed: int = 7, shuffled: bool = False
) -> tuple[TransactionColumns, LabelColumns]:
    """Drawn transactions whose frauds can be learnt: high amounts, and terminals that are compromised for a while.

    Args:
        n_rows: How many.
        days: Over how many days.
        seed: Of the draw.
        shuffled: Whether verdicts are dealt out anew, so that nothing can be learnt.
    """
    rng = np.random.default_rng(seed)
    time_us = START_US + np.sort(rng.integers(0, days * US_PER_DAY, n_rows))
    customer, terminal = rng.integers(0, 300, n_rows), rng.integers(0, 150, n_rows)
    amount = np.rint(rng.lognormal(8.3, 0.6, n_rows)).astype(np.int64) + 1
    since = rng.integers(0, days, 150)
    day = (time_us - START_US) // US_PER_DAY
    compromised = (day >= since[terminal]) & (day < since[terminal] + 14) & (terminal % 5 == 0)
    fraud = (compromised & (rng.random(n_rows) < 0.5)) | (amount > 16_000)
    if shuffled:
        fraud = rng.permutation(fraud)
    transactions = TransactionColumns(np.arange(n_rows), time_us, amount, customer, terminal)
    source = np.full(n_rows, PRECEDENCE.index(LabelSource.IMPORT), dtype=np.int8)
    return transactions, LabelColumns(np.arange(n_rows), fraud, time_us, source, np.full(n_rows, 100, dtype=np.int8))


def plan_of(transactions: TransactionColumns, *, train_days: int = 20, other_days: int = 7) -> TrainingPlan:
    """A plan that fits a drawn history."""
    return TrainingPlan(
        as_of_us=int(transactions.event_time_us.max()),
        train_days=train_days,
        validation_days=other_days,
        calibration_days=other_days,
        test_days=other_days,
        maturity_us=7 * US_PER_DAY,
    )
