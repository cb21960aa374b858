"""What a timer function receives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """A timer's persisted state, aware UTC.

    Attributes:
        last: The occurrence that fired last; None if none ever did.
        following: The occurrence that is due next.
        last_updated: When the last one fired, or when the schedule was first seen.
    """

    last: datetime | None
    following: datetime
    last_updated: datetime


def iso(moment: datetime | None) -> str:
    """A moment as .NET prints it in JSON; its smallest date stands for "never"."""
    if moment is None:
        return "0001-01-01T00:00:00+00:00"
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def status_document(status: ScheduleStatus) -> dict[str, str]:
    """The status as it is stored and shown to functions."""
    return {"Last": iso(status.last), "Next": iso(status.following), "LastUpdated": iso(status.last_updated)}


def timer_json(*, past_due: bool, status: ScheduleStatus | None, adjust_for_dst: bool) -> str:
    """The trigger's value."""
    return json.dumps(
        {
            "Schedule": {"AdjustForDST": adjust_for_dst},
            "ScheduleStatus": None if status is None else status_document(status),
            "IsPastDue": past_due,
        }
    )
