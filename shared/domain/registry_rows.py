"""The rows that a model was measured on, as they are kept for the pictures of its run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_arrays import read_arrays, write_arrays
from shared.domain.errors import BrokenInvariant

MAX_EXPLAINED: Final = 2_000
"""Rows whose features are kept, for the summary of reasons; more dots would lie on top of each other."""

_FORMS: Final = {
    "raw": (1, np.dtype(np.float32)),
    "is_fraud": (1, np.dtype(np.bool_)),
    "amount_minor": (1, np.dtype(np.int64)),
    "explained": (2, np.dtype(np.float32)),
}


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredRows:
    """The test span of a training: outcomes and outputs of all rows, features of some.

    Attributes:
        raw: (n,) float32, the model's outputs before calibration.
        is_fraud: (n,) bool.
        amount_minor: (n,) int64, in minor units of the deployment's currency.
        explained: (at most MAX_EXPLAINED, n_features) float32, vectors of rows spread evenly over the span.
    """

    raw: NDArray[np.float32]
    is_fraud: NDArray[np.bool_]
    amount_minor: NDArray[np.int64]
    explained: NDArray[np.float32]


def measured_rows(
    vectors: NDArray[np.float32],
    raw: NDArray[np.float32],
    is_fraud: NDArray[np.bool_],
    amount_minor: NDArray[np.int64],
) -> MeasuredRows:
    """Keep of a test span what pictures need.

    Args:
        vectors: (n, n_features) float32, by event time.
        raw: (n,) float32, the model's outputs.
        is_fraud: (n,) bool.
        amount_minor: (n,) int64.

    Raises:
        BrokenInvariant: Their lengths differ, or there are no rows.
    """
    if not 0 < len(vectors) == len(raw) == len(is_fraud) == len(amount_minor):
        raise BrokenInvariant("rows of a test span must be as many as their outputs, outcomes and amounts")
    chosen = np.unique(np.linspace(0, len(vectors) - 1, MAX_EXPLAINED).astype(np.int64))
    return MeasuredRows(raw, is_fraud, amount_minor, vectors[chosen])


def write_measured_rows(rows: MeasuredRows) -> bytes:
    """The rows as named arrays."""
    return write_arrays({name: getattr(rows, name) for name in _FORMS})


def read_measured_rows(data: bytes) -> MeasuredRows:
    """The inverse of `write_measured_rows`.

    Raises:
        BrokenInvariant: They cannot be read, or an array has another form.
    """
    arrays: dict[str, NDArray[Any]] = read_arrays(data)
    for name, (n_dimensions, dtype) in _FORMS.items():
        if name not in arrays or (arrays[name].ndim, arrays[name].dtype) != (n_dimensions, dtype):
            raise BrokenInvariant(f"the rows of a test span lack {name}, or it has another form")
    rows = MeasuredRows(*(arrays[name] for name in _FORMS))
    if not 0 < len(rows.raw) == len(rows.is_fraud) == len(rows.amount_minor):
        raise BrokenInvariant("the rows of a test span have different lengths, or there are none")
    return rows
