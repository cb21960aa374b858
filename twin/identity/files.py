"""Files of the identity folder: written whole or not at all, and readable by their owner only where they are secret."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRIVATE = 0o600
PUBLIC = 0o644


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out, so that two first runs do not mix their keys and certificates."""
    with (folder / ".lock").open("w") as lock:
        # The lock goes with the file handle, and so with the process.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(path: Path, content: bytes, mode: int) -> None:
    """Replace `path` atomically: a reader, or a crash half-way, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp creates with 0600, so that a secret is never readable by others, not even for a moment.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
        os.replace(name, path)  # noqa: PTH105 - mkstemp returns a string
    except BaseException:
        os.unlink(name)  # noqa: PTH108
        raise
