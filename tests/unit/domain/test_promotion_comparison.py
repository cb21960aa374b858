"""The paired comparison: figures as others have them, resamples shared, segments judged together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score  # type: ignore[import-untyped]  # the library has no types

from shared.domain.errors import BrokenInvariant
from shared.domain.evaluation import Outcomes, Ranking
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.promotion import GateRules
from shared.domain.promotion_comparison import Judged, PrecisionRanking, Scores, compare, expected_loss, segments_of

RULES = GateRules(resamples=200)


def window(n_rows: int = 4_000, seed: int = 1) -> Judged:
    rng = np.random.default_rng(seed)
    return Judged(
        rng.integers(0, 14 * US_PER_DAY, n_rows),
        rng.integers(0, 400, n_rows),
        np.rint(rng.lognormal(8, 1, n_rows)).astype(np.int64),
        rng.random(n_rows) < 0.1,
    )


def scored(judged: Judged, strength: float, seed: int = 2) -> Scores:
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=len(judged.is_fraud)) + strength * judged.is_fraud
    odds = 0.1 / 0.9 * np.exp(strength * raw - strength**2 / 2)
    return Scores(raw, odds / (1 + odds))


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_average_precision_is_that_of_others_with_ties_and_weights(decimals: int) -> None:
    judged = window()
    raw = np.round(scored(judged, 1.0).raw, decimals)
    code = judged.customer
    ranking = PrecisionRanking(raw, code, judged.is_fraud)
    reference = Ranking(Outcomes(judged.event_time_us, judged.customer, judged.is_fraud), raw)
    once = np.ones(400)
    assert ranking.average_precision(once) == pytest.approx(average_precision_score(judged.is_fraud, raw), abs=1e-12)
    for seed in range(5):
        weights = np.random.default_rng(seed).poisson(1.0, 400).astype(np.float64)
        assert ranking.average_precision(weights) == pytest.approx(
            reference.quality(weights).average_precision, abs=1e-12
        )
        assert ranking.average_precision(weights) == pytest.approx(
            average_precision_score(judged.is_fraud, raw, sample_weight=weights[code]), abs=1e-12
        )


def test_without_a_fraud_there_is_no_figure_and_nan_is_refused() -> None:
    code = np.zeros(3, dtype=np.intp)
    assert np.isnan(PrecisionRanking(np.arange(3.0), code, np.zeros(3, dtype=np.bool_)).average_precision(np.ones(1)))
    ranking = PrecisionRanking(np.arange(3.0), code, np.array([True, False, False]))
    assert np.isnan(ranking.average_precision(np.zeros(1)))
    with pytest.raises(BrokenInvariant):
        PrecisionRanking(np.array([1.0, np.nan, 0.0]), code, np.zeros(3, dtype=np.bool_))


def test_a_model_is_as_good_as_itself() -> None:
    judged = window()
    model = scored(judged, 1.0)
    found = compare(judged, model, model, {"all": np.ones(4_000, dtype=np.bool_)}, RULES)
    gain, loss, segments = found.checks(RULES)
    assert (found.gain, found.gain_ends.low, found.gain_ends.high) == (0.0, 0.0, 0.0)
    assert not gain.passed
    assert loss.passed
    assert segments.passed


def test_a_better_model_gains_and_a_worse_one_loses() -> None:
    judged = window()
    weak, strong = scored(judged, 1.0), scored(judged, 2.0)
    better, worse = compare(judged, strong, weak, {}, RULES), compare(judged, weak, strong, {}, RULES)
    assert better.gain == pytest.approx(-worse.gain)
    assert better.gain_ends.low > 0 > worse.gain_ends.high
    assert better.loss_change < 0 < worse.loss_change
    assert [check.passed for check in better.checks(RULES)] == [True, True, False]  # no segment was judged
    assert [check.passed for check in worse.checks(RULES)] == [False, False, False]


def test_one_bad_segment_is_found_and_small_ones_are_named() -> None:
    judged = window()
    weak, strong = scored(judged, 1.0), scored(judged, 2.0)
    night = np.arange(4_000) % 5 == 0
    blind = Scores(np.where(night, -strong.raw, strong.raw), strong.probability)
    few = np.zeros(4_000, dtype=np.bool_)
    few[:20] = True
    found = compare(judged, blind, weak, {"night": night, "day": ~night, "few": few}, RULES)
    segments = found.checks(RULES)[2]
    assert not segments.passed
    assert "worse in night" in segments.why
    assert "too few to judge: few" in segments.why
    assert {segment.name: segment.worse for segment in found.segments} == {"night": True, "day": False}


def test_equal_models_are_seldom_called_worse_in_any_of_many_segments() -> None:
    called = 0
    for seed in range(20):
        judged = window(2_000, seed)
        rng = np.random.default_rng(seed)
        parts = {str(number): rng.random(2_000) < 0.5 for number in range(12)}
        one, other = scored(judged, 1.5, 2 * seed), scored(judged, 1.5, 2 * seed + 1)
        called += any(segment.worse for segment in compare(judged, one, other, parts, RULES).segments)
    assert called <= 4  # .05 each: more than 4 of 20 happens once in 400


def test_the_loss_is_what_a_person_would_count() -> None:
    judged = Judged(
        np.zeros(4, np.int64), np.arange(4), np.array([1_000, 1_000, 100, 9_000]), np.array([1, 0, 1, 1], bool)
    )
    loss = expected_loss(judged, np.array([0.9, 0.9, 0.9, 0.01]), 500)
    assert loss.tolist() == [500.0, 500.0, 100.0, 9_000.0]


def test_the_order_of_rows_changes_nothing() -> None:
    judged = window()
    weak, strong = scored(judged, 1.0), scored(judged, 1.3)
    order = np.random.default_rng(9).permutation(4_000)
    turned = Judged(
        judged.event_time_us[order], judged.customer[order], judged.amount_minor[order], judged.is_fraud[order]
    )
    one = compare(judged, strong, weak, {}, RULES)
    other = compare(
        turned,
        Scores(strong.raw[order], strong.probability[order]),
        Scores(weak.raw[order], weak.probability[order]),
        {},
        RULES,
    )
    assert replace(other, loss_change=one.loss_change, loss_ends=one.loss_ends, loss=one.loss) == replace(
        one, champion_loss=other.champion_loss
    )


def test_segments_cover_all_and_bands_hold_about_as_many_frauds() -> None:
    judged = window()
    since = np.where(
        np.arange(4_000) % 2 == 0, judged.event_time_us - 29 * US_PER_DAY, judged.event_time_us - 30 * US_PER_DAY
    )
    found = segments_of(judged, since, since)
    assert found["new customers"].tolist() == (np.arange(4_000) % 2 == 0).tolist()
    bands = [inside for name, inside in found.items() if name.startswith("amounts")]
    assert np.array_equal(np.sum(bands, axis=0), np.ones(4_000))
    frauds = [int(judged.is_fraud[inside].sum()) for inside in bands]
    assert max(frauds) - min(frauds) <= 3
    assert found["night"].tolist() == ((judged.event_time_us // US_PER_HOUR % 24) <= 6).tolist()
    assert not (found["night"] & found["day"]).any()
