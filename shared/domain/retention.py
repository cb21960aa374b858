"""How long is kept what the loops leave behind: rows that explain, and that nobody needs for ever.

What proves is never deleted here: transactions, decisions, labels, the log and its seals, promotions, verdicts and
known models. Nor is what still waits: open triggers, notices that were not sent, records that the registry lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.domain.errors import InvalidInput
from shared.domain.instants import US_PER_DAY

SHADOW_REACH_DAYS: Final = 90
"""Models that are tried score no older events. A trial compares 60 days before its appointment, and performance windows
end 31 days ago and are 7 long; what is scored again after it was deleted would be deleted again, for ever."""

SHADOW_SLACK_DAYS: Final = 7
"""Between what is still scored and what is deleted already: firings that were missed, clocks that differ."""

TAKEN_DAYS: Final = 30
"""For dead letters that were handed in again. A stream keeps events for 7 days, and one that is delivered again must
find that it was set aside already."""


class Expiring(StrEnum):
    """What expires, in the order in which it is deleted: what grows most comes last and keeps nothing up."""

    NOTICES = "notices"
    RUNS = "runs"
    COUNTS = "counts"
    ANNOUNCEMENTS = "announcements"
    QUALITY = "quality"
    PERFORMANCE = "performance"
    DRIFT = "drift"
    TAKEN_LETTERS = "taken letters"
    LETTERS = "letters"
    SHADOW_SCORES = "shadow scores"


@dataclass(frozen=True, slots=True)
class Keeping:
    """For how many days what is kept.

    Attributes:
        runs_days: Runs of pipelines with their metrics, notices that have ended, counts of releases that are gone. The
            last runs of each pipeline stay, because they say where the next one goes on.
        figures_days: Numbers on drift, data quality and performance, and announced changes. Usual days are remembered
            for 35 days, norms of data quality for 57 (`LEAST_FIGURES_DAYS`).
        letters_days: Dead letters that nobody has handed in again; their bodies name people.
        shadow_days: Scores of models that did not decide, by event time.
    """

    runs_days: int = 90
    figures_days: int = 400
    letters_days: int = 400
    shadow_days: int = 120

    def __post_init__(self) -> None:
        """Refuse what would take away rows that are still read.

        Raises:
            InvalidInput: Names what is too short.
        """
        for name, least in (
            ("runs_days", LEAST_RUNS_DAYS),
            ("figures_days", LEAST_FIGURES_DAYS),
            ("letters_days", TAKEN_DAYS),
            ("shadow_days", LEAST_SHADOW_DAYS),
        ):
            if getattr(self, name) < least:
                raise InvalidInput(name, f"must be at least {least}")

    def days(self, what: Expiring) -> int:
        """For how many days it is kept.

        >>> Keeping().days(Expiring.DRIFT), Keeping(runs_days=30).days(Expiring.NOTICES)
        (400, 30)
        """
        match what:
            case Expiring.NOTICES | Expiring.RUNS | Expiring.COUNTS:
                return self.runs_days
            case Expiring.ANNOUNCEMENTS | Expiring.QUALITY | Expiring.PERFORMANCE | Expiring.DRIFT:
                return self.figures_days
            case Expiring.TAKEN_LETTERS:
                return TAKEN_DAYS
            case Expiring.LETTERS:
                return self.letters_days
            case Expiring.SHADOW_SCORES:
                return self.shadow_days

    def until_us(self, what: Expiring, now_us: int) -> int:
        """What is older than this expires, microseconds since 1970 UTC."""
        return now_us - self.days(what) * US_PER_DAY


LEAST_RUNS_DAYS: Final = 30
"""Failed runs of a trigger are counted, and people ask what happened last month."""

LEAST_FIGURES_DAYS: Final = 90
"""Above all that is remembered: usual days of drift, norms of data quality with the windows that are made up for."""

LEAST_SHADOW_DAYS: Final = SHADOW_REACH_DAYS + SHADOW_SLACK_DAYS
