"""A score: the calibrated probability of fraud, and how a model's raw output becomes one."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.errors import BrokenInvariant


@dataclass(frozen=True, slots=True)
class Score:
    """How probable fraud is.

    Attributes:
        probability: Calibrated, 0 to 1.
        bundle_digest: The model bundle that says so, 64 hexadecimal digits.
    """

    probability: float
    bundle_digest: str

    def __post_init__(self) -> None:
        """Refuse what is no probability.

        Raises:
            BrokenInvariant: NaN, or outside 0 to 1.
        """
        if not 0.0 <= self.probability <= 1.0:
            raise BrokenInvariant(f"a score of {self.probability} is no probability")


class Scored(NamedTuple):
    """What a model says of some feature vectors.

    Attributes:
        raw: (n,) float32, the model's output before calibration, a probability.
        contributions: (n, n_features) float64, exact SHAP contributions in log-odds; with the model's base they add
            up to the logit of `raw`.
    """

    raw: NDArray[np.float32]
    contributions: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationTable:
    """A step function from a model's raw output to a probability.

    A look-up and not a formula: `exp` differs between C libraries by a bit now and then, a comparison does not.

    Attributes:
        edges: Raw outputs at which the next step starts, rising.
        probabilities: One more than edges, each 0 to 1, not falling: the first holds below the first edge.
    """

    edges: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a table that is no step function or that reorders transactions.

        Raises:
            BrokenInvariant: Wrong lengths, NaN, edges that do not rise, or probabilities that fall or leave 0 to 1.
        """
        if len(self.probabilities) != len(self.edges) + 1:
            raise BrokenInvariant(f"{len(self.edges)} edges need {len(self.edges) + 1} probabilities")
        if not all(math.isfinite(edge) for edge in self.edges):
            raise BrokenInvariant("calibration edges must be finite")
        if any(left >= right for left, right in zip(self.edges, self.edges[1:], strict=False)):
            raise BrokenInvariant("calibration edges must rise")
        if not all(0.0 <= probability <= 1.0 for probability in self.probabilities):
            raise BrokenInvariant("calibrated probabilities must lie between 0 and 1")
        if any(left > right for left, right in zip(self.probabilities, self.probabilities[1:], strict=False)):
            raise BrokenInvariant("calibrated probabilities must not fall")

    def probability(self, raw: float) -> float:
        """The probability of one raw output; an output on an edge belongs to the step that starts there.

        >>> CalibrationTable((0.5,), (0.01, 0.9)).probability(0.5)
        0.9

        Raises:
            BrokenInvariant: The raw output is NaN.
        """
        if math.isnan(raw):
            raise BrokenInvariant("the model's output is NaN")
        return self.probabilities[bisect_right(self.edges, raw)]

    def probability_many(self, raw: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for (n,) raw outputs; (n,) float64.

        Raises:
            BrokenInvariant: One of them is NaN.
        """
        if np.isnan(raw).any():
            raise BrokenInvariant("the model's output is NaN")
        steps = np.searchsorted(np.array(self.edges, dtype=np.float64), raw.astype(np.float64), side="right")
        found: NDArray[np.float64] = np.array(self.probabilities, dtype=np.float64)[steps]
        return found
