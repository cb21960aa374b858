"""What those who watch read: counts of all instances, and readings of what the database knows, as one list of metrics.

Each metric has a name in Prometheus's style, and the same name in Application Insights. Whatever has a fixed set of
label values is told for all of them, noughts included, so that an alert can tell "none" from "not known".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from shared.ports.clock import Clock
from shared.ports.metering import AppCounts, CountsStore
from shared.services.metering import FAMILIES, LAYOUT, N_CELLS, REPLAYS, Sample, place_of, samples

FOLD_AFTER_US: Final = 86_400_000_000
"""A writer that counted nothing for a day is added up with those that are gone; if it lives, it takes another name."""


class Kind(StrEnum):
    """What a metric is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its samples of this moment.

    Attributes:
        name: In Prometheus's style.
        text: What it tells.
        kind: What it is.
        samples: Its values.
    """

    name: str
    text: str
    kind: Kind
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class ReadingKind:
    """A metric that is read from what the database knows.

    Attributes:
        name: In Prometheus's style.
        text: What it tells.
        kind: What it is.
    """

    name: str
    text: str
    kind: Kind = Kind.GAUGE


_COUNTER: Final = Kind.COUNTER

DECISION_AGE: Final = ReadingKind("tollgate_newest_decision_age_seconds", "Since the newest decision; a day at most.")
OUTBOX_WAITING: Final = ReadingKind("tollgate_outbox_waiting", "Decisions that wait to leave; 10,000 at most.")
OUTBOX_AGE: Final = ReadingKind("tollgate_outbox_oldest_age_seconds", "How long the oldest of them has waited.")
DEAD_LETTERS: Final = ReadingKind(
    "tollgate_dead_letters_total", "Events that could not be used, by hub and offending field.", _COUNTER
)
DEAD_WAITING: Final = ReadingKind(
    "tollgate_dead_letters_waiting", "Of these, those that were not taken after all; 10,000 at most."
)
DRIFT: Final = ReadingKind(
    "tollgate_drift_statistic", "Statistics of the last windows, by subject, statistic and hours of the window."
)
DRIFT_ALERT: Final = ReadingKind("tollgate_drift_alert", "1 if the last verdict on drift is an alarm.")
TRIGGERS: Final = ReadingKind("tollgate_retraining_triggers_open", "Reasons to retrain that are open, by cause.")
LABEL_DELAY: Final = ReadingKind(
    "tollgate_label_delay_days", "From transactions to when their labels were known, of the labels recorded last."
)
QUALITY: Final = ReadingKind("tollgate_quality_failed", "1 where a rule failed in its last window, by source and rule.")
RUNS: Final = ReadingKind("tollgate_pipeline_runs_total", "Runs of pipelines, by how they stand.", _COUNTER)
RUN_AGE: Final = ReadingKind("tollgate_pipeline_last_done_age_seconds", "Since the last run that was done began.")
GATE: Final = ReadingKind("tollgate_gate_verdicts_total", "Verdicts of the gate.", _COUNTER)
CHAMPION: Final = ReadingKind("tollgate_champion_present", "1 if there is a champion.")
CHAMPION_AGE: Final = ReadingKind("tollgate_champion_age_seconds", "Since the champion was appointed.")
PERFORMANCE: Final = ReadingKind(
    "tollgate_performance", "What the champion was worth on the last window of mature labels, by metric."
)
NOTICES: Final = ReadingKind("tollgate_notices", "Messages to people, by channel and how they stand.")

KINDS: Final = (
    DECISION_AGE,
    OUTBOX_WAITING,
    OUTBOX_AGE,
    DEAD_LETTERS,
    DEAD_WAITING,
    DRIFT,
    DRIFT_ALERT,
    TRIGGERS,
    LABEL_DELAY,
    QUALITY,
    RUNS,
    RUN_AGE,
    GATE,
    CHAMPION,
    CHAMPION_AGE,
    PERFORMANCE,
    NOTICES,
)


class Readings(Protocol):
    """What the database knows."""

    def read(self, now_us: int) -> Sequence[Sample]:
        """The readings of this moment, of the names of `KINDS`; all of one state of the database.

        Samples by the name of `REPLAYS`, with the labels `app` and `verdict`, are counts that the database knows: they
        are added to what processes counted, and never fall either.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def fold(self, now_us: int) -> int:
        """Add up what will not change any more, so that reading stays cheap; returns how many rows that were.

        Idempotent, also when several do it at once: no row is added twice, and no reading changes by it.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class Watching:
    """Reads everything at once; safe to use from several threads, as far as its stores are."""

    def __init__(self, counts: CountsStore, readings: Readings, clock: Clock) -> None:
        self._counts = counts
        self._readings = readings
        self._clock = clock

    def metrics(self) -> list[Metric]:
        """All metrics, in a fixed order.

        Raises:
            Transient: The store cannot be reached now.
        """
        own, read = self._counts.sums(LAYOUT), self._read()
        apps, counting = _with_replays(own, read), {app.app for app in own}
        found: list[Metric] = []
        for family in FAMILIES:
            kind = Kind.HISTOGRAM if family.buckets else Kind.COUNTER
            # An app that counts nothing itself has no noughts to tell either.
            telling = apps if family is REPLAYS else [app for app in apps if app.app in counting]
            told = [sample for app in telling for sample in samples(family, app.cells, app=app.app)]
            found.append(Metric(family.name, family.text, kind, told))
        return [*found, *_by_kind(read)]

    def look(self) -> tuple[Sequence[AppCounts], list[Metric]]:
        """The counts of each app, and what else the database knows.

        Raises:
            Transient: The store cannot be reached now.
        """
        own, read = self._counts.sums(LAYOUT), self._read()
        return _with_replays(own, read), _by_kind(read)

    def fold(self) -> int:
        """Add up the counts of processes that are gone, and what readings count; returns how many processes there were.

        Raises:
            Transient: The store cannot be reached now.
        """
        now_us = self._clock.now_us()
        self._readings.fold(now_us)
        return self._counts.fold(now_us - FOLD_AFTER_US, now_us)

    def _read(self) -> Sequence[Sample]:
        return self._readings.read(self._clock.now_us())


def _by_kind(read: Iterable[Sample]) -> list[Metric]:
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in read:
        by_name[sample.name].append(sample)
    return [Metric(kind.name, kind.text, kind.kind, by_name[kind.name]) for kind in KINDS]


def _with_replays(apps: Iterable[AppCounts], read: Iterable[Sample]) -> list[AppCounts]:
    """The counts with the replays that the database knows of, by app."""
    cells = {app.app: list(app.cells) for app in apps}
    for sample in read:
        if sample.name == REPLAYS.name:
            labels = dict(sample.labels)
            row = cells.setdefault(labels["app"], [0.0] * N_CELLS)
            row[place_of(REPLAYS, labels["verdict"])] += sample.value
    return [AppCounts(app, row) for app, row in sorted(cells.items())]
