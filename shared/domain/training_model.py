"""What training is told, and what comes out of it before it is a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.errors import InvalidInput
from shared.domain.tree_budget import TRAINING_DEPTH, TRAINING_TREES, TREE_BUDGET

MAX_CLASS_WEIGHT: Final = 1000.0


@dataclass(frozen=True, slots=True)
class TrainingParameters:
    """How trees are grown.

    Attributes:
        n_trees: At most so many.
        depth: At most so deep.
        learning_rate: How much of each tree's correction is taken.
        min_child_weight: Least sum of second derivatives of a leaf.
        l2: Penalty on leaf outputs.
        max_bins: Cuts considered per feature. 256, XGBoost's default, has none near an amount that .2 % exceed.
        patience: Trees without an improvement of the validation span's log loss after which growing stops.
        class_weight: How many genuine transactions a fraud counts for; calibration makes probabilities of it again.
        seed: Of everything random.
    """

    n_trees: int = TRAINING_TREES
    depth: int = TRAINING_DEPTH
    learning_rate: float = 0.15
    min_child_weight: float = 10.0
    l2: float = 1.0
    max_bins: int = 4096
    patience: int = 30
    class_weight: float = 1.0
    seed: int = 20260101

    def __post_init__(self) -> None:
        """Refuse what no bundle may hold.

        Raises:
            InvalidInput: Names the parameter.
        """
        if not 1 <= self.n_trees <= TREE_BUDGET.max_trees:
            raise InvalidInput("n_trees", f"must be 1 to {TREE_BUDGET.max_trees}")
        if not 1 <= self.depth <= TREE_BUDGET.max_depth:
            raise InvalidInput("depth", f"must be 1 to {TREE_BUDGET.max_depth}")
        if not 0.0 < self.learning_rate <= 1.0:
            raise InvalidInput("learning_rate", "must be greater than 0 and at most 1")
        if not 0.0 < self.class_weight <= MAX_CLASS_WEIGHT:
            raise InvalidInput("class_weight", f"must be greater than 0 and at most {MAX_CLASS_WEIGHT:g}")

    def to_fields(self) -> dict[str, int | float | str]:
        """As the fields of a manifest."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows to learn from or to stop by.

    Attributes:
        vectors: (n, n_features) float32.
        is_fraud: (n,) bool.
    """

    vectors: NDArray[np.float32]
    is_fraud: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A trained model in its two forms.

    Attributes:
        booster: The trees as XGBoost's JSON.
        model: The same as an ONNX graph.
        n_trees: Trees in both.
        libraries: Library to version.
    """

    booster: bytes
    model: bytes
    n_trees: int
    libraries: Mapping[str, str]


def data_digest(rows: Mapping[str, Rows]) -> str:
    """SHA-256 over every span's vectors and outcomes, as a manifest records it: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for span in sorted(rows):
        digest.update(f"{span} {len(rows[span].vectors)} ".encode())
        digest.update(np.ascontiguousarray(rows[span].vectors).tobytes())
        digest.update(np.packbits(rows[span].is_fraud).tobytes())
    return digest.hexdigest()
