"""Builds the queue of the model registry, for whoever trains or promotes, and what empties it, in the retrain app."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from shared.bootstrap.noting import timed_runs
from shared.entrypoints.registry_timers import RegistryTimerParts
from shared.services.registry import RegistryParts, write_waiting

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from shared.adapters.postgres import PostgresConnection
    from shared.domain.pipeline import Evidence
    from shared.ports.clock import Clock
    from shared.ports.registry import MeasuredRowStore, RunRecords


@contextmanager
def run_records(where: PostgresConnection, clock: Clock, tracking_uri: str, app: str) -> Iterator[RunRecords]:
    """The queue, over a connection of its own that is closed in the end; one that keeps nothing without a registry.

    Args:
        where: The database.
        clock: Our clock.
        tracking_uri: Of the registry; empty if there is none.
        app: Who asks, as the database shows it.
    """
    from shared.adapters.postgres_registry_outbox import NoRunRecords, PostgresRunRecords  # noqa: PLC0415 - at use
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

    if not tracking_uri:
        yield NoRunRecords()
        return
    with closing(PostgresSession(where, f"{app}-records")) as session:
        yield PostgresRunRecords(session, clock)


def measured_row_store(service: BlobServiceClient, container: str) -> MeasuredRowStore:
    """Where whoever trains leaves the rows of the test span, in the container of the bundles."""
    from shared.adapters.blob_measured_rows import BlobMeasuredRows  # noqa: PLC0415 - at the first use

    return BlobMeasuredRows(service.get_container_client(container))


def registry_parts(
    service: BlobServiceClient, container: str, where: PostgresConnection, clock: Clock, tracking_uri: str
) -> RegistryTimerParts | None:
    """What the timer needs, or None without a registry; it connects at each firing.

    Args:
        service: The app's storage.
        container: Of bundles and pointers.
        where: The database.
        clock: Our clock.
        tracking_uri: Of the registry; empty if there is none.
    """
    if not tracking_uri:
        return None
    from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - at the first use, like all of the SDK
    from shared.adapters.mlflow_registry import MlflowRegistry  # noqa: PLC0415
    from shared.adapters.model_plots import MatplotlibPlots  # noqa: PLC0415
    from shared.adapters.postgres_pipelines import PostgresLeases  # noqa: PLC0415
    from shared.adapters.postgres_registry_outbox import PostgresRunRecords  # noqa: PLC0415
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

    session = PostgresSession(where, "retrain-registry")
    parts = RegistryParts(
        records=PostgresRunRecords(session, clock),
        registry=MlflowRegistry(tracking_uri),
        bundles=BlobBundles(service.get_container_client(container)),
        rows=measured_row_store(service, container),
        plots=MatplotlibPlots(),
        leases=PostgresLeases(session),
        clock=clock,
        holder=f"retrain-{uuid.uuid4().hex[:12]}",
    )
    turn = Lock()

    def write() -> Evidence:
        with turn, closing(session):
            return write_waiting(parts)

    return RegistryTimerParts(write, timed_runs(where, "retrain", clock))
