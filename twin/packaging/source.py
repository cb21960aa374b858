"""The source tree that a package is a function of."""

from __future__ import annotations

import hashlib
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from twin.packaging.errors import InvalidSource
from twin.packaging.ignore import IgnoreRules

ROOT = Path(__file__).resolve().parents[2]

# Left behind whatever .funcignore says: state of tools, and libraries that the package brings itself.
_ALWAYS_LEFT = IgnoreRules.parse(".git/\n.venv/\n.python_packages/\n__pycache__/\n*.pyc\n.DS_Store\n/.funcignore\n")
_REQUIRED = ("function_app.py", "host.json", "requirements.txt")


@dataclass(frozen=True, slots=True)
class Revision:
    """Which commit the tree was at; `dirty` if tracked or new files of the tree differ from it."""

    commit: str
    dirty: bool


@dataclass(frozen=True, slots=True)
class Source:
    """One app in a tree like this repository: functions/<app>, requirements/<app>.txt, shared, pyproject.toml."""

    root: Path
    app: str

    @property
    def app_dir(self) -> Path:
        """The app's own folder."""
        return self.root / "functions" / self.app

    def version(self) -> str:
        """The project's version.

        Raises:
            InvalidSource: If pyproject.toml is missing or states none.
        """
        try:
            return str(tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
        except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
            raise InvalidSource(f"{self.app}: pyproject.toml states no project version ({error!r})") from error

    def requirements(self) -> str:
        """The app's pins, without comments; the locked file and the app's copy of it must agree.

        Raises:
            InvalidSource: If either file is missing or they differ.
        """
        locked = self._read(self.root / "requirements" / f"{self.app}.txt")
        shipped = self._read(self.app_dir / "requirements.txt")
        if locked != shipped:
            raise InvalidSource(
                f"{self.app}: functions/{self.app}/requirements.txt is not requirements/{self.app}.txt; run make lock"
            )
        return bare_requirements(locked)

    def _read(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidSource(f"{self.app}: cannot read {path.relative_to(self.root)}") from error

    def app_files(self) -> dict[str, bytes]:
        """The files of the app's folder that are deployed, by path relative to it.

        Raises:
            InvalidSource: If a file that every app has is missing, or a file is a symbolic link.
        """
        files = _files_below(self.app_dir, _ALWAYS_LEFT, IgnoreRules.parse(self._read(self.app_dir / ".funcignore")))
        for name in _REQUIRED:
            if name not in files:
                raise InvalidSource(f"{self.app}: functions/{self.app}/{name} is missing or ignored by .funcignore")
        return files

    def shared_files(self) -> dict[str, bytes]:
        """The files of the import package `shared`, by path relative to the root.

        Raises:
            InvalidSource: If the package or its typing marker is missing.
        """
        below = _files_below(self.root / "shared", _ALWAYS_LEFT)
        files = {f"shared/{path}": content for path, content in below.items()}
        for name in ("shared/__init__.py", "shared/py.typed"):
            if name not in files:
                raise InvalidSource(f"{self.app}: {name} is missing")
        return files

    def revision(self) -> Revision | None:
        """The commit of the tree, or None without git or outside a repository."""
        commit = self._git("rev-parse", "HEAD")
        if commit is None:
            return None
        paths = (f"functions/{self.app}", f"requirements/{self.app}.txt", "shared", "pyproject.toml")
        status = self._git("status", "--porcelain", "--", *paths)
        return Revision(commit, dirty=status != "")

    def _git(self, *arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(self.root), *arguments], capture_output=True, text=True, check=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()


def bare_requirements(text: str) -> str:
    """Requirements without comments, so that only what is installed tells two files apart."""
    lines = (line.rstrip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.lstrip().startswith("#"))


def tree_digest(files: Mapping[str, str]) -> str:
    """One sha256 over paths and the sha256 of what they hold; independent of order, times, modes and compression."""
    lines = (f"{path}\0{digest}\n" for path, digest in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """The sha256 of each file."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def _files_below(folder: Path, *rules: IgnoreRules) -> dict[str, bytes]:
    files = {}
    for parent, folders, names in folder.walk():
        relative = parent.relative_to(folder)
        # Ignored folders are not even entered: a virtual environment has thousands of files, and links.
        folders[:] = [name for name in folders if not _folder_left((relative / name).as_posix(), rules)]
        for name in names:
            path = (relative / name).as_posix()
            if not any(rule.ignores(path) for rule in rules):
                files[path] = _plain_file(parent / name)
    return files


def _folder_left(path: str, rules: tuple[IgnoreRules, ...]) -> bool:
    return any(rule.ignores_folder(path) for rule in rules)


def _plain_file(path: Path) -> bytes:
    if path.is_symlink():
        raise InvalidSource(f"{path.parent.name}/{path.name} is a symbolic link; packages hold plain files only")
    return path.read_bytes()
