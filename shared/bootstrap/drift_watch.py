"""Builds what watches for drift; it connects for each firing, an hour apart."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shared.bootstrap.drift_quality import PostgresFeedHealth
from shared.domain.drift_performance import PerformancePolicy
from shared.domain.drift_policy import DriftPolicy
from shared.entrypoints.drift_timers import DriftWatchParts
from shared.services.drift_check import DriftCheck, DriftMemory, DriftParts, DriftRules

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from shared.adapters.postgres import PostgresConnection
    from shared.domain.pipeline import Evidence
    from shared.ports.clock import Clock
    from shared.services.timed_runs import TimedRuns
    from shared.settings import DriftSettings

REPORTS_CONTAINER: Final = "reports"

FIRING_S: Final = 600.0
"""After so long a firing begins no other hour: the host ends one after 15 minutes."""


def drift_rules(settings: DriftSettings) -> DriftRules:
    """The rules that the settings name."""
    return DriftRules(
        drift=DriftPolicy(
            floor=settings.drift_psi_floor, medium=settings.drift_psi_medium, high=settings.drift_psi_high
        ),
        performance=PerformancePolicy(
            recall_drop=settings.concept_drift_threshold, target_change=settings.target_drift_threshold
        ),
    )


@dataclass(frozen=True, slots=True)
class DriftWatch:
    """Watches over connections that are closed in the end."""

    where: PostgresConnection
    storage: BlobServiceClient
    settings: DriftSettings
    clock: Clock
    memory: DriftMemory = field(default_factory=DriftMemory)

    def check(self) -> Evidence:
        """One firing; raises as `DriftCheck.run`."""
        # Paid by those who connect.
        from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415
        from shared.adapters.drift_archive import BlobDriftArchive  # noqa: PLC0415
        from shared.adapters.postgres_drift import (  # noqa: PLC0415
            SESSION,
            PostgresAnnouncements,
            PostgresDecidedWindows,
            PostgresDriftMetrics,
        )
        from shared.adapters.postgres_notices import PostgresNotices  # noqa: PLC0415
        from shared.adapters.postgres_pipelines import PostgresTriggers  # noqa: PLC0415
        from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

        until_s = time.monotonic() + FIRING_S
        with closing(PostgresSession(self.where, "drift-watch", SESSION)) as session:
            parts = DriftParts(
                bundles=BlobBundles(self.storage.get_container_client(self.settings.models_container)),
                windows=PostgresDecidedWindows(session),
                metrics=PostgresDriftMetrics(session),
                announcements=PostgresAnnouncements(session),
                feed=PostgresFeedHealth(self.where, self.clock),
                archive=BlobDriftArchive(self.storage.get_container_client(REPORTS_CONTAINER)),
                triggers=PostgresTriggers(session),
                notices=PostgresNotices(session),
                clock=self.clock,
            )
            check = DriftCheck(parts, drift_rules(self.settings), self.memory)
            return check.run(lambda: time.monotonic() < until_s)


def drift_watch_parts(
    where: PostgresConnection, storage: BlobServiceClient, settings: DriftSettings, clock: Clock, runs: TimedRuns
) -> DriftWatchParts:
    """What the timer needs."""
    return DriftWatchParts(DriftWatch(where, storage, settings, clock).check, runs)
