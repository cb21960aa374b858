"""Time partitions of transactions and decisions: how wide they are, what they are called, which ones must exist when.

There is no default partition: an event time without a partition cannot be stored. So a timer makes partitions ahead,
an app is not ready without those around now, and history is imported after `tollgate db partitions --from --to`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from shared.domain.errors import InvalidInput
from shared.domain.instants import US_PER_DAY
from shared.ports.clock import Clock
from shared.ports.ledger import Partitions

PARTITION_DAYS: Final = 7
"""Width. At 1,000 decisions a second a week of `predictions` is some hundreds of gigabytes, at 10 a few; a year has 53
partitions, which planning bears because every query on the hot path names the event time or joins on it. The function
`tollgate.make_partitions` has the same width; a test holds them together."""

WIDTH_US: Final = PARTITION_DAYS * US_PER_DAY

PARTITIONED: Final = ("transactions", "predictions")

BEHIND_DAYS: Final = 14
"""How far back the timer keeps partitions: late events, and a stream that is read again from its retention (7 days)."""

AHEAD_DAYS: Final = 28
"""How far ahead the timer keeps partitions: it may fail for three weeks before an app is not ready."""

NEEDED_DAYS: Final = 7
"""How far back and ahead of now an app needs them in order to be ready."""

MAX_WEEKS_PER_CALL: Final = 260
"""Of one call of `tollgate.make_partitions`: each partition takes locks, of which a server has several thousand."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END_US: Final = int((datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) / timedelta(microseconds=1))


class Span(NamedTuple):
    """Event times from `start_us` to `end_us`, the end not included; microseconds since 1970 UTC."""

    start_us: int
    end_us: int


def around(now_us: int, *, behind_days: int, ahead_days: int) -> Span:
    """The event times around now; nothing before 1970 has a partition.

    >>> around(10 * US_PER_DAY, behind_days=14, ahead_days=1)
    Span(start_us=0, end_us=950400000000)
    """
    return Span(max(0, now_us - behind_days * US_PER_DAY), now_us + ahead_days * US_PER_DAY)


def names(span: Span) -> list[str]:
    """The partitions that a span needs, oldest first.

    >>> names(Span(0, 1))
    ['transactions_p19700101', 'predictions_p19700101']
    """
    first, last = span.start_us // WIDTH_US, (span.end_us - 1) // WIDTH_US
    days = [(_EPOCH + timedelta(days=number * PARTITION_DAYS)).strftime("%Y%m%d") for number in range(first, last + 1)]
    return [f"{table}_p{day}" for day in days for table in PARTITIONED]


def pieces(span: Span) -> list[Span]:
    """The span in parts that one call can bear.

    Raises:
        InvalidInput: It is empty, or not between 1970 and 9999.
    """
    if not 0 <= span.start_us < span.end_us <= _END_US:
        raise InvalidInput("to", "must lie after `from`, both between 1970 and 9999")
    step = MAX_WEEKS_PER_CALL * WIDTH_US - WIDTH_US  # a piece that starts inside a week touches one more
    starts = range(span.start_us, span.end_us, step)
    return [Span(start, min(start + step, span.end_us)) for start in starts]


def keep_ahead(partitions: Partitions, clock: Clock) -> int:
    """Make the partitions that are missing around now; returns how many.

    Idempotent, also when several do it at once.

    Raises:
        Transient: The database cannot do it now.
        BrokenInvariant: The schema or a right is missing.
    """
    return partitions.make(*around(clock.now_us(), behind_days=BEHIND_DAYS, ahead_days=AHEAD_DAYS))
