"""How metrics reach a service that is told rather than asked: what was added to counters, and readings that changed.

What was told already of the counters is kept beside the counts themselves, so a process that ends loses nothing: its
successor tells the rest. If a telling arrives and that cannot be noted, its counts are told twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from shared.ports.clock import Clock
from shared.ports.metering import CountsRow, CountsStore
from shared.services.metering import (
    CONFIDENCE,
    ERRORS,
    EVENTS,
    FAMILIES,
    LATENCY,
    LAYOUT,
    OVERLOADS,
    PREDICTIONS,
    REPEATS,
    REPLAYS,
    REQUESTS,
    STAGE_SECONDS,
    STREAM_LAG,
    Family,
    Sample,
    parts,
)
from shared.services.readings import Metric, Watching

TOLD: Final = (
    REQUESTS,
    ERRORS,
    PREDICTIONS,
    LATENCY,
    CONFIDENCE,
    REPEATS,
    OVERLOADS,
    STAGE_SECONDS,
    EVENTS,
    STREAM_LAG,
    REPLAYS,
)
"""Families that are told. Durations of requests the host tells itself, one by one, which gives exact percentiles."""

AGAIN_US: Final = 600_000_000
"""A reading that does not change is told again after ten minutes, for alerts that look back half an hour. Each is paid
for by its size."""

_SENT: Final = f"{LAYOUT}/sent"
_KEPT_BY: Final = "gone"
"""As the writer that holds the counts of those that are gone, which is never folded."""


class Teller(Protocol):
    """A service that is told."""

    def tell(self, added: Sequence[Sample], readings: Sequence[Sample]) -> None:
        """Tell what was added to counters, and readings of this moment.

        Raises:
            Transient: It cannot be reached now, or did not take all; nothing may be noted as told.
        """
        ...


class Telling:
    """Tells a service what it has not been told; used by one thread at a time."""

    def __init__(self, watching: Watching, counts: CountsStore, teller: Teller, clock: Clock) -> None:
        self._watching = watching
        self._counts = counts
        self._teller = teller
        self._clock = clock
        self._last: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, int]] = {}

    def tell(self) -> tuple[int, int]:
        """Tell it now; returns how many counters and how many readings.

        Raises:
            Transient: Store or service cannot be reached now; the next call tells the rest.
        """
        now_us = self._clock.now_us()
        sent = dict(self._counts.sums(_SENT))
        apps, readings = self._watching.look()
        added = [sample for app, cells in apps for sample in _added(app, cells, sent.get(app, ()))]
        changed = self._changed(readings, now_us)
        if added or changed:
            self._teller.tell(added, changed)
        for app, cells in apps:
            if list(cells) != list(sent.get(app, ())):
                self._counts.put(CountsRow(app, _KEPT_BY, _SENT, cells, now_us, now_us), known=False)
        for sample in changed:
            self._last[sample.name, sample.labels] = sample.value, now_us
        return len(added), len(changed)

    def _changed(self, metrics: Sequence[Metric], now_us: int) -> list[Sample]:
        found = []
        for metric in metrics:
            for sample in metric.samples:
                value, told_us = self._last.get((sample.name, sample.labels), (None, 0))
                if sample.value != value or now_us - told_us >= AGAIN_US:
                    found.append(sample)
        return found


def _added(app: str, cells: Sequence[float], sent: Sequence[float]) -> list[Sample]:
    """What was added since; all of it if anything fell, because then the counts began anew."""
    before = sent if sent and all(now >= then for now, then in zip(cells, sent, strict=True)) else [0.0] * len(cells)
    added = [now - then for now, then in zip(cells, before, strict=True)]
    return [sample for family in FAMILIES if family in TOLD for sample in _nonzero(family, added, app)]


def _nonzero(family: Family, added: Sequence[float], app: str) -> list[Sample]:
    return [sample for sample in parts(family, added, app=app) if sample.value]
