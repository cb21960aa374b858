"""Builds what changes roles, for the retrain app and for commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from shared.bootstrap.retrain_registry import run_records
from shared.services.succession import Succession

if TYPE_CHECKING:
    from shared.adapters.postgres import PostgresConnection
    from shared.ports.clock import Clock
    from shared.ports.models import BundleStore


@contextmanager
def succession_of(
    where: PostgresConnection, store: BundleStore, clock: Clock, app: str, tracking_uri: str = ""
) -> Iterator[Succession]:
    """What changes roles, over connections of its own that are closed in the end.

    Args:
        where: The database.
        store: Where bundles and pointers are.
        clock: Our clock.
        app: Who asks, as the database shows it.
        tracking_uri: Of the model registry, whose aliases follow; empty if there is none.
    """
    from shared.adapters.postgres_promotions import PostgresPromotions  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415
    from shared.adapters.postgres_views import PostgresViewBook  # noqa: PLC0415

    with (
        closing(PostgresSession(where, f"{app}-succession")) as session,
        run_records(where, clock, tracking_uri, app) as records,
    ):
        yield Succession(store, PostgresPromotions(session), clock, views=PostgresViewBook(session), records=records)
