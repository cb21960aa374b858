"""Builds what turns silence into labels."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from shared.entrypoints.maturing_timers import MaturingParts
from shared.services.labelling import Labelling
from shared.services.maturing import Maturing

if TYPE_CHECKING:
    from shared.adapters.postgres import PostgresConnection
    from shared.domain.pipeline import Evidence
    from shared.domain.surrogates import KeyRing
    from shared.ports.clock import Clock
    from shared.services.timed_runs import TimedRuns


CACHE_SHARE: Final = 4
"""While the timer runs, such a part of the deciding ledger's memory for states comes on top: it meets most entities
only once."""


def maturing_parts(
    where: PostgresConnection, keys: KeyRing, clock: Clock, runs: TimedRuns, cache_bytes: int
) -> MaturingParts:
    """What the timer needs; it connects for each firing, because once an hour is not worth two connections.

    Args:
        where: The database.
        keys: Keys of surrogates.
        clock: Our clock.
        runs: Notes each firing.
        cache_bytes: Memory for the states of the deciding ledger.
    """

    def mature() -> Evidence:
        from shared.adapters.postgres_ledger_pipelined import PipelinedLedger  # noqa: PLC0415 - paid by who connects
        from shared.adapters.postgres_maturing import SESSION, PostgresSilentTransactions  # noqa: PLC0415
        from shared.adapters.postgres_pipelines import PostgresPipelineLog  # noqa: PLC0415
        from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

        with (
            closing(PostgresSession(where, "ingest-maturing", SESSION)) as session,
            closing(PipelinedLedger(where, "ingest-maturing", cache_bytes=cache_bytes // CACHE_SHARE)) as ledger,
        ):
            labelling = Labelling(ledger, keys, clock)
            return Maturing(
                PostgresSilentTransactions(session), labelling, PostgresPipelineLog(session), clock
            ).mature()

    return MaturingParts(mature, runs)
