"""The ledger for the decide path: the statements of `PostgresLedger` through libpq's pipeline, its writes as one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Unpack

from shared.adapters.postgres import PostgresConnection
from shared.adapters.postgres_ledger import PLANS, LedgerOptions, WiredLedger
from shared.adapters.postgres_ledger_statements import merged
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.postgres_wire import Step
from shared.adapters.postgres_wire_libpq import LibpqWire
from shared.adapters.waiting import BLOCKING, Waits


class PipelinedLedger(WiredLedger):
    """The ledger on libpq's pipeline; costs a fraction of the client's CPU (docs/ledger.md)."""

    def __init__(
        self,
        where: PostgresConnection,
        app: str,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        waits: Waits = BLOCKING,
        **options: Unpack[LedgerOptions],
    ) -> None:
        """Connect nothing yet; arguments as for `PostgresLedger`, and how its connection waits."""
        session = PostgresSession(where, app, {**PLANS, **settings})
        super().__init__(LibpqWire(session, waits=waits), app=app, **options)

    def commit(self, steps: list[Step], doing: str) -> None:
        """Write everything with one statement, and commit; errors as for `WiredLedger`."""
        if len(steps) > 1:
            values = [value for _, given in steps for value in given]
            steps = [(merged(tuple([statement for statement, _ in steps])), values)]
        super().commit(steps, doing)
