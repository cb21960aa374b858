"""Composition root: builds each app's parts from its settings, lazily, once per process.

Nothing happens at import. The first call reads the environment and makes the clients, none of which connects before it
is used; so an app with broken settings still loads, answers `health/live`, and says what is wrong at the first use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from typing import TYPE_CHECKING

from shared import telemetry
from shared.adapters.blob_container import BlobContainerDependency
from shared.adapters.blob_dead_letters import BlobDeadLetters
from shared.adapters.blob_probes import BlobProbeReceipts
from shared.adapters.blob_seals import SEALS_CONTAINER, BlobSeals
from shared.adapters.connections import blob_service, parse_storage
from shared.adapters.postgres import PostgresConnection, parse_postgres
from shared.adapters.postgres_partitions import PostgresPartitions
from shared.adapters.postgres_readiness import PostgresSchemaDependency
from shared.adapters.postgres_seals import PostgresSealedLedger
from shared.adapters.process_cells import ProcessCells, shared_folder
from shared.adapters.system_clock import SystemClock
from shared.domain.feature_view import CARD_V1
from shared.domain.transaction import ALLOWED_LATENESS_US
from shared.entrypoints.eventhub_ingest import IngestParts
from shared.entrypoints.http_decisions import ReplayOne, StoredDecisions
from shared.entrypoints.http_labels import LabelRoutes
from shared.entrypoints.http_score import BodyLimits, ScoreRoutes
from shared.entrypoints.http_score_front import Front
from shared.entrypoints.score_routes import ScoreParts
from shared.entrypoints.timer_outbox import OutboxParts
from shared.entrypoints.wire_cors import Cors, parse_origins
from shared.ports import Clock, DeadLetters, Dependency, Ledger, Partitions, ProbeReceipts, SealedLedger, Seals
from shared.services.batching import Batching, BatchLimits
from shared.services.dead_letter_replay import DeadLetterReplay
from shared.services.dead_lettering import CopiedDeadLetters
from shared.services.ingestion import Ingestion
from shared.services.labelling import Labelling
from shared.services.metering import N_CELLS, Meters, note_unit
from shared.services.readiness import ChampionDependency
from shared.services.replaying import Replay, Replaying
from shared.services.scoring import Scoring
from shared.services.stages import StageTimes
from shared.settings import AppSettings, DecidingSettings, DriftSettings, IngestSettings, RetrainSettings, ScoreSettings

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from shared.adapters.bundle_scorers import BundleScorers
    from shared.domain.bundle import Bundle
    from shared.ports import Scorer

DATA_STORAGE = "DATA_STORAGE"
DATABASE = "DATABASE"
EVENT_HUBS = "EVENT_HUBS"
HOST_STORAGE = "AzureWebJobsStorage"
HOST_CONTAINER = "azure-webjobs-hosts"
"""Where the Functions host keeps its locks and schedules; it is there as soon as a host has run once."""


_BUILDING = Lock()
"""First calls of several threads at once build one app, not one each."""


@dataclass(frozen=True, slots=True)
class ScoreApp:
    """Parts of the score app."""

    parts: ScoreParts
    receipts: ProbeReceipts
    dependencies: tuple[Dependency, ...]


@dataclass(frozen=True, slots=True)
class IngestApp:
    """Parts of the ingest app."""

    taking: IngestParts
    labels: LabelRoutes
    leaving: OutboxParts
    dependencies: tuple[Dependency, ...]


@dataclass(frozen=True, slots=True)
class DriftApp:
    """Parts of the drift app."""

    receipts: ProbeReceipts
    partitions: Partitions
    sealed: SealedLedger
    seals: Seals
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
    service, where, clock = _data(environment), parse_postgres(DATABASE, environment), SystemClock()
    probes = service.get_container_client(settings.probes_container)
    source = _champion(service, settings)
    meters = Meters(ProcessCells(shared_folder("score"), N_CELLS))
    front = Front(meters, Cors(parse_origins(settings.cors_origins)))
    batching = Batching(
        lambda stages: _scoring(settings, where, source, clock, stages),
        BatchLimits(waiting=settings.queue_limit, deadline_s=settings.deadline_ms / 1000),
        observe=lambda count, stages: note_unit(meters, count, stages),
    )
    limits = BodyLimits(settings.body_limit_bytes, settings.batch_limit)
    parts = ScoreParts(
        scoring=ScoreRoutes(batching, front, clock, settings.currency, limits),
        batching=batching,
        front=front,
        source=source,
        stored=_stored_decisions(where),
        replay=_replay(service, settings),
        version=_version(),
    )
    # In the background from now on, so that the model is read while the first request is taken in.
    source.start()
    dependencies = (ChampionDependency(source), PostgresSchemaDependency(where, "score", clock))
    return ScoreApp(parts, BlobProbeReceipts(probes), dependencies)


def build_ingest_app(environment: Mapping[str, str]) -> IngestApp:
    """Build the ingest app; raises as `build_score_app`."""
    settings = _configured(IngestSettings, environment)
    service, where, clock = _data(environment), parse_postgres(DATABASE, environment), SystemClock()
    probes = service.get_container_client(settings.probes_container)
    copies = service.get_container_client(settings.dead_letters_container)
    source = _champion(service, settings)
    ledger, turn = _ledger(where, "ingest"), Lock()
    labelling = Labelling(ledger, CARD_V1, settings.key_ring, clock)
    ingestion = Ingestion(
        Scoring(ledger, source, policy=settings.policy, keys=settings.key_ring, clock=clock),
        labelling,
        receipts=BlobProbeReceipts(probes),
        dead_letters=CopiedDeadLetters(_dead_letters(where), BlobDeadLetters(copies)),
        clock=clock,
        currency=settings.currency,
        lateness_us=ALLOWED_LATENESS_US,
    )
    source.start()
    return IngestApp(
        taking=IngestParts(ingestion, turn),
        labels=LabelRoutes(labelling, turn, clock),
        leaving=_leaving(where, settings.decisions_hub, environment),
        dependencies=(
            ChampionDependency(source),
            BlobContainerDependency(probes),
            BlobContainerDependency(copies),
            PostgresSchemaDependency(where, "ingest", clock),
        ),
    )


@contextmanager
def dead_letter_replay(environment: Mapping[str, str]) -> Iterator[DeadLetterReplay]:
    """What hands dead letters in again, from the settings of the ingest app; raises as `build_score_app`.

    For a command: the model is fetched at once, and connections are closed in the end.
    """
    from shared.adapters.postgres_dead_letters import PostgresDeadLetters  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_ledger_pipelined import PipelinedLedger  # noqa: PLC0415
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

    settings = IngestSettings.read(environment)
    where, clock = parse_postgres(DATABASE, environment), SystemClock()
    with (
        _data(environment) as service,
        closing(PipelinedLedger(where, "replay")) as ledger,
        closing(PostgresSession(where, "replay-dead-letters")) as session,
    ):
        receipts = BlobProbeReceipts(service.get_container_client(settings.probes_container))
        source = _champion(service, settings)
        source.refresh()
        scoring = Scoring(ledger, source, policy=settings.policy, keys=settings.key_ring, clock=clock)
        labelling = Labelling(ledger, CARD_V1, settings.key_ring, clock)

        def taking(refused: DeadLetters, waited_us: int) -> Ingestion:
            return Ingestion(
                scoring,
                labelling,
                receipts=receipts,
                dead_letters=refused,
                clock=clock,
                currency=settings.currency,
                lateness_us=ALLOWED_LATENESS_US + waited_us,
            )

        yield DeadLetterReplay(PostgresDeadLetters(session), taking, clock)


def build_drift_app(environment: Mapping[str, str]) -> DriftApp:
    """Build the drift app; raises as `build_score_app`."""
    settings = _configured(DriftSettings, environment)
    service, where = _data(environment), parse_postgres(DATABASE, environment)
    probes = service.get_container_client(settings.probes_container)
    return DriftApp(
        receipts=BlobProbeReceipts(probes),
        partitions=PostgresPartitions(where, "drift"),
        sealed=PostgresSealedLedger(where, "drift"),
        seals=BlobSeals(service.get_container_client(SEALS_CONTAINER)),
        clock=SystemClock(),
        dependencies=(BlobContainerDependency(probes),),
    )


def build_retrain_app(environment: Mapping[str, str]) -> RetrainApp:
    """Build the retrain app; raises as `build_score_app`. Its timers need the host's own storage before all else."""
    _configured(RetrainSettings, environment)
    parse_postgres(DATABASE, environment)  # nothing of it is used before training is; what is wrong shows now
    hosts = blob_service(parse_storage(HOST_STORAGE, environment)).get_container_client(HOST_CONTAINER)
    return RetrainApp((BlobContainerDependency(hosts),))


