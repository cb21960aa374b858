"""Builds what replays a sample of what was decided, in the retrain app: for each firing anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from shared.bootstrap.noting import timed_runs
from shared.bootstrap.parts import load_scorer
from shared.entrypoints.replay_timers import ReplayParts
from shared.services.replay_sampling import ReplaySampling
from shared.services.replaying import Replaying

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from shared.adapters.postgres import PostgresConnection
    from shared.ports.clock import Clock


def replay_parts(service: BlobServiceClient, container: str, where: PostgresConnection, clock: Clock) -> ReplayParts:
    """What the timer needs. No bundle is held between firings, so each one shows that they are still kept.

    Args:
        service: The app's storage.
        container: Of bundles.
        where: The database.
        clock: Our clock.
    """

    @contextmanager
    def sampling() -> Iterator[ReplaySampling]:
        from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - at the first use, like all of the SDK
        from shared.adapters.bundle_archive import BundleArchive  # noqa: PLC0415
        from shared.adapters.postgres_notices import PostgresNotices  # noqa: PLC0415
        from shared.adapters.postgres_replay_sample import PostgresReplaySample  # noqa: PLC0415
        from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

        bundles = BundleArchive(BlobBundles(service.get_container_client(container)), load_scorer)
        # An hour of decisions is read; the same bound as for the looks of `retrain_shadow`.
        with closing(PostgresSession(where, "retrain-replaying", {"statement_timeout": "45s"})) as session:
            yield ReplaySampling(PostgresReplaySample(session), Replaying(bundles), PostgresNotices(session), clock)

    return ReplayParts(sampling, timed_runs(where, "retrain", clock))
