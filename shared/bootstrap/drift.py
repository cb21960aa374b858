"""Builds the drift app."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from shared.adapters.blob_container import BlobContainerDependency
from shared.adapters.blob_probes import BlobProbeReceipts
from shared.adapters.blob_seals import SEALS_CONTAINER, BlobSeals
from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_partitions import PostgresPartitions
from shared.adapters.postgres_seals import PostgresSealedLedger
from shared.adapters.system_clock import SystemClock
from shared.bootstrap.drift_expiry import expiry_parts
from shared.bootstrap.drift_notices import notice_parts
from shared.bootstrap.drift_quality import quality_parts
from shared.bootstrap.drift_reports import report_parts
from shared.bootstrap.drift_watch import drift_watch_parts
from shared.bootstrap.noting import timed_runs
from shared.bootstrap.parts import BUILDING, DATABASE, configured, data_storage
from shared.entrypoints.drift_timers import DriftWatchParts
from shared.entrypoints.expiry_timers import ExpiryParts
from shared.entrypoints.notice_timers import NoticeParts
from shared.entrypoints.quality_timers import QualityParts
from shared.entrypoints.report_routes import ReportParts
from shared.ports.archive import SealedLedger, Seals
from shared.ports.clock import Clock
from shared.ports.ledger import Partitions
from shared.ports.probes import Dependency, ProbeReceipts
from shared.services.timed_runs import TimedRuns
from shared.settings import DriftSettings


@dataclass(frozen=True, slots=True)
class DriftApp:
    """Parts of the drift app."""

    receipts: ProbeReceipts
    partitions: Partitions
    sealed: SealedLedger
    seals: Seals
    clock: Clock
    runs: TimedRuns
    notices: NoticeParts
    reports: ReportParts
    quality: QualityParts
    watch: DriftWatchParts
    expiry: ExpiryParts
    dependencies: tuple[Dependency, ...]


def build_drift_app(environment: Mapping[str, str]) -> DriftApp:
    """Build the drift app; raises as `build_score_app`."""
    settings = configured(DriftSettings, environment)
    service, where, clock = data_storage(environment), parse_postgres(DATABASE, environment), SystemClock()
    probes = service.get_container_client(settings.probes_container)
    runs = timed_runs(where, "drift", clock)
    return DriftApp(
        receipts=BlobProbeReceipts(probes),
        partitions=PostgresPartitions(where, "drift"),
        sealed=PostgresSealedLedger(where, "drift"),
        seals=BlobSeals(service.get_container_client(SEALS_CONTAINER)),
        clock=clock,
        runs=runs,
        notices=notice_parts(where, settings, clock, runs),
        reports=report_parts(service, where, settings, clock, runs),
        quality=quality_parts(where, clock, runs),
        watch=drift_watch_parts(where, service, settings, clock, runs),
        expiry=expiry_parts(where, settings.keeping, clock, runs),
        dependencies=(BlobContainerDependency(probes),),
    )


def drift_app() -> DriftApp:
    """The drift app of this process."""
    with BUILDING:
        return _drift_app()


@cache
def _drift_app() -> DriftApp:
    return build_drift_app(os.environ)
