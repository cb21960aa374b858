"""A retraining over a real Postgres, with a training of the test's choice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_notices import PostgresNotices
from shared.adapters.postgres_pipelines import PostgresLeases, PostgresPipelineLog, PostgresTriggers
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.postgres_training_data import SETTINGS, PostgresTrainingData
from shared.adapters.system_clock import SystemClock
from shared.services.retraining import Retraining, RetrainingRules, RetrainingStores, Work

RULES = RetrainingRules(min_new=1, lease_us=6_000_000)
"""A short lease: what dies is taken over within seconds, and who is starved of the processor for four keeps it."""


@contextmanager
def retraining(dsn: str, process: str, work: Work) -> Iterator[Retraining]:
    """Connected as the app connects; closed in the end."""
    where = parse_postgres("DATABASE", {"DATABASE": dsn})
    with (
        closing(PostgresSession(where, process)) as session,
        closing(PostgresSession(where, f"{process}-lease")) as leases,
        closing(PostgresSession(where, f"{process}-reading", SETTINGS)) as reading,
    ):
        stores = RetrainingStores(
            PostgresPipelineLog(session),
            PostgresTriggers(session),
            PostgresLeases(leases),
            PostgresNotices(session),
            PostgresTrainingData(reading),
        )
        yield Retraining(stores, SystemClock(), RULES, process, work)
