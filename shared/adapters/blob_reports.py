"""Reports in a blob container, by convention `reports`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import ContentSettings

from shared.adapters.blob_errors import translated

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

REPORTS_CONTAINER: Final = "reports"
"""Not a setting: infrastructure makes it with a rule that deletes what is older than two years."""


class BlobReports:
    """Blobs by path."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def put(self, path: str, data: bytes, content_type: str) -> None:
        """Keep a page."""
        with translated("keeping a report"):
            self._container.upload_blob(
                path, data, overwrite=True, content_settings=ContentSettings(content_type=content_type)
            )

    def get(self, path: str) -> tuple[bytes, str] | None:
        """A page and its content type."""
        with translated("reading a report"):
            try:
                stream = self._container.download_blob(path)
                kind = stream.properties.content_settings.content_type
                return stream.readall(), str(kind or "application/octet-stream")
            except ResourceNotFoundError as error:
                _refuse_missing_container(error)
                return None

    def paths(self, prefix: str) -> Sequence[str]:
        """The paths that begin so; Blob lists them sorted."""
        with translated("listing reports"):
            return [str(name) for name in self._container.list_blob_names(name_starts_with=prefix)]

    def delete(self, path: str) -> bool:
        """Delete a page."""
        with translated("deleting a report"):
            try:
                self._container.delete_blob(path)
            except ResourceNotFoundError as error:
                _refuse_missing_container(error)
                return False
        return True


def _refuse_missing_container(error: ResourceNotFoundError) -> None:
    """A container that is not there is a broken installation, a blob that is not there an answer."""
    if getattr(error, "error_code", None) != "BlobNotFound":
        raise error
