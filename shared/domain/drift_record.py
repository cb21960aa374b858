"""How measured drift is kept: one number a row, by subject, statistic and window, and what reads it back.

The `psi` row of a window has all else that was measured of it in its details, and of a window of one hour the counts
that longer windows are summed from. The other statistics of that hour have rows of their own, to be drawn over time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np

from shared.domain.drift_counts import HourCounts
from shared.domain.drift_performance import Estimate, Figure
from shared.domain.drift_policy import Finding, Measured, Rule
from shared.domain.errors import BrokenInvariant
from shared.domain.instants import US_PER_HOUR
from shared.domain.pipeline import Evidence, Plain

ALL: Final = "all"
"""The subject of what is said of a whole window."""

OUTCOME: Final = "outcome"
"""The subject of what was decided."""

LABEL: Final = "label"
"""The subject of what matured labels say."""

PSI: Final = "psi"
VERDICT: Final = "verdict"
"""The row that is written last: a window that has it is done. Its value is the number of findings; null if withheld."""


class State(StrEnum):
    """What a verdict says."""

    QUIET = "quiet"
    DRIFT = "drift"
    ANNOUNCED = "announced"
    WITHHELD = "withheld"
    LEARNING = "learning"


@dataclass(frozen=True, slots=True)
class DriftMetric:
    """One number about one window.

    Attributes:
        subject: A feature, `score`, `OUTCOME`, `LABEL` or `ALL`.
        statistic: Which number.
        value: It; None where there is nothing to tell.
        start_us: Start of the window, microseconds since 1970 UTC.
        end_us: Its end, not included.
        reference_rows: Rows it was compared with.
        current_rows: Rows of the window.
        details: What belongs to it.
    """

    subject: str
    statistic: str
    value: float | None
    start_us: int
    end_us: int
    reference_rows: int
    current_rows: int
    details: Evidence = field(default_factory=dict)


def known(value: float) -> float | None:
    """A number, or None for NaN, which JSON and people cannot read."""
    return value if math.isfinite(value) else None


def rows_of(measured: Measured, hour: HourCounts | None, *, is_usual: bool) -> list[DriftMetric]:
    """The rows that keep what was measured of one window.

    Args:
        measured: It.
        hour: The hour's counts if the window is one hour, else None.
        is_usual: Whether later windows may learn from it what is usual.
    """
    details: dict[str, Plain] = {
        "distance": measured.distance,
        "chance": measured.chance,
        "natural": measured.natural,
        "p_value": measured.p_value,
        "kolmogorov": known(measured.kolmogorov),
        "jensen_shannon": known(measured.jensen_shannon),
        "level": known(measured.level),
        "deviations": known(measured.deviations),
        "broken": [rule.value for rule in sorted(measured.broken)],
        "usual": is_usual and measured.n_rows > 0,
    }
    if hour is not None:
        details["counts"] = [int(count) for count in hour.counts[measured.subject]]

    def row(statistic: str, value: float, extra: Evidence) -> DriftMetric:
        return DriftMetric(
            measured.subject,
            statistic,
            known(value),
            measured.start_us,
            measured.end_us,
            measured.n_reference,
            measured.n_rows,
            extra,
        )

    found = [row(PSI, measured.psi, details)]
    if hour is not None:
        found += [
            row("ks", measured.kolmogorov, {}),
            row("js", measured.jensen_shannon, {}),
            row("level", measured.level, {}),
        ]
    return found


def measured_of(row: DriftMetric) -> Measured:
    """What the `psi` row of a window keeps; the inverse of `rows_of`.

    Raises:
        BrokenInvariant: Its details are not those that `rows_of` writes.
    """
    details: Mapping[str, Any] = row.details
    try:
        return Measured(
            subject=row.subject,
            hours=(row.end_us - row.start_us) // US_PER_HOUR,
            start_us=row.start_us,
            end_us=row.end_us,
            n_rows=row.current_rows,
            n_reference=row.reference_rows,
            psi=_number(row.value),
            kolmogorov=_number(details["kolmogorov"]),
            jensen_shannon=_number(details["jensen_shannon"]),
            level=_number(details["level"]),
            distance=float(details["distance"]),
            chance=float(details["chance"]),
            natural=float(details["natural"]),
            p_value=float(details["p_value"]),
            deviations=_number(details["deviations"]),
            # Another release may know other rules; what they said is no reason to fall silent.
            broken=frozenset(Rule(name) for name in details["broken"] if name in Rule),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenInvariant(f"the drift row of {row.subject} cannot be read") from error


def outcome_row(hour: HourCounts, n_reference: int) -> DriftMetric:
    """The row of what an hour decided: the share that was not approved, and the counts."""
    approved, reviewed, declined = (int(count) for count in hour.outcomes)
    total = approved + reviewed + declined
    details: Evidence = {"approved": approved, "reviewed": reviewed, "declined": declined, "rows": hour.n_rows}
    value = (reviewed + declined) / total if total else None
    end_us = hour.start_us + US_PER_HOUR
    return DriftMetric(OUTCOME, "alert_rate", value, hour.start_us, end_us, n_reference, total, details)


def estimate_rows(
    subject: str, prefix: str, estimates: Mapping[Figure, Estimate], window_us: tuple[int, int], n_rows: int
) -> list[DriftMetric]:
    """Rows of figures with their intervals; those without a value are null."""
    return [
        DriftMetric(
            subject,
            prefix + figure.value,
            known(one.value),
            *window_us,
            0,
            n_rows,
            {"low": known(one.low), "high": known(one.high), "n": one.n_rows},
        )
        for figure, one in estimates.items()
    ]


def hours_of(rows: Sequence[DriftMetric]) -> list[HourCounts]:
    """The hours that the one-hour `psi` rows and the outcome rows of some windows keep, in order.

    Raises:
        BrokenInvariant: A row lacks its counts.
    """
    counts: dict[int, dict[str, Any]] = {}
    outcomes: dict[int, tuple[int, list[int]]] = {}
    try:
        for row in rows:
            details: Mapping[str, Any] = row.details
            if row.subject == OUTCOME:
                decided = [int(details[name]) for name in ("approved", "reviewed", "declined")]
                outcomes[row.start_us] = int(details["rows"]), decided
            elif row.statistic == PSI and row.end_us - row.start_us == US_PER_HOUR:
                counts.setdefault(row.start_us, {})[row.subject] = np.array(details["counts"], dtype=np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenInvariant("the counts of an hour cannot be read") from error
    return [
        HourCounts(start, outcomes[start][0], counts[start], np.array(outcomes[start][1], dtype=np.int64))
        for start in sorted(counts)
        if start in outcomes
    ]


def evidence_of(finding: Finding) -> dict[str, Plain]:
    """The numbers that led to a finding."""
    one = finding.measured
    return {
        "subject": finding.subject,
        "rule": finding.rule.value,
        "hours": one.hours,
        "window_end_us": one.end_us,
        "psi": known(one.psi),
        "ks": known(one.kolmogorov),
        "js": known(one.jensen_shannon),
        "level": known(one.level),
        "deviations": known(one.deviations),
        "p_value": one.p_value,
        "rows": one.n_rows,
        "reference_rows": one.n_reference,
    }


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
