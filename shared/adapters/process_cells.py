"""Cells of numbers in files that all processes of an app on one machine can read: each writes its own, any adds up all.

The files lie in the folder for temporary files, under the process that started the workers (the Functions host), and
are mapped into memory: adding costs no system call, and what a process counted stays when it ends. A folder whose host
is gone is removed by the next one that starts.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import struct
import tempfile
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.ports.metering import Left

_PREFIX: Final = "tollgate-cells-"
_CELL: Final = struct.Struct("<d").size


def shared_folder(app: str) -> Path:
    """Where the workers of this process's parent keep their cells; folders of parents that are gone are removed."""
    base = Path(tempfile.gettempdir())
    for old in base.glob(f"{_PREFIX}{app}-*"):
        parent = old.name.rpartition("-")[2]
        if parent.isdecimal() and not _runs(int(parent)):
            shutil.rmtree(old, ignore_errors=True)
    return base / f"{_PREFIX}{app}-{os.getppid()}"


class ProcessCells:
    """Cells of this process in `folder`; the file is made at the first use. It is the `Estate` of the folder too."""

    def __init__(self, folder: Path, n_cells: int) -> None:
        self._folder = folder
        self._n_cells = n_cells
        self._lock = threading.Lock()
        self._cells: memoryview[float] | None = None
        self._path: Path | None = None
        self._note = ""

    def add(self, place: int, amount: float) -> None:
        """Add to one cell. Without room for the file, it is counted in this process alone."""
        with self._lock:
            if self._cells is None:
                self._cells = self._mapped()
            self._cells[place] += amount

    def own(self) -> Sequence[float]:
        """What this process counted so far."""
        with self._lock:
            return [0.0] * self._n_cells if self._cells is None else list(self._cells)

    def note(self, text: str) -> None:
        """Keep a note beside the cells, once there are any. A disk without room for it costs what it was for."""
        with self._lock:
            self._note = text
            self._write_note()

    def left(self) -> Sequence[Left]:
        """Cells with notes of processes that are gone."""
        found = []
        for path in sorted(self._folder.glob("*.note")):
            process_id = path.name.partition("-")[0]
            if process_id.isdecimal() and not _runs(int(process_id)):
                with contextlib.suppress(OSError):  # another one settles it at this moment
                    cells = memoryview(path.with_suffix(".cells").read_bytes()).cast("d").tolist()
                    found.append(Left(path.stem, path.read_text(encoding="utf-8"), cells))
        return found

    def settle(self, left: Left) -> None:
        """Take the note away; the cells stay, for `totals`."""
        (self._folder / f"{left.name}.note").unlink(missing_ok=True)

    def totals(self) -> Sequence[float]:
        """Sums over the files of all processes; files of another size belong to another release and are left out."""
        sums = [0.0] * self._n_cells
        for path in sorted(self._folder.glob("*.cells")):
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                if len(data) == self._n_cells * _CELL:
                    sums = [total + cell for total, cell in zip(sums, memoryview(data).cast("d"), strict=True)]
        return sums

    def _mapped(self) -> memoryview[float]:
        size = self._n_cells * _CELL
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / f"{os.getpid()}-{uuid.uuid4().hex}.cells"
            with path.open("w+b") as file:
                file.truncate(size)
                mapped = memoryview(mmap.mmap(file.fileno(), size)).cast("d")
        except OSError:
            return memoryview(bytearray(size)).cast("d")
        self._path = path
        self._write_note()
        return mapped

    def _write_note(self) -> None:
        if self._path is not None and self._note:
            with contextlib.suppress(OSError):
                # Whole or not at all: somebody may read it at any time.
                fresh = self._path.with_suffix(".fresh")
                fresh.write_text(self._note, encoding="utf-8")
                fresh.replace(self._path.with_suffix(".note"))


def _runs(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
