"""The watch for drift: every complete hour is counted, measured, judged, and told, once.

An hour's verdict is the last thing that is written of it. So a firing that dies half-way is made up for by the next,
and a second firing of an hour that is done finds nothing to do; all that is written in between is idempotent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from shared.domain.bundle import Bundle, open_bundle
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.drift_counts import DecidedRows, HourCounts, hour_counts
from shared.domain.drift_incidents import (
    LEAST_DAYS,
    USUAL_DAYS,
    WEEK_DAYS,
    Frauds,
    Missed,
    frauds,
    missed_incidents,
    spread,
)
from shared.domain.drift_performance import (
    Decline,
    Figure,
    PerformancePolicy,
    declines,
    expected,
    figures,
    joined,
    may_have_fallen,
    reference_figures,
)
from shared.domain.drift_policy import (
    LENGTHS,
    MEMORY_US,
    DriftPolicy,
    Finding,
    Measured,
    Watched,
    judge,
    measure,
)
from shared.domain.drift_record import (
    ALL,
    LABEL,
    OUTCOME,
    PSI,
    VERDICT,
    DriftMetric,
    State,
    estimate_rows,
    evidence_of,
    hours_of,
    known,
    measured_of,
    outcome_row,
    rows_of,
)
from shared.domain.errors import Transient
from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, format_instant
from shared.domain.pipeline import Evidence, Notice, Plain, Severity, Trigger
from shared.ports.clock import Clock
from shared.ports.drift import Announcement, Announcements, DecidedWindows, DriftArchive, DriftMetrics
from shared.ports.models import BundleStore
from shared.ports.pipelines import Notices, Triggers
from shared.ports.quality import FeedHealth

_log = logging.getLogger(__name__)

SETTLING_US: Final = 5 * US_PER_MINUTE
"""How long after its end an hour is left alone, so that what was on its way is in it."""

MATURED_DAYS: Final = (1, WEEK_DAYS)
"""Days of matured decisions that performance is taken over: the shortest that says anything, and a week. Days count as
usual that end before the longest begins, so that what comes slowly is not learnt as it comes."""

ANYTHING: Final = "*"


@dataclass(frozen=True, slots=True)
class DriftParts:
    """What the watch works with."""

    bundles: BundleStore
    windows: DecidedWindows
    metrics: DriftMetrics
    announcements: Announcements
    feed: FeedHealth
    archive: DriftArchive
    triggers: Triggers
    notices: Notices
    clock: Clock


@dataclass(frozen=True, slots=True)
class DriftRules:
    """How it watches.

    Attributes:
        drift: When features and the score drift.
        performance: When performance does.
        most_hours: Hours that one firing makes up for at most.
    """

    drift: DriftPolicy = field(default_factory=DriftPolicy)
    performance: PerformancePolicy = field(default_factory=PerformancePolicy)
    most_hours: int = 72


@dataclass(slots=True)
class DriftMemory:
    """What need not be read again from one firing to the next; nothing is lost with it but time.

    Attributes:
        bundle: The one that was opened last.
        frauds: Those of whole days, by bundle and start; their labels had matured.
    """

    bundle: Bundle | None = None
    frauds: dict[tuple[str, int], Frauds] = field(default_factory=dict)


@dataclass(slots=True)
class _Past:
    """What the hours before say, while a firing goes from one hour to the next."""

    hours: list[HourCounts]
    recent: list[Measured]


@dataclass(slots=True)
class _Tally:
    """What a firing did."""

    hours: int = 0
    rows: int = 0
    findings: int = 0
    triggers: int = 0
    states: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Champion:
    """Who is watched."""

    bundle: Bundle
    since_us: int


class DriftCheck:
    """Watches the champion; used by one thread at a time."""

    def __init__(self, parts: DriftParts, rules: DriftRules, memory: DriftMemory | None = None) -> None:
        """Read nothing yet.

        Args:
            parts: What it works with.
            rules: How it watches.
            memory: Of the firings before; None to begin with none.
        """
        self._parts = parts
        self._rules = rules
        self._memory = memory or DriftMemory()

    def run(self, go_on: Callable[[], bool] = lambda: True) -> Evidence:
        """Make up for every complete hour that has no verdict yet, then look at what has matured.

        Args:
            go_on: Asked before each hour; False ends the firing there, and the next one goes on.

        Returns:
            Hours, rows, findings, triggers opened, and how many hours had which state.

        Raises:
            Transient: A store cannot be reached now; hours that are done stay done.
        """
        pointer = self._parts.bundles.pointer(Role.CHAMPION).pointer
        if pointer is None or pointer.digest is None:
            return {"hours": 0, "state": "no champion"}
        champion = self._watched(pointer)
        until_us = (self._parts.clock.now_us() - SETTLING_US) // US_PER_HOUR * US_PER_HOUR
        start_us = self._start(champion.bundle.digest, until_us)
        tally = _Tally()
        if start_us is None or start_us >= until_us:
            return {"hours": 0, "state": "nothing new"}
        past = self._remembered(champion.bundle.digest, start_us)
        for hour_us in range(start_us, until_us, US_PER_HOUR)[: self._rules.most_hours]:
            if not go_on():
                break
            self._hour(champion, hour_us, past, tally)
            if hour_us + US_PER_HOUR == until_us:
                self._performance(champion, until_us, tally)
        return {
            "hours": tally.hours,
            "rows": tally.rows,
            "findings": tally.findings,
            "triggers": tally.triggers,
            "behind": (until_us - start_us) // US_PER_HOUR - tally.hours,
            "states": dict(tally.states),
        }

    def _watched(self, pointer: Pointer) -> _Champion:
        """The champion; its bundle is opened once."""
        digest = pointer.digest or ""
        bundle = self._memory.bundle
        if bundle is None or bundle.digest != digest:
            bundle = self._memory.bundle = open_bundle(self._parts.bundles.get(digest), digest)
        return _Champion(bundle, pointer.changed_at_us)

    def _start(self, digest: str, until_us: int) -> int | None:
        """The first hour without a verdict; of a champion that is new, as far back as usual days are remembered."""
        last_us = self._parts.metrics.last_end_us(digest)
        if last_us is None:
            last_us = self._parts.windows.first_us(until_us - MEMORY_US)
        return None if last_us is None else max(last_us // US_PER_HOUR * US_PER_HOUR, until_us - MEMORY_US)

    def _remembered(self, digest: str, start_us: int) -> _Past:
        rows = self._parts.metrics.read(digest, start_us - max(LENGTHS) * US_PER_HOUR, start_us)
        withheld = {row.end_us for row in rows if row.statistic == VERDICT and row.details["state"] == State.WITHHELD}
        hourly = [row for row in rows if row.end_us not in withheld]
        since_us = start_us - self._rules.drift.persistence_of * US_PER_HOUR
        recent = [measured_of(row) for row in hourly if row.statistic == PSI and row.end_us > since_us]
        return _Past(hours_of(hourly), recent)

    def _hour(self, champion: _Champion, start_us: int, past: _Past, tally: _Tally) -> None:
        """Count, measure, judge and tell one hour."""
        bundle, end_us = champion.bundle, start_us + US_PER_HOUR
        scores: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []
        hour, archived = self._counted(champion, start_us, scores)
        measured = self._measured(champion, [*past.hours, hour])
        learning = end_us <= champion.since_us
        broken = "" if learning else self._parts.feed.broken(start_us, end_us)
        earliest_us = end_us - max(LENGTHS) * US_PER_HOUR
        announced = self._parts.announcements.announced(earliest_us, end_us)
        found = judge(self._rules.drift, [*past.recent, *measured], end_us)
        expectable = [one for one in found if _announced(announced, one.subject, one.measured.start_us, end_us)]
        alarms = [] if learning or broken else [one for one in found if one not in expectable]
        state = _state(learning=learning, broken=broken, found=found, alarms=alarms)

        now_us = self._parts.clock.now_us()
        rows = [outcome_row(hour, bundle.reference.histograms[measured[-1].subject].counts.sum().item())]
        for one in measured:
            covered = broken or _announced(announced, one.subject, one.start_us, end_us)
            is_usual = not broken and (learning or not (one.broken or covered))
            rows += rows_of(one, hour if one.hours == 1 else None, is_usual=is_usual)
        score = np.concatenate([np.zeros(0), *scores])
        estimates = expected(score, bundle.manifest.thresholds.decline)
        rows += estimate_rows(OUTCOME, "expected_", estimates, (start_us, end_us), len(score))
        self._parts.metrics.record(bundle.digest, rows, now_us)
        tally.triggers += self._tell(bundle, alarms, end_us, now_us)
        details: dict[str, Plain] = {
            "state": state.value,
            "withheld": broken,
            "archived": archived,
            "findings": [evidence_of(one) for one in found],
            "announced": [one.subject for one in expectable],
        }
        value = None if state in {State.WITHHELD, State.LEARNING} else float(len(alarms))
        verdict = DriftMetric(ALL, VERDICT, value, start_us, end_us, rows[0].reference_rows, hour.n_rows, details)
        self._parts.metrics.record(bundle.digest, [verdict], now_us)

        if not broken:
            past.hours = [one for one in (*past.hours, hour) if one.start_us > earliest_us]
            since_us = end_us - (self._rules.drift.persistence_of - 1) * US_PER_HOUR
            past.recent = [one for one in (*past.recent, *measured) if one.end_us > since_us]
        tally.hours += 1
        tally.rows += hour.n_rows
        tally.findings += len(alarms)
        tally.states[state.value] = tally.states.get(state.value, 0) + 1

    def _counted(
        self, champion: _Champion, start_us: int, scores: list[np.ndarray[tuple[int], np.dtype[np.float64]]]
    ) -> tuple[HourCounts, bool]:
        """One pass over an hour: its counts, whether it was archived, and its own scores into the list."""
        bundle = champion.bundle
        names = bundle.view.names
        parts = self._parts.windows.decided(
            bundle.digest, bundle.view.name, len(names), start_us, start_us + US_PER_HOUR
        )
        if start_us + US_PER_HOUR <= champion.since_us:  # learnt from only
            return hour_counts(bundle.reference, names, start_us, parts), False
        file = self._parts.archive.begin(start_us, names)

        def passed(rows: Iterable[DecidedRows]) -> Iterator[DecidedRows]:
            for one in rows:
                file.add(one)
                scores.append(one.score[one.is_champions])
                yield one

        try:
            hour = hour_counts(bundle.reference, names, start_us, passed(parts))
            if hour.n_rows == 0:
                return hour, False
            try:
                file.finish()
            except Transient:  # the verdict does not wait for the archive
                _log.warning("what was compared could not be archived", exc_info=True)
                return hour, False
            return hour, True
        finally:
            file.close()

    def _measured(self, champion: _Champion, hours: Sequence[HourCounts]) -> list[Measured]:
        """Every subject over every length of window that ends with the last hour."""
        end_us = hours[-1].start_us + US_PER_HOUR
        spans = [(end_us - length * US_PER_HOUR, end_us) for length in LENGTHS]
        watched = Watched(champion.bundle.reference, champion.bundle.view, self._rules.drift)
        found = []
        for length, span, clusters in zip(LENGTHS, spans, self._parts.windows.clusters(spans), strict=True):
            usuals = self._parts.metrics.usuals(champion.bundle.digest, length, end_us, end_us - MEMORY_US)
            inside = [hour for hour in hours if hour.start_us >= span[0]]
            found += measure(watched, inside, clusters, usuals, length)
        return found

    def _tell(self, bundle: Bundle, alarms: Sequence[Finding], end_us: int, now_us: int) -> int:
        """Open triggers and leave one notice a day and grade; returns how many triggers are new."""
        opened = 0
        for one in alarms:
            if one.priority is not None:
                evidence = {**evidence_of(one), "bundle": bundle.digest}
                opened += self._open(Trigger(one.cause, one.subject, one.priority, evidence, now_us))
        if alarms:
            worst, severity = alarms[0], min(one.severity for one in alarms)
            others = f" and {len(alarms) - 1} more" if len(alarms) > 1 else ""
            title = (
                f"Drift: {worst.subject}{others}, PSI {worst.measured.psi:.2f} over {worst.measured.hours} h "
                f"until {format_instant(end_us)}"
            )
            self._put(
                f"drift/{bundle.digest[:12]}/{end_us // US_PER_DAY}/{severity.name.lower()}",
                severity,
                title,
                {"bundle": bundle.digest, "findings": [evidence_of(one) for one in alarms[:5]]},
                now_us,
            )
        return opened

    def _performance(self, champion: _Champion, end_us: int, tally: _Tally) -> None:
        """What matured by the end of an hour, and whether it got worse."""
        bundle, now_us = champion.bundle, self._parts.clock.now_us()
        until_us = end_us - bundle.manifest.label.maturity_us
        threshold, before = bundle.manifest.thresholds.decline, reference_figures(bundle.manifest)
        day_us, week_us = (until_us - days * US_PER_DAY for days in MATURED_DAYS)
        day = self._parts.windows.matured(bundle.digest, day_us, until_us, as_of_us=end_us)
        earlier = self._parts.windows.matured(bundle.digest, week_us, day_us, as_of_us=end_us)
        week = joined(earlier, day)
        told: dict[str, Decline] = {}
        for start_us, rows, known_before in ((day_us, day, [frauds(earlier, threshold)]), (week_us, week, [])):
            if not len(rows.score):
                continue
            span = start_us, until_us
            now, widely = figures(rows, threshold), missed_incidents(known_before, frauds(rows, threshold))
            metrics = estimate_rows(LABEL, "", now, span, len(rows.score))
            name = Figure.MISSED_INCIDENTS.value
            metrics.append(DriftMetric(LABEL, name, widely.incidents, *span, 0, widely.n_rows, {}))
            self._parts.metrics.record(bundle.digest, metrics, now_us)
            announced = self._parts.announcements.announced(*span)
            if _announced(announced, LABEL, *span):
                continue
            for one in declines(self._rules.performance, before, now):
                told.setdefault(one.cause, one)
            if start_us == day_us and may_have_fallen(self._rules.performance, before, now):
                wider = spread(self._rules.performance, self._usual_days(champion, until_us, end_us), widely)
                if wider is not None:
                    told.setdefault(wider.cause, wider)
        for one in told.values():
            self._tell_decline(bundle, one, until_us, now_us, tally)

    def _tell_decline(self, bundle: Bundle, one: Decline, until_us: int, now_us: int, tally: _Tally) -> None:
        """Open a trigger and leave a notice of performance that changed."""
        evidence: dict[str, Plain] = {
            "bundle": bundle.digest,
            "figure": one.figure.value,
            "before": one.before.value,
            "now": one.now.value,
            "low": known(one.now.low),
            "high": known(one.now.high),
            "n": one.now.n_rows,
            "p_value": one.p_value,
            "matured_until_us": until_us,
        }
        tally.findings += 1
        tally.triggers += self._open(Trigger(one.cause, LABEL, one.priority, evidence, now_us))
        self._put(
            f"{one.cause.value.replace(' ', '-')}/{bundle.digest[:12]}/{until_us // US_PER_DAY}",
            Severity.CRITICAL if one.priority == 0 else Severity.ERROR,
            f"{one.cause.value.capitalize()}: {one.figure.value} {one.now.value:.3g}, was {one.before.value:.3g}",
            evidence,
            now_us,
        )

    def _usual_days(self, champion: _Champion, until_us: int, as_of_us: int) -> list[Missed]:
        """Whole days since its promotion, none of them announced; each is read once and then remembered."""
        last_us = (until_us - max(MATURED_DAYS) * US_PER_DAY) // US_PER_DAY * US_PER_DAY
        first_us = max(last_us - USUAL_DAYS * US_PER_DAY, -(-champion.since_us // US_PER_DAY) * US_PER_DAY)
        if last_us - first_us < LEAST_DAYS * US_PER_DAY:
            return []
        starts = range(first_us - (WEEK_DAYS - 1) * US_PER_DAY, last_us, US_PER_DAY)
        kept = {start_us: self._frauds(champion.bundle, start_us, as_of_us) for start_us in starts}
        self._memory.frauds = {
            (champion.bundle.digest, start_us): one for start_us, one in kept.items()
        }  # no older ones
        usual = []
        for start_us in range(first_us, last_us, US_PER_DAY):
            span = start_us, start_us + US_PER_DAY
            if not _announced(self._parts.announcements.announced(*span), LABEL, *span):
                week = [kept[start_us - days * US_PER_DAY] for days in range(1, WEEK_DAYS)]
                usual.append(missed_incidents(week, kept[start_us]))
        return usual

    def _frauds(self, bundle: Bundle, start_us: int, as_of_us: int) -> Frauds:
        """Those of a whole day, remembered at once, so that a firing that is cut off is made use of by the next."""
        key, kept = (bundle.digest, start_us), self._memory.frauds
        if key not in kept:
            rows = self._parts.windows.matured(bundle.digest, start_us, start_us + US_PER_DAY, as_of_us=as_of_us)
            kept[key] = frauds(rows, bundle.manifest.thresholds.decline)
        return kept[key]

    def _open(self, trigger: Trigger) -> int:
        return int(self._parts.triggers.open(trigger) is not None)

    def _put(self, key: str, severity: Severity, title: str, evidence: Evidence, now_us: int) -> None:
        self._parts.notices.put(Notice(key, severity, title, evidence, "", now_us))


def _announced(announced: Sequence[Announcement], subject: str, start_us: int, end_us: int) -> bool:
    return any(
        one.subject in {subject, ANYTHING} and one.start_us < end_us and start_us < one.end_us for one in announced
    )


def _state(*, learning: bool, broken: str, found: Sequence[Finding], alarms: Sequence[Finding]) -> State:
    if learning:
        return State.LEARNING
    if broken:
        return State.WITHHELD
    if alarms:
        return State.DRIFT
    return State.ANNOUNCED if found else State.QUIET
