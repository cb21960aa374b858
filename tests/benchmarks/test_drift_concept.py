"""What the benchmark of concept drift says of decisions that are made up: whom it hears, and what labels told."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift_concept import CHANGED, FOLLOWED, Matured, best_threshold, judged, labelled
from benchmarks.drift_streams import HOURS_PER_DAY, Stream
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.labels import PRECEDENCE, LabelSource

GENUINE_A_DAY = 400
FRAUDS_A_DAY = 24


def decisions(new_a_day: int) -> Matured:
    """Days with as many frauds each on a card of its own, of which every other one is found, and with a day's number
    of new ones from the change on, of which none is."""
    rng = np.random.default_rng(1)
    hour, score, is_fraud = [], [], []
    for day in range(CHANGED + FOLLOWED):
        frauds = FRAUDS_A_DAY + (new_a_day if day >= CHANGED else 0)
        found = (np.arange(frauds) % 2 == 0) & (np.arange(frauds) < FRAUDS_A_DAY)
        hour.append(day * HOURS_PER_DAY + rng.integers(0, HOURS_PER_DAY, frauds + GENUINE_A_DAY))
        score.append(np.concatenate([np.where(found, 0.9, 0.0), np.zeros(GENUINE_A_DAY)]))
        is_fraud.append(np.arange(frauds + GENUINE_A_DAY) < frauds)
    hours, scores, flags = (np.concatenate(one) for one in (hour, score, is_fraud))
    order = np.argsort(hours, kind="stable")
    who = np.arange(len(order))
    columns = TransactionColumns(who, hours[order] * US_PER_HOUR, who, who, who)
    nothing = np.zeros(0, dtype=np.int64)
    labels = LabelColumns(nothing, nothing.astype(np.bool_), nothing, nothing.astype(np.int8), nothing.astype(np.int8))
    stream = Stream(columns, labels, np.zeros((len(who), 1), dtype=np.float32), hours[order], 0, flags[order])
    return Matured(stream, scores[order], flags[order])


@pytest.mark.parametrize(("new_a_day", "heard"), [(0, False), (30, True)])
def test_a_pattern_that_is_missed_is_heard_within_a_day_and_quiet_days_are_not(new_a_day: int, heard: bool) -> None:
    outcome = judged(decisions(new_a_day))
    assert outcome["false_hours"] == outcome["false_notices"] == 0
    assert outcome["frauds_a_day"] == FRAUDS_A_DAY
    assert outcome["recall_before"] == pytest.approx(0.5)
    delay = outcome["delay"]
    if heard:
        assert delay is not None
        assert 0 < delay <= HOURS_PER_DAY
    else:
        assert delay is None


def test_the_strongest_label_of_those_that_are_known_in_time_is_told() -> None:
    customer, chargeback = (PRECEDENCE.index(one) for one in (LabelSource.CUSTOMER, LabelSource.CHARGEBACK))
    day = np.array([1, 2, 40, 3, 4]) * US_PER_DAY
    labels = LabelColumns(
        row=np.array([0, 1, 2, 3, 3]),
        is_fraud=np.array([True, True, True, True, False]),
        known_at_us=day,
        source=np.array([customer, chargeback, chargeback, chargeback, customer], dtype=np.int8),
        confidence=np.full(5, 100, dtype=np.int8),
    )
    assert labelled(np.zeros(5, dtype=np.int64), labels).tolist() == [True, True, False, True, False]


def test_the_best_threshold_has_the_best_harmonic_mean() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.1])
    assert best_threshold(score, np.array([True, True, False, True, False])) == 0.6
    assert best_threshold(score, np.array([True, False, False, False, False])) == 0.9
