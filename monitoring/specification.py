"""What a panel and an alert are, whatever shows them.

An expression is written twice, once for Prometheus and once in Kusto, side by side, because the two differ in more than
words. What differs between a dashboard, an alert and a test stands in braces and is filled in by the renderer:
`{window}` is the span that a rate looks over, `{filter}` the time range and `{bin}` the width of a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Unit(StrEnum):
    """Units as Grafana names them."""

    SECONDS = "s"
    DAYS = "d"
    SHARE = "percentunit"
    PER_SECOND = "reqps"
    COUNT = "short"


class Severity(IntEnum):
    """How bad, as Azure counts it."""

    CRITICAL = 0
    ERROR = 1
    WARNING = 2
    INFORMATION = 3


@dataclass(frozen=True, slots=True)
class Series:
    """Lines of a panel.

    Attributes:
        legend: What a line is called; `{{label}}` is filled in by Grafana.
        promql: For Prometheus, with `{window}`.
        kql: For the workspace, with `{filter}` and `{bin}`: columns of time, of labels and `value`.
    """

    legend: str
    promql: str
    kql: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel.

    Attributes:
        title: What it shows.
        text: How to read it.
        unit: Of its values.
        series: Its lines.
        limit: Where an alert speaks, as a line; None without.
    """

    title: str
    text: str
    unit: Unit
    series: tuple[Series, ...]
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard.

    Attributes:
        name: Short, for files and links.
        title: For people.
        panels: In reading order.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    """A reason to wake somebody.

    Attributes:
        name: Short, for files and links.
        severity: How bad.
        summary: One sentence.
        action: What to do first.
        promql: Has a value while it holds, with `{window}`.
        window: What `{window}` is in operation.
        hold: How long it must hold before it speaks, as Prometheus writes spans.
        kql: One row for each breach in the rule's time range, which the rule itself adds.
        span: That range, ISO 8601; at least twice as long as what the query needs to be sent.
    """

    name: str
    severity: Severity
    summary: str
    action: str
    promql: str
    kql: str
    window: str = "5m"
    hold: str = "5m"
    span: str = "PT15M"
