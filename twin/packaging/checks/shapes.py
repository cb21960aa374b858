"""Small validators for JSON settings: each says what is wrong with a value, or None."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Final

Check = Callable[[object], str | None]
type Shape = Check | Mapping[str, Shape]

_TIME_SPAN: Final = re.compile(
    r"(?:(?P<days>\d+)\.)?(?P<hours>\d{1,2}):(?P<minutes>\d{2}):(?P<seconds>\d{2}(?:\.\d{1,7})?)"
)


def walk(value: object, shape: Shape, path: str) -> Iterator[tuple[str, str]]:
    """Compare a value with its shape; yield the dotted path and message of each problem."""
    if callable(shape):
        message = shape(value)
        if message is not None:
            yield path, message
        return
    if not isinstance(value, dict):
        yield path, "must be an object"
        return
    for key, item in value.items():
        below = f"{path}.{key}" if path else key
        if key in shape:
            yield from walk(item, shape[key], below)
        else:
            yield below, f"is not a documented setting{_hint(key, shape)}"


def _hint(key: str, shape: Mapping[str, Shape]) -> str:
    same = [known for known in shape if known.lower() == key.lower()]
    return f"; {same[0]} is" if same else f"; known here: {', '.join(sorted(shape))}"


def anything(_: object) -> str | None:
    """Any value: a section that Tollgate does not use and does not judge."""
    return None


def text(value: object) -> str | None:
    """A string."""
    return None if isinstance(value, str) else "must be a string"


def texts(value: object) -> str | None:
    """A list of strings."""
    return (
        None
        if isinstance(value, list) and all(isinstance(item, str) for item in value)
        else "must be a list of strings"
    )


def boolean(value: object) -> str | None:
    """A boolean, not its name in a string."""
    return None if isinstance(value, bool) else "must be true or false"


def integer(low: int, high: int | None = None) -> Check:
    """An integer within bounds, both included."""

    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be an integer"
        return _outside(value, low, high)

    return check


def number(low: float, high: float | None = None) -> Check:
    """A number within bounds, both included."""

    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        return _outside(value, low, high)

    return check


def _outside(value: float, low: float, high: float | None) -> str | None:
    if value < low or (high is not None and value > high):
        return f"must be at least {low}" if high is None else f"must be between {low} and {high}"
    return None


def one_of(*names: str) -> Check:
    """One of some names, in this spelling."""
    return lambda value: None if value in names else f"must be one of {', '.join(names)}"


def mapping(check: Check) -> Check:
    """An object with any keys whose values all pass one check."""

    def check_all(value: object) -> str | None:
        if not isinstance(value, dict):
            return "must be an object"
        found = [f"{key} {message}" for key, item in value.items() if (message := check(item)) is not None]
        return "; ".join(found) or None

    return check_all


def time_span(low: timedelta = timedelta(0), high: timedelta | None = None) -> Check:
    """A .NET TimeSpan within bounds, both included."""

    def check(value: object) -> str | None:
        parsed = parse_time_span(value)
        if parsed is None:
            return "must be a time span hh:mm:ss (hours below 24: the host reads 24:00:00 as 24 days)"
        if parsed < low or (high is not None and parsed > high):
            return f"must be at least {low}" if high is None else f"must be between {low} and {high}"
        return None

    return check


def parse_time_span(value: object) -> timedelta | None:
    """Read [d.]hh:mm:ss[.f], or None if it is something else.

    Hours from 24 on are refused although .NET reads "24:00:00": it takes them for days
    (https://learn.microsoft.com/dotnet/api/system.timespan.parse).
    """
    found = _TIME_SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    hours, minutes, seconds = int(found["hours"]), int(found["minutes"]), float(found["seconds"])
    if hours >= 24 or minutes >= 60 or seconds >= 60:
        return None
    return timedelta(days=int(found["days"] or 0), hours=hours, minutes=minutes, seconds=seconds)
