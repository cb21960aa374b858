"""Where counts of all instances come together, and what else is read for those who watch, as ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class CountsRow(NamedTuple):
    """What one writer counted since it started.

    Attributes:
        app: The app.
        writer: One process since its start.
        layout: What the cells mean.
        cells: The counts; none of them ever falls.
        started_at_us: When the writer started, microseconds since 1970 UTC.
        updated_at_us: When the counts were taken, microseconds since 1970 UTC.
    """

    app: str
    writer: str
    layout: str
    cells: Sequence[float]
    started_at_us: int
    updated_at_us: int


class Left(NamedTuple):
    """What a process left that is gone.

    Attributes:
        name: Tells it from others.
        note: What it wrote for whoever comes after.
        cells: What it had counted in the end.
    """

    name: str
    note: str
    cells: Sequence[float]


class Estate(Protocol):
    """What processes of an app leave to one another on a machine; safe to use from several processes."""

    def note(self, text: str) -> None:
        """Keep a note beside the own cells, in place of the one before."""
        ...

    def left(self) -> Sequence[Left]:
        """What those left that are gone, and that nobody has settled."""
        ...

    def settle(self, left: Left) -> None:
        """Nothing more is to be done for one of them."""
        ...


class AppCounts(NamedTuple):
    """What all writers of an app counted, ever."""

    app: str
    cells: Sequence[float]


class CountsStore(Protocol):
    """Counts of every process. Every method raises Transient if the store cannot be reached now."""

    def put(self, row: CountsRow, *, known: bool) -> bool:
        """Replace a writer's counts.

        Args:
            row: The counts since the writer's start, not since its last call.
            known: Whether the writer was there before. If it then is not any more, it was folded: nothing is written.

        Returns:
            Whether the counts were written.
        """
        ...

    def sums(self, layout: str) -> Sequence[AppCounts]:
        """The sum over the writers of each app, those that are gone included; rows of other layouts are left out."""
        ...

    def fold(self, before_us: int, now_us: int) -> int:
        """Add up the writers that wrote last before a time, so that no sum changes; returns how many there were."""
        ...
