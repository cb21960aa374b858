"""A firing of the publishing timer on Postgres: all that waits leaves, in order, whoever else decides or drains."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import batched
from threading import Thread

import pytest

from shared.adapters.postgres import PostgresConnection
from shared.adapters.postgres_ledger_pipelined import PipelinedLedger
from shared.adapters.postgres_outbox import PostgresOutbox
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.decision_record import DecisionRecord
from shared.domain.event import OutgoingEvent
from shared.domain.instants import US_PER_DAY, US_PER_MINUTE
from shared.services.publishing import publish_decisions
from shared.services.scoring import Scoring
from tests.conftest import MigratedDatabase
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers
from tests.unit.domain.worlds import BASE_US, transaction
from tests.unit.shared.test_scoring import KEYS, POLICY


class Stream:
    """What was sent, in order."""

    def __init__(self) -> None:
        self.sent: list[OutgoingEvent] = []

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        self.sent += events


def render(record: DecisionRecord) -> bytes:
    return record.transaction_id.encode()


@pytest.fixture(scope="module")
def where(migrated_database: MigratedDatabase) -> PostgresConnection:
    """The ingest app's connection to a database with partitions for the events of these tests."""
    migrated_database.make_partitions(BASE_US - US_PER_DAY, BASE_US + US_PER_DAY)
    return migrated_database.role_connection(Role.INGEST)


def test_two_that_publish_while_decisions_are_made_send_each_once_and_in_order(where: PostgresConnection) -> None:
    items = [transaction(number, number * US_PER_MINUTE, customer=f"c{number % 3}") for number in range(600)]
    stream, decided = Stream(), []

    def decide() -> None:
        with closing(PipelinedLedger(where, "test")) as ledger:
            scoring = Scoring(ledger, FixedScorers(), policy=POLICY, keys=KEYS, clock=FakeClock())
            for part in batched(items, 20, strict=True):
                scoring.decide(part)
        decided.append(True)

    def publish() -> None:
        with closing(PostgresSession(where, "test")) as session:
            outbox = PostgresOutbox(session)
            while not decided:
                publish_decisions(outbox, stream, render, batch=50)

    threads = [Thread(target=work) for work in (decide, publish, publish)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(PostgresSession(where, "test")) as session:
        publish_decisions(PostgresOutbox(session), stream, render, batch=50)
        assert publish_decisions(PostgresOutbox(session), stream, render) == 0
    assert sorted(event.body for event in stream.sent) == [item.transaction_id.encode() for item in items]
    for key in {event.key for event in stream.sent}:
        bodies = [event.body for event in stream.sent if event.key == key]
        assert bodies == sorted(bodies)


def test_one_firing_empties_what_waits(where: PostgresConnection) -> None:
    stream = Stream()
    with closing(PipelinedLedger(where, "test")) as ledger, closing(PostgresSession(where, "test")) as session:
        scoring = Scoring(ledger, FixedScorers(), policy=POLICY, keys=KEYS, clock=FakeClock())
        scoring.decide([transaction(1_000 + number, number, customer=f"d{number}") for number in range(500)])
        outbox = PostgresOutbox(session)
        assert publish_decisions(outbox, stream, render, batch=20) == 500
        scoring.decide([transaction(2_000 + number, number, customer=f"d{number}") for number in range(60)])
        assert publish_decisions(outbox, stream, render, batch=20, is_over=lambda: True) == 20
        assert publish_decisions(outbox, stream, render, batch=20) == 40
