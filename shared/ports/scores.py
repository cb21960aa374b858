"""What a model said of the transactions that were decided, as a port."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class ScoredTransactions(NamedTuple):
    """All decided transactions of some time, in any order: columns of one length.

    Attributes:
        event_time_us: int64, microseconds since 1970 UTC.
        amount_minor: int64, minor units.
        probability: float64, the model's calibrated score; NaN where it has none.
    """

    event_time_us: NDArray[np.int64]
    amount_minor: NDArray[np.int64]
    probability: NDArray[np.float64]


class ModelScores(Protocol):
    """Scores by which a model decided, or that it gave in shadow."""

    def scored(self, bundle_digest: str, start_us: int, end_us: int) -> ScoredTransactions:
        """All decided transactions that happened in a window, its end not included, with one model's scores.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...
