"""Spans: ordered by time, apart by the label delay, mature, and with outcomes that were known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from shared.domain.errors import InvalidInput
from shared.domain.feature_columns import LabelColumns
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import LABEL_DELAY_US, label_at
from shared.domain.training_model import TrainingParameters
from shared.domain.training_split import (
    CALIBRATION,
    TEST,
    TRAIN,
    VALIDATION,
    TrainingPlan,
    split_by_time,
    targets_as_of,
)
from shared.domain.tree_budget import TREE_BUDGET
from tests.fakes.bundles import history, plan_of
from tests.unit.domain.worlds import World, worlds


@settings(deadline=None)
@given(worlds())
def test_outcomes_are_those_of_the_strongest_label_known_by_then(world: World) -> None:
    columns, labels = world.columns(), world.label_columns()
    moments = [*labels.known_at_us.tolist(), 0, 2**62]
    for as_of_us in moments:
        found = targets_as_of(len(columns.event_time_us), labels, as_of_us)
        for row, transaction in enumerate(world.transactions):
            own = [label for label in world.labels if label.transaction_id == transaction.transaction_id]
            holding = label_at(own, as_of_us, label_delay_us=0)
            assert found.known[row] == (holding is not None)
            assert found.is_fraud[row] == (holding is not None and holding.is_fraud)


def test_spans_are_ordered_and_apart_by_the_gap() -> None:
    transactions, labels = history()
    plan = plan_of(transactions)
    split = split_by_time(transactions, targets_as_of(len(labels.row), labels, plan.as_of_us), plan)
    train, validation, calibration, test = (split.spans[name] for name in (TRAIN, VALIDATION, CALIBRATION, TEST))
    assert validation.start_us - train.end_us == LABEL_DELAY_US
    assert calibration.start_us - validation.end_us == test.start_us - calibration.end_us == LABEL_DELAY_US
    assert test.end_us - train.start_us == plan.length_us
    assert test.end_us % US_PER_DAY == 0
    assert test.end_us <= plan.as_of_us - plan.maturity_us + 1
    assert (train.end_us - train.start_us, test.end_us - test.start_us) == (20 * US_PER_DAY, 7 * US_PER_DAY)
    for name, rows in split.rows.items():
        span, times = split.spans[name], transactions.event_time_us[rows]
        assert span.start_us <= times.min() <= times.max() < span.end_us
        assert np.all(np.diff(times) >= 0)
        assert (
            span.n_rows
            == len(rows)
            == ((transactions.event_time_us >= span.start_us) & (transactions.event_time_us < span.end_us)).sum()
        )
        assert span.n_frauds == labels.is_fraud[rows].sum()


def test_a_transaction_without_a_known_label_is_in_no_span() -> None:
    transactions, labels = history()
    plan = plan_of(transactions)
    silent = np.arange(len(labels.row)) % 3 == 0
    late = np.arange(len(labels.row)) % 3 == 1
    known_at_us = np.where(late, plan.as_of_us + 1, labels.known_at_us)
    kept = LabelColumns(
        *(column[~silent] for column in (labels.row, labels.is_fraud, known_at_us, labels.source, labels.confidence))
    )
    split = split_by_time(transactions, targets_as_of(len(silent), kept, plan.as_of_us), plan)
    rows = np.concatenate(list(split.rows.values()))
    assert len(rows)
    assert not (silent | late)[rows].any()


def test_training_takes_what_history_there_is() -> None:
    transactions, labels = history()
    plan = replace(plan_of(transactions), train_days=1000)
    split = split_by_time(transactions, targets_as_of(len(labels.row), labels, plan.as_of_us), plan)
    assert split.spans[TRAIN].start_us == transactions.event_time_us.min()


@pytest.mark.parametrize(("before_us", "whole_days"), [(1, 0), (2, 1), (0, 0)])
def test_the_test_span_ends_at_the_last_midnight_that_mature_history_reaches(before_us: int, whole_days: int) -> None:
    transactions, labels = history()
    midnight_us = (int(transactions.event_time_us.max()) // US_PER_DAY - 8) * US_PER_DAY
    times = transactions.event_time_us.copy()
    old = times <= midnight_us - before_us
    times[np.flatnonzero(old)[-1]] = midnight_us - before_us
    plan = replace(plan_of(transactions), as_of_us=midnight_us - before_us + 7 * US_PER_DAY)
    moved = replace(transactions, event_time_us=times)
    split = split_by_time(moved, targets_as_of(len(times), labels, plan.as_of_us), plan)
    assert split.spans[TEST].end_us == midnight_us - whole_days * US_PER_DAY


def test_a_plan_of_single_days_is_a_plan() -> None:
    plan = TrainingPlan(
        as_of_us=0, train_days=1, validation_days=1, calibration_days=1, test_days=1, gap_us=0, maturity_us=0
    )
    assert (plan.train_days, plan.gap_us, plan.maturity_us) == (1, 0, 0)


def test_a_history_that_is_too_short_is_refused_by_name() -> None:
    transactions, labels = history(days=20)
    plan = plan_of(transactions)
    with pytest.raises(InvalidInput, match="in the train span; it has 0 frauds"):
        split_by_time(transactions, targets_as_of(len(labels.row), labels, plan.as_of_us), plan)
    with pytest.raises(InvalidInput, match="labels must be known"):
        split_by_time(transactions, targets_as_of(len(labels.row), LabelColumns.none(), plan.as_of_us), plan)


@pytest.mark.parametrize(
    "field", ["train_days", "validation_days", "calibration_days", "test_days", "gap_us", "maturity_us"]
)
def test_a_plan_that_makes_no_sense_is_refused_by_name(field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        TrainingPlan(**{"as_of_us": 0, field: -1})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_trees", 0),
        ("n_trees", TREE_BUDGET.max_trees + 1),
        ("depth", 0),
        ("depth", 7),
        ("learning_rate", 0.0),
        ("class_weight", 0.0),
    ],
)
def test_parameters_that_no_bundle_may_hold_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=field):
        TrainingParameters(**{field: value})  # type: ignore[arg-type]
