"""What is kept of an entity stands still while its transactions and labels go on and on."""

from __future__ import annotations

import pytest

from shared.domain.entity_state import EntityState, LaterLabel, fold
from shared.domain.entity_state_codec import state_bytes
from shared.domain.entity_state_layout import BASE_LAYOUT
from shared.domain.entity_state_tiles import ROOT_WIDTH_US
from shared.domain.feature_view import Entity
from shared.domain.features import PastTransaction
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import Label, LabelSource, Verdict

START_US = 700 * ROOT_WIDTH_US
PERIODS = 12


@pytest.mark.parametrize("entity", list(Entity))
@pytest.mark.parametrize("per_period", [4, 256])
def test_tiles_and_bytes_stand_still_beyond_the_horizon(entity: Entity, per_period: int) -> None:
    step_us = ROOT_WIDTH_US // per_period
    state = EntityState.empty(BASE_LAYOUT, entity)
    peaks = []
    for period in range(PERIODS):
        tiles, stored, counted = 0, 0, 0
        for number in range(period * per_period, (period + 1) * per_period):
            later = [labelled(number - per_period, step_us)] if period else []
            state = fold(state, [event(number, step_us)], later).state
            if number % (per_period // 4) == 0:
                header, data = state_bytes(state)
                tiles, stored = max(tiles, len(data)), max(stored, len(header) + sum(map(len, data)))
                counted = max(counted, state.n_bytes)
        peaks.append((tiles, stored, counted))
    full = state.header.horizon_us // ROOT_WIDTH_US + 2  # the horizon ends inside a period, all of which is kept
    assert peaks[0] < peaks[1] < peaks[full] == peaks[-1]
    assert len(set(peaks[full:])) == 1
    assert state.header.version == (2 * PERIODS - 1) * per_period


def event(number: int, step_us: int) -> PastTransaction:
    return PastTransaction(name(number), START_US + number * step_us, 1_000 + number % 97)


def labelled(number: int, step_us: int) -> LaterLabel:
    time_us = START_US + number * step_us
    label = Label(name(number), Verdict.GENUINE, LabelSource.ANALYST, time_us, time_us + US_PER_DAY, 100, "test")
    return LaterLabel(time_us, label)


def name(number: int) -> TransactionId:
    return TransactionId(f"{number:08d}")
