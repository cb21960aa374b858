"""Rows of test spans in the container of the bundles: `measured/<bundle digest>.safetensors`, written once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

from shared.adapters.blob_errors import translated
from shared.domain.registry_rows import MeasuredRows, read_measured_rows, write_measured_rows

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


class BlobMeasuredRows:
    """A store of rows in a container, which must be there."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def put(self, bundle_digest: str, rows: MeasuredRows) -> None:
        """Keep the rows of a bundle: 13 bytes for each row of the span, and 200 kB. Cost: one request."""
        with translated("keeping the rows of a test span"):
            try:
                self._container.upload_blob(_name(bundle_digest), write_measured_rows(rows), overwrite=False)
            except ResourceExistsError:
                return

    def get(self, bundle_digest: str) -> MeasuredRows | None:
        """The rows of a bundle. Cost: one request."""
        with translated("reading the rows of a test span"):
            try:
                data = self._container.download_blob(_name(bundle_digest)).readall()
            except ResourceNotFoundError as error:
                if getattr(error, "error_code", None) == "BlobNotFound":
                    return None
                raise
        return read_measured_rows(data)


def _name(bundle_digest: str) -> str:
    return f"measured/{bundle_digest}.safetensors"
