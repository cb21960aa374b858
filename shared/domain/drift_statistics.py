"""Drift as numbers: how far a current window's counts lie from those of the reference, and how surprising that is.

Nothing here knows a threshold; what follows from a number is policy (`drift_policy`, record 0006). All functions take
counts over the same bins and leave them as they are.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_reference import FIRST_BIN, MISSING_BIN, UNSEEN_BIN
from shared.domain.errors import BrokenInvariant

LEAST_EXPECTED: Final = 5.0
"""Bins in which fewer rows are expected are tested together (Cochran, "Some methods for strengthening the common
chi-square tests", 1954)."""

PRIOR_PER_BIN: Final = 0.5
"""Rows by which each window is drawn towards both together, for each bin: no bin is empty then, and windows with the
same shares keep a distance of exactly nought. One half is the weight of Jeffreys' prior."""

_LEAST_TERM: Final = 1e-15
_MOST_TERMS: Final = 10_000

type Floats = NDArray[np.float64]
type Counts = NDArray[np.int64] | NDArray[np.float64]


class Surprise(NamedTuple):
    """How surprising the distance of a window is if nothing changed.

    Attributes:
        distance: Pearson's: the sum over groups of bins of the squared difference of shares over the pooled share.
        chance: What it is in the mean if only chance is at work and rows are independent.
        p_value: Chance of one as great, 0 to 1; 1 where there is nothing to test.
    """

    distance: float
    chance: float
    p_value: float


def psi(reference: Counts, current: Counts) -> float:
    """Population stability index: the sum of (p - q) ln(p / q) over the bins, nats; both divergences in one.

    Args:
        reference: (n_bins,) rows in each bin, not negative.
        current: (n_bins,) likewise.

    Returns:
        Not negative; 0 exactly where the shares are the same; NaN without rows on either side.

    >>> psi(np.array([50, 50]), np.array([5, 5]))
    0.0
    """
    shares = _shares(reference, current)
    if shares is None:
        return math.nan
    ours, theirs = shares
    return float(np.sum((ours - theirs) * np.log(ours / theirs)))


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """Jensen-Shannon distance, base 2: the square root of the divergence, 0 for equal shares to 1 for disjoint ones.

    Source: Endres and Schindelin, "A new metric for probability distributions", 2003. Empty bins need no prior here.

    Args:
        reference: (n_bins,) rows in each bin, not negative.
        current: (n_bins,) likewise.

    Returns:
        NaN without rows on either side.

    >>> jensen_shannon(np.array([7, 0]), np.array([0, 3]))
    1.0
    """
    checked = _checked(reference, current)
    if checked is None:
        return math.nan
    theirs, ours = (counts / counts.sum() for counts in checked)
    middle = (ours + theirs) / 2
    divergence = (_kullback(ours, middle) + _kullback(theirs, middle)) / 2
    return math.sqrt(min(max(divergence, 0.0), 1.0))


def kolmogorov(reference: Counts, current: Counts) -> float:
    """Kolmogorov-Smirnov distance over ordered bins: the greatest difference of the cumulative shares, 0 to 1.

    Missing and unseen values have no place in the order and are left out; that they became more is for the others to
    tell. Binned data can only make the distance smaller than the data themselves would.

    Args:
        reference: (n_bins,) rows: missing, unseen, then ordered bins.
        current: (n_bins,) likewise.

    Returns:
        NaN without ordered rows on either side.

    >>> kolmogorov(np.array([0, 0, 5, 5]), np.array([9, 0, 4, 0]))
    0.5
    """
    checked = _checked(reference[FIRST_BIN:], current[FIRST_BIN:])
    if checked is None:
        return math.nan
    theirs, ours = (np.cumsum(counts) / counts.sum() for counts in checked)
    return float(np.max(np.abs(ours - theirs)))


def surprise(reference: Counts, current: Counts, dispersion: float = 1.0, natural: float = 0.0) -> Surprise:
    """Test of two windows for equal shares (Pearson's), for rows in clusters and for days that are never quite alike.

    Three things make a distance although nothing changed. Chance: (1/n + 1/m) times chi-square over the groups of bins
    (Yurdakul and Naranjo, 2020, for PSI, which is the same to first order). Clusters: transactions of one card are
    alike, which multiplies that by the dispersion (the first-order correction of Rao and Scott, "On chi-squared tests
    for multiway contingency tables with cell proportions estimated from survey data", 1984). And the world: a salary
    day is no other day, and no number of rows averages that away; it moves all shares together, so it is taken to widen
    one direction of the bins' space by `natural`. The sum is matched in mean and variance by a scaled chi-square
    (Satterthwaite, "An approximate distribution of estimates of variance components", 1946).

    Bins that are nearly empty are tested with their neighbours.

    Args:
        reference: (n_bins,) rows: missing, unseen, then ordered bins.
        current: (n_bins,) likewise.
        dispersion: By how much the variance of the shares exceeds that of independent rows, at least 1.
        natural: The mean distance that windows of this kind keep from the reference beyond chance; not negative.

    Raises:
        BrokenInvariant: A dispersion below 1, or a natural distance below nought.
    """
    if not dispersion >= 1.0 or not natural >= 0.0:
        raise BrokenInvariant(f"a dispersion of {dispersion} or a natural distance of {natural} is out of range")
    checked = _checked(reference, current)
    if checked is None:
        return Surprise(0.0, 0.0, 1.0)
    theirs, ours = checked
    n_theirs, n_ours = float(theirs.sum()), float(ours.sum())
    pooled = (theirs + ours) / (n_theirs + n_ours)
    group = _groups(pooled * (min(n_ours, n_theirs) / dispersion))
    share = np.bincount(group, weights=pooled)
    differ = np.bincount(group, weights=ours / n_ours - theirs / n_theirs)
    kept = share > 0
    degrees = int(kept.sum()) - 1
    if degrees < 1:
        return Surprise(0.0, 0.0, 1.0)
    unit = (1.0 / n_ours + 1.0 / n_theirs) * dispersion
    distance = float(np.sum(differ[kept] ** 2 / share[kept]))
    mean = unit * degrees + natural
    variance = 2.0 * (unit**2 * (degrees - 1) + (unit + natural) ** 2)
    scale = variance / (2.0 * mean)
    return Surprise(distance, unit / dispersion * degrees, chi_square_tail(distance / scale, mean / scale))


def level(reference: Counts, current: Counts) -> float:
    """How far a window's values lie above the reference's, -.5 to .5.

    It is the chance that a value of the current window is greater than one of the reference, ties counting half, less
    one half: over ordered bins, the statistic of Mann and Whitney ("On a test of whether one of two random variables is
    stochastically larger than the other", 1947). Where all values move one way, it tells a smaller move than PSI does.

    Args:
        reference: (n_bins,) rows: missing, unseen, then ordered bins.
        current: (n_bins,) likewise.

    Returns:
        NaN without ordered rows on either side.

    >>> level(np.array([0, 0, 5, 5]), np.array([0, 0, 0, 3]))
    0.25
    """
    checked = _checked(reference[FIRST_BIN:], current[FIRST_BIN:])
    if checked is None:
        return math.nan
    theirs, ours = (counts / counts.sum() for counts in checked)
    return float(np.sum(ours * (np.cumsum(theirs) - theirs / 2)) - 0.5)


def cluster_dispersion(cluster_sizes_squared: float, n_rows: float) -> float:
    """The most by which clusters can raise the variance of a share: as if all rows of a cluster were the same.

    Source: Kish, "Survey Sampling", 1965, section 8.2: 1 + (m - 1) rho, with rho = 1 and m the size of the cluster of a
    row, mean over rows.

    Args:
        cluster_sizes_squared: The sum over clusters of the square of their rows.
        n_rows: Rows.

    >>> cluster_dispersion(3**2 + 1, 4)
    2.5
    """
    return max(1.0, cluster_sizes_squared / n_rows) if n_rows > 0 else 1.0


def chi_square_tail(statistic: float, degrees: float) -> float:
    """The chance that a chi-square variable is at least so great: the regularised upper gamma function.

    By its series below the mean and its continued fraction above (Abramowitz and Stegun, 6.5.29 and 6.5.31); relative
    error below 1e-9 also far out in the tail.

    Args:
        statistic: At least 0.
        degrees: Of freedom, greater than 0; need not be whole.
    """
    half, shape = statistic / 2.0, degrees / 2.0
    if half <= 0.0:
        return 1.0
    scale = math.exp(shape * math.log(half) - half - math.lgamma(shape))
    if half < shape + 1.0:
        term = total = 1.0 / shape
        for step in range(1, _MOST_TERMS):
            term *= half / (shape + step)
            total += term
            if term < total * _LEAST_TERM:
                break
        return min(1.0, max(0.0, 1.0 - scale * total))
    # Lentz's way through the continued fraction, which needs no end fixed beforehand.
    tiny = 1e-300
    below = half + 1.0 - shape
    ratio, inverse = 1.0 / tiny, 1.0 / below
    value = inverse
    for step in range(1, _MOST_TERMS):
        factor = -step * (step - shape)
        below += 2.0
        inverse = factor * inverse + below
        inverse = 1.0 / (inverse if abs(inverse) > tiny else tiny)
        ratio = below + factor / ratio
        ratio = ratio if abs(ratio) > tiny else tiny
        change = inverse * ratio
        value *= change
        if abs(change - 1.0) < _LEAST_TERM:
            break
    return min(1.0, scale * value)


def normal_tail(deviations: float) -> float:
    """The chance that a standard normal variable is at least so great."""
    return math.erfc(deviations / math.sqrt(2.0)) / 2.0


def _checked(reference: NDArray[Any], current: NDArray[Any]) -> tuple[Floats, Floats] | None:
    """Both as float64; None if a side has no rows.

    Raises:
        BrokenInvariant: Other bins, or counts that are none.
    """
    if reference.shape != current.shape or reference.ndim != 1:
        raise BrokenInvariant(f"windows of {reference.shape} and {current.shape} bins cannot be compared")
    theirs, ours = reference.astype(np.float64), current.astype(np.float64)
    # NaN fails too
    if not (theirs >= 0).all() or not (ours >= 0).all():
        raise BrokenInvariant("a count of rows is negative or none")
    return (theirs, ours) if theirs.sum() > 0 and ours.sum() > 0 else None


def _shares(reference: Counts, current: Counts) -> tuple[Floats, Floats] | None:
    """The shares of the current window and of the reference in the bins that either uses, none of them nought."""
    checked = _checked(reference, current)
    if checked is None:
        return None
    theirs, ours = checked
    used = (theirs > 0) | (ours > 0)
    theirs, ours = theirs[used], ours[used]
    n_theirs, n_ours = theirs.sum(), ours.sum()
    if np.array_equal(ours * n_theirs, theirs * n_ours):  # the same shares, whatever rounding makes of them below
        return ours / n_ours, ours / n_ours
    middle = (ours / n_ours + theirs / n_theirs) / 2
    prior = PRIOR_PER_BIN * len(middle)
    return (ours + prior * middle) / (n_ours + prior), (theirs + prior * middle) / (n_theirs + prior)


def _kullback(shares: Floats, base: Floats) -> float:
    """Kullback-Leibler divergence, bits; empty bins add nothing."""
    used = shares > 0
    return float(np.sum(shares[used] * np.log2(shares[used] / base[used])))


def _groups(expected: Floats) -> NDArray[np.intp]:
    """Which bins are tested together, so that each group expects `LEAST_EXPECTED` rows if there are as many.

    Neighbours in the order of their values come together; unseen and missing stand behind the last of them.
    """
    group = np.zeros(len(expected), dtype=np.intp)
    number, held = 0, 0.0
    for place in (*range(FIRST_BIN, len(expected)), UNSEEN_BIN, MISSING_BIN):
        group[place] = number
        held += float(expected[place])
        if held >= LEAST_EXPECTED:
            number, held = number + 1, 0.0
    group[group == number] = max(number - 1, 0)  # those left over are too few by themselves
    return group
