"""Durations as .NET writes them: `hh:mm:ss`, `d.hh:mm:ss`, with an optional fraction."""

from __future__ import annotations

import re

_FORM = re.compile(
    r"(?:(?P<days>\d+)\.)?(?P<hours>\d{1,2}):(?P<minutes>\d{1,2})(?::(?P<seconds>\d{1,2})(?P<fraction>\.\d{1,7})?)?"
)


def parse_timespan(text: str) -> float:
    """Seconds. Hours reach 23, minutes and seconds 59. Raises ValueError for another form."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time span such as 00:05:00")
    part = {name: float(value or 0) for name, value in match.groupdict().items()}
    if part["hours"] > 23 or part["minutes"] > 59 or part["seconds"] > 59:
        raise ValueError(f"{text!r} is out of range for a time span (hours to 23, minutes and seconds to 59)")
    return part["days"] * 86400 + part["hours"] * 3600 + part["minutes"] * 60 + part["seconds"] + part["fraction"]
