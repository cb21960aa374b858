"""When drift is worth waking somebody: the policy on top of the numbers (records 0006, 0026 and 0036).

Each hour every feature and the score are measured over windows of 1, 3, 8 and 24 hours that end with it. Three rules:

- **Distribution.** PSI is at least the floor, and the window is so far from the reference as chance, cards that buy
  more than once, and what days differ by anyway, would bring about less than once in a thousand hours over all features
  and windows together.
- **Value.** The values lie further above or below those of the reference than they did at this hour of usual days of
  the kind, by several standard deviations. It hears moves too small for PSI's floor; it keeps silent until it has seen
  a week.
- **Lumps.** The same, by more of them, for what counts and for what reads labels, the score included: one event or
  label moves all payments of its card or terminal at once, so the tails of such levels are heavy.

A value is believed at once. The other two alert when they are broken in two of the last three hours, over windows of
any length. How much days differ is learnt from the past five weeks, without the hours that were out of bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_reference import SCORE, Reference, hour_of_week
from shared.domain.drift_counts import HourCounts, matched
from shared.domain.drift_statistics import (
    cluster_dispersion,
    jensen_shannon,
    kolmogorov,
    level,
    psi,
    surprise,
)
from shared.domain.feature_view import FIRST_WEEKEND_DAY, LABEL_MEASURES, Entity, FeatureView, Measure
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.pipeline import Cause, Priority, Severity

LENGTHS: Final = (1, 3, 8, 24)
"""Hours of the windows: the shortest that says anything, what a coarse drift must be found in, and up to a day."""

MEMORY_US: Final = 35 * US_PER_DAY
"""How far back usual days are looked at: five of each weekday, and the salary day of a month."""

LEAST_ALIKE: Final = 4
"""Windows on weekends, and on other days, that must have been seen before they are told apart: two weekends."""

_LUMPY: Final = LABEL_MEASURES | {Measure.COUNT, Measure.OUTLIERS}

PRIOR_NATURAL: Final = 0.01
"""How far from the reference windows keep beyond chance, PSI, before any was seen: what the features of the simulator
and of the Handbook do at most in the mean, those that count transactions aside (record 0026)."""

PRIOR_WINDOWS: Final = 5.0
"""How many windows that assumption weighs."""


type Floats = NDArray[np.float64]
type Ints = NDArray[np.int64]


class Rule(StrEnum):
    """Why a window is out of bounds."""

    DISTRIBUTION = "distribution"
    VALUE = "value"
    LUMPS = "lumps"


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """The thresholds.

    Attributes:
        floor: PSI below which nobody is woken.
        medium: PSI above which a trigger of medium priority is opened.
        high: PSI above which one of high priority is.
        family_error: How often an hour may be out of bounds by chance, over all features and windows together.
        persistence: In so many of `persistence_of` hours windows of a subject must be out of bounds, of any length.
        persistence_of: The hours, the present one included.
        level_floor: Least move of the level that counts, see `drift_statistics.level`.
        value_deviations: How many standard deviations of usual days the level must lie away from them.
        lump_deviations: The same for what counts and what reads labels.
        learning_days: Windows at this hour of the day that must have been seen before the level is judged.
    """

    floor: float = 0.05
    medium: float = 0.3
    high: float = 0.5
    family_error: float = 0.001
    persistence: int = 2
    persistence_of: int = 3
    level_floor: float = 0.03
    value_deviations: float = 4.0
    lump_deviations: float = 4.5
    learning_days: int = 7

    def priority(self, distance: float) -> Priority | None:
        """Of the trigger that a PSI opens; None for none."""
        if distance > self.high:
            return Priority.HIGH
        return Priority.MEDIUM if distance > self.medium else None


@dataclass(frozen=True, slots=True)
class Clusters:
    """How transactions of a window cluster.

    Attributes:
        n_rows: Transactions.
        customers_squared: Sum over customers of the square of their transactions.
        terminals_squared: Sum over terminals, likewise.
    """

    n_rows: int
    customers_squared: int
    terminals_squared: int


@dataclass(frozen=True, slots=True)
class Usual:
    """What windows of one subject and length were like of late, and not out of bounds.

    Attributes:
        n_windows: How many.
        distance: Mean of their distance beyond chance.
        level: What to expect of the next one's level; NaN where none of them had one.
        spread: The standard deviation of the next one's level about that.
    """

    n_windows: int = 0
    distance: float = 0.0
    level: float = 0.0
    spread: float = 0.0

    @property
    def natural(self) -> float:
        """How far from the reference such windows keep anyway, not negative; an assumption fades as they come in."""
        seen = self.n_windows * max(self.distance, 0.0)
        return (seen + PRIOR_WINDOWS * PRIOR_NATURAL) / (self.n_windows + PRIOR_WINDOWS)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one subject over one window.

    Attributes:
        subject: A feature, or `SCORE`.
        hours: Length of the window.
        start_us: Its start, microseconds since 1970 UTC.
        end_us: Its end, not included.
        n_rows: Rows counted.
        n_reference: Rows of the reference.
        psi: See `drift_statistics`; NaN without rows.
        kolmogorov: Likewise.
        jensen_shannon: Likewise.
        level: Likewise.
        distance: What was tested.
        chance: What chance would make of it in the mean if rows were independent.
        natural: What was allowed for days that differ.
        p_value: Of the test.
        deviations: Of the level, from usual days in standard deviations; NaN where it is not judged.
        broken: The rules that are broken.
    """

    subject: str
    hours: int
    start_us: int
    end_us: int
    n_rows: int
    n_reference: int
    psi: float
    kolmogorov: float
    jensen_shannon: float
    level: float
    distance: float
    chance: float
    natural: float
    p_value: float
    deviations: float
    broken: frozenset[Rule]


