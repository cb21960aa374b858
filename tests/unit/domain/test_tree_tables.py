"""Contributions from tables against Shapley values by their definition, over drawn trees."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.domain.errors import BrokenInvariant
from shared.domain.tree_budget import TREE_BUDGET, TreeBudget
from shared.domain.tree_model import LEAF, Tree, TreeModel, read_booster
from shared.domain.tree_tables import (
    CHUNK_ROWS,
    TreeTables,
    compile_tables,
    tables_from_arrays,
    tables_to_arrays,
)

N_FEATURES = 5
VALUES = (-np.inf, -1.0, -0.0, 0.0, 0.5, float(np.nextafter(np.float32(0.5), np.float32(1))), 2.0, np.inf, np.nan)


@st.composite
def trees(draw: st.DrawFn, depth: int) -> Tree:
    """A tree of at most that depth; features may come again on a path, thresholds are values that rows have."""
    columns: dict[str, list[Any]] = {name: [] for name in ("left", "right", "feature", "value", "missing", "cover")}

    def grow(levels: int, cover: float) -> int:
        node = len(columns["left"])
        inner = levels > 0 and draw(st.integers(0, 4)) > 0
        finite = st.sampled_from([value for value in VALUES if math.isfinite(value)])
        number = draw(finite) if inner else draw(st.floats(-2, 2, width=32))
        row = (LEAF, LEAF, draw(st.integers(0, N_FEATURES - 1)), number, draw(st.booleans()), cover)
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
        if inner:
            share = draw(st.sampled_from([0.125, 0.25, 0.5, 0.75]))
            columns["left"][node] = grow(levels - 1, cover * share)
            columns["right"][node] = grow(levels - 1, cover * (1 - share))
        return node

    grow(depth, 1024.0)
    return Tree(*(tuple(column) for column in columns.values()))


@st.composite
def models(draw: st.DrawFn) -> TreeModel:
    depth = draw(st.integers(0, 6))
    found = draw(st.lists(trees(depth), min_size=1, max_size=3))
    return TreeModel(N_FEATURES, draw(st.sampled_from([0.0, -1.5])), tuple(found))


def vectors(n_rows: int) -> st.SearchStrategy[NDArray[np.float32]]:
    row = st.lists(st.sampled_from(VALUES), min_size=N_FEATURES, max_size=N_FEATURES)
    return st.lists(row, min_size=1, max_size=n_rows).map(lambda rows: np.array(rows, dtype=np.float32))


def expected(tree: Tree, row: NDArray[np.float32], known: frozenset[int], node: int = 0) -> float:
    """What a tree gives on average when only some features of a row are known: the definition of its game."""
    if tree.is_leaf(node):
        return tree.value[node]
    feature, left, right = tree.feature[node], tree.left[node], tree.right[node]
    if feature in known:
        value = row[feature]
        goes_left = tree.missing_left[node] if np.isnan(value) else bool(value < np.float32(tree.value[node]))
        return expected(tree, row, known, left if goes_left else right)
    share = tree.cover[left] / tree.cover[node]
    return share * expected(tree, row, known, left) + (1 - share) * expected(tree, row, known, right)


def shapley(model: TreeModel, row: NDArray[np.float32]) -> tuple[list[float], float]:
    """Shapley values over all coalitions, and what they are added to."""

    @cache
    def game(known: frozenset[int]) -> float:
        return model.base_margin + math.fsum(expected(tree, row, known) for tree in model.trees)

    values = []
    for feature in range(model.n_features):
        others = [other for other in range(model.n_features) if other != feature]
        total = 0.0
        for size in range(model.n_features):
            weight = math.factorial(size) * math.factorial(model.n_features - size - 1)
            for chosen in combinations(others, size):
                known = frozenset(chosen)
                total += weight * (game(known | {feature}) - game(known))
        values.append(total / math.factorial(model.n_features))
    return values, game(frozenset())


@settings(max_examples=60, deadline=None)
@given(models(), vectors(2))
def test_contributions_are_shapley_values_by_their_definition(model: TreeModel, rows: NDArray[np.float32]) -> None:
    tables = compile_tables(model)
    found = tables.contributions(rows)
    for row, contributions in zip(rows, found, strict=True):
        values, base = shapley(model, row)
        np.testing.assert_allclose(contributions, values, rtol=0, atol=2e-6)
        assert math.isclose(tables.base, base, rel_tol=0, abs_tol=1e-9)
        margin = model.base_margin + sum(expected(tree, row, frozenset(range(N_FEATURES))) for tree in model.trees)
        assert math.isclose(tables.base + contributions.sum(), margin, rel_tol=0, abs_tol=5e-6)


@settings(max_examples=25, deadline=None)
@given(models(), vectors(4), st.integers(1, 3 * CHUNK_ROWS), st.randoms(use_true_random=False))
def test_a_row_is_the_same_in_any_batch_in_every_bit(
    model: TreeModel, rows: NDArray[np.float32], count: int, random: Any
) -> None:
    tables = compile_tables(model)
    order = [random.randrange(len(rows)) for _ in range(count)]
    together = tables.contributions(rows[order])
    for place, row in enumerate(order):
        assert together[place].tobytes() == tables.contributions(rows[row : row + 1]).tobytes()


def model_of_depth(depth: int) -> TreeModel:
    """A full tree of one depth, every test on a feature of its own level."""
    n_inner = 2**depth - 1
    n_nodes = 2 * n_inner + 1
    inner = [node < n_inner for node in range(n_nodes)]
    tree = Tree(
        left=tuple(2 * node + 1 if inner[node] else LEAF for node in range(n_nodes)),
        right=tuple(2 * node + 2 if inner[node] else LEAF for node in range(n_nodes)),
        feature=tuple((node + 1).bit_length() % N_FEATURES for node in range(n_nodes)),
        value=tuple(0.5 if inner[node] else float(node) for node in range(n_nodes)),
        missing_left=tuple(node % 2 == 0 for node in range(n_nodes)),
        cover=tuple(2.0 ** (depth + 1 - (node + 1).bit_length()) for node in range(n_nodes)),
    )
    return TreeModel(N_FEATURES, 0.0, (tree,))


@pytest.mark.parametrize(("depth", "n_blocks", "n_slots", "n_rows"), [(3, 1, 8, 128), (4, 2, 8, 256), (5, 4, 16, 512)])
def test_a_tree_is_cut_three_levels_above_its_leaves(depth: int, n_blocks: int, n_slots: int, n_rows: int) -> None:
    tables = compile_tables(model_of_depth(depth))
    assert model_of_depth(depth).depth == depth
    assert tables.feature.shape == (n_blocks, n_slots)
    assert tables.table.shape[1] == n_rows


def test_trees_too_deep_for_two_bytes_are_refused() -> None:
    chain = TreeModel(1, 0.0, (deep_chain(13),))
    with pytest.raises(BrokenInvariant, match="depth 13 need 17 bits"):
        compile_tables(chain)
    assert compile_tables(TreeModel(1, 0.0, (deep_chain(9),))).feature.shape[1] == 16


def deep_chain(depth: int) -> Tree:
    """A tree whose right children are leaves."""
    left = [node + 2 if node % 2 == 0 and node < 2 * depth else LEAF for node in range(2 * depth + 1)]
    right = [node + 1 if node % 2 == 0 and node < 2 * depth else LEAF for node in range(2 * depth + 1)]
    cover = [2.0 ** (depth - (node + 1) // 2) for node in range(2 * depth + 1)]
    zeros = [0.0] * len(left)
    return Tree(
        tuple(left), tuple(right), tuple([0] * len(left)), tuple(zeros), tuple([True] * len(left)), tuple(cover)
    )


def test_no_rows_have_no_contributions() -> None:
    assert compile_tables(model_of_depth(4)).contributions(np.empty((0, N_FEATURES), np.float32)).shape == (0, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, N_FEATURES + 1), np.float32),
        np.zeros((1, N_FEATURES), np.float64),
        np.zeros(N_FEATURES, np.float32),
    ],
)
def test_vectors_of_another_form_are_refused(wrong: Any) -> None:
    with pytest.raises(BrokenInvariant, match="vectors of"):
        compile_tables(model_of_depth(4)).contributions(wrong)


def test_tables_survive_being_taken_apart() -> None:
    tables = compile_tables(model_of_depth(5))
    again = tables_from_arrays(tables_to_arrays(tables), N_FEATURES)
    rows = np.array([[0, 1, np.nan, 0.5, 0.4]], dtype=np.float32)
    assert again.contributions(rows).tobytes() == tables.contributions(rows).tobytes()
    assert again.base == tables.base


def changed(tables: TreeTables, name: str, place: tuple[int, ...], value: float) -> dict[str, NDArray[Any]]:
    arrays = {key: array.copy() for key, array in tables_to_arrays(tables).items()}
    arrays[name][place] = value
    return arrays


@pytest.mark.parametrize(
    ("name", "place", "value", "reason"),
    [
        ("feature", (0, 0), N_FEATURES, "reads a feature beyond"),
        ("table_feature", (0, 0), N_FEATURES, "reads a feature beyond"),
        ("table", (0, 0, 0), np.inf, "not finite"),
        ("threshold", (0, 7), np.nan, "not finite"),
        ("threshold", (0, 0), 0.0, "no table rows"),
        ("missing_passes", (0, 0), True, "no table rows"),
        ("base", (0,), np.nan, "not finite"),
    ],
)
def test_tables_that_could_read_outside_are_refused(
    name: str, place: tuple[int, ...], value: float, reason: str
) -> None:
    arrays = changed(compile_tables(model_of_depth(3)), name, place, value)
    with pytest.raises(BrokenInvariant, match=reason):
        tables_from_arrays(arrays, N_FEATURES)


def test_tables_of_another_form_are_refused() -> None:
    arrays = tables_to_arrays(compile_tables(model_of_depth(4)))
    for name in arrays:
        with pytest.raises(BrokenInvariant, match=f"lack {name}"):
            tables_from_arrays({key: array for key, array in arrays.items() if key != name}, N_FEATURES)
    for name in ("feature", "threshold", "missing_passes", "table_feature"):
        with pytest.raises(BrokenInvariant, match="stands where"):
            tables_from_arrays(arrays | {name: arrays[name][:1]}, N_FEATURES)
    with pytest.raises(BrokenInvariant, match="make no sense"):
        tables_from_arrays(arrays | {"table": arrays["table"][:, :255]}, N_FEATURES)
    with pytest.raises(BrokenInvariant, match="make no sense"):
        tables_from_arrays({name: array[:0] if name != "base" else array for name, array in arrays.items()}, N_FEATURES)
    with pytest.raises(BrokenInvariant, match="not one number"):
        tables_from_arrays(arrays | {"base": np.zeros(2)}, N_FEATURES)


def test_the_budget_names_what_exceeds_it() -> None:
    budget = TreeBudget(max_trees=10, max_depth=4, max_table_bytes=1000)
    budget.check(10, 4, 1000)
    for sizes, what in (((11, 4, 1000), "11 trees"), ((10, 5, 1000), "levels of depth"), ((10, 4, 1001), "bytes")):
        with pytest.raises(BrokenInvariant, match=what):
            budget.check(*sizes)
    assert TREE_BUDGET.max_depth <= 12  # what two bytes can select


def document(**changes: Any) -> dict[str, Any]:
    """A booster as XGBoost writes it: one tree with one test."""
    tree = {
        "left_children": [1, -1, -1],
        "right_children": [2, -1, -1],
        "split_indices": [1, 0, 0],
        "split_conditions": [0.5, -0.25, 0.75],
        "default_left": [1, 0, 0],
        "sum_hessian": [8.0, 6.0, 2.0],
        "split_type": [0, 0, 0],
    }
    tree |= changes.pop("tree", {})
    learner: dict[str, Any] = {
        "gradient_booster": {
            "name": "gbtree",
            "model": {"gbtree_model_param": {"num_parallel_tree": "1"}, "trees": [tree]},
        },
        "objective": {"name": "binary:logistic"},
        "learner_model_param": {"base_score": "[5E-1]", "num_class": "0", "num_feature": "3", "num_target": "1"},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = learner
        for parent in parents:
            place = place[parent]
        place[last] = value
    return {"learner": learner}


def test_a_booster_is_read() -> None:
    model = read_booster(json.dumps(document()).encode())
    assert (model.n_features, model.base_margin, model.depth, len(model.trees)) == (3, 0.0, 1, 1)
    assert model.trees[0] == Tree(
        (1, -1, -1), (2, -1, -1), (1, 0, 0), (0.5, -0.25, 0.75), (True, False, False), (8.0, 6.0, 2.0)
    )
    for feature in (0, 2):
        first_or_last = document(tree={"split_indices": [feature, 0, 0]})
        assert read_booster(json.dumps(first_or_last).encode()).trees[0].feature[0] == feature
    prevalence = document(learner_model_param__base_score="[1E-1]")
    assert math.isclose(read_booster(json.dumps(prevalence).encode()).base_margin, math.log(1 / 9), rel_tol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gradient_booster__name": "dart"}, "is 'dart', not gbtree"),
        ({"objective__name": "reg:squarederror"}, "not binary:logistic"),
        ({"learner_model_param__num_class": "3"}, "more than one output"),
        ({"gradient_booster__model__gbtree_model_param": {"num_parallel_tree": "3"}}, "several trees per round"),
        ({"gradient_booster__model__trees": []}, "no trees"),
        ({"learner_model_param__base_score": "[0E0]"}, "no probability"),
        ({"learner_model_param__base_score": "[one]"}, "cannot be read: ValueError"),
        ({"learner_model_param": {}}, "cannot be read: KeyError"),
        ({"tree": {"split_type": [1, 0, 0]}}, "splits on categories"),
        ({"tree": {"split_indices": [3, 0, 0]}}, "reads feature 3 of 3"),
        ({"tree": {"split_indices": [-1, 0, 0]}}, "reads feature -1 of 3"),
        ({"tree": {"left_children": [0, -1, -1]}}, "reached twice or not there"),
        ({"tree": {"right_children": [1, -1, -1]}}, "reached twice or not there"),
        ({"tree": {"right_children": [3, -1, -1]}}, "reached twice or not there"),
        ({"tree": {"sum_hessian": [0.0, 0.0, 0.0]}}, "without cover"),
        ({"tree": {"sum_hessian": [8.0, 6.0]}}, "different lengths"),
        ({"tree": {"split_conditions": [1e39, 0.0, 0.0]}}, "not finite"),
    ],
)
def test_a_model_that_reasons_cannot_be_exact_for_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BrokenInvariant, match=reason):
        read_booster(json.dumps(document(**changes)).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"learner": 3}', b"\xff"])
def test_bytes_that_are_no_booster_are_refused(data: bytes) -> None:
    with pytest.raises(BrokenInvariant, match="cannot be read"):
        read_booster(data)


def test_missing_values_and_infinities_take_their_way() -> None:
    model = read_booster(json.dumps(document()).encode())
    tables = compile_tables(model)
    rows = np.zeros((5, 3), dtype=np.float32)
    rows[:, 1] = (np.nan, np.inf, -np.inf, 0.5, np.nextafter(np.float32(0.5), np.float32(0)))
    margins = tables.contributions(rows).sum(axis=1) + tables.base
    np.testing.assert_allclose(margins, [-0.25, 0.75, -0.25, 0.75, -0.25], atol=1e-6)
    other = replace(model, trees=(replace(model.trees[0], missing_left=(False, False, False)),))
    turned = compile_tables(other)
    assert math.isclose(turned.contributions(rows[:1]).sum() + turned.base, 0.75, abs_tol=1e-6)
