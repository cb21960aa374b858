"""The one folder that holds everything the twin remembers."""

from __future__ import annotations

import shutil
from pathlib import Path

from twin.services.orchestra import TwinError

_KEPT = frozenset({"lock"})
_OURS = frozenset(
    {
        "apps",
        "azurite",
        "broker",
        "identity",
        "logs",
        "mode.json",
        "packages",
        "postgres",
        "run",
        "lock",
    }
)


def wipe(home: Path) -> None:
    """Remove all state, but only from a folder that holds nothing else.

    Raises:
        TwinError: The folder has something that the twin did not put there, so it may be the wrong one.
    """
    if not home.exists():
        return
    strange = sorted(path.name for path in home.iterdir() if path.name not in _OURS)
    if strange:
        raise TwinError(f"{home} holds {', '.join(strange[:3])}, which is not the twin's; TOLLGATE_HOME may be wrong")
    for path in home.iterdir():
        if path.name in _KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
