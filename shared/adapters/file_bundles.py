"""Bundles in a folder: for one machine, for tests, and as what `tollgate train --out` writes.

    bundles/<digest>/<file>              a bundle, renamed into place as a whole
    pointers/<role>/<number>.json        the states of a role; the one with the greatest number holds

A change of a role is the creation of its next number, which the file system gives to one writer only.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared.domain.bundle import bundle_digest, open_bundle
from shared.domain.bundle_manifest import FILES, MANIFEST, is_digest
from shared.domain.bundle_pointer import Pointed, Pointer, Role, read_pointer, write_pointer
from shared.domain.errors import BrokenInvariant, Conflict, InvalidInput, NotFound, Transient

_NUMBER: Final = "{:08d}.json"


class FileBundles:
    """A bundle store in a folder, which is made when the first bundle is put."""

    def __init__(self, folder: Path) -> None:
        self._bundles = folder / "bundles"
        self._pointers = folder / "pointers"

    def put(self, files: Mapping[str, bytes]) -> str:
        """Keep a bundle; the folder appears with all its files or not at all."""
        open_bundle(files)
        digest = bundle_digest(files[MANIFEST])
        target = self._bundles / digest
        with _translated("keeping a bundle"):
            if target.is_dir():
                self._check_same(target, files)
                return digest
            self._bundles.mkdir(parents=True, exist_ok=True)
            incoming = self._bundles / f".incoming-{uuid.uuid4().hex}"
            try:
                incoming.mkdir()
                for name in (*FILES, MANIFEST):
                    _write_durably(incoming / name, files[name])
                _sync_folder(incoming)
                incoming.rename(target)
                _sync_folder(self._bundles)
            except OSError:
                if not target.is_dir():
                    raise
                self._check_same(target, files)  # another writer was faster
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
        return digest

    def get(self, digest: str) -> dict[str, bytes]:
        """The files of a bundle that are there."""
        found = {MANIFEST: self.manifest(digest)}
        folder = self._bundles / digest
        with _translated("reading a bundle"):
            return found | {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}

    def manifest(self, digest: str) -> bytes:
        """The manifest of a bundle."""
        path = self._bundles / _checked(digest) / MANIFEST
        with _translated("reading a manifest"):
            try:
                return path.read_bytes()
            except FileNotFoundError as error:
                raise NotFound("digest", "names no bundle of this store") from error

    def digests(self) -> list[str]:
        """The digests of all bundles, sorted."""
        with _translated("listing bundles"):
            return sorted(
                path.parent.name for path in self._bundles.glob(f"*/{MANIFEST}") if is_digest(path.parent.name)
            )

    def pointer(self, role: Role) -> Pointed:
        """The state of a role with the greatest number."""
        with _translated("reading a pointer"):
            paths = self._states(role)
            return Pointed(read_pointer(paths[-1].read_bytes()), paths[-1].stem) if paths else Pointed(None, "")

    def point(self, change: Pointer, tag: str) -> Pointed:
        """Create the next number of a role."""
        current = self.pointer(change.role)
        if current.tag != tag:
            raise Conflict("role", f"{change.role} has changed since it was read")
        if change.number != current.next_number:
            raise InvalidInput("number", f"must be {current.next_number}")
        if change.digest is not None and not (self._bundles / change.digest / MANIFEST).is_file():
            raise NotFound("digest", "names no bundle of this store")
        folder = self._pointers / change.role
        target = folder / _NUMBER.format(change.number)
        with _translated("changing a pointer"):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".incoming-") as incoming:
                written = Path(incoming) / target.name
                _write_durably(written, write_pointer(change))
                try:
                    target.hardlink_to(written)  # unlike a rename, a link never replaces what is there
                except FileExistsError as error:
                    raise Conflict("role", f"{change.role} has changed since it was read") from error
            _sync_folder(folder)
        return Pointed(change, target.stem)

    def history(self, role: Role) -> list[Pointer]:
        """All states of a role, oldest first."""
        with _translated("reading a history"):
            return [read_pointer(path.read_bytes()) for path in self._states(role)]

    def _states(self, role: Role) -> list[Path]:
        return sorted((self._pointers / role).glob("[0-9]*.json"))

    def _check_same(self, folder: Path, files: Mapping[str, bytes]) -> None:
        for name in (MANIFEST, *FILES):
            path = folder / name
            if not path.is_file() or path.read_bytes() != files[name]:
                raise BrokenInvariant(f"another {name} stands where bundle {folder.name[:12]} belongs")


def _checked(digest: str) -> str:
    """A digest that is fit to be part of a path."""
    if not is_digest(digest):
        raise NotFound("digest", "must be 64 hexadecimal digits")
    return digest


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make names durable; where folders cannot be opened (Windows), the system sees to it."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn errors of the file system into Tollgate's tree: what is not permitted stays so, the rest passes."""
    try:
        yield
    except PermissionError as error:
        raise BrokenInvariant(f"{doing}: not permitted") from error
    except OSError as error:
        raise Transient(f"{doing}: {type(error).__name__}") from error
