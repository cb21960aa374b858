"""Bundles in a blob container, by convention `models`.

    bundles/<digest>/<file>              a bundle; the manifest last, so that what has one is whole
    pointers/<role>.json                 the present state of a role, changed only under its ETag
    history/<role>/<number>.json         every state of a role, written once

The pointer is the authority. A writer first makes sure that the state it replaces is in the history, then replaces the
pointer, then adds the new state to the history; one that stops in between leaves a history that lacks at most the
present state, which readers take from the pointer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import ContainerClient, ContentSettings

from shared.adapters.blob_errors import translated
from shared.domain.bundle import bundle_digest, open_bundle
from shared.domain.bundle_manifest import FILES, MANIFEST, is_digest
from shared.domain.bundle_pointer import Pointed, Pointer, Role, read_pointer, write_pointer
from shared.domain.errors import BrokenInvariant, Conflict, InvalidInput, NotFound

_JSON: Final = ContentSettings(content_type="application/json")
_BINARY: Final = ContentSettings(content_type="application/octet-stream")


class BlobBundles:
    """A bundle store in a container, which must be there."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def put(self, files: Mapping[str, bytes]) -> str:
        """Keep a bundle. Cost: a request for each file, and one more for each that was there before."""
        open_bundle(files)
        digest = bundle_digest(files[MANIFEST])
        with translated("keeping a bundle"):
            for name in (*FILES, MANIFEST):
                settings = _JSON if name.endswith(".json") else _BINARY
                blob = f"bundles/{digest}/{name}"
                if not self._create(blob, files[name], settings) and self._read(blob)[0] != files[name]:
                    raise BrokenInvariant(f"another {name} stands where bundle {digest[:12]} belongs")
        return digest

    def get(self, digest: str) -> dict[str, bytes]:
        """The files of a bundle that are there. Cost: a request for each."""
        found = {MANIFEST: self.manifest(digest)}
        with translated("reading a bundle"):
            for name in FILES:
                try:
                    found[name] = self._read(f"bundles/{digest}/{name}")[0]
                except ResourceNotFoundError as error:
                    _refuse_missing_container(error)
        return found

    def manifest(self, digest: str) -> bytes:
        """The manifest of a bundle. Cost: one request."""
        if not is_digest(digest):
            raise NotFound("digest", "must be 64 hexadecimal digits")
        with translated("reading a manifest"):
            try:
                return self._read(f"bundles/{digest}/{MANIFEST}")[0]
            except ResourceNotFoundError as error:
                _refuse_missing_container(error)
                raise NotFound("digest", "names no bundle of this store") from error

    def digests(self) -> list[str]:
        """The digests of all bundles, sorted. Cost: one listing of all files of all bundles."""
        with translated("listing bundles"):
            names = [blob.name.split("/") for blob in self._container.list_blobs(name_starts_with="bundles/")]
        return sorted(parts[1] for parts in names if len(parts) == 3 and parts[2] == MANIFEST and is_digest(parts[1]))

    def pointer(self, role: Role) -> Pointed:
        """The state of a role; the tag is the blob's ETag. Cost: one request."""
        with translated("reading a pointer"):
            try:
                data, tag = self._read(f"pointers/{role}.json")
            except ResourceNotFoundError as error:
                _refuse_missing_container(error)
                return Pointed(None, "")
        return Pointed(read_pointer(data), tag)

    def point(self, change: Pointer, tag: str) -> Pointed:
        """Replace the pointer if it still has the tag. Cost: six requests."""
        current = self.pointer(change.role)
        if current.tag != tag:
            raise _changed(change.role)
        if change.number != current.next_number:
            raise InvalidInput("number", f"must be {current.next_number}")
        with translated("changing a pointer"):
            if change.digest is not None and not self._exists(f"bundles/{change.digest}/{MANIFEST}"):
                raise NotFound("digest", "names no bundle of this store")
            if current.pointer is not None:
                self._remember(current.pointer)
            condition: dict[str, Any] = {"overwrite": False}
            if current.pointer is not None:
                condition = {"overwrite": True, "etag": tag, "match_condition": MatchConditions.IfNotModified}
            try:
                answer = self._container.get_blob_client(f"pointers/{change.role}.json").upload_blob(
                    write_pointer(change), content_settings=_JSON, **condition
                )
                new_tag = str(answer["etag"])
            except (ResourceExistsError, ResourceModifiedError) as error:
                # The SDK repeats a request whose answer was lost, and is then refused because of its own first try.
                now = self.pointer(change.role)
                if now.pointer != change:
                    raise _changed(change.role) from error
                new_tag = now.tag
            self._remember(change)
        return Pointed(change, new_tag)

    def history(self, role: Role) -> list[Pointer]:
        """All states of a role, oldest first. Cost: a listing, and a request for each."""
        with translated("reading a history"):
            names = sorted(blob.name for blob in self._container.list_blobs(name_starts_with=f"history/{role}/"))
            states = [read_pointer(self._read(name)[0]) for name in names]
        current = self.pointer(role).pointer
        if current is not None and all(state.number != current.number for state in states):
            states.append(current)
        return states

    def _remember(self, pointer: Pointer) -> None:
        self._create(f"history/{pointer.role}/{pointer.number:08d}.json", write_pointer(pointer), _JSON)

    def _create(self, name: str, data: bytes, settings: ContentSettings) -> bool:
        """Write a blob if there is none; returns whether this call did."""
        try:
            self._container.upload_blob(name, data, overwrite=False, content_settings=settings)
        except ResourceExistsError:
            return False
        return True

    def _read(self, name: str) -> tuple[bytes, str]:
        """A blob's bytes and ETag."""
        stream = self._container.download_blob(name)
        return stream.readall(), str(stream.properties.etag)

    def _exists(self, name: str) -> bool:
        return bool(self._container.get_blob_client(name).exists())


def _changed(role: Role) -> Conflict:
    return Conflict("role", f"{role} has changed since it was read")


def _refuse_missing_container(error: ResourceNotFoundError) -> None:
    """Let a missing container be what it is: a broken installation, not a missing blob."""
    if getattr(error, "error_code", None) != "BlobNotFound":
        raise error
