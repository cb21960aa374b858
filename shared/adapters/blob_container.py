"""A blob container as something an app depends on."""

from __future__ import annotations

from azure.storage.blob import ContainerClient

from shared.adapters.blob_errors import translated


class BlobContainerDependency:
    """Usable when the container answers with its properties: reachable, allowed and there."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container
        self.name = f"blob container {container.container_name}"

    def check(self) -> None:
        """Ask for the container's properties; gives up after 2 s, because a health check that hangs tells nothing."""
        with translated(f"asking for {self.name}"):
            self._container.get_container_properties(timeout=2, connection_timeout=2, read_timeout=2, retry_total=0)
