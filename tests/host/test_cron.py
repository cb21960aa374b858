"""NCRONTAB: hand-worked cases, and every next occurrence against a search second by second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.host.timers.cron import FIELDS, Field, parse_cron, parse_field
from twin.host.timers.schedule import parse_schedule


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 */5 * * * *", "2026-01-01T00:00:00", "2026-01-01T00:05:00"),
        ("*/5 * * * *", "2026-01-01T00:00:00", "2026-01-01T00:05:00"),
        ("0 0 9-17 * * 1-5", "2026-01-02T17:00:00", "2026-01-05T09:00:00"),
        ("0 0 9-17 * * MON-FRI", "2026-01-02T17:00:00", "2026-01-05T09:00:00"),
        ("0 30 9 * Jan Monday", "2026-01-26T09:30:00", "2027-01-04T09:30:00"),
        ("0 0 0 29 2 *", "2026-03-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 0 29 2 0", "2026-01-01T00:00:00", "2032-02-29T00:00:00"),
        ("30 10/25 * * * *", "2026-01-01T00:00:00", "2026-01-01T00:10:30"),
        ("30 10/25 * * * *", "2026-01-01T00:35:30", "2026-01-01T01:10:30"),
        ("0 0 0 1,15 * 5", "2026-01-01T00:00:00", "2026-05-01T00:00:00"),
        ("59 59 23 31 12 *", "2026-12-31T23:59:58", "2026-12-31T23:59:59"),
        ("0 0 0 * * 5-1", "2026-01-03T00:00:00", "2026-01-05T00:00:00"),
    ],
)
def test_known_occurrences(expression: str, after: str, expected: str) -> None:
    assert parse_cron(expression).after(at(after)) == at(expected)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * *", "4 fields"),
        ("60 * * * * *", "second 60 is outside 0 to 59"),
        ("0 0 24 * * *", "hour 24"),
        ("0 0 0 0 * *", "day 0"),
        ("0 0 0 * 13 *", "month 13"),
        ("0 0 0 * * 7", "day of week 7"),
        ("0 */0 * * * *", "step '0'"),
        ("0 x * * * *", "'x' is not a minute"),
        ("0 0 0 * * Mo", "'Mo' is not a day of week"),
        ("0 0 0 31 2 *", "never occurs"),
        ("0 1,,2 * * * *", "'' is not a minute"),
    ],
)
def test_broken_expressions_name_what_is_wrong(expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_schedule(expression)


# Seconds since 1970 from 2026 to 2030.
STARTS = st.integers(1_767_225_600, 1_893_456_000).map(lambda stamp: datetime.fromtimestamp(stamp, UTC))


def field_texts(field: Field) -> st.SearchStrategy[str]:
    number = st.integers(field.low, field.high)
    part = st.one_of(
        st.just("*"),
        st.integers(1, field.high).map(lambda step: f"*/{step}"),
        number.map(str),
        st.tuples(number, number).map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.tuples(number, number, st.integers(1, 9)).map(lambda three: f"{three[0]}-{three[1]}/{three[2]}"),
        st.tuples(number, st.integers(2, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    )
    return st.lists(part, min_size=1, max_size=3).map(",".join)


def matches(values: list[tuple[int, ...]], moment: datetime) -> bool:
    shown = (moment.second, moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)
    return all(number in allowed for number, allowed in zip(shown, values, strict=True))


@given(
    texts=st.tuples(*(field_texts(field) for field in FIELDS[:3])),
    start=STARTS,
)
@settings(max_examples=150, deadline=None)
def test_time_of_day_agrees_with_a_search_second_by_second(texts: tuple[str, ...], start: datetime) -> None:
    values = [parse_field(text, field) for text, field in zip(texts, FIELDS[:3], strict=True)]
    second = start.replace(microsecond=0)
    for _ in range(86400):
        second += timedelta(seconds=1)
        if second.second in values[0] and second.minute in values[1] and second.hour in values[2]:
            break
    assert parse_cron(" ".join([*texts, "* * *"])).after(start) == second


@given(
    texts=st.tuples(*(field_texts(field) for field in FIELDS[3:])),
    start=STARTS,
)
@settings(max_examples=150, deadline=None)
def test_day_agrees_with_a_search_day_by_day(texts: tuple[str, ...], start: datetime) -> None:
    values = [(0,), (0,), (0,), *(parse_field(text, field) for text, field in zip(texts, FIELDS[3:], strict=True))]
    day = start.replace(hour=0, minute=0, second=0, microsecond=0)
    expected = None
    for _ in range(366 * 41):
        day += timedelta(days=1)
        if matches(values, day):
            expected = day
            break
    assert parse_cron(" ".join(["0 0 0", *texts])).after(start) == expected


@given(STARTS)
def test_occurrences_are_strictly_later(start: datetime) -> None:
    cron = parse_cron("*/7 */3 * * * *")
    first = cron.after(start)
    assert first is not None
    assert first > start
    second = cron.after(first)
    assert second is not None
    assert second > first


def test_time_span_schedules() -> None:
    schedule = parse_schedule("00:00:30")
    assert schedule.after(at("2026-01-01T00:00:00")) == at("2026-01-01T00:00:30")
    assert schedule.is_below_a_minute
    assert not parse_schedule("1.00:00:00").is_below_a_minute
    with pytest.raises(ValueError, match="no positive interval"):
        parse_schedule("00:00:00")
