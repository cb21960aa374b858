"""How many connections each worker of an app holds, on a page of memory that all of them see.

Workers accept from one socket, and the kernel gives a connection to whoever asks first: on a busy machine that may be
the same worker every time. With this page one that holds more than another can let that one have the next.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from typing import Final

# Two numbers of the machine's own order per worker: one more than the connections that it holds, or 0 while it does not
# accept; and how many it has taken in all. Each is written by one process at a time, in one store of 8 bytes.
_FORMAT: Final = "q"
_BYTES: Final = 8
_PER_WORKER: Final = 2


class Loads:
    """The page, as one process maps it.

    Args:
        descriptor: Of a file that is long enough for `count` workers, all zero in the beginning.
        count: How many workers share it.
    """

    def __init__(self, descriptor: int, count: int) -> None:
        self.descriptor = descriptor
        self.count = count
        self._page = mmap.mmap(descriptor, count * _PER_WORKER * _BYTES)
        self._cells = memoryview(self._page).cast(_FORMAT)
        self._close_file: Callable[[], None] = lambda: None

    @classmethod
    def create(cls, count: int) -> Loads:
        """A page of its own, without a name in any folder; workers inherit its descriptor."""
        file = tempfile.TemporaryFile()  # noqa: SIM115  (open until `close`, for workers that start later)
        file.truncate(count * _PER_WORKER * _BYTES)
        made = cls(file.fileno(), count)
        made._close_file = file.close
        return made

    def note(self, place: int, connections: int) -> None:
        """The worker at a place accepts, and holds so many connections."""
        self._cells[place * _PER_WORKER] = connections + 1

    def took(self, place: int) -> None:
        """The worker at a place has taken one more connection."""
        self._cells[place * _PER_WORKER + 1] += 1

    def leave(self, place: int) -> None:
        """The worker at a place does not accept, or not any more."""
        self._cells[place * _PER_WORKER] = 0

    def least_of_others(self, place: int) -> int | None:
        """The fewest connections that any other accepting worker holds; None without another."""
        cells = self._cells[::_PER_WORKER]
        return min((cell - 1 for other, cell in enumerate(cells) if other != place and cell), default=None)

    def taken_by_others(self, place: int) -> int:
        """How many connections the others have taken in all."""
        return sum(taken for other, taken in enumerate(self._cells[1::_PER_WORKER]) if other != place)

    def close(self) -> None:
        """Unmap the page; a second call does nothing."""
        self._cells.release()
        self._page.close()
        self._close_file()
