"""The real stores of a chaos run, by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final, NamedTuple

import psycopg

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_dead_letters import PostgresDeadLetters
from shared.adapters.postgres_ledger import PostgresLedger
from shared.adapters.postgres_ledger_pipelined import PipelinedLedger
from shared.adapters.postgres_partitions import PostgresPartitions
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.instants import US_PER_DAY
from shared.ports.ledger import Ledger
from shared.ports.letters import DeadLetters
from shared.ports.models import Scorer
from tests.chaos.server import Server
from tests.chaos.streams import BASE_US, NOW_US
from tests.fakes.bundles import trained_scorer
from twin.services.database import bring_up_to_date
from twin.services.postgres import make_member
from twin.services.settings import DATABASE_PASSWORD

LOGIN: Final = "chaos"
"""What writers log in as: they have the rights of the ingest app and no others."""

KINDS: Final = ("plain", "pipelined")


class Stores(NamedTuple):
    """What a writer writes to."""

    ledger: Ledger
    dead_letters: DeadLetters


@contextmanager
def stores_at(kind: str, dsn: str) -> Iterator[Stores]:
    """The ledger of a kind, and the dead letters, of a database."""
    where = parse_postgres("DATABASE", {"DATABASE": dsn})
    name = f"chaos-{kind}"
    ledger = PostgresLedger(where, name) if kind == KINDS[0] else PipelinedLedger(where, name)
    session = PostgresSession(where, "chaos-dead-letters")
    try:
        yield Stores(ledger, PostgresDeadLetters(session))
    finally:
        ledger.close()
        session.close()


@cache
def real_scorer() -> Scorer:
    """The scorer of all writers: a real bundle."""
    return trained_scorer()


def migrate(server: Server, database: str) -> None:
    """Bring an empty database to today's schema, rights and partitions for the streams' times."""
    dsn = server.dsn(database)
    bring_up_to_date(dsn, NOW_US)
    PostgresPartitions(parse_postgres("DATABASE", {"DATABASE": dsn}), "chaos").make(BASE_US - 10 * US_PER_DAY, NOW_US)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        make_member(connection, LOGIN, Role.INGEST, DATABASE_PASSWORD)
