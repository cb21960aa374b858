"""The ledger for the decide path: the same statements as `PostgresLedger`, through libpq's pipeline."""

from __future__ import annotations

from shared.adapters.postgres import PostgresConnection
from shared.adapters.postgres_ledger import CACHE_BYTES, PLANS, NewSalts, Observe, WiredLedger, random_salts
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.postgres_wire_libpq import LibpqWire


class PipelinedLedger(WiredLedger):
    """The ledger on libpq's pipeline; costs a fraction of the client's CPU (docs/ledger.md)."""

    def __init__(
        self,
        where: PostgresConnection,
        app: str,
        *,
        new_salts: NewSalts = random_salts,
        cache_bytes: int = CACHE_BYTES,
        observe: Observe | None = None,
    ) -> None:
        """Connect nothing yet; arguments as for `WiredLedger`, and where the database is."""
        wire = LibpqWire(PostgresSession(where, app, PLANS))
        super().__init__(wire, app=app, new_salts=new_salts, cache_bytes=cache_bytes, observe=observe)
