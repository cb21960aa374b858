"""Builds the score app."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from typing import TYPE_CHECKING

from shared.adapters.blob_probes import BlobProbeReceipts
from shared.adapters.fibres import Fibres
from shared.adapters.postgres import PostgresConnection, parse_postgres
from shared.adapters.postgres_readiness import PostgresSchemaDependency
from shared.adapters.system_clock import SystemClock
from shared.bootstrap.metering import meters_of
from shared.bootstrap.parts import BUILDING, DATABASE, champion, configured, data_storage, ledger_of, load_scorer
from shared.entrypoints.http_decisions import ReplayOne, StoredDecisions
from shared.entrypoints.http_models import RoleBook
from shared.entrypoints.http_score import BodyLimits, ScoreRoutes, unit_notes, write_bodies
from shared.entrypoints.http_score_front import Front
from shared.entrypoints.score_routes import ScoreParts
from shared.entrypoints.wire_cors import Cors, parse_origins
from shared.ports.clock import Clock
from shared.ports.probes import Dependency, ProbeReceipts
from shared.services.batching import Batching, BatchLimits, Foretell
from shared.services.metering import REPLAYS, Meters
from shared.services.readiness import ChampionDependency
from shared.services.replaying import Replay, Replaying
from shared.services.scoring import Scoring
from shared.services.stages import StageTimes
from shared.services.succession_roles import Roles
from shared.settings import DecidingSettings, ScoreSettings

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from shared.adapters.bundle_scorers import BundleScorers


@dataclass(frozen=True, slots=True)
class ScoreApp:
    """Parts of the score app."""

    parts: ScoreParts
    receipts: ProbeReceipts
    dependencies: tuple[Dependency, ...]


def build_score_app(environment: Mapping[str, str]) -> ScoreApp:
    """Build the score app.

    Raises:
        SettingsError: A setting is missing, malformed or unknown.
        ConnectionSettingError: A connection is.
    """
    settings = configured(ScoreSettings, environment)
    service, where, clock = data_storage(environment), parse_postgres(DATABASE, environment), SystemClock()
    probes = service.get_container_client(settings.probes_container)
    source = champion(service, settings, where, "score")
    meters = meters_of("score", where, settings.meters_flush_s, clock)
    front = Front(meters, Cors(parse_origins(settings.cors_origins)))
    fibres = Fibres()
    batching = Batching(
        lambda stages, foretell: _scoring(
            settings, where, source, clock=clock, stages=stages, foretell=foretell, fibres=fibres
        ),
        BatchLimits(waiting=settings.queue_limit, deadline_s=settings.deadline_ms / 1000),
        runs=fibres,
        prepare=write_bodies,
        observe=unit_notes(meters),
    )
    limits = BodyLimits(settings.body_limit_bytes, settings.batch_limit, settings.lateness_us)
    parts = ScoreParts(
        scoring=ScoreRoutes(batching, front, clock, settings.currency, limits),
        batching=batching,
        front=front,
        source=source,
        roles=_roles(service, settings),
        policy=settings.policy_rule,
        stored=_stored_decisions(where),
        replay=_replay(service, settings, meters),
        version=_version(),
    )
    # In the background from now on, so that the model is read while the first request is taken in.
    source.start()
    dependencies = (ChampionDependency(source), PostgresSchemaDependency(where, "score", clock))
    return ScoreApp(parts, BlobProbeReceipts(probes), dependencies)


def score_app() -> ScoreApp:
    """The score app of this process."""
    with BUILDING:
        return _score_app()


@cache
def _score_app() -> ScoreApp:
    return build_score_app(os.environ)


def _scoring(
    settings: DecidingSettings,
    where: PostgresConnection,
    source: BundleScorers,
    *,
    clock: Clock,
    stages: StageTimes,
    foretell: Foretell,
    fibres: Fibres,
) -> Scoring:
    """The deciding use case, with a ledger of its own.

    Raises:
        Transient: There is no champion yet.
    """
    if source.problem:
        fibres.aside(source.refresh)  # waits for the look that is under way
    source.current()
    ledger = ledger_of(where, "score", settings.state_cache_bytes, fibres)
    _leave_what_is_loaded()
    return Scoring(
        ledger,
        source,
        policy=settings.policy_rule,
        keys=settings.key_ring,
        clock=clock,
        stages=stages,
        foretell=foretell,
    )


@cache
def _leave_what_is_loaded() -> None:
    """Let the collector look no more at what is loaded by now: a full collection of it took 100 ms (measured).

    Once in a process: what a later decider's predecessor left must stay collectable.
    """
    gc.freeze()


def _stored_decisions(where: PostgresConnection) -> StoredDecisions:
    from shared.adapters.postgres_decisions import PostgresDecisions  # noqa: PLC0415 - paid by those who connect

    return PostgresDecisions(where, "score")


def _roles(service: BlobServiceClient, settings: DecidingSettings) -> RoleBook:
    from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - at the first use, like all of the SDK

    return Roles(BlobBundles(service.get_container_client(settings.models_container)))


def _replay(service: BlobServiceClient, settings: DecidingSettings, meters: Meters) -> ReplayOne:
    """Replays a decision from its canonical bytes; one after the other, because the archive is for one thread."""
    from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - at the first use, like all of the SDK
    from shared.adapters.bundle_archive import BundleArchive  # noqa: PLC0415

    store = BlobBundles(service.get_container_client(settings.models_container))
    replaying, turn = Replaying(BundleArchive(store, load_scorer, most_held=1)), Lock()

    def replay(data: bytes) -> Replay:
        with turn:
            replayed = replaying.replay_records([data])[0]
        meters.count(REPLAYS, replayed.verdict.value)
        return replayed

    return replay


def _version() -> str:
    """The product's version: of the deployed package, or of a checkout; without an installation there is none."""
    for distribution in ("tollgate-shared", "tollgate"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "0"
