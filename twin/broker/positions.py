"""Where a consumer wants to start: the selector filter of a link, and what it means on a partition's log.

Source: the filter expressions that azure-eventhub 5.15.1 and @azure/event-hubs 6.0.4 send (measured).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from twin.broker.errors import Condition, LinkError
from twin.broker.partition_log import PartitionLog

FILTER_NAME: Final = "apache.org:selector-filter:string"
_FROM_START: Final = -1
_EXPRESSION: Final = re.compile(
    r"\s*amqp\.annotation\.(x-opt-offset|x-opt-sequence-number|x-opt-enqueued-time)\s*(>=|>)\s*"
    r"(?:'(@latest|-?\d{1,19})'|(@latest|-?\d{1,19}))\s*"
)


class Axis(StrEnum):
    """The annotation a start position is compared with."""

    OFFSET = "x-opt-offset"
    SEQUENCE = "x-opt-sequence-number"
    TIME = "x-opt-enqueued-time"


@dataclass(frozen=True, slots=True)
class StartPosition:
    """Start after `value` (at it, when inclusive); `value` None means the end of the log."""

    axis: Axis
    value: int | None
    inclusive: bool


START_OF_LOG: Final = StartPosition(Axis.OFFSET, _FROM_START, inclusive=False)


def parse_filter(expression: str | None) -> StartPosition:
    """Read a selector; no filter means the start of the log.

    Raises:
        LinkError: `com.microsoft:argument-error` for any other expression.
    """
    if expression is None:
        return START_OF_LOG
    found = _EXPRESSION.fullmatch(expression)
    if found is None:
        raise LinkError(Condition.ARGUMENT, f"the filter is not supported: {expression[:200]}")
    axis, operator, quoted, plain = found.groups()
    value = quoted or plain
    return StartPosition(Axis(axis), None if value == "@latest" else int(value), operator == ">=")


def resolve(position: StartPosition, log: PartitionLog) -> int:
    """The sequence number to start with; a position older than the first kept event starts there.

    Raises:
        LinkError: `com.microsoft:argument-error` for a position past the end of the log. It is a checkpoint of another,
            longer log; waiting for the log to grow up to it would skip every event until then without a word.
    """
    if position.value is None:
        return max(log.begin_sequence, log.visible_end - (1 if position.inclusive else 0))
    match position.axis:
        case Axis.TIME:
            return min(log.first_by_time(position.value, inclusive=position.inclusive), log.visible_end)
        case Axis.OFFSET:
            if position.value > log.last_offset:
                raise _stale("offset", position.value, log.last_offset)
            start = log.first_by_offset(position.value, inclusive=position.inclusive)
        case Axis.SEQUENCE:
            start = position.value + (0 if position.inclusive else 1)
            if start > log.next_sequence:
                raise _stale("sequence number", position.value, log.next_sequence - 1)
    return max(log.begin_sequence, start)


def _stale(what: str, given: int, last: int) -> LinkError:
    text = f"The supplied {what} '{given}' is invalid. The last {what} in the system is '{last}'"
    return LinkError(Condition.ARGUMENT, text)
