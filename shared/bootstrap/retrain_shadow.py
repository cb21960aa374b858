"""Builds what tries models in shadow, in the retrain app."""

from __future__ import annotations

from contextlib import closing
from threading import Lock
from typing import TYPE_CHECKING

from shared.bootstrap.noting import timed_runs
from shared.bootstrap.parts import load_scorer
from shared.bootstrap.succession import succession_of
from shared.entrypoints.shadow_timers import ShadowParts
from shared.services.shadowing import Shadowing

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from shared.adapters.postgres import PostgresConnection
    from shared.domain.pipeline import Evidence
    from shared.ports.clock import Clock


def shadow_parts(
    service: BlobServiceClient, container: str, where: PostgresConnection, clock: Clock, tracking_uri: str
) -> ShadowParts:
    """What the timer needs; it connects at each firing, and keeps the models that are tried.

    Args:
        service: The app's storage.
        container: Of bundles and pointers.
        where: The database.
        clock: Our clock.
        tracking_uri: Of the model registry; empty if there is none.
    """
    from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - at the first use, like all of the SDK
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415
    from shared.adapters.postgres_shadow import PostgresShadowScores  # noqa: PLC0415

    store = BlobBundles(service.get_container_client(container))
    # A look at everything reads whole partitions.
    session = PostgresSession(where, "retrain-shadow", {"statement_timeout": "45s"})
    shadowing, turn = Shadowing(store, load_scorer, PostgresShadowScores(session), clock), Lock()

    def reconcile() -> int:
        with succession_of(where, store, clock, "retrain", tracking_uri) as succession:
            return succession.reconcile()

    def score() -> Evidence:
        with turn, closing(session):
            return shadowing.score()

    return ShadowParts(reconcile, score, timed_runs(where, "retrain", clock))
