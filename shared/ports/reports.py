"""Reports that people read, as ports: which windows were compared, who draws, and where pages are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.domain.pipeline import OpenTrigger, Run
from shared.ports.notifying import KeptNotice


@dataclass(frozen=True, slots=True)
class ComparedWindow:
    """A window that has its verdict, and whose rows are archived.

    Attributes:
        start_us: Its start, microseconds since 1970 UTC; windows are an hour long.
        bundle_digest: The bundle that it was compared with.
    """

    start_us: int
    bundle_digest: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A report.

    Attributes:
        html: A page that needs nothing from elsewhere.
        json: The same for programs.
    """

    html: bytes
    json: bytes


class ComparedWindows(Protocol):
    """What drift was looked for in."""

    def archived(self, since_us: int) -> Sequence[ComparedWindow]:
        """Windows that start then or later, the newest first; raises Transient if the store cannot be reached now."""
        ...


class Drawing(Protocol):
    """Who draws reports, apart from this process."""

    def draw(self, window: ComparedWindow) -> Drawn:
        """Draw the report on a window.

        Raises:
            Transient: It could not be drawn this time: too little memory or time, or a store is away.
            NotFound: The window's rows or its bundle are not there, or no longer.
        """
        ...


class ReportStore(Protocol):
    """Pages by path. Every method raises Transient if the store cannot be reached now."""

    def put(self, path: str, data: bytes, content_type: str) -> None:
        """Keep a page; one of this path is replaced."""
        ...

    def get(self, path: str) -> tuple[bytes, str] | None:
        """A page and its content type."""
        ...

    def paths(self, prefix: str) -> Sequence[str]:
        """The paths that begin so, sorted."""
        ...

    def delete(self, path: str) -> bool:
        """Delete a page; False if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """What was said of one window.

    Attributes:
        start_us: Start of the window, microseconds since 1970 UTC.
        end_us: Its end, not included.
        bundle_digest: The bundle that it was compared with.
        rows: Rows of the window.
        state: In one word, such as `quiet`.
        findings: Subjects that were out of bounds, with their PSI where it is known.
        withheld: Why there is no verdict; empty if there is one.
    """

    start_us: int
    end_us: int
    bundle_digest: str
    rows: int
    state: str
    findings: tuple[tuple[str, float | None], ...]
    withheld: str


@dataclass(frozen=True, slots=True)
class QualityRow:
    """The last result of a rule of data quality."""

    source: str
    rule: str
    passed: bool
    observed: float | None
    end_us: int
    failures: int


@dataclass(frozen=True, slots=True)
class GateRow:
    """A verdict of the gate."""

    verdict_digest: str
    challenger_digest: str
    passed: bool
    decided_at_us: int


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers over time.

    Attributes:
        name: What they measure.
        points: Ends of windows in microseconds since 1970 UTC, rising, and values; None where there is nothing to tell.
    """

    name: str
    points: tuple[tuple[int, float | None], ...]


@dataclass(frozen=True, slots=True)
class PageFacts:
    """All that the report page tells, besides what lies in the store of reports.

    Attributes:
        now_us: When it was read, microseconds since 1970 UTC.
        since_us: Where trends begin.
        verdicts: Of drift, the newest first.
        drift: PSI of hours, a series for each subject.
        performance: A series for each metric over all transactions.
        quality: Rules of data quality, those that fail first.
        gate: The gate's verdicts, the newest first.
        triggers: That are open or claimed, the most urgent first.
        notices: The newest first.
        runs: The last one of each pipeline, by name.
    """

    now_us: int
    since_us: int
    verdicts: tuple[VerdictRow, ...] = ()
    drift: tuple[Series, ...] = ()
    performance: tuple[Series, ...] = ()
    quality: tuple[QualityRow, ...] = ()
    gate: tuple[GateRow, ...] = ()
    triggers: tuple[OpenTrigger, ...] = ()
    notices: tuple[KeptNotice, ...] = ()
    runs: tuple[Run, ...] = ()


class PageReadings(Protocol):
    """Where the page's facts are."""

    def read(self, now_us: int) -> PageFacts:
        """All of them, of one moment; raises Transient if the store cannot be reached now."""
        ...
