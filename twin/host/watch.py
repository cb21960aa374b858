"""Notices that an app's files changed, by looking at them: no dependency, and works on any file system."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

# Folders whose changes are nobody's edit.
SKIPPED = frozenset({"__pycache__", ".venv", ".git", ".python_packages", "node_modules"})
SUFFIXES = frozenset({".py", ".json", ".toml", ".yaml", ".yml", ".txt"})
INTERVAL_S = 0.5

type _Seen = dict[str, tuple[int, int]]


def snapshot(roots: Sequence[Path], ignored: frozenset[Path]) -> _Seen:
    """Modification time and size of every file that matters; a root is a folder or a single file."""
    seen: _Seen = {}
    for root in roots:
        if root.is_file():
            _look(root, seen)
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if name not in SKIPPED]
            for name in files:
                path = Path(folder, name)
                if path.suffix in SUFFIXES and path not in ignored:
                    _look(path, seen)
    return seen


def _look(path: Path, seen: _Seen) -> None:
    try:
        found = path.stat()
    except OSError:
        return  # removed between listing and looking
    seen[str(path)] = (found.st_mtime_ns, found.st_size)


def _forget_bytecode(paths: list[str]) -> None:
    """Remove the compiled form of changed modules.

    Python takes it for current when size and whole second of the source agree, so an edit right after a start, of the
    same length, would be ignored.
    """
    for path in paths:
        if path.endswith(".py"):
            Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)


class Watch:
    """Compares snapshots; a change counts once it has settled for one interval."""

    def __init__(self, roots: Sequence[Path], ignored: frozenset[Path] = frozenset()) -> None:
        self._roots = roots
        self._ignored = ignored
        self._known = snapshot(roots, ignored)

    async def changed(self) -> list[str]:
        """Wait for a change; returns the names of the files."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            now = await self._settled()
            different = sorted(
                path for path in now.keys() | self._known.keys() if now.get(path) != self._known.get(path)
            )
            self._known = now
            if different:
                _forget_bytecode(different)
                return [Path(path).name for path in different]

    async def _settled(self) -> _Seen:
        now = snapshot(self._roots, self._ignored)
        while now != self._known:
            await asyncio.sleep(INTERVAL_S)
            later = snapshot(self._roots, self._ignored)
            if later == now:
                break
            now = later
        return now
