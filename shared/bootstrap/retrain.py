"""Builds the retrain app."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from shared.adapters.blob_container import BlobContainerDependency
from shared.adapters.connections import blob_service, parse_storage
from shared.adapters.postgres import parse_postgres
from shared.adapters.system_clock import SystemClock
from shared.bootstrap.parts import BUILDING, DATABASE, configured, data_storage
from shared.bootstrap.retrain_registry import registry_parts
from shared.bootstrap.retrain_replaying import replay_parts
from shared.bootstrap.retrain_shadow import shadow_parts
from shared.bootstrap.retrain_training import retrain_parts
from shared.entrypoints.registry_timers import RegistryTimerParts
from shared.entrypoints.replay_timers import ReplayParts
from shared.entrypoints.retrain_timers import RetrainParts
from shared.entrypoints.shadow_timers import ShadowParts
from shared.ports.probes import Dependency
from shared.settings import RetrainSettings

HOST_STORAGE = "AzureWebJobsStorage"
HOST_CONTAINER = "azure-webjobs-hosts"
"""Where the Functions host keeps its locks and schedules; it is there as soon as a host has run once."""


@dataclass(frozen=True, slots=True)
class RetrainApp:
    """Parts of the retrain app."""

    dependencies: tuple[Dependency, ...]
    shadow: ShadowParts
    training: RetrainParts
    registry: RegistryTimerParts | None
    replaying: ReplayParts


def build_retrain_app(environment: Mapping[str, str]) -> RetrainApp:
    """Build the retrain app; raises as `build_score_app`. Its timers need the host's own storage before all else."""
    settings = configured(RetrainSettings, environment)
    where, clock = parse_postgres(DATABASE, environment), SystemClock()
    hosts = blob_service(parse_storage(HOST_STORAGE, environment)).get_container_client(HOST_CONTAINER)
    service = data_storage(environment)
    return RetrainApp(
        (BlobContainerDependency(hosts),),
        shadow=shadow_parts(service, settings.models_container, where, clock, settings.mlflow_tracking_uri),
        training=retrain_parts(service, where, clock, settings),
        registry=registry_parts(service, settings.models_container, where, clock, settings.mlflow_tracking_uri),
        replaying=replay_parts(service, settings.models_container, where, clock),
    )


def retrain_app() -> RetrainApp:
    """The retrain app of this process."""
    with BUILDING:
        return _retrain_app()


@cache
def _retrain_app() -> RetrainApp:
    return build_retrain_app(os.environ)
