"""What drift is measured on and where it is kept, as ports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from shared.domain.drift_counts import DecidedRows
from shared.domain.drift_performance import MaturedRows
from shared.domain.drift_policy import Clusters, Usual
from shared.domain.drift_record import DriftMetric


class Announcement(NamedTuple):
    """A change that people said would come.

    Attributes:
        subject: A feature, `score`, `outcome`, `volume`, or `*` for all.
        start_us: From this event time on, microseconds since 1970 UTC.
        end_us: Until this event time, not included.
        author: Who said so.
        reason: Why.
    """

    subject: str
    start_us: int
    end_us: int
    author: str
    reason: str


class Announcements(Protocol):
    """Changes that people said would come. Every method raises Transient if the store cannot be reached now."""

    def announce(self, change: Announcement, now_us: int) -> int:
        """Keep one; returns its number."""
        ...

    def announced(self, start_us: int, end_us: int) -> Sequence[Announcement]:
        """Those that concern a part of a window, by their start."""
        ...


class DecidedWindows(Protocol):
    """Decisions by event time. Every method raises Transient if the store cannot be reached now."""

    def first_us(self, since_us: int) -> int | None:
        """The event time of the first decision from a time on; None without any."""
        ...

    def decided(self, bundle_digest: str, view: str, width: int, start_us: int, end_us: int) -> Iterator[DecidedRows]:
        """The decisions of a window in pieces of bounded size, in no order.

        Args:
            bundle_digest: Of the bundle that is watched; others' decisions are marked as not its own.
            view: Name of the feature view; decisions on vectors of another one are left out.
            width: Features of the view.
            start_us: Start of the window, microseconds since 1970 UTC.
            end_us: Its end, not included.
        """
        ...

    def clusters(self, windows: Sequence[tuple[int, int]]) -> Sequence[Clusters]:
        """How the transactions of windows cluster, each a start and an end that is not included."""
        ...

    def matured(self, bundle_digest: str, start_us: int, end_us: int, as_of_us: int) -> MaturedRows:
        """A bundle's decisions of a window whose label is known by a time, the strongest label counting."""
        ...


class DriftMetrics(Protocol):
    """What was measured. Every method raises Transient if the store cannot be reached now."""

    def record(self, bundle_digest: str, metrics: Iterable[DriftMetric], recorded_at_us: int) -> int:
        """Keep numbers, all or none; what is there for its subject, statistic and window stays. Returns how many."""
        ...

    def last_end_us(self, bundle_digest: str) -> int | None:
        """The end of the last window that has a verdict; None before the first."""
        ...

    def read(self, bundle_digest: str, start_us: int, end_us: int) -> Sequence[DriftMetric]:
        """The `psi` and outcome rows, and the verdicts, of windows that end after a start and not after an end."""
        ...

    def usuals(self, bundle_digest: str, hours: int, end_us: int, since_us: int) -> Mapping[str, Usual]:
        """What usual windows of a length were like, by subject.

        Args:
            bundle_digest: Of the bundle that is watched.
            hours: Length of the windows.
            end_us: End of the window to be judged; only those that end at the same hour of the day count, a day or
                more before it.
            since_us: Windows that end before are too old.
        """
        ...


class ArchiveFile(Protocol):
    """A file that is being written."""

    def add(self, rows: DecidedRows) -> None:
        """Keep some rows; on local disk, so that memory stays bounded."""
        ...

    def finish(self) -> None:
        """Put the file where it belongs; idempotent over files of one hour.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def close(self) -> None:
        """Give up what is on local disk; after `finish` too."""
        ...


class DriftArchive(Protocol):
    """What was compared, one file for each hour."""

    def begin(self, start_us: int, names: Sequence[str]) -> ArchiveFile:
        """Begin the file of an hour, whose columns are the features by name and what was decided."""
        ...
