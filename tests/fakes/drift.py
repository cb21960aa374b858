"""Decisions, drift's numbers, announcements and the archive in memory, by the rules of their ports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from shared.domain.drift_counts import DecidedRows
from shared.domain.drift_performance import MaturedRows
from shared.domain.drift_policy import Clusters, Usual, usuals
from shared.domain.drift_record import OUTCOME, PSI, VERDICT, DriftMetric, measured_of
from shared.domain.errors import TollgateError
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.ports.drift import Announcement


@dataclass
class FakeDecidedWindows:
    """Decisions as columns; `fault` is raised by every method while it is set."""

    rows: DecidedRows
    customer: np.ndarray
    terminal: np.ndarray
    labels: MaturedRows | None = None
    fault: TollgateError | None = None

    def first_us(self, since_us: int) -> int | None:
        self._fail()
        times = self.rows.event_time_us
        later = times[times >= since_us]
        return int(later.min()) if len(later) else None

    def decided(self, bundle_digest: str, view: str, width: int, start_us: int, end_us: int) -> Iterator[DecidedRows]:
        self._fail()
        rows = self._inside(start_us, end_us)
        for part in np.array_split(rows, 3):
            yield DecidedRows(
                self.rows.event_time_us[part],
                self.rows.vectors[part],
                self.rows.raw[part],
                self.rows.score[part],
                self.rows.outcome[part],
                self.rows.is_champions[part],
            )

    def clusters(self, windows: Sequence[tuple[int, int]]) -> Sequence[Clusters]:
        self._fail()
        found = []
        for start_us, end_us in windows:
            rows = self._inside(start_us, end_us)
            squares = [
                int((np.unique(ids[rows], return_counts=True)[1] ** 2).sum()) for ids in (self.customer, self.terminal)
            ]
            found.append(Clusters(len(rows), *squares))
        return found

    def matured(self, bundle_digest: str, start_us: int, end_us: int, as_of_us: int) -> MaturedRows:
        self._fail()
        if self.labels is None:
            return MaturedRows(np.zeros(0), np.zeros(0, dtype=bool), np.zeros(0, dtype=int), np.zeros(0, dtype=int))
        rows = self._inside(start_us, end_us)
        labels = self.labels
        return MaturedRows(labels.score[rows], labels.is_fraud[rows], labels.customer[rows], labels.terminal[rows])

    def _inside(self, start_us: int, end_us: int) -> np.ndarray:
        times = self.rows.event_time_us
        return np.flatnonzero((times >= start_us) & (times < end_us))

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


@dataclass
class FakeDriftMetrics:
    """Numbers by bundle, subject, statistic and window; `fault` is raised by `record` while it is set."""

    rows: dict[tuple[str, str, str, int, int], DriftMetric] = field(default_factory=dict)
    fault: TollgateError | None = None

    def record(self, bundle_digest: str, metrics: Iterable[DriftMetric], recorded_at_us: int) -> int:
        if self.fault is not None:
            raise self.fault
        before = len(self.rows)
        for one in metrics:
            kept = replace(one, details=dict(one.details))
            self.rows.setdefault((bundle_digest, one.subject, one.statistic, one.start_us, one.end_us), kept)
        return len(self.rows) - before

    def last_end_us(self, bundle_digest: str) -> int | None:
        return max((key[4] for key in self.rows if key[0] == bundle_digest and key[2] == VERDICT), default=None)

    def read(self, bundle_digest: str, start_us: int, end_us: int) -> Sequence[DriftMetric]:
        found = [
            one
            for (digest, subject, statistic, _, end), one in self.rows.items()
            if digest == bundle_digest
            and start_us < end <= end_us
            and (statistic in {PSI, VERDICT} or (subject == OUTCOME and statistic == "alert_rate"))
        ]
        return sorted(found, key=lambda one: one.end_us)

    def usuals(self, bundle_digest: str, hours: int, end_us: int, since_us: int) -> Mapping[str, Usual]:
        past = []
        for (digest, subject, statistic, start, end), row in self.rows.items():
            if (
                digest == bundle_digest
                and statistic == PSI
                and end - start == hours * US_PER_HOUR
                and since_us <= end <= end_us - US_PER_DAY
                and (end_us - end) % US_PER_DAY == 0
                and row.details["usual"]
            ):
                one = measured_of(row)
                past.append((subject, end, one.distance - one.chance, one.level))
        return usuals(past, hours, end_us)


@dataclass
class FakeAnnouncements:
    """Announced changes in order."""

    changes: list[Announcement] = field(default_factory=list)

    def announce(self, change: Announcement, now_us: int) -> int:
        self.changes.append(change)
        return len(self.changes)

    def announced(self, start_us: int, end_us: int) -> Sequence[Announcement]:
        found = [one for one in self.changes if one.start_us < end_us and one.end_us > start_us]
        return sorted(found, key=lambda one: one.start_us)


@dataclass
class FakeDriftArchive:
    """How many rows the finished file of each hour has; `fault` is raised when a file is finished."""

    files: dict[int, int] = field(default_factory=dict)
    fault: TollgateError | None = None
    open_files: int = 0

    def begin(self, start_us: int, names: Sequence[str]) -> FakeArchiveFile:
        self.open_files += 1
        return FakeArchiveFile(self, start_us)


@dataclass
class FakeArchiveFile:
    """A file of the archive."""

    archive: FakeDriftArchive
    start_us: int
    n_rows: int = 0

    def add(self, rows: DecidedRows) -> None:
        self.n_rows += len(rows.vectors)

    def finish(self) -> None:
        if self.archive.fault is not None:
            raise self.archive.fault
        self.archive.files[self.start_us] = self.n_rows

    def close(self) -> None:
        self.archive.open_files -= 1


@dataclass
class FakeFeedHealth:
    """Spans in which the feed is broken."""

    spans: list[tuple[int, int]] = field(default_factory=list)

    def broken(self, start_us: int, end_us: int) -> str:
        return "no events" if any(start < end_us and end > start_us for start, end in self.spans) else ""
