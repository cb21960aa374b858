"""The vectorised form equals the reference in every bit, and no value depends on what was not yet known."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.errors import BrokenInvariant
from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.feature_folds import AmountWindows, divide, medians, running_maximum
from shared.domain.feature_view import CARD_V1, HANDBOOK_V1, VIEWS, Entity, Feature, FeatureView, Measure, Null
from shared.domain.features import transform_one
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import LabelSource, Verdict
from tests.unit.domain.worlds import World, label, random_world, same_bits, transaction, worlds


@settings(max_examples=60, deadline=None)
@given(worlds(), st.integers(1, 8))
def test_many_equals_one_row_by_row(world: World, chunk_rows: int) -> None:
    expected = world.one_by_one(CARD_V1)
    assert same_bits(world.at_once(CARD_V1), expected)
    assert same_bits(world.at_once(CARD_V1, chunk_rows), expected)


@settings(max_examples=60, deadline=None)
@given(worlds(versions=True))
def test_many_equals_one_when_versions_say_what_was_known(world: World) -> None:
    assert same_bits(world.at_once(CARD_V1), world.one_by_one(CARD_V1))


@pytest.mark.parametrize("late", [False, True])
def test_many_equals_one_in_dense_traffic(late: bool) -> None:
    world = random_world(seed=3, n_rows=350, late=late)
    assert same_bits(world.at_once(CARD_V1), world.one_by_one(CARD_V1))


@settings(max_examples=20, deadline=None)
@given(worlds())
def test_a_smaller_view_gives_the_same_bits(world: World) -> None:
    assert same_bits(world.at_once(HANDBOOK_V1), world.at_once(CARD_V1)[:, :15].copy())


@settings(max_examples=15, deadline=None)
@given(worlds(), st.permutations(CARD_V1.features))
def test_column_order_is_that_of_the_view_and_changes_no_value(world: World, features: list[Feature]) -> None:
    view = FeatureView("shuffled", tuple(features))
    places = [CARD_V1.names.index(name) for name in view.names]
    assert same_bits(world.at_once(view), world.at_once(CARD_V1)[:, places].copy())


@settings(max_examples=25, deadline=None)
@given(worlds(versions=True), st.randoms(use_true_random=False))
def test_row_order_is_irrelevant(world: World, random: Random) -> None:
    rows = list(range(len(world.transactions)))
    labels = list(range(len(world.labels)))
    random.shuffle(rows)
    random.shuffle(labels)
    assert world.versions is not None
    assert world.label_versions is not None
    shuffled = World(
        [world.transactions[row] for row in rows],
        [world.labels[place] for place in labels],
        [world.versions[row] for row in rows],
        [world.label_versions[place] for place in labels],
    )
    assert same_bits(shuffled.at_once(CARD_V1), world.at_once(CARD_V1)[rows])


@settings(max_examples=25, deadline=None)
@given(worlds(), st.integers(0, 23))
def test_later_events_change_nothing(world: World, number: int) -> None:
    """Dropping every transaction after one, and every label on them, leaves that row and the earlier ones alone."""
    cut = world.transactions[number % len(world.transactions)].order
    kept = [row for row, item in enumerate(world.transactions) if item.order <= cut]
    ids = {world.transactions[row].transaction_id for row in kept}
    past = World(
        [world.transactions[row] for row in kept], [item for item in world.labels if item.transaction_id in ids]
    )
    assert same_bits(past.at_once(CARD_V1), world.at_once(CARD_V1)[kept])


@settings(max_examples=40, deadline=None)
@given(worlds(), st.integers(0, 23), st.randoms(use_true_random=False))
def test_labels_not_yet_knowable_change_nothing(world: World, number: int, random: Random) -> None:
    """Turned over, dropped or added: a label that does not count at an event time leaves no trace in its row."""
    row = number % len(world.transactions)
    time_us = world.transactions[row].event_time_us

    def opposite(verdict: Verdict) -> Verdict:
        return Verdict.GENUINE if verdict is Verdict.FRAUD else Verdict.FRAUD

    changed = [
        item if item.counts_at(time_us) else replace(item, verdict=opposite(item.verdict))
        for item in world.labels
        if item.counts_at(time_us) or random.random() < 0.7
    ]
    changed += [
        replace(label(item, fraud=True), known_at_us=time_us - CARD_V1.label_delay_us + 1)
        for item in world.transactions
    ]
    other = World(world.transactions, changed)
    assert same_bits(other.at_once(CARD_V1)[row], world.at_once(CARD_V1)[row])


@settings(max_examples=25, deadline=None)
@given(worlds(versions=True))
def test_inputs_are_not_changed(world: World) -> None:
    transactions, labels = world.columns(), world.label_columns()
    for column in (*_arrays(transactions), *_arrays(labels)):
        column.flags.writeable = False
    transform_many(CARD_V1, transactions, labels)


def _arrays(columns: TransactionColumns | LabelColumns) -> list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    values = [getattr(columns, name) for name in columns.__slots__]
    return [value for value in values if isinstance(value, np.ndarray)]


@settings(max_examples=20, deadline=None)
@given(worlds())
def test_how_entities_are_named_is_irrelevant(world: World) -> None:
    """Text, small and very large, signed and unsigned keys group alike."""
    columns, labels = world.columns(), world.label_columns()
    expected = transform_many(CARD_V1, columns, labels)
    numbers = np.unique(columns.customer, return_inverse=True)[1]
    for keys in (
        numbers.astype(np.int16),
        numbers.astype(np.int64) * (2**62) - 2**61,
        numbers.astype(np.uint64) * np.uint64(2**63) + np.uint64(70_000),
    ):
        renamed = replace(columns, customer=keys)
        assert same_bits(transform_many(CARD_V1, renamed, labels), expected)


def test_many_entities_over_many_years_still_fit_the_search_keys() -> None:
    """A span whose keys would not fit 64 bits for all entities at once."""
    century_us = 100 * 365 * US_PER_DAY
    rng = np.random.default_rng(5)
    n_rows = 4000
    columns = TransactionColumns(
        np.arange(n_rows),
        rng.integers(0, century_us, n_rows),
        rng.integers(1, 1000, n_rows),
        np.arange(n_rows),
        np.zeros(n_rows, dtype=np.int64),
    )
    found = transform_many(CARD_V1, columns, LabelColumns.none())
    assert np.all(found[:, CARD_V1.names.index("customer_count_30d")] == 1)


@pytest.mark.parametrize("seed", range(3))
def test_sweeping_and_sorting_give_the_same_medians(seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts = np.array([0, 40, 41, 120])
    here = np.arange(120)
    group_start = np.repeat(starts[:-1], np.diff(starts))
    windows = AmountWindows(
        np.maximum(group_start, here - rng.integers(0, 30, 120)),
        {days: np.maximum(group_start, here - depth) for days, depth in ((1, 2), (7, 5), (14, 12))},
        {14: np.maximum(group_start, here - 12)},
    )
    # Window starts never fall within an entity.
    for number in range(3):
        part = slice(starts[number], starts[number + 1])
        windows.median[part] = np.maximum.accumulate(windows.median[part])
    for scale in (50, 10_000_000_000):
        amount = rng.integers(1, scale, 120)
        dense, swept = medians(amount, windows, starts), medians(amount, windows, starts, dense_window=0)
        assert np.array_equal(dense.twice_median, swept.twice_median)
        for window in (1, 7, 14):
            assert np.array_equal(dense.outliers[window], swept.outliers[window])
        assert np.array_equal(dense.largest[14], swept.largest[14])
        wanted = rng.random(120) < 0.2
        few = medians(amount, windows, starts, wanted, dense_window=0)
        assert np.array_equal(few.twice_median[wanted], dense.twice_median[wanted])
        assert np.array_equal(few.outliers[7][wanted], dense.outliers[7][wanted])
        assert np.array_equal(few.largest[14][wanted], dense.largest[14][wanted])


def test_a_busy_card_and_a_busy_terminal_equal_the_reference() -> None:
    """More transactions in 30 days than are sorted anew for each row, with labels out of order."""
    rng = np.random.default_rng(8)
    transactions = [
        transaction(number, number * 1_800_000_000, amount=int(rng.integers(1, 10**6))) for number in range(1200)
    ]
    labels = [
        label(item, fraud=bool(rng.random() < 0.5), known_after_us=int(rng.integers(0, 6)) * US_PER_DAY)
        for item in transactions[::3]
    ]
    world = World(transactions, labels)
    found = world.at_once(CARD_V1)
    history = world.history(0)
    for row in range(0, 1200, 37):
        assert same_bits(transform_one(CARD_V1, transactions[row], history), found[row])


@given(st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)), min_size=1))
def test_one_division_has_the_bits_of_python(pairs: list[tuple[int, int]]) -> None:
    above, below = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    expected = [float(a) / float(b) if b else np.nan for a, b in pairs]
    assert divide(above, below).tobytes() == np.array(expected).tobytes()


@given(st.lists(st.lists(st.integers(-(2**62), 2**62), min_size=1), min_size=1, max_size=5))
def test_running_maxima_stay_in_their_group(groups: list[list[int]]) -> None:
    values = np.array([value for group in groups for value in group], dtype=np.int64)
    starts = np.cumsum([0, *(len(group) for group in groups)])
    expected = [max(group[: end + 1]) for group in groups for end in range(len(group))]
    assert running_maximum(values, starts).tolist() == expected


def test_no_rows_give_no_vectors() -> None:
    empty = np.empty(0, dtype=np.int64)
    columns = TransactionColumns(empty, empty, empty, empty, empty)
    for view in VIEWS.values():
        assert transform_many(view, columns, LabelColumns.none()).shape == (0, len(view.features))


def test_columns_that_do_not_fit_are_refused() -> None:
    world = random_world(1, 5)
    columns, labels = world.columns(), world.label_columns()
    with pytest.raises(BrokenInvariant, match="stands beside columns of"):
        transform_many(CARD_V1, replace(columns, amount_minor=columns.amount_minor[1:]), labels)
    with pytest.raises(BrokenInvariant, match="label column"):
        transform_many(CARD_V1, columns, replace(labels, source=labels.source[1:]))
    with pytest.raises(BrokenInvariant, match="not there"):
        transform_many(CARD_V1, columns, replace(labels, row=labels.row + 5))
    with pytest.raises(BrokenInvariant, match="versions and labels do not"):
        transform_many(CARD_V1, replace(columns, terminal_version=np.arange(5)), labels)


def test_a_measure_and_an_entity_that_do_not_fit_are_a_bug() -> None:
    world = random_world(1, 5)
    for feature in (
        Feature("x", Measure.COUNT, "transactions", Null.NEVER, None),
        Feature("x", Measure.AMOUNT, "minor units", Null.NEVER, Entity.CUSTOMER, US_PER_DAY),
    ):
        view = FeatureView("broken", (feature,))
        with pytest.raises(BrokenInvariant):
            world.one_by_one(view)
        with pytest.raises(BrokenInvariant):
            world.at_once(view)


def test_versions_too_large_to_search_are_refused() -> None:
    world = replace(random_world(1, 5), versions=[2**62] * 5)
    world = replace(world, label_versions=[1] * len(world.labels))
    with pytest.raises(BrokenInvariant, match="cannot be searched"):
        world.at_once(CARD_V1)


@settings(max_examples=15, deadline=None)
@given(worlds(versions=True))
def test_one_entity_may_have_versions_and_the_other_none(world: World) -> None:
    """A view of one entity reads nothing of the other one, versions included."""
    view = FeatureView("terminal", tuple(item for item in CARD_V1.features if item.entity is Entity.TERMINAL))
    columns, labels = world.columns(), world.label_columns()
    expected = transform_many(view, columns, labels)
    without = transform_many(view, replace(columns, customer_version=None), replace(labels, customer_version=None))
    assert same_bits(without, expected)


def test_a_label_recorded_late_is_unknown_to_a_decision_that_came_before_it() -> None:
    """At a terminal, where a later version of an earlier row must not make the decision look better informed."""
    old, overtaken, decided = (transaction(number, days * US_PER_DAY) for number, days in enumerate((0, 20, 21)))
    world = World([old, overtaken, decided], [label(old, fraud=True)], [1, 7, 5], [6])
    found = world.at_once(CARD_V1)
    assert same_bits(found, world.one_by_one(CARD_V1))
    assert found[:, CARD_V1.names.index("terminal_fraud_run")].tolist() == [0, 1, 0]


def test_a_verdict_that_is_overruled_before_an_earlier_one_leaves() -> None:
    """The earlier transaction's label stays known while the later transaction's changes from genuine to fraud."""
    first, second = transaction(0, 0), transaction(1, US_PER_DAY)
    watched = [transaction(10 + days, days * US_PER_DAY) for days in range(8, 20)]
    labels = [
        label(first, fraud=True),
        label(second, fraud=False),
        replace(label(second, fraud=True, known_after_us=5 * US_PER_DAY), source=LabelSource.CHARGEBACK),
    ]
    world = World([first, second, *watched], labels)
    found = world.at_once(CARD_V1)
    assert same_bits(found, world.one_by_one(CARD_V1))
    assert found[2:, CARD_V1.names.index("terminal_fraud_run")].tolist() == [0] * 5 + [2] * 7


def test_a_genuine_label_overrules_fraud_in_a_view_of_frauds_only() -> None:
    item, later = transaction(0, 0), transaction(1, 20 * US_PER_DAY)
    overruling = replace(label(item, fraud=False), source=LabelSource.CHARGEBACK)
    world = World([item, later], [label(item, fraud=True), overruling])
    found = world.at_once(HANDBOOK_V1)
    assert same_bits(found, world.one_by_one(HANDBOOK_V1))
    assert found[1, HANDBOOK_V1.names.index("terminal_fraud_rate_30d")] == 0


def test_rows_that_arrived_in_reverse_over_a_century_know_nothing() -> None:
    """So many private histories over so long a span that their search keys would not fit 64 bits at once."""
    rng = np.random.default_rng(6)
    n_rows = 4000
    versions = np.arange(n_rows, 0, -1)
    columns = TransactionColumns(
        np.arange(n_rows),
        np.sort(rng.integers(0, 100 * 365 * US_PER_DAY, n_rows)),
        rng.integers(1, 1000, n_rows),
        np.zeros(n_rows, dtype=np.int64),
        np.zeros(n_rows, dtype=np.int64),
        versions,
        versions,
    )
    found = transform_many(CARD_V1, columns, LabelColumns.none())
    assert np.all(found[:, CARD_V1.names.index("customer_count_30d")] == 1)
    assert np.all(found[:, CARD_V1.names.index("terminal_count_30d")] == 0)