@dataclass(frozen=True, slots=True)
class Finding:
    """Drift: a rule that stayed broken.

    Attributes:
        subject: A feature, or `SCORE`.
        rule: Which.
        measured: The window that shows it best: of those out of bounds, the one with the greatest PSI.
        severity: How bad.
        priority: Of the trigger to open; None for none.
    """

    subject: str
    rule: Rule
    measured: Measured
    severity: Severity
    priority: Priority | None

    @property
    def cause(self) -> Cause:
        """Of the trigger to open."""
        return Cause.SCORE_DRIFT if self.subject == SCORE else Cause.FEATURE_DRIFT


def is_weekend(end_us: Ints, hours: int) -> NDArray[np.bool_]:
    """Whether the middle of windows lies on a Saturday or Sunday, UTC, as the feature views have it: (n,) bool.

    Args:
        end_us: (n,) int64, their ends, microseconds since 1970 UTC.
        hours: Their length.

    >>> is_weekend(np.array([2 * US_PER_DAY, 2 * US_PER_DAY + US_PER_HOUR]), 1)  # 1970-01-03 was a Saturday
    array([False,  True])
    """
    return hour_of_week(end_us - hours * US_PER_HOUR // 2) >= FIRST_WEEKEND_DAY * 24


def usual(ended_us: Ints, distance: Floats, levels: Floats, hours: int, end_us: int) -> Usual:
    """What the past windows of one subject and length lead to expect of the next.

    People pay for other things on weekends, so the level is that of windows on days of the same kind, and the spread is
    that about the mean of each kind; where either kind was seen less than `LEAST_ALIKE` times both are taken as one.
    The spread is that of a prediction, because the mean of few windows is uncertain too (Hahn and Meeker, "Statistical
    Intervals", 1991, section 4.7).

    Windows that were out of bounds must be left out, and so must those that end within a day of the window to be
    judged: a drift that has begun must not make itself usual. None is older than `MEMORY_US`.

    Args:
        ended_us: (n,) int64, when they ended, microseconds since 1970 UTC.
        distance: (n,) float64, distance beyond chance.
        levels: (n,) float64, NaN for none.
        hours: Their length.
        end_us: End of the window to be judged.
    """
    if not len(distance):
        return Usual()
    n_windows, natural, known = len(distance), float(distance.mean()), ~np.isnan(levels)
    alike = is_weekend(ended_us[known], hours) == is_weekend(np.array([end_us]), hours)
    levels = levels[known]
    kinds = [levels[alike], levels[~alike]]
    if min(map(len, kinds)) < LEAST_ALIKE:
        kinds = [levels]
    if not len(kinds[0]):
        return Usual(n_windows, natural, math.nan, 0.0)
    free = len(levels) - len(kinds)
    squares = sum(float(((kind - kind.mean()) ** 2).sum()) for kind in kinds)
    spread = math.sqrt(squares / free * (1.0 + 1.0 / len(kinds[0]))) if free > 0 else 0.0
    return Usual(n_windows, natural, float(kinds[0].mean()), spread)


def usuals(windows: Iterable[tuple[str, int, float, float | None]], hours: int, end_us: int) -> dict[str, Usual]:
    """What the past windows of every subject lead to expect, see `usual`.

    Args:
        windows: Subject, end, distance beyond chance, and level (None or NaN for none), in the order of their ends.
        hours: Their length.
        end_us: End of the window to be judged.
    """
    past: dict[str, list[tuple[int, float, float | None]]] = {}
    for subject, ended_us, distance, moved in windows:
        past.setdefault(subject, []).append((ended_us, distance, moved))
    found = {}
    for subject, rows in past.items():
        ends, distances, levels = zip(*rows, strict=True)
        floats = np.array(distances, dtype=np.float64), np.array(levels, dtype=np.float64)  # None is NaN
        found[subject] = usual(np.array(ends, dtype=np.int64), *floats, hours, end_us)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """What is watched, and how.

    Attributes:
        reference: Of the bundle that is watched.
        view: Its feature view.
        policy: The thresholds.
    """

    reference: Reference
    view: FeatureView
    policy: DriftPolicy = DriftPolicy()

    @property
    def subjects(self) -> tuple[str, ...]:
        """The features in order, then the score."""
        return (*self.view.names, SCORE)


def measure(
    watched: Watched, hours: Sequence[HourCounts], clusters: Clusters, usuals: Mapping[str, Usual], length: int
) -> list[Measured]:
    """Measure every subject over the window that some hours make.

    Args:
        watched: What is watched.
        hours: Hours in order; those that are not there had no rows. The last one ends the window.
        clusters: Of the window.
        usuals: By subject, what such windows were like of late; a subject without is new.
        length: Hours of the window.

    Returns:
        One for each subject, in order.
    """
    reference, policy = watched.reference, watched.policy
    features = {feature.name: feature for feature in watched.view.features}
    by_customer = cluster_dispersion(clusters.customers_squared, clusters.n_rows)
    by_terminal = cluster_dispersion(clusters.terminals_squared, clusters.n_rows)
    end_us = hours[-1].start_us + US_PER_HOUR
    error = policy.family_error / (len(watched.subjects) * len(LENGTHS))
    found = []
    for name in watched.subjects:
        histogram = reference.histograms[name]
        current: NDArray[np.int64] = np.sum([hour.counts[name] for hour in hours], axis=0)
        compared = matched(histogram, [(hour.start_us, int(hour.counts[name].sum())) for hour in hours])
        before = usuals.get(name, Usual())
        feature = features.get(name)
        dispersion = by_terminal if feature is not None and feature.entity is Entity.TERMINAL else by_customer
        test = surprise(compared, current, dispersion, before.natural)
        distance, moved = psi(compared, current), level(compared, current)
        n_rows = int(current.sum())
        deviations = math.nan
        if before.n_windows >= policy.learning_days and n_rows > 0:
            # 1/12 is the variance of a rank's share; the past may be too smooth to know the spread of this window.
            spread = max(before.spread, math.sqrt(dispersion / (12.0 * n_rows)))
            deviations = (moved - before.level) / spread
        is_lumpy = feature is None or feature.measure in _LUMPY
        broken = set()
        if distance >= policy.floor and test.p_value < error:
            broken.add(Rule.DISTRIBUTION)
        least = policy.lump_deviations if is_lumpy else policy.value_deviations
        if abs(deviations) >= least and abs(moved - before.level) >= policy.level_floor:
            broken.add(Rule.LUMPS if is_lumpy else Rule.VALUE)
        found.append(
            Measured(
                subject=name,
                hours=length,
                start_us=end_us - length * US_PER_HOUR,
                end_us=end_us,
                n_rows=n_rows,
                n_reference=int(histogram.counts.sum()),
                psi=distance,
                kolmogorov=kolmogorov(compared, current),
                jensen_shannon=jensen_shannon(compared, current),
                level=moved,
                distance=test.distance,
                chance=test.chance,
                natural=before.natural,
                p_value=test.p_value,
                deviations=deviations,
                broken=frozenset(broken),
            )
        )
    return found


def judge(policy: DriftPolicy, recent: Sequence[Measured], end_us: int) -> list[Finding]:
    """What stayed out of bounds.

    Args:
        policy: The thresholds.
        recent: Windows of all subjects and lengths that end in the last `persistence_of` hours.
        end_us: End of the hour that is judged, microseconds since 1970 UTC; what is not broken now is no finding.

    Returns:
        At most one for each subject, the greatest PSI first.
    """
    since_us = end_us - (policy.persistence_of - 1) * US_PER_HOUR
    ended: dict[tuple[str, Rule], set[int]] = {}
    for one in recent:
        for rule in one.broken:
            if since_us <= one.end_us <= end_us:
                ended.setdefault((one.subject, rule), set()).add(one.end_us)
    best: dict[str, Finding] = {}
    for one in recent:
        for rule in sorted(one.broken, reverse=True):
            needed = 1 if rule is Rule.VALUE else policy.persistence
            if one.end_us != end_us or len(ended[one.subject, rule]) < needed:
                continue
            if one.subject not in best or one.psi > best[one.subject].measured.psi:
                priority = policy.priority(one.psi)
                severity = Severity.ERROR if priority is not None else Severity.WARNING
                best[one.subject] = Finding(one.subject, rule, one, severity, priority)
    return sorted(best.values(), key=lambda finding: -finding.measured.psi)