def score_app() -> ScoreApp:
    """The score app of this process."""
    with _BUILDING:
        return _score_app()


def ingest_app() -> IngestApp:
    """The ingest app of this process."""
    with _BUILDING:
        return _ingest_app()


def drift_app() -> DriftApp:
    """The drift app of this process."""
    with _BUILDING:
        return _drift_app()


def retrain_app() -> RetrainApp:
    """The retrain app of this process."""
    with _BUILDING:
        return _retrain_app()


@cache
def _score_app() -> ScoreApp:
    return build_score_app(os.environ)


@cache
def _ingest_app() -> IngestApp:
    return build_ingest_app(os.environ)


@cache
def _drift_app() -> DriftApp:
    return build_drift_app(os.environ)


@cache
def _retrain_app() -> RetrainApp:
    return build_retrain_app(os.environ)


def _configured[Settings: AppSettings](kind: type[Settings], environment: Mapping[str, str]) -> Settings:
    settings = kind.read(environment)
    telemetry.configure(settings.log_level)
    return settings


def _champion(service: BlobServiceClient, settings: DecidingSettings) -> BundleScorers:
    """The source of the deciding model; nothing is fetched yet."""
    from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - at the first use, like all of the SDK
    from shared.adapters.bundle_scorers import BundleScorers  # noqa: PLC0415

    store = BlobBundles(service.get_container_client(settings.models_container))
    return BundleScorers(store, _load, poll_s=settings.champion_poll_s)


