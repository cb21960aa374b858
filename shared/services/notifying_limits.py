"""Which notices a channel may send now, and when an attempt that failed is made again: pure rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from shared.domain.instants import US_PER_HOUR
from shared.domain.pipeline import Notice, Severity
from shared.ports.notifying import WITHHELD_PREFIX, ClaimedNotice, ClaimRules

FIRST_WAIT_US: Final = 30_000_000
"""Before the second attempt at most: the first faults of a server last seconds, and the timer runs each minute."""

LONGEST_WAIT_US: Final = US_PER_HOUR
"""Between two attempts: a channel that comes back after a night is used within the hour."""

type Split = tuple[tuple[ClaimedNotice, ...], tuple[ClaimedNotice, ...]]


def admit(due: Sequence[ClaimedNotice], used: int, rules: ClaimRules) -> Split:
    """Split what is due, the worst first, into what may be sent and what is withheld.

    Args:
        due: Ordered by severity, then age.
        used: Notices that this channel has sent within the last hour or is sending now.
        rules: The limits.

    Returns:
        What is sent, what is withheld.
    """
    taken: list[ClaimedNotice] = []
    withheld: list[ClaimedNotice] = []
    for item in due:
        if item.notice.dedup_key.startswith(WITHHELD_PREFIX):
            taken.append(item)
        elif used < rules.allowance(item.notice.severity):
            taken.append(item)
            used += 1
        else:
            withheld.append(item)
    return tuple(taken), tuple(withheld)


def withheld_notice(channel: str, now_us: int, rules: ClaimRules) -> Notice:
    """What is said, once in a channel and hour, when notices are withheld.

    >>> withheld_notice("mail", 3_600_000_000, ClaimRules()).title
    'Too many notices within an hour: some are withheld here. The report page has all of them'
    """
    hour = datetime.fromtimestamp(now_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H")
    return Notice(
        dedup_key=f"{WITHHELD_PREFIX}{channel}/{hour}",
        severity=Severity.WARNING,
        title="Too many notices within an hour: some are withheld here. The report page has all of them",
        evidence={"notices_per_hour": rules.per_hour, "warnings_per_hour": rules.allowance(Severity.WARNING)},
        link="",
        created_at_us=now_us,
    )


def wait_us(attempt: int, chance: float) -> int:
    """How long to wait after an attempt that failed, microseconds.

    Doubles from half a minute up to an hour; the later half of it is left to chance, so that many who failed together
    do not come again together.

    Args:
        attempt: The one that failed, from 1.
        chance: Uniform in [0, 1).

    >>> wait_us(1, 0.0), wait_us(2, 0.0), wait_us(60, 0.5)
    (15000000, 30000000, 2700000000)
    """
    bound = min(FIRST_WAIT_US << min(attempt - 1, 10), LONGEST_WAIT_US)
    return int(bound * (1 + chance) / 2)
