"""One table and one JSON file per benchmark: figure, value, unit, aim, met, peers of the same run, command, machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

OUTPUT = Path("build/bench")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    `aim` is the number to reach, in the direction that `better` names; without an aim the figure is a peer or context.
    """

    name: str
    value: float
    unit: str
    aim: float | None = None
    better: Literal["higher", "lower"] = "higher"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim was reached; None where there is no aim."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.better == "higher" else self.value <= self.aim


def _shown(value: float) -> str:
    """Whole numbers from a thousand on, else three significant digits; never an exponent."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.6f}"


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=140)


@dataclass(slots=True)
class Report:
    """The figures of one benchmark run, claims and peers side by side."""

    name: str
    figures: list[Figure] = field(default_factory=list)

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        aim: float | None = None,
        better: Literal["higher", "lower"] = "higher",
        note: str = "",
    ) -> None:
        """Record one figure."""
        self.figures.append(Figure(name, value, unit, aim, better, note))

    def finish(self, output: Path = OUTPUT, console: Console | None = None) -> Path:
        """Print the table and write `<output>/<name>.json`; returns that path."""
        table = Table(title=f"bench-{self.name}", title_justify="left")
        for heading, justify in (("figure", "left"), ("value", "right"), ("unit", "left"), ("aim", "right")):
            table.add_column(heading, justify="right" if justify == "right" else "left")
        table.add_column("met")
        table.add_column("note", overflow="fold")
        for figure in self.figures:
            sign = ">=" if figure.better == "higher" else "<="
            aim = "" if figure.aim is None else f"{sign} {_shown(figure.aim)}"
            met = {None: "", True: "yes", False: "NO"}[figure.met]
            table.add_row(figure.name, _shown(figure.value), figure.unit, aim, met, figure.note)
        (console or _console()).print(table)
        output.mkdir(parents=True, exist_ok=True)
        path = output / f"{self.name}.json"
        document = {
            "name": self.name,
            "command": f"python -m benchmarks {self.name}",
            "machine": {
                "cpus": os.cpu_count(),
                "system": platform.platform(terse=True),
                "processor": platform.machine(),
                "python": sys.version.split()[0],
            },
            "figures": [{**asdict(figure), "met": figure.met} for figure in self.figures],
        }
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        return path