def _load(bundle: Bundle) -> Scorer:
    from shared.adapters.onnx_scorer import OnnxScorer  # noqa: PLC0415 - the runtime is paid by those who decide

    return OnnxScorer(bundle)


def _scoring(
    settings: DecidingSettings, where: PostgresConnection, source: BundleScorers, clock: Clock, stages: StageTimes
) -> Scoring:
    """The deciding use case of one thread, with a ledger of its own.

    Raises:
        Transient: There is no champion yet.
    """
    if source.problem:
        source.refresh()  # waits for the look that is under way
    source.current()
    ledger = _ledger(where, "score")
    return Scoring(ledger, source, policy=settings.policy, keys=settings.key_ring, clock=clock, stages=stages)


def _ledger(where: PostgresConnection, app: str) -> Ledger:
    from shared.adapters.postgres_ledger_pipelined import PipelinedLedger  # noqa: PLC0415 - paid by those who connect

    return PipelinedLedger(where, app)


def _dead_letters(where: PostgresConnection) -> DeadLetters:
    from shared.adapters.postgres_dead_letters import PostgresDeadLetters  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

    return PostgresDeadLetters(PostgresSession(where, "ingest-dead-letters"))


def _leaving(where: PostgresConnection, hub: str, environment: Mapping[str, str]) -> OutboxParts:
    from shared.adapters.eventhub_publisher import EventHubPublisher  # noqa: PLC0415 - paid by those who send
    from shared.adapters.postgres_outbox import PostgresOutbox  # noqa: PLC0415
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

    outbox = PostgresOutbox(PostgresSession(where, "ingest-outbox"))
    return OutboxParts(outbox, EventHubPublisher.of_setting(EVENT_HUBS, hub, environment))


def _stored_decisions(where: PostgresConnection) -> StoredDecisions:
    from shared.adapters.postgres_decisions import PostgresDecisions  # noqa: PLC0415 - paid by those who connect

    return PostgresDecisions(where, "score")


def _replay(service: BlobServiceClient, settings: DecidingSettings) -> ReplayOne:
    """Replays a decision from its canonical bytes; one after the other, because the archive is for one thread."""
    from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - at the first use, like all of the SDK
    from shared.adapters.bundle_archive import BundleArchive  # noqa: PLC0415

    store = BlobBundles(service.get_container_client(settings.models_container))
    replaying, turn = Replaying(BundleArchive(store, _load, most_held=1)), Lock()

    def replay(data: bytes) -> Replay:
        with turn:
            return replaying.replay_records([data])[0]

    return replay


def _version() -> str:
    """The product's version; a checkout without an installation has none."""
    try:
        return version("tollgate")
    except PackageNotFoundError:
        return "0"


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
