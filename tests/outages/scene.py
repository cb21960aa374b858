"""A twin that decides."""

from __future__ import annotations

from azure.storage.blob import BlobServiceClient

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.system_clock import SystemClock
from shared.domain.bundle_pointer import Role
from shared.services.training_publication import publish
from tests.e2e.conftest import Twin
from tests.fakes.bundles import golden_files


def with_champion(twin: Twin) -> Twin:
    """Start a twin and give it a model."""
    twin.run("up")
    with BlobServiceClient.from_connection_string(twin.settings.storage_connection()) as service:
        store = BlobBundles(service.get_container_client("models"))
        publish(store, golden_files(), Role.CHAMPION, clock=SystemClock(), author="tests", reason="outages")
    return twin
