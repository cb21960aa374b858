"""What decisions came to, and the figures that are kept of them, as ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from shared.domain.performance import LabelledRows, Measured


class KeptFigure(NamedTuple):
    """A figure as it is kept.

    Attributes:
        bundle_digest: The model.
        start_us: Start of the window of event times, microseconds since 1970 UTC.
        end_us: Its end, not included.
        measured: The figure.
    """

    bundle_digest: str
    start_us: int
    end_us: int
    measured: Measured


class LabelledWindows(Protocol):
    """Decisions with what became known of them. Every method raises Transient if the store cannot be reached now."""

    def decided(self, start_us: int, end_us: int) -> Mapping[str, LabelledRows]:
        """By the digest of the model that decided: transactions that happened in a window, its end not included."""
        ...

    def in_shadow(self, start_us: int, end_us: int) -> Mapping[str, LabelledRows]:
        """By the digest of models that scored decided transactions of the window without deciding."""
        ...


class PerformanceLog(Protocol):
    """Figures that are kept. Every method raises Transient if the store cannot be reached now."""

    def record(self, figures: Sequence[KeptFigure], recorded_at_us: int) -> int:
        """Keep figures, all or none; one that is there for its model, segment, metric and window stays."""
        ...

    def last_end_us(self) -> int | None:
        """The end of the last window of which anything is kept."""
        ...

    def trend(self, segment: str, since_us: int, bundle_digest: str | None = None) -> Sequence[KeptFigure]:
        """The figures of a segment in windows that ended since then, oldest first; of one model only if given."""
        ...
