"""Zip files that depend on nothing but their contents, and their way back to a folder."""

from __future__ import annotations

import hashlib
import shutil
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from twin.packaging.errors import BadArchive

# The earliest time a zip can hold; every entry has it.
_EPOCH = (1980, 1, 1, 0, 0, 0)
# Files without this mode leave the cloud with no functions and no error: entries made on Windows would have none.
_MODE = stat.S_IFREG | 0o644
_UNIX = 3
_LEVEL = 6

_STAGE = ".stage-"
_STAGE_AGE_S = 24 * 3600


def append(path: Path, files: Mapping[str, bytes]) -> None:
    """Add `files` to the zip at `path` in sorted order, making the zip if there is none."""
    with zipfile.ZipFile(path, "a") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = _UNIX
            entry.external_attr = _MODE << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED, _LEVEL)


def file_digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def unpack(package: Path, target: Path, *, expected_sha256: str | None = None) -> Path:
    """Lay a package out in `target`, which afterwards holds exactly the package's files.

    A second call with the same package leaves the folder as it is: the digest of what was unpacked is kept beside it,
    in `<target>.sha256`.

    Args:
        package: The zip.
        target: The folder; replaced if it holds another package.
        expected_sha256: The digest of the manifest, checked before anything is written.

    Raises:
        BadArchive: If the digest differs, or an entry is damaged or would land outside `target`.
    """
    digest = file_digest(package)
    if expected_sha256 not in (None, digest):
        raise BadArchive(f"{package.name}: sha256 is {digest}, the manifest says {expected_sha256}")
    marker = target.with_name(f"{target.name}.sha256")
    if target.is_dir() and marker.is_file() and marker.read_text(encoding="ascii") == digest:
        return target
    marker.unlink(missing_ok=True)
    with staging(target.parent) as stage:
        extract(package, stage / "package")
        if target.exists():
            target.replace(stage / "replaced")
        (stage / "package").replace(target)
    marker.write_text(digest, encoding="ascii")
    return target


def extract(package: Path, folder: Path) -> None:
    """Write every entry of a zip below `folder`, after a look at where it would go.

    Raises:
        BadArchive: If the file is no zip, is damaged, or has an entry that leaves the folder.
    """
    try:
        with zipfile.ZipFile(package) as archive:
            for name in archive.namelist():
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise BadArchive(f"{package.name}: the entry {name!r} leaves the folder")
            archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadArchive(f"{package.name}: {error}") from error


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A scratch folder in `parent`, on the same file system as what will replace it; removed at the end.

    Folders that a killed process left are removed too, once they are too old for anybody to work in.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_STAGE}*"):
        # Another process may be removing the same one.
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STAGE_AGE_S:
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_STAGE, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
