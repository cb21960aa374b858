"""Reports in memory, and a drawing hand that can fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.domain.errors import TollgateError
from shared.ports.reports import ComparedWindow, Drawn, PageFacts


@dataclass
class FakeReports:
    """Pages by path."""

    pages: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def put(self, path: str, data: bytes, content_type: str) -> None:
        self.pages[path] = data, content_type

    def get(self, path: str) -> tuple[bytes, str] | None:
        return self.pages.get(path)

    def paths(self, prefix: str) -> Sequence[str]:
        return sorted(path for path in self.pages if path.startswith(prefix))

    def delete(self, path: str) -> bool:
        return self.pages.pop(path, None) is not None


@dataclass
class FakeDrawing:
    """Draws the window's start; faults by start are raised instead, once each."""

    faults: dict[int, TollgateError] = field(default_factory=dict)
    drawn: list[int] = field(default_factory=list)

    def draw(self, window: ComparedWindow) -> Drawn:
        if window.start_us in self.faults:
            raise self.faults.pop(window.start_us)
        self.drawn.append(window.start_us)
        return Drawn(f"<p>{window.start_us}".encode(), b"{}")


@dataclass
class FakeReadings:
    """Windows, the newest first, and the page's facts."""

    windows: Sequence[ComparedWindow] = ()
    facts: PageFacts | None = None

    def archived(self, since_us: int) -> Sequence[ComparedWindow]:
        return [window for window in self.windows if window.start_us >= since_us]

    def read(self, now_us: int) -> PageFacts:
        return self.facts or PageFacts(now_us, now_us - 1)
