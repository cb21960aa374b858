"""Reference histograms: every value has one bin, the reference's own values are never unseen, rhythms are found."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.domain.bundle_manifest import canonical_json
from shared.domain.bundle_reference import (
    FIRST_BIN,
    HOURS_OF_WEEK,
    MAX_VALUES,
    MISSING_BIN,
    QUANTILE_BINS,
    SCORE,
    UNSEEN_BIN,
    BinKind,
    Histogram,
    Reference,
    histogram_of,
    hour_of_week,
    read_reference,
    write_reference,
)
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import HANDBOOK_V1
from shared.domain.instants import US_PER_DAY, US_PER_HOUR

floats = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan])
columns = st.lists(floats, min_size=1, max_size=60).map(lambda values: np.array(values, dtype=np.float32))


def times(n_rows: int) -> NDArray[np.int64]:
    return np.arange(n_rows, dtype=np.int64) * US_PER_HOUR


@settings(deadline=None)
@given(columns, columns)
def test_every_value_has_one_bin_and_known_ones_are_seen(
    reference: NDArray[np.float32], current: NDArray[np.float32]
) -> None:
    histogram = histogram_of(reference, times(len(reference)))
    assert histogram.counts.sum() == len(reference)
    assert histogram.counts[UNSEEN_BIN] == 0
    assert histogram.counts[MISSING_BIN] == np.isnan(reference).sum()
    counts = histogram.count(current)
    assert counts.shape == histogram.counts.shape
    assert counts.sum() == len(current)
    assert counts[MISSING_BIN] == np.isnan(current).sum()
    assert np.array_equal(histogram.count(reference), histogram.counts)


def test_few_values_have_a_bin_each() -> None:
    histogram = histogram_of(np.array([0, 1, 1, np.nan], dtype=np.float32), times(4))
    assert histogram.kind is BinKind.VALUES
    assert histogram.counts.tolist() == [1, 0, 1, 2]
    assert histogram.count(np.array([0.5, 2, -1, 1, np.nan], dtype=np.float32)).tolist() == [1, 3, 0, 1]


def test_many_values_are_cut_at_quantiles_and_end_where_the_reference_did() -> None:
    values = np.arange(1000, dtype=np.float32)
    histogram = histogram_of(values, times(1000))
    assert histogram.kind is BinKind.QUANTILES
    assert len(histogram.counts) == FIRST_BIN + QUANTILE_BINS
    assert np.all(np.abs(histogram.counts[FIRST_BIN:] - 100) <= 1)
    outside = np.array([-1, 1000, np.inf, -np.inf, 0, 999], dtype=np.float32)
    assert histogram.bins(outside).tolist() == [1, 1, 1, 1, FIRST_BIN, FIRST_BIN + QUANTILE_BINS - 1]


def test_a_column_without_a_value_has_only_the_two_special_bins() -> None:
    histogram = histogram_of(np.full(3, np.nan, dtype=np.float32), times(3))
    assert histogram.counts.tolist() == [3, 0]
    assert histogram.count(np.array([1.0], dtype=np.float32)).tolist() == [0, 1]


def test_heavy_ties_make_fewer_bins_and_lose_no_row() -> None:
    values = np.concatenate([np.zeros(900), np.arange(1, 101)]).astype(np.float32)
    histogram = histogram_of(values, times(1000))
    assert histogram.counts.sum() == 1000
    assert 1 <= len(histogram.counts) - FIRST_BIN < QUANTILE_BINS


def test_a_daily_rhythm_is_kept_and_chance_is_not() -> None:
    rng = np.random.default_rng(0)
    event_time_us = rng.integers(0, 28 * US_PER_DAY, 30_000)
    night = (event_time_us // US_PER_HOUR % 24 < 7).astype(np.float32)
    histogram = histogram_of(night, event_time_us)
    assert histogram.by_hour is not None
    assert histogram.by_hour.shape == (HOURS_OF_WEEK, 4)
    assert np.array_equal(histogram.by_hour.sum(axis=0), histogram.counts)
    assert histogram_of(rng.normal(size=30_000).astype(np.float32), event_time_us).by_hour is None
    # At few rows an hour chance alone looks like a rhythm to a bare PSI.
    assert histogram_of(rng.normal(size=1_000).astype(np.float32), event_time_us[:1_000]).by_hour is None


def test_hours_count_from_monday() -> None:
    monday = np.datetime64("2018-04-02T00:30").astype("datetime64[us]").astype(np.int64)
    assert hour_of_week(np.array([monday, monday - US_PER_HOUR, monday + 7 * US_PER_DAY])).tolist() == [0, 167, 0]


def reference() -> Reference:
    rng = np.random.default_rng(1)
    event_time_us = rng.integers(0, 28 * US_PER_DAY, 5_000)
    found = {name: histogram_of(rng.normal(size=5_000).astype(np.float32), event_time_us) for name in HANDBOOK_V1.names}
    found["is_night"] = histogram_of((event_time_us // US_PER_HOUR % 24 < 7).astype(np.float32), event_time_us)
    found[SCORE] = histogram_of(rng.random(5_000).astype(np.float32), event_time_us)
    return Reference(5, 9, found)


def test_a_reference_survives_as_bytes() -> None:
    made = reference()
    again = read_reference(write_reference(made), HANDBOOK_V1)
    assert write_reference(again) == write_reference(made)
    assert (again.start_us, again.end_us) == (5, 9)
    assert again.histograms["is_night"].by_hour is not None
    values = np.random.default_rng(2).normal(size=100).astype(np.float32)
    for name, histogram in made.histograms.items():
        assert np.array_equal(again.histograms[name].bins(values), histogram.bins(values))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "logarithms"}, "bins of kind"),
        ({"edges": [1.0, 1.0], "counts": [0, 0, 5]}, "do not rise"),
        ({"edges": [0.1, 1.0], "counts": [0, 0, 5]}, "are not binary32"),
        ({"counts": [1]}, "1 counts for"),
        ({"counts": [0, 0, -5]}, "something else than counts"),
        ({"by_hour": [1, 2]}, "the hours of amount have 2 counts"),
        ({"edges": [0.0, 1.0], "counts": [0, 0, 5], "by_hour": [0] * 3 * HOURS_OF_WEEK}, "do not add up"),
    ],
)
def test_a_histogram_that_contradicts_itself_is_refused(change: dict[str, object], reason: str) -> None:
    document = json.loads(write_reference(reference()))
    document["histograms"]["amount"] |= change
    with pytest.raises(BrokenInvariant, match=reason):
        read_reference(canonical_json(document), HANDBOOK_V1)


def test_the_kinds_agree_with_their_bins() -> None:
    assert Histogram(BinKind.VALUES, tuple(range(MAX_VALUES)), np.zeros(0, np.int64)).n_bins == FIRST_BIN + MAX_VALUES
    assert Histogram(BinKind.QUANTILES, (0.0, 1.0, 2.0), np.zeros(0, np.int64)).n_bins == FIRST_BIN + 2
