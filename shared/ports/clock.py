"""The time of day, as a port."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The time of day."""

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""
        ...
