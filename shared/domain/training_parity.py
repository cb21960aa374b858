"""Whether every form of a model says the same: the booster that was trained, the ONNX graph, the tables of reasons.

Exports of tree models go wrong in silence: another number of trees, another type of threshold, another direction for
missing values. All of these show at rows made for the purpose: for every split, rows whose value is the threshold and
its two neighbours in binary32; rows with one value, or all, missing, infinite or minus nought.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle import PARITY_TOLERANCE
from shared.domain.errors import BrokenInvariant
from shared.domain.tree_model import TreeModel

type Vectors = NDArray[np.float32]

_STRANGE: Final = (np.nan, np.inf, -np.inf, -0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Parity:
    """Greatest differences found.

    Attributes:
        output: Between the graph's output and the booster's, as probabilities.
        contribution: Between table and booster, log-odds.
        sum: Between a row's contributions with the base and the booster's margin, log-odds.
        n_rows: Rows whose outputs were compared.
    """

    output: float
    contribution: float
    sum: float
    n_rows: int

    def check(self, tolerance: float = PARITY_TOLERANCE) -> None:
        """Refuse a model whose forms differ.

        Raises:
            BrokenInvariant: Says which, and by how much.
        """
        for what, value in (
            ("the graph's outputs", self.output),
            ("the tables' contributions", self.contribution),
            ("the sums of contributions", self.sum),
        ):
            if not value <= tolerance:  # NaN fails too
                raise BrokenInvariant(f"no parity: {what} differ from the booster's by {value:.2g}")


def adjacent_rows(model: TreeModel, like: Vectors) -> Vectors:
    """Three rows for each distinct split: real rows whose value is the threshold, the next below, the next above.

    Args:
        model: The trees.
        like: (n, n_features) float32, real rows; taken in turn.

    Returns:
        (3 * n_splits, n_features) float32.
    """
    splits = sorted(
        {
            (tree.feature[node], tree.value[node])
            for tree in model.trees
            for node in range(len(tree.left))
            if not tree.is_leaf(node)
        }
    )
    if not splits:
        return like[:0].copy()
    rows = like[np.arange(3 * len(splits)) % len(like)].copy()
    features = np.repeat([feature for feature, _ in splits], 3)
    exact = np.array([value for _, value in splits], dtype=np.float32)
    infinity = np.float32(np.inf)
    values = np.stack([exact, np.nextafter(exact, -infinity), np.nextafter(exact, infinity)], axis=1)
    rows[np.arange(len(rows)), features] = values.ravel()
    return rows


def strange_rows(like: Vectors) -> Vectors:
    """Rows with one column, and with all, missing, infinite, or nought of either sign."""
    n_features = like.shape[1]
    rows = []
    for value in _STRANGE:
        single = like[np.arange(n_features) % len(like)].copy()
        single[np.arange(n_features), np.arange(n_features)] = value
        rows += [single, np.full((1, n_features), value, dtype=np.float32)]
    return np.concatenate(rows)


def sigmoid(margin: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of (n,) log-odds."""
    found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-margin.astype(np.float64)))
    return found
