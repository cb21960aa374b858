"""The watch for drift of features and the score over one stream: quiet hours, and drifts of all amounts."""

from __future__ import annotations

from typing import Final

import numpy as np
import xgboost
from numpy.typing import NDArray

from benchmarks.drift_streams import (
    END,
    HOURS_PER_DAY,
    JUDGED,
    LEARNT,
    REFERENCE,
    Stream,
    Watch,
    handbook,
    reference_of,
    simulated,
)
from shared.domain.drift_policy import Watched
from shared.domain.feature_view import CARD_V1

FACTORS: Final = (1.5, 1.2)
FOLLOWED_H: Final = 36
"""Hours for which a drift is followed."""

SOON_H: Final = 3
"""Hours within which a coarse drift is to be found."""

QUIET_HOURS: Final = (END - JUDGED) * HOURS_PER_DAY


def fitted(stream: Stream, days: tuple[int, int]) -> xgboost.Booster:
    """A model like the product's, learnt from the truth of some days."""
    first, last = (day * HOURS_PER_DAY for day in days)
    rows = np.flatnonzero((stream.hour >= first) & (stream.hour < last))
    settings = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.1, "nthread": 1, "tree_method": "hist"}
    return xgboost.train(settings, xgboost.DMatrix(stream.vectors[rows], stream.is_fraud[rows], nthread=1), 60)


def scored(booster: xgboost.Booster, stream: Stream) -> NDArray[np.float32]:
    """Its outputs."""
    booster.set_param({"nthread": 1})
    found: NDArray[np.float32] = booster.inplace_predict(stream.vectors).astype(np.float32)
    return found


def watched(seed: int, kind: str, customers: int = 5_000) -> dict[str, float | int | None]:
    """One stream of the simulator, with so many cardholders, or the Handbook.

    Returns:
        `false_hours`: quiet hours with a verdict of drift; `payments`: those of the first `SOON_H` hours of drift; for
        each factor, hours until amounts times that were found, None if they were not in the hours followed.
    """
    stream = simulated(seed, customers=customers) if kind == "simulator" else handbook(seed)[0]
    booster = fitted(stream, (30, REFERENCE[0]))
    raw = scored(booster, stream)
    watch = Watch(Watched(reference_of(stream, raw), CARD_V1))
    hours = [day * HOURS_PER_DAY for day in (LEARNT, JUDGED, END)]
    for _ in watch.run(stream, raw, range(hours[0], hours[1]), learning=True):
        pass
    start = hours[1] + int(np.random.default_rng(seed).integers(1, HOURS_PER_DAY))
    false_hours, before = 0, watch
    for hour, findings in watch.run(stream, raw, range(hours[1], hours[2])):
        false_hours += bool(findings)
        if hour == start - 1:
            before = watch.copy()
    payments = int(((stream.hour >= start) & (stream.hour < start + SOON_H)).sum())
    outcome: dict[str, float | int | None] = {"false_hours": false_hours, "payments": payments}
    for factor in FACTORS:
        drifted = stream.with_amounts(factor, start)
        run = before.copy().run(drifted, scored(booster, drifted), range(start, start + FOLLOWED_H))
        outcome[f"x{factor}"] = next((hour - start + 1 for hour, found in run if found), None)
    return outcome
