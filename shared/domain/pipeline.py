"""Runs of pipelines, the reasons to retrain, and what people are told: the words that timers share.

A pipeline is what a timer does: drift, data quality, performance, retraining. A run has an id that follows from what it
is about (pipeline and slot), so that a timer that fires twice begins one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from shared.domain.errors import InvalidInput, TollgateError

type Plain = bool | int | float | str | list[Plain] | dict[str, Plain] | None
"""What JSON can say."""

type Evidence = Mapping[str, Plain]
"""Numbers that led to something, without identifiers of people."""

MAX_TITLE: Final = 200
"""Characters of a notice's title: the subject of a mail."""

MAX_ERROR: Final = 500
"""Characters of an error that are kept."""


class RunStatus(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a pipeline.

    Attributes:
        run_id: `<pipeline>/<slot>`; the same work has the same id.
        pipeline: Its name.
        status: How it stands.
        started_at_us: Microseconds since 1970 UTC.
        ended_at_us: The same; None while it runs.
        error: Why it failed or was skipped; empty otherwise.
        details: Parameters and results.
    """

    run_id: str
    pipeline: str
    status: RunStatus
    started_at_us: int
    ended_at_us: int | None = None
    error: str = ""
    details: Evidence = field(default_factory=dict)


class Priority(IntEnum):
    """How soon a trigger is answered; `IMMEDIATE` waits for nothing (record 0023)."""

    IMMEDIATE = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3


class Cause(StrEnum):
    """Why to retrain."""

    CONCEPT_DRIFT = "concept drift"
    FEATURE_DRIFT = "feature drift"
    SCORE_DRIFT = "score drift"
    TARGET_DRIFT = "target drift"
    SCHEDULE = "schedule"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Trigger:
    """A reason to retrain.

    Attributes:
        cause: What kind.
        subject: A feature, `score`, `outcome`; empty where the cause says all.
        priority: How soon.
        evidence: The numbers that led to it.
        created_at_us: Microseconds since 1970 UTC.
    """

    cause: Cause
    subject: str
    priority: Priority
    evidence: Evidence
    created_at_us: int


@dataclass(frozen=True, slots=True)
class OpenTrigger:
    """A trigger as it is kept.

    Attributes:
        trigger_id: Its number.
        trigger: What it says.
        claimed_by: The run that took it; empty while nobody has.
    """

    trigger_id: int
    trigger: Trigger
    claimed_by: str = ""


class Severity(IntEnum):
    """How bad."""

    CRITICAL = 0
    ERROR = 1
    WARNING = 2
    INFORMATION = 3


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that people are told.

    Attributes:
        dedup_key: The same key is told once in each channel, such as `drift/amount/2026-11-21T10`.
        severity: How bad.
        title: One line.
        evidence: Numbers, without identifiers of people.
        link: Where to look; empty if nowhere.
        created_at_us: Microseconds since 1970 UTC.
    """

    dedup_key: str
    severity: Severity
    title: str
    evidence: Evidence
    link: str
    created_at_us: int

    def __post_init__(self) -> None:
        """Refuse what no channel could show.

        Raises:
            InvalidInput: Names the field.
        """
        if not self.dedup_key:
            raise InvalidInput("dedup_key", "must not be empty")
        if not 0 < len(self.title) <= MAX_TITLE or "\n" in self.title:
            raise InvalidInput("title", f"must be one line of 1 to {MAX_TITLE} characters")


def error_words(error: Exception) -> str:
    """What is kept of an error: our own say states, not data; of others only the class is safe to keep.

    >>> error_words(InvalidInput("days", "must be greater than 0")), error_words(KeyError("4556 7375 8689 9855"))
    ('days must be greater than 0', 'KeyError')
    """
    return (str(error) if isinstance(error, TollgateError) else type(error).__name__)[:MAX_ERROR]


def slot_of(pipeline: str, slot_us: int) -> str:
    """The id of the run of a pipeline for a slot of time, by its start in microseconds since 1970 UTC.

    >>> slot_of("drift", 3_600_000_000)
    'drift/3600000000'
    """
    return f"{pipeline}/{slot_us}"
