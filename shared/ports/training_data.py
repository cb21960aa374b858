"""History to learn from, as a port."""

from __future__ import annotations

from typing import Protocol

from shared.domain.training_history import TrainingHistory


class TrainingData(Protocol):
    """What was recorded. Every method raises Transient if the store cannot be reached now."""

    def newest_us(self, until_us: int) -> int | None:
        """The newest event time before a time that has a label, microseconds since 1970 UTC; None without one."""
        ...

    def count(self, start_us: int, end_us: int, most: int) -> int:
        """Transactions of event times from a start to before an end; counting stops at `most`."""
        ...

    def history(self, start_us: int, end_us: int) -> TrainingHistory:
        """The transactions of event times from a start to before an end, and their labels known from the start on.

        One moment of the store; memory grows with what is asked for and with nothing else.
        """
        ...
