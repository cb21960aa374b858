"""Fitting a calibration table: from a model's output to the share of frauds among transactions that get it.

Pool adjacent violators (Ayer et al., "An empirical distribution function for sampling with incomplete information",
1955) gives the rising step function that fits the outcomes best; its blocks are smoothed a little, so that no block
claims certainty, and joined by straight lines in log-odds, so that the order of transactions survives. What is stored
is the curve at many steps: reading it is a look-up and needs no function of floats.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.errors import BrokenInvariant
from shared.domain.score import CalibrationTable

STEPS: Final = 512
"""Steps of a table: a width of about .03 in log-odds, far below what the outcomes of some thousand frauds tell."""

_LEAST: Final = 1e-7
"""Outputs are kept this far from 0 and 1, where log-odds end; about the spacing of binary32 below 1."""

_PRIOR_FRAUDS: Final = 0.5
_PRIOR_ROWS: Final = 1.0
"""Jeffreys' prior for a share (Brown, Cai, DasGupta, "Interval estimation for a binomial proportion", 2001)."""


def log_odds(probability: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of (n,) probabilities, those next to 0 and 1 held back from infinity."""
    held = np.clip(probability.astype(np.float64), _LEAST, 1.0 - _LEAST)
    found: NDArray[np.float64] = np.log(held) - np.log1p(-held)
    return found


def fit_calibration(raw: NDArray[np.float32], is_fraud: NDArray[np.bool_]) -> CalibrationTable:
    """The table that fits outcomes.

    Args:
        raw: (n,) float32, the model's outputs on transactions it was not fitted on.
        is_fraud: (n,) bool, their outcomes.

    Raises:
        BrokenInvariant: There is no fraud, or nothing else, among them.
    """
    if is_fraud.all() or not is_fraud.any():
        raise BrokenInvariant("a calibration needs frauds and genuine transactions")
    place = log_odds(raw)
    distinct, inverse = np.unique(place, return_inverse=True)
    rows = np.bincount(inverse).astype(np.float64)
    frauds = np.bincount(inverse, weights=is_fraud)
    block = pool_adjacent(frauds / rows, rows)
    block_rows = np.bincount(block, weights=rows)
    centre = np.bincount(block, weights=rows * distinct) / block_rows
    share = (np.bincount(block, weights=frauds) + _PRIOR_FRAUDS) / (block_rows + _PRIOR_ROWS)
    again = pool_adjacent(share, block_rows)  # smoothing may have put neighbours out of order
    weight = np.bincount(again, weights=block_rows)
    centre = np.bincount(again, weights=block_rows * centre) / weight
    level = log_odds(np.bincount(again, weights=block_rows * share) / weight)
    if len(centre) == 1:
        return CalibrationTable((), (1.0 / (1.0 + math.exp(-float(level[0]))),))
    grid = np.linspace(centre[0], centre[-1], STEPS)
    edges = np.unique((1.0 / (1.0 + np.exp(-grid))).astype(np.float32).astype(np.float64))
    bounds = log_odds(edges)
    middles = np.concatenate(([bounds[0]], (bounds[1:] + bounds[:-1]) / 2, [bounds[-1]]))
    probabilities = 1.0 / (1.0 + np.exp(-np.interp(middles, centre, level)))
    return CalibrationTable(tuple(edges.tolist()), tuple(np.maximum.accumulate(probabilities).tolist()))


def pool_adjacent(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.intp]:
    """The blocks of the rising step function closest to values in weighted squares.

    >>> pool_adjacent(np.array([0.0, 1.0, 0.0, 1.0]), np.ones(4)).tolist()
    [0, 1, 1, 2]

    Args:
        values: (n,) float64.
        weights: (n,) float64, greater than 0.

    Returns:
        (n,) the number of each value's block, from 0, rising.
    """
    means: list[float] = []
    totals: list[float] = []
    lengths: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, length = value, weight, 1
        while means and means[-1] >= mean:
            before, more = means.pop(), totals.pop()
            mean = (mean * total + before * more) / (total + more)
            total += more
            length += lengths.pop()
        means.append(mean)
        totals.append(total)
        lengths.append(length)
    return np.repeat(np.arange(len(lengths)), lengths)
