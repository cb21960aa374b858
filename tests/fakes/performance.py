"""Decisions with their labels, and figures that are kept, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.domain.errors import TollgateError
from shared.domain.performance import LabelledRows
from shared.ports.performance import KeptFigure


@dataclass
class FakeLabelledWindows:
    """Rows by the digest of their model, of which a window takes those that happened in it."""

    decisions: dict[str, LabelledRows] = field(default_factory=dict)
    shadows: dict[str, LabelledRows] = field(default_factory=dict)
    fault: TollgateError | None = None

    def decided(self, start_us: int, end_us: int) -> Mapping[str, LabelledRows]:
        if self.fault is not None:
            raise self.fault
        return _within(self.decisions, start_us, end_us)

    def in_shadow(self, start_us: int, end_us: int) -> Mapping[str, LabelledRows]:
        return _within(self.shadows, start_us, end_us)


def _within(whole: Mapping[str, LabelledRows], start_us: int, end_us: int) -> dict[str, LabelledRows]:
    found = {
        digest: rows.take((rows.event_time_us >= start_us) & (rows.event_time_us < end_us))
        for digest, rows in whole.items()
    }
    return {digest: rows for digest, rows in found.items() if len(rows)}


@dataclass
class FakePerformanceLog:
    """Figures by model, segment, metric and window."""

    kept: dict[tuple[str, str, str, int, int], KeptFigure] = field(default_factory=dict)

    def record(self, figures: Sequence[KeptFigure], recorded_at_us: int) -> int:
        del recorded_at_us
        before = len(self.kept)
        for one in figures:
            key = (one.bundle_digest, one.measured.segment, one.measured.metric, one.start_us, one.end_us)
            self.kept.setdefault(key, one)
        return len(self.kept) - before

    def last_end_us(self) -> int | None:
        return max((one.end_us for one in self.kept.values()), default=None)

    def trend(self, segment: str, since_us: int, bundle_digest: str | None = None) -> Sequence[KeptFigure]:
        found = [
            one
            for one in self.kept.values()
            if one.measured.segment == segment and one.end_us >= since_us and bundle_digest in (None, one.bundle_digest)
        ]
        return sorted(found, key=lambda one: (one.end_us, one.start_us, one.bundle_digest, one.measured.metric))
