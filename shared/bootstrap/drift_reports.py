"""Builds what draws reports and serves the pages; each thing connects for each use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.adapters.blob_reports import REPORTS_CONTAINER, BlobReports
from shared.adapters.postgres_reports import PostgresReports
from shared.entrypoints.report_routes import ReportParts
from shared.services.reporting import Reporting

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from shared.adapters.postgres import PostgresConnection
    from shared.domain.pipeline import Evidence
    from shared.ports.clock import Clock
    from shared.services.timed_runs import TimedRuns
    from shared.settings import DriftSettings


def report_parts(
    service: BlobServiceClient, where: PostgresConnection, settings: DriftSettings, clock: Clock, runs: TimedRuns
) -> ReportParts:
    """What the routes and the timer need."""
    container = service.get_container_client(REPORTS_CONTAINER)
    readings, store = PostgresReports(where, "drift-reports"), BlobReports(container)

    def draw() -> Evidence:
        from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - paid by the timer
        from shared.adapters.evidently_drawing import EvidentlyDrawing  # noqa: PLC0415

        bundles = BlobBundles(service.get_container_client(settings.models_container))
        return Reporting(readings, store, EvidentlyDrawing(container, bundles), clock).run()

    return ReportParts(readings, store, draw, clock, runs)
