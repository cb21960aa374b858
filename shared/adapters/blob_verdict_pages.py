"""Pages of verdicts as blobs: `verdicts/<verdict digest>.html`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import ContentSettings

from shared.adapters.blob_errors import translated

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


class BlobVerdictPages:
    """Pages in a container, which must be there."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def put(self, verdict_digest: str, page: str) -> str:
        """Keep a page, unless it is there. Cost: one request."""
        name = f"verdicts/{verdict_digest}.html"
        kind = ContentSettings(content_type="text/html; charset=utf-8")
        with translated("keeping the page of a verdict"):
            try:
                self._container.upload_blob(name, page.encode(), overwrite=False, content_settings=kind)
            except ResourceExistsError:
                return name
        return name
