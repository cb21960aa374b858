"""The ledger for the decide path: the same statements as `PostgresLedger`, through libpq's pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Unpack

from shared.adapters.postgres import PostgresConnection
from shared.adapters.postgres_ledger import PLANS, LedgerOptions, WiredLedger
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.postgres_wire_libpq import LibpqWire


class PipelinedLedger(WiredLedger):
    """The ledger on libpq's pipeline; costs a fraction of the client's CPU (docs/ledger.md)."""

    def __init__(
        self,
        where: PostgresConnection,
        app: str,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        **options: Unpack[LedgerOptions],
    ) -> None:
        """Connect nothing yet; arguments as for `PostgresLedger`."""
        super().__init__(LibpqWire(PostgresSession(where, app, {**PLANS, **settings})), app=app, **options)
