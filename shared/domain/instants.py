"""Event times: integer microseconds since 1970 UTC, read from RFC 3339 text without a float on the way."""

from __future__ import annotations

import re
from datetime import date
from typing import Final

from shared.domain.errors import InvalidInput

US_PER_SECOND: Final = 1_000_000
US_PER_MINUTE: Final = 60 * US_PER_SECOND
US_PER_HOUR: Final = 60 * US_PER_MINUTE
US_PER_DAY: Final = 24 * US_PER_HOUR

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,32}))?(?:[Zz]|([+-])(\d{2}):(\d{2}))", re.ASCII
)


def parse_instant(field: str, value: object) -> int:
    """Read an RFC 3339 time as microseconds since 1970 UTC.

    Two rules are narrower than the RFC: digits finer than a microsecond must be zero, because dropping them would make
    two different bodies the same; and a leap second (`:60`) is refused, because microseconds since 1970 have no place
    for it.

    >>> parse_instant("event_time", "1970-01-01T00:00:01.000001Z")
    1000001
    >>> parse_instant("event_time", "2018-04-01T02:00:00+02:00")
    1522540800000000

    Args:
        field: Name of the field, for the error.
        value: What the wire held.

    Raises:
        InvalidInput: Not text, not RFC 3339 with an offset, no day of the calendar, or finer than a microsecond.
    """
    if not isinstance(value, str):
        raise InvalidInput(field, "must be text, a time such as 2018-04-01T00:00:31.000001Z")
    match = _RFC3339.fullmatch(value)
    if match is None:
        raise InvalidInput(field, "must be an RFC 3339 time with an offset, such as 2018-04-01T00:00:31.000001Z")
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    fraction = (match.group(7) or "").rstrip("0")
    if len(fraction) > 6:
        raise InvalidInput(field, "must not be finer than a microsecond")
    offset_hour, offset_minute = int(match.group(9) or 0), int(match.group(10) or 0)
    if hour > 23 or minute > 59 or second > 59 or offset_hour > 23 or offset_minute > 59:
        raise InvalidInput(field, "must have hours to 23, minutes and seconds to 59 (no leap second)")
    try:
        days = date(year, month, day).toordinal() - _EPOCH_ORDINAL
    except ValueError as error:
        raise InvalidInput(field, "must be a day of the calendar") from error
    offset_minutes = (offset_hour * 60 + offset_minute) * (-1 if match.group(8) == "-" else 1)
    seconds = ((days * 24 + hour) * 60 + minute - offset_minutes) * 60 + second
    return seconds * US_PER_SECOND + int(fraction.ljust(6, "0"))


def format_instant(time_us: int) -> str:
    """Write microseconds since 1970 as RFC 3339 UTC with six decimals; the inverse of `parse_instant`.

    >>> format_instant(1522540800000001)
    '2018-04-01T00:00:00.000001Z'
    """
    days, within_us = divmod(time_us, US_PER_DAY)
    day = date.fromordinal(days + _EPOCH_ORDINAL)
    seconds, micros = divmod(within_us, US_PER_SECOND)
    hour, rest = divmod(seconds, 3600)
    minute, second = divmod(rest, 60)
    return f"{day.isoformat()}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
