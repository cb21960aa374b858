"""A timer's schedule: an NCRONTAB expression, or a constant interval written as a time span."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from twin.host.timers.cron import Cron, parse_cron
from twin.host.timespan import parse_timespan

# Any moment does for asking how far apart two occurrences are.
_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Exactly one of `cron` and `interval` is set."""

    text: str
    cron: Cron | None = None
    interval: timedelta | None = None

    def after(self, moment: datetime) -> datetime:
        """The next occurrence strictly after `moment` (aware UTC)."""
        if self.interval is not None:
            return moment + self.interval
        following = None if self.cron is None else self.cron.after(moment)
        if following is None:
            raise ValueError(f"{self.text!r} never occurs again")
        return following

    @property
    def is_below_a_minute(self) -> bool:
        """Whether the next two occurrences lie less than a minute apart."""
        first = self.after(_SOME_DAY)
        return self.after(first) - first < timedelta(minutes=1)


def parse_schedule(text: str) -> Schedule:
    """A schedule from a binding. Raises ValueError for text that is neither form, or that can never occur."""
    if ":" in text:
        seconds = parse_timespan(text)
        if seconds <= 0:
            raise ValueError(f"{text!r} is no positive interval")
        return Schedule(text, interval=timedelta(seconds=seconds))
    schedule = Schedule(text, cron=parse_cron(text))
    schedule.after(_SOME_DAY)
    return schedule
