"""Builds the ingest app."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from threading import Lock

from shared.adapters.blob_container import BlobContainerDependency
from shared.adapters.blob_dead_letters import BlobDeadLetters
from shared.adapters.blob_probes import BlobProbeReceipts
from shared.adapters.postgres import PostgresConnection, parse_postgres
from shared.adapters.postgres_readiness import PostgresSchemaDependency
from shared.adapters.system_clock import SystemClock
from shared.bootstrap.ingest_maturing import maturing_parts
from shared.bootstrap.metering import meters_of
from shared.bootstrap.noting import timed_runs
from shared.bootstrap.parts import BUILDING, DATABASE, champion, configured, data_storage, ledger_of
from shared.entrypoints.eventhub_ingest import IngestParts
from shared.entrypoints.http_labels import LabelRoutes
from shared.entrypoints.maturing_timers import MaturingParts
from shared.entrypoints.timer_outbox import OutboxParts, longest_s
from shared.ports.letters import DeadLetters
from shared.ports.probes import Dependency
from shared.services.dead_letter_replay import DeadLetterReplay
from shared.services.dead_lettering import CopiedDeadLetters
from shared.services.ingestion import Ingestion
from shared.services.labelling import Labelling
from shared.services.metering_decisions import MeteredScoring
from shared.services.readiness import ChampionDependency
from shared.services.scoring import Scoring
from shared.services.timed_runs import TimedRuns
from shared.settings import IngestSettings

EVENT_HUBS = "EVENT_HUBS"


@dataclass(frozen=True, slots=True)
class IngestApp:
    """Parts of the ingest app."""

    taking: IngestParts
    labels: LabelRoutes
    leaving: OutboxParts
    maturing: MaturingParts
    runs: TimedRuns
    dependencies: tuple[Dependency, ...]


def build_ingest_app(environment: Mapping[str, str]) -> IngestApp:
    """Build the ingest app; raises as `build_score_app`."""
    settings = configured(IngestSettings, environment)
    service, where, clock = data_storage(environment), parse_postgres(DATABASE, environment), SystemClock()
    probes = service.get_container_client(settings.probes_container)
    copies = service.get_container_client(settings.dead_letters_container)
    source = champion(service, settings, where, "ingest")
    ledger, turn = ledger_of(where, "ingest", settings.state_cache_bytes), Lock()
    labelling = Labelling(ledger, settings.key_ring, clock)
    meters = meters_of("ingest", where, settings.meters_flush_s, clock)
    ingestion = Ingestion(
        MeteredScoring(ledger, source, meters, policy=settings.policy_rule, keys=settings.key_ring, clock=clock),
        labelling,
        receipts=BlobProbeReceipts(probes),
        dead_letters=CopiedDeadLetters(_dead_letters(where), BlobDeadLetters(copies)),
        clock=clock,
        currency=settings.currency,
        lateness_us=settings.lateness_us,
    )
    runs = timed_runs(where, "ingest", clock)
    source.start()
    return IngestApp(
        taking=IngestParts(ingestion, turn, meters, clock),
        labels=LabelRoutes(labelling, turn, clock),
        leaving=_leaving(where, settings, environment),
        maturing=maturing_parts(where, settings.key_ring, clock, runs, settings.state_cache_bytes),
        runs=runs,
        dependencies=(
            ChampionDependency(source),
            BlobContainerDependency(probes),
            BlobContainerDependency(copies),
            PostgresSchemaDependency(where, "ingest", clock),
        ),
    )


def ingest_app() -> IngestApp:
    """The ingest app of this process."""
    with BUILDING:
        return _ingest_app()


@cache
def _ingest_app() -> IngestApp:
    return build_ingest_app(os.environ)


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
        data_storage(environment) as service,
        closing(PipelinedLedger(where, "replay")) as ledger,
        closing(PostgresSession(where, "replay-dead-letters")) as session,
    ):
        receipts = BlobProbeReceipts(service.get_container_client(settings.probes_container))
        source = champion(service, settings, where, "replay")
        source.refresh()
        scoring = Scoring(ledger, source, policy=settings.policy_rule, keys=settings.key_ring, clock=clock)
        labelling = Labelling(ledger, settings.key_ring, clock)

        def taking(refused: DeadLetters, waited_us: int) -> Ingestion:
            return Ingestion(
                scoring,
                labelling,
                receipts=receipts,
                dead_letters=refused,
                clock=clock,
                currency=settings.currency,
                lateness_us=settings.lateness_us + waited_us,
            )

        yield DeadLetterReplay(PostgresDeadLetters(session), taking, clock)


def _dead_letters(where: PostgresConnection) -> DeadLetters:
    from shared.adapters.postgres_dead_letters import PostgresDeadLetters  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

    return PostgresDeadLetters(PostgresSession(where, "ingest-dead-letters"))


def _leaving(where: PostgresConnection, settings: IngestSettings, environment: Mapping[str, str]) -> OutboxParts:
    from shared.adapters.eventhub_publisher import EventHubPublisher  # noqa: PLC0415 - paid by those who send
    from shared.adapters.postgres_outbox import PostgresOutbox  # noqa: PLC0415
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

    outbox = PostgresOutbox(PostgresSession(where, "ingest-outbox"))
    publisher = EventHubPublisher.of_setting(EVENT_HUBS, settings.decisions_hub, environment)
    return OutboxParts(outbox, publisher, longest_s(settings.publish_schedule))
