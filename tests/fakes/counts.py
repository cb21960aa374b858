"""Counts of processes in memory."""

from __future__ import annotations

from collections.abc import Sequence

from shared.ports.metering import AppCounts, CountsRow
from shared.services.metering import N_CELLS


class FakeCells:
    """Cells in memory."""

    def __init__(self, width: int = N_CELLS) -> None:
        self.cells = [0.0] * width

    def add(self, place: int, amount: float) -> None:
        self.cells[place] += amount

    def own(self) -> Sequence[float]:
        return list(self.cells)

    def totals(self) -> Sequence[float]:
        return self.own()


class FakeCounts:
    """Rows in memory; `error` is raised by every call while it is set."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], CountsRow] = {}
        self.error: Exception | None = None

    def put(self, row: CountsRow, *, known: bool) -> bool:
        self._fail()
        key = row.app, row.writer, row.layout
        if known and key not in self.rows:
            return False
        self.rows[key] = row._replace(cells=tuple(row.cells))
        return True

    def sums(self, layout: str) -> Sequence[AppCounts]:
        self._fail()
        apps = sorted({row.app for row in self.rows.values() if row.layout == layout})
        return [AppCounts(app, self._sum(app, layout, self.rows)) for app in apps]

    def fold(self, before_us: int, now_us: int) -> int:
        self._fail()
        gone = {k: row for k, row in self.rows.items() if row.updated_at_us < before_us and row.writer != "gone"}
        for app, layout in {(row.app, row.layout) for row in gone.values()}:
            held = {key: row for key, row in self.rows.items() if key == (app, "gone", layout)}
            cells = self._sum(app, layout, gone | held)
            self.rows[app, "gone", layout] = CountsRow(app, "gone", layout, cells, now_us, now_us)
        for key in gone:
            del self.rows[key]
        return len(gone)

    def _sum(self, app: str, layout: str, rows: dict[tuple[str, str, str], CountsRow]) -> tuple[float, ...]:
        cells = [row.cells for row in rows.values() if (row.app, row.layout) == (app, layout)]
        return tuple(map(sum, zip(*cells, strict=True)))

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error
