"""Drift statistics against scipy, hand-worked tables, and the properties that all of them share."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import spatial, stats  # type: ignore[import-untyped]  # it ships no types

from shared.domain.drift_statistics import (
    chi_square_tail,
    cluster_dispersion,
    jensen_shannon,
    kolmogorov,
    level,
    normal_tail,
    psi,
    surprise,
)
from shared.domain.errors import BrokenInvariant

type Counts = NDArray[np.int64]

DISTANCES: list[Callable[[Counts, Counts], float]] = [psi, jensen_shannon, kolmogorov]


@st.composite
def windows(draw: st.DrawFn) -> tuple[Counts, Counts]:
    """Two windows with rows in some of the same bins, many of them empty."""
    size = draw(st.integers(3, 14))
    cells = st.lists(st.one_of(st.just(0), st.integers(0, 10_000)), min_size=size, max_size=size)
    reference, current = (np.array(draw(cells), dtype=np.int64) for _ in range(2))
    reference[2] += 1
    current[-1] += 1
    return reference, current


@pytest.mark.parametrize("statistic", DISTANCES)
@given(pair=windows())
def test_a_distance_is_finite_and_not_negative_also_with_empty_bins(
    statistic: Callable[[Counts, Counts], float], pair: tuple[Counts, Counts]
) -> None:
    before = [side.copy() for side in pair]
    found = statistic(*pair)
    assert math.isfinite(found)
    assert found >= 0
    assert all(np.array_equal(one, other) for one, other in zip(pair, before, strict=True))


@pytest.mark.parametrize("statistic", [*DISTANCES, level])
@given(pair=windows(), factor=st.integers(1, 50))
def test_windows_with_the_same_shares_are_at_no_distance(
    statistic: Callable[[Counts, Counts], float], pair: tuple[Counts, Counts], factor: int
) -> None:
    assert statistic(pair[0], pair[0] * factor) == pytest.approx(0.0, abs=1e-15)


@given(pair=windows())
def test_psi_and_jensen_shannon_do_not_care_which_side_is_which(pair: tuple[Counts, Counts]) -> None:
    reference, current = pair
    assert psi(reference, current) == pytest.approx(psi(current, reference), rel=1e-9, abs=1e-15)
    assert jensen_shannon(reference, current) == pytest.approx(jensen_shannon(current, reference), abs=1e-12)


@given(pair=windows())
def test_jensen_shannon_is_that_of_scipy(pair: tuple[Counts, Counts]) -> None:
    assert jensen_shannon(*pair) == pytest.approx(spatial.distance.jensenshannon(*pair, base=2), abs=1e-7)


def test_psi_of_a_table_worked_by_hand() -> None:
    # shares .2 .3 .5 against .3 .3 .4: (.1)(ln 1.5) + 0 + (-.1)(ln .8) = .0405465 + .0223144
    found = psi(np.array([200_000, 300_000, 500_000]), np.array([300_000, 300_000, 400_000]))
    assert found == pytest.approx(0.0628609, abs=1e-5)


def test_kolmogorov_is_that_of_scipy_where_each_value_has_its_bin() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 8, 300), rng.integers(1, 8, 90)
    binned = [np.concatenate(([5, 7], np.bincount(values, minlength=8))) for values in (one, other)]
    assert kolmogorov(*binned) == pytest.approx(stats.ks_2samp(one, other).statistic, abs=1e-12)


def test_level_is_the_statistic_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.integers(0, 8, 300), rng.integers(1, 8, 90)
    binned = [np.concatenate(([5, 7], np.bincount(values, minlength=8))) for values in (one, other)]
    expected = stats.mannwhitneyu(other, one).statistic / (len(one) * len(other)) - 0.5
    assert level(*binned) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("statistic", [*DISTANCES, level])
def test_without_rows_there_is_no_number(statistic: Callable[[Counts, Counts], float]) -> None:
    empty, some = np.zeros(4, dtype=np.int64), np.array([0, 0, 1, 1])
    assert math.isnan(statistic(empty, some))
    assert math.isnan(statistic(some, empty))
    assert surprise(empty, some).p_value == 1.0


@pytest.mark.parametrize("statistic", [*DISTANCES, level, surprise])
def test_windows_over_other_bins_and_negative_counts_are_refused(statistic: Callable[[Counts, Counts], float]) -> None:
    with pytest.raises(BrokenInvariant, match="bins cannot be compared"):
        statistic(np.array([1, 1, 1]), np.array([1, 1, 1, 1]))
    with pytest.raises(BrokenInvariant, match="negative"):
        statistic(np.array([1, 1, -1]), np.array([1, 1, 1]))


@pytest.mark.parametrize("degrees", [0.4, 1, 2, 9, 9.7, 31])
@pytest.mark.parametrize("statistic", [0.0, 1e-8, 0.5, 4, 11, 60, 400])
def test_the_tail_of_chi_square_is_that_of_scipy(statistic: float, degrees: float) -> None:
    assert chi_square_tail(statistic, degrees) == pytest.approx(stats.chi2.sf(statistic, degrees), rel=1e-9)


def test_the_tail_of_the_normal_distribution_is_that_of_scipy() -> None:
    assert [normal_tail(x) for x in (-2.0, 0.0, 4.0)] == pytest.approx(stats.norm.sf([-2.0, 0.0, 4.0]))


def test_without_clusters_and_with_full_bins_the_test_is_pearsons() -> None:
    table = np.array([[40, 60, 100, 300], [30, 20, 60, 90]])
    expected = stats.chi2_contingency(table, correction=False)
    found = surprise(table[0], table[1])
    assert found.distance / (1 / table[0].sum() + 1 / table[1].sum()) == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_nearly_empty_bins_do_not_make_a_surprise_of_one_row() -> None:
    reference = np.array([0, 0, 50_000, 50_000, 0])
    assert surprise(reference, np.array([0, 1, 100, 100, 0])).p_value > 0.3


@pytest.mark.parametrize(("dispersion", "natural"), [(1.0, 0.0), (3.0, 0.0), (1.0, 0.02), (2.5, 0.01)])
def test_windows_that_vary_as_was_said_surprise_as_often_as_was_said(dispersion: float, natural: float) -> None:
    """Rows in clusters, and shares that move with the day: the share of surprises at 5 % and at 1 %."""
    rng = np.random.default_rng(3)
    shares = np.full(10, 0.1)
    direction = np.linspace(-1, 1, 10)
    direction /= math.sqrt(np.sum((0.1 * direction) ** 2 / 0.1))  # moves the distance by exactly one
    reference = np.concatenate(([0, 0], shares * 10_000_000))
    values = []
    for _ in range(1_500):
        moved = np.clip(shares * (1 + direction * rng.normal() * math.sqrt(natural)), 0, None)
        clusters = rng.multinomial(round(900 / dispersion), moved / moved.sum())
        current = np.concatenate(([0, 0], clusters * dispersion))
        values.append(surprise(reference, current, dispersion, natural).p_value)
    assert 0.02 < np.mean(np.array(values) < 0.05) < 0.075
    assert 0.002 < np.mean(np.array(values) < 0.01) < 0.022


def test_clusters_make_at_most_one_row_of_each() -> None:
    assert cluster_dispersion(100, 100) == 1.0
    assert cluster_dispersion(4 * 25**2, 100) == 25.0
    assert cluster_dispersion(0, 0) == 1.0


def test_a_dispersion_that_is_none_is_refused() -> None:
    counts = np.array([1, 1, 1])
    for dispersion, natural in ((0.5, 0.0), (math.nan, 0.0), (1.0, -0.1)):
        with pytest.raises(BrokenInvariant, match="out of range"):
            surprise(counts, counts, dispersion, natural)
