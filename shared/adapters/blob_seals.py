"""Seals as blobs, one each, named by number and never overwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

from shared.adapters.blob_errors import translated

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

SEALS_CONTAINER: Final = "seals"
"""Not a setting: infrastructure makes it with the policy that keeps its blobs from being changed."""


class BlobSeals:
    """`<twelve digits>.seal` in a container of its own, whose blobs a policy of the account makes immutable."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def put(self, number: int, data: bytes) -> bool:
        """Keep a seal; False if there is one of this number."""
        with translated("writing a seal"):
            try:
                self._container.upload_blob(_name(number), data, overwrite=False)  # sends If-None-Match: *
            except ResourceExistsError:
                return False
        return True

    def get(self, number: int) -> bytes | None:
        """A seal's canonical bytes, or None."""
        with translated("reading a seal"):
            try:
                return self._container.download_blob(_name(number)).readall()
            except ResourceNotFoundError as error:
                if getattr(error, "error_code", None) == "BlobNotFound":
                    return None
                raise


def _name(number: int) -> str:
    return f"{number:012}.seal"
