"""What the apps are built from alike: settings, storage, the champion, a ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from threading import Lock
from typing import TYPE_CHECKING

from shared import telemetry
from shared.adapters.connections import blob_service, parse_storage
from shared.adapters.postgres import PostgresConnection
from shared.adapters.waiting import BLOCKING, Waits
from shared.domain.errors import BrokenInvariant, Transient
from shared.ports.ledger import Ledger
from shared.settings import AppSettings, DecidingSettings

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from shared.adapters.bundle_scorers import BundleScorers
    from shared.domain.bundle import Bundle
    from shared.domain.feature_view import FeatureView
    from shared.domain.policy_choice import Choice
    from shared.ports.models import Scorer


_log = logging.getLogger(__name__)

DATA_STORAGE = "DATA_STORAGE"
DATABASE = "DATABASE"


BUILDING = Lock()
"""First calls of several threads at once build one app, not one each."""


def configured[Settings: AppSettings](kind: type[Settings], environment: Mapping[str, str]) -> Settings:
    """An app's settings; logging is set up as they say.

    Raises:
        SettingsError: A setting is missing, malformed or unknown.
    """
    settings = kind.read(environment)
    telemetry.configure(settings.log_level)
    return settings


def champion(
    service: BlobServiceClient, settings: DecidingSettings, where: PostgresConnection, app: str
) -> BundleScorers:
    """The source of the deciding model; nothing is fetched yet."""
    from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - at the first use, like all of the SDK
    from shared.adapters.bundle_scorers import BundleScorers  # noqa: PLC0415

    def load(bundle: Bundle) -> Scorer:
        scorer = load_scorer(bundle)
        _tell_policy(settings.policy_rule.choice(scorer.advice), scorer)
        return scorer

    store = BlobBundles(service.get_container_client(settings.models_container))
    return BundleScorers(store, load, views=views_of(where, app), poll_s=settings.champion_poll_s)


def _tell_policy(choice: Choice, scorer: Scorer) -> None:
    """Log what decides with a model; a price that was asked of it and is another's is worth a look."""
    said = {"policy": choice.policy.name, **choice.policy.parameters, "numbers_from": choice.origin, "why": choice.why}
    text = telemetry.with_fields("a model brings its policy", bundle_digest=scorer.bundle_digest, **said)
    _log.log(logging.WARNING if choice.why else logging.INFO, text)


def views_of(where: PostgresConnection, app: str) -> Callable[[FeatureView], str]:
    """Says why a feature view may not decide; connects each time, because a champion changes seldom."""

    def why_refused(view: FeatureView) -> str:
        from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415 - paid by those who connect
        from shared.adapters.postgres_views import PostgresViewBook  # noqa: PLC0415
        from shared.domain import kept_view  # noqa: PLC0415

        with closing(PostgresSession(where, f"{app}-views")) as session:
            try:
                kept = PostgresViewBook(session).kept()
            except BrokenInvariant as error:
                # A schema that is not there yet is no fault of the bundle: it is asked again at the next look.
                raise Transient(f"feature views cannot be read: {error}") from error
        return kept_view.why_refused(view, kept)

    return why_refused


def load_scorer(bundle: Bundle) -> Scorer:
    """A checked bundle, ready to score."""
    from shared.adapters.onnx_scorer import OnnxScorer  # noqa: PLC0415 - the runtime is paid by those who decide

    return OnnxScorer(bundle)


def ledger_of(where: PostgresConnection, app: str, cache_bytes: int, waits: Waits = BLOCKING) -> Ledger:
    """The ledger of one thread or fibre of an app, with so much memory for states."""
    from shared.adapters.postgres_ledger_pipelined import PipelinedLedger  # noqa: PLC0415 - paid by those who connect

    return PipelinedLedger(where, app, cache_bytes=cache_bytes, waits=waits)


def data_storage(environment: Mapping[str, str]) -> BlobServiceClient:
    """The client of the app's own storage.

    It gives up after two retries about a second apart: an HTTP client is waiting, and a batch comes again anyway. The
    SDK's default would keep both for a minute and a half.
    """
    from azure.storage.blob import LinearRetry  # noqa: PLC0415 - at the first use, like all of the SDK

    retries = LinearRetry(backoff=1, retry_total=2, random_jitter_range=1)
    return blob_service(
        parse_storage(DATA_STORAGE, environment), retry_policy=retries, connection_timeout=5, read_timeout=15
    )
