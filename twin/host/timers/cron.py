"""NCRONTAB expressions: when they occur next.

Semantics of the NCrontab library that the cloud uses: six fields (second minute hour day month day-of-week) or five
without seconds; `*`, lists, ranges, steps (`a/n` runs from a to the field's end), month and day names; Sunday is 0; day
of month AND day of week must both match.
Source: learn.microsoft.com, "Timer trigger for Azure Functions", NCRONTAB expressions; the library's field grammar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")

# A day that exists at all comes back within this: 29 February on a given weekday recurs within 40 years (2096 to 2136
# crosses 2100, which is no leap year).
_HORIZON_YEARS = 41


@dataclass(frozen=True, slots=True)
class Field:
    """Range and names of one field."""

    title: str
    low: int
    high: int
    names: Sequence[str] = ()


FIELDS = (
    Field("second", 0, 59),
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day", 1, 31),
    Field("month", 1, 12, _MONTHS),
    Field("day of week", 0, 6, _DAYS),
)


def _number(text: str, field: Field) -> int:
    if text.isdecimal() and text.isascii():
        value = int(text)
    else:
        matches = [index for index, name in enumerate(field.names) if len(text) >= 3 and name.startswith(text.lower())]
        if len(matches) != 1:
            raise ValueError(f"{text!r} is not a {field.title}")
        value = matches[0] + field.low
    if not field.low <= value <= field.high:
        raise ValueError(f"{field.title} {value} is outside {field.low} to {field.high}")
    return value


def _part(text: str, field: Field) -> range:
    body, slash, step_text = text.partition("/")
    if slash and (not step_text.isdecimal() or int(step_text) < 1):
        raise ValueError(f"step {step_text!r} of {field.title} is not a positive number")
    step = int(step_text) if slash else 1
    if body == "*":
        first, last = field.low, field.high
    elif "-" in body:
        left, right = body.split("-", 1)
        first, last = sorted((_number(left, field), _number(right, field)))
    else:
        first = _number(body, field)
        last = field.high if slash and step > 1 else first
    return range(first, last + 1, step)


def parse_field(text: str, field: Field) -> tuple[int, ...]:
    """The values of one field, ascending. Raises ValueError naming the part that is wrong."""
    return tuple(sorted({value for part in text.split(",") for value in _part(part, field)}))


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression; each field holds its values in ascending order."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    def after(self, moment: datetime) -> datetime | None:
        """The first occurrence strictly after `moment` (aware UTC), or None if there is none for 41 years."""
        start = moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        day = start.replace(hour=0, minute=0, second=0)
        end_year = start.year + _HORIZON_YEARS
        earliest = (start.hour, start.minute, start.second)
        while day.year <= min(end_year, 9998):
            if day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
            elif day.day not in self.days or (day.isoweekday() % 7) not in self.weekdays:
                day += timedelta(days=1)
            elif (clock := self._clock_from(earliest)) is not None:
                return day.replace(hour=clock[0], minute=clock[1], second=clock[2])
            else:
                day += timedelta(days=1)
            earliest = (0, 0, 0)
        return None

    def _clock_from(self, earliest: tuple[int, int, int]) -> tuple[int, int, int] | None:
        """The first matching time of day that is not before `earliest`."""
        for hour in self.hours:
            if hour < earliest[0]:
                continue
            for minute in self.minutes:
                if (hour, minute) < earliest[:2]:
                    continue
                for second in self.seconds:
                    if (hour, minute, second) >= earliest:
                        return hour, minute, second
        return None


def parse_cron(expression: str) -> Cron:
    """A five or six field expression. Raises ValueError naming the field that is wrong."""
    texts = expression.split()
    if len(texts) == 5:
        texts.insert(0, "0")
    if len(texts) != 6:
        raise ValueError(f"{expression!r} has {len(texts)} fields, an NCRONTAB expression has five or six")
    values = [parse_field(text, field) for text, field in zip(texts, FIELDS, strict=True)]
    return Cron(values[0], values[1], values[2], frozenset(values[3]), frozenset(values[4]), frozenset(values[5]))
