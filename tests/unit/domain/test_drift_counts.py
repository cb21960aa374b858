"""Hours in the bins of a reference: the bins that the bundle has, in pieces or at once, each with its own hour."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shared.domain.bundle_reference import SCORE, BinKind, Histogram, Reference, histogram_of
from shared.domain.canonical import Digest
from shared.domain.decision import Decision, Outcome, Policy
from shared.domain.decision_record import DecisionRecord, Lateness, decision_bytes
from shared.domain.drift_counts import DecidedRows, bins_of, hour_counts, matched, skim
from shared.domain.errors import BrokenInvariant
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_HOUR
from shared.domain.reasons import Reason
from shared.domain.score import Score
from shared.domain.surrogates import Surrogate

FLOATS = st.one_of(
    st.floats(width=32, allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.5])
)


TIMES, SCORES = np.arange(90), np.linspace(0, 1, 90)


def reference_of(values: np.ndarray, hours: np.ndarray) -> Reference:
    """Two features and a score."""
    time_us = hours * US_PER_HOUR
    columns = {"a": values[:, 0], "b": values[:, 1], SCORE: values[:, 2]}
    return Reference(0, 1, {name: histogram_of(column, time_us) for name, column in columns.items()})


@given(
    known=arrays.arrays(np.float32, st.integers(0, 60), elements=FLOATS),
    values=arrays.arrays(np.float32, st.integers(0, 60), elements=FLOATS),
)
def test_each_value_falls_into_the_bin_that_the_bundle_gives_it(known: np.ndarray, values: np.ndarray) -> None:
    known = known[~np.isinf(known)]
    histogram = histogram_of(known, np.zeros(len(known), dtype=np.int64))
    both = np.concatenate((known, values))
    assert bins_of(histogram, both).tolist() == histogram.bins(both).tolist()


def test_bins_of_many_values_too() -> None:
    rng = np.random.default_rng(1)
    known = rng.lognormal(3, 1, 5_000).astype(np.float32)
    histogram = histogram_of(known, np.zeros(len(known), dtype=np.int64))
    assert histogram.kind is BinKind.QUANTILES
    values = np.concatenate((rng.lognormal(3, 2, 5_000), histogram.edges, [np.nan])).astype(np.float32)
    assert bins_of(histogram, values).tolist() == histogram.bins(values).tolist()


def test_a_histogram_with_more_bins_than_a_byte_can_number_is_refused() -> None:
    wide = Histogram(BinKind.VALUES, tuple(float(edge) for edge in range(300)), np.zeros(302, dtype=np.int64))
    with pytest.raises(BrokenInvariant, match="302 bins"):
        bins_of(wide, np.zeros(1, dtype=np.float32))


def test_an_hour_is_the_same_in_pieces_and_at_once() -> None:
    rng = np.random.default_rng(2)
    reference = reference_of(rng.normal(size=(400, 3)).astype(np.float32), rng.integers(0, 336, 400))
    vectors, raw = rng.normal(size=(90, 2)).astype(np.float32), rng.random(90).astype(np.float32)
    outcome, own = rng.integers(0, 3, 90).astype(np.int8), rng.random(90) < 0.7
    vectors[:5, 0] = np.nan

    def rows(start: int, end: int) -> DecidedRows:
        rows = slice(start, end)
        return DecidedRows(TIMES[rows], vectors[rows], raw[rows], SCORES[rows], outcome[rows], own[rows])

    whole = hour_counts(reference, ("a", "b"), 7, [rows(0, 90)])
    pieces = hour_counts(reference, ("a", "b"), 7, iter([rows(0, 1), rows(1, 50), rows(50, 50), rows(50, 90)]))
    assert whole.n_rows == pieces.n_rows == 90
    assert all(np.array_equal(whole.counts[name], pieces.counts[name]) for name in ("a", "b", SCORE))
    assert whole.counts["a"][0] == 5
    assert whole.counts["a"].sum() == 90
    assert whole.counts[SCORE].sum() == whole.outcomes.sum() == own.sum()
    assert np.array_equal(whole.outcomes, np.bincount(outcome[own], minlength=3))
    with pytest.raises(BrokenInvariant, match="2 features"):
        hour_counts(reference, ("a", "b"), 7, [DecidedRows(TIMES, raw[:, None], raw, SCORES, outcome, own)])


def test_each_hour_is_compared_with_its_own_hour_of_the_week() -> None:
    hours = np.repeat(np.arange(336), 20)
    night = (hours % 24 < 6).astype(np.float32)
    histogram = histogram_of(night, hours * US_PER_HOUR)
    assert histogram.by_hour is not None
    at_night = matched(histogram, [(336 * US_PER_HOUR, 10), (337 * US_PER_HOUR, 30)])
    assert at_night.tolist() == pytest.approx([0, 0, 0, 6_720])
    mixed = matched(histogram, [(336 * US_PER_HOUR, 10), (348 * US_PER_HOUR, 30)])
    assert mixed.tolist() == pytest.approx([0, 0, 5_040, 1_680])
    assert matched(histogram, []).tolist() == histogram.counts.tolist()


def test_an_hour_of_which_the_reference_has_no_row_is_compared_with_all() -> None:
    hours = np.repeat(np.arange(100), 20)  # of 168
    histogram = histogram_of((hours % 24 < 6).astype(np.float32), hours * US_PER_HOUR)
    assert histogram.by_hour is not None
    start_us = int(np.flatnonzero(histogram.by_hour.sum(axis=1) == 0)[0] - 72 + 168) * US_PER_HOUR
    assert matched(histogram, [(start_us, 5)]).tolist() == pytest.approx(histogram.counts.tolist())


def test_skimming_finds_what_reading_all_of_a_decision_finds() -> None:
    vector = np.array([1.5, np.nan, -0.0], dtype="<f4").tobytes()
    record = DecisionRecord(
        transaction_id=TransactionId("t-ü"),
        customer=Surrogate("k1.00"),
        terminal=Surrogate("k1.0123"),
        event_time_us=5,
        amount_minor=7,
        currency="EUR",
        customer_version=1,
        terminal_version=2,
        view="card-v1",
        vector=vector,
        lateness=Lateness.NONE,
        model_name="card-fraud",
        model_version=3,
        raw_score=0.625,
        decision=Decision(Outcome.APPROVE, Score(0.1, "d" * 64), Policy(0.3, 0.8), "none", ()),
        base=-2.0,
        reasons=(Reason("AMOUNT_HIGH", 0.5),),
        others=0.25,
        fingerprint=Digest(bytes(32)),
    )
    data = decision_bytes(record)
    assert skim(data) == (b"card-v1", vector, 0.625)
    for end in range(data.index(b"d" * 64) - 20):
        with pytest.raises(BrokenInvariant):
            skim(data[:end])
