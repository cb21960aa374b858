"""The pieces of the cost benchmark, on spans small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.bench_cost import (
    EXPECTED,
    HALF,
    OPTIMAL,
    Span,
    Tally,
    add_alerts,
    best_bar,
    chosen_thresholds,
    first_of_each_day,
)


def span(rows: list[tuple[float, int, bool, int, int]]) -> Span:
    """Of probability, amount, fraud, customer and day."""
    score, amount, fraud, customer, day = zip(*rows, strict=True)
    scores = np.array(score)
    return Span(scores, scores, np.array(amount), np.array(fraud), np.array(customer), np.array(day))


SMALL = span(
    [
        (0.9, 900, True, 0, 0),
        (0.6, 10_000, False, 1, 0),
        (0.4, 20_000, True, 2, 0),
        (0.2, 700, False, 3, 1),
        (0.1, 9_000, True, 0, 1),
        (0.0, 50_000, False, 4, 1),
    ]
)


def test_the_first_of_each_day_are_the_highest_that_are_wanted() -> None:
    wanted = SMALL.probability > 0.1
    assert first_of_each_day(SMALL, SMALL.raw, wanted, 2).tolist() == [True, True, False, True, False, False]
    assert first_of_each_day(SMALL, SMALL.raw * SMALL.amount_minor, wanted, 1).tolist() == [
        *(False, False, True),
        *(True, False, False),
    ]


def test_thresholds_come_from_the_span_they_are_chosen_on() -> None:
    """Cost by threshold: 29,500 at .9, 10,500 at .4, 2,500 at .1, 3,000 at 0; F1: .50 at .9, .67 at .4, .75 at .1."""
    assert list(chosen_thresholds(SMALL).values()) == [0.5, 0.1, 0.9, 0.1]


def test_hindsight_bounds_the_policy_and_knowledge_bounds_hindsight() -> None:
    """Expected losses 8,000, 6,000, 900 and 810 are worth a review, 140 and 0 are not; three of the four are frauds."""
    assert best_bar(SMALL).tolist() == [1, 1, 1, 0, 1, 0]
    tally = Tally(5)
    add_alerts(tally, SMALL, SMALL)
    assert tally.total("no reviews") == 299.0
    assert tally.total(EXPECTED) == tally.total("the best bar with hindsight") == 20.0
    assert tally.total("who knows all frauds") == 15.0
    assert tally.total(HALF) == 10.0 + 290.0
    assert tally.saving(OPTIMAL, HALF) == pytest.approx(100 * (1 - 25 / 300))
    assert tally.reviews[EXPECTED] == 4
