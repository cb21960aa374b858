"""A boosted tree model as read from XGBoost's JSON: plain numbers, checked before anything is computed from them.

Only what the tables of reasons can represent exactly is accepted: gradient boosted trees (`gbtree`), one tree per
round, a binary logistic objective, and numeric splits `value < threshold` with a direction for missing values.

Source of the form: XGBoost, "Introduction to Model IO" and its JSON schema (`doc/model.schema`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from shared.domain.errors import BrokenInvariant

LEAF: Final = -1
"""XGBoost's child number of a leaf."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree; columns of one length, a place for each node, the root first.

    Attributes:
        left: Left child, or `LEAF`.
        right: Right child, or `LEAF`.
        feature: Which feature an inner node looks at.
        value: An inner node's threshold, a leaf's output in log-odds; binary32 values.
        missing_left: Whether a missing value goes left.
        cover: Sum of the second derivatives of the training rows that came here, greater than 0; what a path is
            weighted by when a feature is unknown.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    feature: tuple[int, ...]
    value: tuple[float, ...]
    missing_left: tuple[bool, ...]
    cover: tuple[float, ...]

    def is_leaf(self, node: int) -> bool:
        """Whether a node has no children."""
        return self.left[node] == LEAF

    @property
    def depth(self) -> int:
        """Tests on the longest path; 0 for a lone leaf."""
        deepest, level = 0, [0]
        while level:
            level = [child for node in level if not self.is_leaf(node) for child in (self.left[node], self.right[node])]
            deepest += bool(level)
        return deepest


@dataclass(frozen=True, slots=True)
class TreeModel:
    """All trees of a model; its margin is `base_margin` plus the sum of the leaves reached.

    Attributes:
        n_features: Length of the feature vector.
        base_margin: In log-odds.
        trees: In the order of training.
    """

    n_features: int
    base_margin: float
    trees: tuple[Tree, ...]

    @property
    def depth(self) -> int:
        """Depth of the deepest tree."""
        return max((tree.depth for tree in self.trees), default=0)


def read_booster(data: bytes) -> TreeModel:
    """The trees of a booster saved as JSON.

    Raises:
        BrokenInvariant: It is no such thing, or a kind of model that reasons cannot be exact for.
    """
    try:
        document = json.loads(data)
        learner = document["learner"]
        booster = learner["gradient_booster"]
        objective = learner["objective"]["name"]
        parameters = learner["learner_model_param"]
        if booster["name"] != "gbtree":
            raise BrokenInvariant(f"the booster is {booster['name']!r}, not gbtree")
        if objective != "binary:logistic":
            raise BrokenInvariant(f"the objective is {objective!r}, not binary:logistic")
        if int(parameters.get("num_class", 0)) > 1 or int(parameters.get("num_target", 1)) != 1:
            raise BrokenInvariant("the booster has more than one output")
        model = booster["model"]
        if int(model["gbtree_model_param"].get("num_parallel_tree", 1)) > 1:
            raise BrokenInvariant("the booster has several trees per round")
        n_features = int(parameters["num_feature"])
        trees = tuple(_tree(number, fields, n_features) for number, fields in enumerate(model["trees"]))
        base_score = float(np.float32(str(parameters["base_score"]).strip("[]")))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise BrokenInvariant(f"the booster cannot be read: {type(error).__name__}: {error}") from error
    if not 0.0 < base_score < 1.0:
        raise BrokenInvariant(f"a base score of {base_score} is no probability")
    if not trees:
        raise BrokenInvariant("the booster has no trees")
    return TreeModel(n_features, math.log(base_score / (1.0 - base_score)), trees)


def _tree(number: int, fields: Mapping[str, Any], n_features: int) -> Tree:
    """One tree of the document, checked: every node but the root is the child of exactly one earlier reached node."""
    if any(fields.get("split_type", ())):
        raise BrokenInvariant(f"tree {number} splits on categories")
    tree = Tree(
        left=_integers(fields["left_children"]),
        right=_integers(fields["right_children"]),
        feature=_integers(fields["split_indices"]),
        value=_binary32(fields["split_conditions"]),
        missing_left=tuple(bool(value) for value in fields["default_left"]),
        cover=_binary32(fields["sum_hessian"]),
    )
    n_nodes = len(tree.left)
    columns = (tree.right, tree.feature, tree.value, tree.missing_left, tree.cover)
    if n_nodes == 0 or any(len(column) != n_nodes for column in columns):
        raise BrokenInvariant(f"tree {number} has columns of different lengths")
    if not all(math.isfinite(value) for value in (*tree.value, *tree.cover)):
        raise BrokenInvariant(f"tree {number} holds a number that is not finite")
    seen, level = {0}, [0]
    while level:
        children = []
        for node in level:
            if tree.is_leaf(node):
                continue
            if not 0 <= tree.feature[node] < n_features:
                raise BrokenInvariant(f"tree {number} reads feature {tree.feature[node]} of {n_features}")
            if tree.cover[node] <= 0:
                raise BrokenInvariant(f"tree {number} has an inner node without cover")
            for child in (tree.left[node], tree.right[node]):
                if not 0 < child < n_nodes or child in seen:
                    raise BrokenInvariant(f"tree {number} is no tree: node {child} is reached twice or not there")
                seen.add(child)
                children.append(child)
        level = children
    return tree


def _binary32(values: Sequence[Any]) -> tuple[float, ...]:
    """Numbers as XGBoost holds them; what is too great for that becomes infinite, and is refused as such."""
    with np.errstate(over="ignore"):
        return tuple(np.array(values, dtype=np.float64).astype(np.float32).tolist())


def _integers(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
