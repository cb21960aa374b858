"""Rows made to catch a wrong export: every threshold, its neighbours, and every strange value in every column."""

from __future__ import annotations

import numpy as np
import pytest

from shared.domain.errors import BrokenInvariant
from shared.domain.training_parity import Parity, adjacent_rows, sigmoid, strange_rows
from shared.domain.tree_model import Tree, TreeModel

SPLIT = Tree((1, -1, -1), (2, -1, -1), (1, 0, 0), (0.5, -1.0, 1.0), (True, False, False), (4.0, 2.0, 2.0))
LEAF = Tree((-1,), (-1,), (0,), (0.25,), (False,), (4.0,))
LIKE = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_each_threshold_is_met_and_missed_by_the_least_there_is() -> None:
    rows = adjacent_rows(TreeModel(3, 0.0, (SPLIT, SPLIT, LEAF)), LIKE)
    half = np.float32(0.5)
    below, above = np.nextafter(half, np.float32(-1)), np.nextafter(half, np.float32(1))
    assert rows[:, 1].tolist() == [half, below, above]
    assert rows[:, [0, 2]].tolist() == LIKE[:3, [0, 2]].tolist()
    assert below < half < above


def test_a_model_without_splits_has_no_thresholds() -> None:
    assert adjacent_rows(TreeModel(3, 0.0, (LEAF,)), LIKE).shape == (0, 3)


def test_every_column_alone_and_all_together_are_strange() -> None:
    rows = strange_rows(LIKE)
    assert rows.shape == (5 * (3 + 1), 3)
    for find in (np.isnan, np.isposinf, np.isneginf, lambda values: (values == 0) & np.signbit(values)):
        alone = find(rows).sum(axis=1)
        assert (alone == 3).sum() == 1
        for column in range(3):
            assert find(rows)[(alone == 1), column].sum() == 1


def test_what_differs_too_much_is_named() -> None:
    Parity(1e-6, 1e-6, 1e-6, 9).check()
    for place, what in enumerate(("outputs", "contributions", "sums")):
        for value in (2e-5, float("nan")):
            values = [0.0, 0.0, 0.0]
            values[place] = value
            with pytest.raises(BrokenInvariant, match=what):
                Parity(values[0], values[1], values[2], 1).check()


def test_the_sigmoid_is_the_logistic_function() -> None:
    np.testing.assert_allclose(sigmoid(np.array([-2.0, 0.0, 2.0])), [0.11920292, 0.5, 0.88079708])
