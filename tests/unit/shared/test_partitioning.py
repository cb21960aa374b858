from __future__ import annotations

import logging
from datetime import UTC, datetime
from itertools import pairwise

import azure.functions as func
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import InvalidInput
from shared.domain.instants import US_PER_DAY
from shared.entrypoints import timer_partitions
from shared.services.partitioning import (
    AHEAD_DAYS,
    BEHIND_DAYS,
    MAX_WEEKS_PER_CALL,
    NEEDED_DAYS,
    PARTITIONED,
    WIDTH_US,
    Span,
    around,
    keep_ahead,
    names,
    pieces,
)
from shared.services.timed_runs import TimedRuns
from tests.fakes.pipelines import FakePipelineLog

TIMES = st.integers(0, 253_370_764_800_000_000)


class Recorded:
    """Partitions that only remember what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def make(self, start_us: int, end_us: int) -> int:
        self.asked.append((start_us, end_us))
        return 3


class At:
    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us


class Timer(func.TimerRequest):
    past_due = False


def test_weeks_start_on_thursdays_as_1970_did() -> None:
    now_us = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp()) * 1_000_000
    assert names(Span(now_us, now_us + 1)) == ["transactions_p20261119", "predictions_p20261119"]
    assert names(Span(now_us, now_us + 5 * US_PER_DAY)) == names(Span(now_us, now_us + 1))
    assert names(Span(now_us, now_us + 5 * US_PER_DAY + 1))[2:] == ["transactions_p20261126", "predictions_p20261126"]


@given(TIMES, st.integers(1, 400 * US_PER_DAY))
def test_a_span_names_every_week_that_it_touches_once(start_us: int, length_us: int) -> None:
    span = Span(start_us, min(start_us + length_us, 253_370_764_800_000_001))
    found = names(span)
    assert (
        len(found) == len(set(found)) == len(PARTITIONED) * ((span.end_us - 1) // WIDTH_US - start_us // WIDTH_US + 1)
    )
    assert names(Span(start_us, start_us + 1)) == found[:2]
    assert names(Span(span.end_us - 1, span.end_us)) == found[-2:]


@given(st.tuples(TIMES, TIMES).filter(lambda pair: pair[0] != pair[1]).map(sorted))
def test_pieces_cover_a_span_and_each_fits_one_call(pair: list[int]) -> None:
    found = pieces(Span(*pair))
    assert (found[0].start_us, found[-1].end_us) == tuple(pair)
    assert all(a.end_us == b.start_us for a, b in pairwise(found))
    assert all((part.end_us - 1) // WIDTH_US - part.start_us // WIDTH_US < MAX_WEEKS_PER_CALL for part in found)


@pytest.mark.parametrize("span", [Span(-1, 1), Span(1, 1), Span(2, 1), Span(0, 253_370_764_800_000_001)])
def test_spans_that_make_no_sense_are_refused(span: Span) -> None:
    with pytest.raises(InvalidInput):
        pieces(span)


@given(TIMES)
def test_what_the_timer_keeps_is_more_than_what_an_app_needs(now_us: int) -> None:
    partitions = Recorded()
    assert keep_ahead(partitions, At(now_us)) == 3
    kept = set(names(Span(*partitions.asked[0])))
    # A timer that failed for two weeks and five days is still enough.
    for days in range(20):
        later = around(
            now_us + days * US_PER_DAY, behind_days=min(NEEDED_DAYS, days + BEHIND_DAYS), ahead_days=NEEDED_DAYS
        )
        assert set(names(later)) <= kept
    assert AHEAD_DAYS > NEEDED_DAYS


def test_the_timer_makes_them_and_says_how_many(caplog: pytest.LogCaptureFixture) -> None:
    partitions = Recorded()
    with caplog.at_level(logging.INFO, logger="shared"):
        clock = At(100 * US_PER_DAY)
        timer_partitions.make(Timer(), partitions, clock, TimedRuns(FakePipelineLog(), clock, "p"))
    assert partitions.asked == [(86 * US_PER_DAY, 128 * US_PER_DAY)]
    assert '"made":3' in caplog.text
