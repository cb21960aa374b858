"""The machine's clock."""

from __future__ import annotations

import time


class SystemClock:
    """Time of day from the operating system, in whole microseconds."""

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""
        return time.time_ns() // 1000
