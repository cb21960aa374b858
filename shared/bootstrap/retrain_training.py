"""Builds what trains, in the retrain app: for each firing anew, and its connections are closed in the end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from shared.bootstrap.retrain_registry import measured_row_store, run_records
from shared.bootstrap.succession import succession_of
from shared.domain.feature_view import VIEWS
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.promotion import GateRules
from shared.domain.training_split import TrainingPlan
from shared.entrypoints.retrain_timers import RetrainParts
from shared.services.retraining import Retraining, RetrainingRules, RetrainingStores
from shared.services.retraining_run import ModelRules, ModelStores, TrainingRun
from shared.services.retraining_trial import Trial, TrialRules
from shared.services.shadowing_evidence import ShadowEvidence, shadow_evidence

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from shared.adapters.postgres import PostgresConnection
    from shared.ports.clock import Clock
    from shared.ports.models import Trainer
    from shared.settings import RetrainSettings


def retrain_parts(
    service: BlobServiceClient, where: PostgresConnection, clock: Clock, settings: RetrainSettings
) -> RetrainParts:
    """What the timers need; nothing is connected or loaded yet."""

    def retraining() -> AbstractContextManager[Retraining]:
        return _retraining(service, where, clock, settings)

    def trial() -> AbstractContextManager[Trial]:
        return _trial(service, where, clock, settings)

    return RetrainParts(retraining, trial if settings.trial_h else None)


def training_rules(settings: RetrainSettings) -> RetrainingRules:
    """When a training may begin."""
    return RetrainingRules(
        cooldown_us=round(settings.cooldown_h * US_PER_HOUR),
        min_new=settings.min_new_transactions,
        maturity_us=settings.maturity_days * US_PER_DAY,
    )


def model_rules(settings: RetrainSettings) -> ModelRules:
    """What is trained, and what becomes of it."""
    maturity_us = settings.maturity_days * US_PER_DAY
    return ModelRules(
        name=settings.model_name,
        view=VIEWS.get(settings.feature_view),
        plan=TrainingPlan(
            as_of_us=0,
            train_days=settings.train_days,
            validation_days=settings.validation_days,
            calibration_days=settings.calibration_days,
            test_days=settings.test_days,
            maturity_us=maturity_us,
        ),
        trials=settings.search_trials,
        search_s=settings.search_s,
        limit_s=settings.training_limit_s,
        capacity=settings.capacity,
        gate=GateRules(
            min_recall=settings.min_recall,
            min_precision=settings.min_precision,
            maturity_us=maturity_us,
            review_cost_minor=settings.review_cost_minor,
        ),
        trial_us=round(settings.trial_h * US_PER_HOUR),
    )


@contextmanager
def _retraining(
    service: BlobServiceClient, where: PostgresConnection, clock: Clock, settings: RetrainSettings
) -> Iterator[Retraining]:
    from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - at the first use, like all of the SDK
    from shared.adapters.blob_verdict_pages import BlobVerdictPages  # noqa: PLC0415
    from shared.adapters.onnx_scorer import OnnxGraph  # noqa: PLC0415 - the runtime is paid by those who train
    from shared.adapters.postgres_notices import PostgresNotices  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_pipelines import (  # noqa: PLC0415
        PostgresLeases,
        PostgresPipelineLog,
        PostgresTriggers,
    )
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415
    from shared.adapters.postgres_training_data import SETTINGS, PostgresTrainingData  # noqa: PLC0415

    bundles = BlobBundles(service.get_container_client(settings.models_container))
    with ExitStack() as opened:
        session = opened.enter_context(closing(PostgresSession(where, "retrain")))
        leases = opened.enter_context(closing(PostgresSession(where, "retrain-lease")))
        reading = opened.enter_context(closing(PostgresSession(where, "retrain-reading", SETTINGS)))
        data, log, notices = PostgresTrainingData(reading), PostgresPipelineLog(session), PostgresNotices(session)
        stores = ModelStores(
            data,
            bundles,
            opened.enter_context(succession_of(where, bundles, clock, "retrain", settings.mlflow_tracking_uri)),
            log,
            notices,
            BlobVerdictPages(service.get_container_client(settings.reports_container)),
            opened.enter_context(run_records(where, clock, settings.mlflow_tracking_uri, "retrain")),
            measured_row_store(service, settings.models_container),
        )
        yield Retraining(
            RetrainingStores(log, PostgresTriggers(session), PostgresLeases(leases), notices, data),
            clock,
            training_rules(settings),
            uuid.uuid4().hex[:12],
            TrainingRun(stores, model_rules(settings), clock, load_trainer=_trainer, load_graph=OnnxGraph),
        )


@contextmanager
def _trial(
    service: BlobServiceClient, where: PostgresConnection, clock: Clock, settings: RetrainSettings
) -> Iterator[Trial]:
    from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - at the first use, like all of the SDK
    from shared.adapters.postgres_notices import PostgresNotices  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415
    from shared.adapters.postgres_shadow import PostgresShadowScores  # noqa: PLC0415

    bundles = BlobBundles(service.get_container_client(settings.models_container))
    rules = TrialRules(round(settings.trial_h * US_PER_HOUR), settings.trial_rows)
    with (
        closing(PostgresSession(where, "retrain-trial", {"statement_timeout": "60s"})) as session,
        succession_of(where, bundles, clock, "retrain-trial", settings.mlflow_tracking_uri) as succession,
    ):
        scores, maturity_us = PostgresShadowScores(session), settings.maturity_days * US_PER_DAY

        def compare(digest: str, champion: str, start_us: int, end_us: int) -> ShadowEvidence:
            return shadow_evidence(
                scores,
                digest,
                champion,
                start_us=start_us,
                end_us=end_us,
                as_of_us=end_us,
                maturity_us=maturity_us,
            )

        yield Trial(succession, compare, PostgresNotices(session), clock, rules)


def _trainer() -> Trainer:
    from shared.adapters.xgboost_trainer import XgboostTrainer  # noqa: PLC0415 - loaded when there is something to do

    return XgboostTrainer()
