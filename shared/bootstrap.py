"""Composition root: builds each app's parts from its settings, lazily, once per process.

Nothing happens at import. The first call reads the environment and makes the clients, none of which connects before it
is used; so an app with broken settings still loads, answers `health/live`, and says what is wrong at the first use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from shared import telemetry
from shared.adapters.blob_container import BlobContainerDependency
from shared.adapters.blob_dead_letters import BlobDeadLetters
from shared.adapters.blob_probes import BlobProbeReceipts
from shared.adapters.connections import blob_service, parse_storage
from shared.adapters.system_clock import SystemClock
from shared.ports import Clock, DeadLetters, Dependency, ProbeReceipts
from shared.settings import AppSettings, DriftSettings, IngestSettings, RetrainSettings, ScoreSettings

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

DATA_STORAGE = "DATA_STORAGE"
HOST_STORAGE = "AzureWebJobsStorage"
HOST_CONTAINER = "azure-webjobs-hosts"
"""Where the Functions host keeps its locks and schedules; it is there as soon as a host has run once."""


@dataclass(frozen=True, slots=True)
class ScoreApp:
    """Parts of the score app."""

    receipts: ProbeReceipts
    dependencies: tuple[Dependency, ...]


@dataclass(frozen=True, slots=True)
class IngestApp:
    """Parts of the ingest app."""

    receipts: ProbeReceipts
    dead_letters: DeadLetters
    clock: Clock
    dependencies: tuple[Dependency, ...]


@dataclass(frozen=True, slots=True)
class DriftApp:
    """Parts of the drift app."""

    receipts: ProbeReceipts
    clock: Clock
    dependencies: tuple[Dependency, ...]


@dataclass(frozen=True, slots=True)
class RetrainApp:
    """Parts of the retrain app."""

    dependencies: tuple[Dependency, ...]


def build_score_app(environment: Mapping[str, str]) -> ScoreApp:
    """Build the score app.

    Raises:
        SettingsError: A setting is missing, malformed or unknown.
        ConnectionSettingError: A connection is.
    """
    settings = _configured(ScoreSettings, environment)
    probes = _data(environment).get_container_client(settings.probes_container)
    return ScoreApp(BlobProbeReceipts(probes), (BlobContainerDependency(probes),))


def build_ingest_app(environment: Mapping[str, str]) -> IngestApp:
    """Build the ingest app; raises as `build_score_app`."""
    settings = _configured(IngestSettings, environment)
    service = _data(environment)
    probes = service.get_container_client(settings.probes_container)
    dead_letters = service.get_container_client(settings.dead_letters_container)
    return IngestApp(
        receipts=BlobProbeReceipts(probes),
        dead_letters=BlobDeadLetters(dead_letters),
        clock=SystemClock(),
        dependencies=(BlobContainerDependency(probes), BlobContainerDependency(dead_letters)),
    )


def build_drift_app(environment: Mapping[str, str]) -> DriftApp:
    """Build the drift app; raises as `build_score_app`."""
    settings = _configured(DriftSettings, environment)
    probes = _data(environment).get_container_client(settings.probes_container)
    return DriftApp(BlobProbeReceipts(probes), SystemClock(), (BlobContainerDependency(probes),))


def build_retrain_app(environment: Mapping[str, str]) -> RetrainApp:
    """Build the retrain app; raises as `build_score_app`. Its timers need the host's own storage before all else."""
    _configured(RetrainSettings, environment)
    hosts = blob_service(parse_storage(HOST_STORAGE, environment)).get_container_client(HOST_CONTAINER)
    return RetrainApp((BlobContainerDependency(hosts),))


@cache
def score_app() -> ScoreApp:
    """The score app of this process."""
    return build_score_app(os.environ)


@cache
def ingest_app() -> IngestApp:
    """The ingest app of this process."""
    return build_ingest_app(os.environ)


@cache
def drift_app() -> DriftApp:
    """The drift app of this process."""
    return build_drift_app(os.environ)


@cache
def retrain_app() -> RetrainApp:
    """The retrain app of this process."""
    return build_retrain_app(os.environ)


def _configured[Settings: AppSettings](kind: type[Settings], environment: Mapping[str, str]) -> Settings:
    settings = kind.read(environment)
    telemetry.configure(settings.log_level)
    return settings


def _data(environment: Mapping[str, str]) -> BlobServiceClient:
    """The client of the app's own storage.

    It gives up after two retries about a second apart: an HTTP client is waiting, and a batch comes again anyway. The
    SDK's default would keep both for a minute and a half.
    """
    from azure.storage.blob import LinearRetry  # noqa: PLC0415 - at the first use, like all of the SDK

    retries = LinearRetry(backoff=1, retry_total=2, random_jitter_range=1)
    return blob_service(
        parse_storage(DATA_STORAGE, environment), retry_policy=retries, connection_timeout=5, read_timeout=15
    )
