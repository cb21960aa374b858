"""Rows of a file that cannot be used: counted, the first ones shown, all of them written where the user says."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.domain.errors import InvalidInput, TollgateError
from twin.feed_connections import SHOWN, note

COLUMNS = ("row", "field", "rule")


@dataclass(slots=True)
class Rejects:
    """Refused rows.

    Attributes:
        count: How many.
    """

    count: int = 0
    _writer: Any = field(default=None)

    def add(self, row: int, error: TollgateError) -> None:
        """Report a row; its number counts from 1 and leaves the header out. Nothing of its content is told."""
        name, rule = (error.field, error.rule) if isinstance(error, InvalidInput) else ("", str(error))
        self.count += 1
        if self._writer is not None:
            self._writer.writerow((row, name, rule))
        if self.count <= SHOWN:
            note(f"row {row}: {name or 'the row'} {rule}")
        elif self.count == SHOWN + 1:
            note("more rows are refused; --rejects FILE names them all")


@contextmanager
def rejects_to(path: Path | None) -> Iterator[Rejects]:
    """Where refused rows are reported while a command runs.

    Raises:
        OSError: The file cannot be written.
    """
    with ExitStack() as stack:
        rejects = Rejects()
        if path is not None:
            writer = csv.writer(stack.enter_context(path.open("w", encoding="utf-8", newline="")))
            writer.writerow(COLUMNS)
            rejects = Rejects(0, writer)
        yield rejects
