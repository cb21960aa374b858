"""Events in, decisions out: a whole twin, driven by the unmodified SDK, as a sender and a reader would."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient, PartitionContext
from azure.storage.blob import BlobServiceClient

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.system_clock import SystemClock
from shared.domain.bundle_pointer import Role
from shared.domain.instants import US_PER_SECOND, format_instant
from shared.domain.labels import LABEL_TYPE
from shared.domain.transaction import TRANSACTION_TYPE
from shared.services.training_publication import publish
from tests.e2e.conftest import Twin
from tests.fakes.bundles import golden_files
from twin.services.settings import TwinSettings

pytestmark = pytest.mark.slow

N_TRANSACTIONS = 120
STARTED_US = time.time_ns() // 1000


def transaction(number: int, **changed: object) -> dict[str, object]:
    moment_us = time.time_ns() // 1000 - (N_TRANSACTIONS - number) * US_PER_SECOND
    body = {
        "type": TRANSACTION_TYPE,
        "transaction_id": f"e2e-{number:04}",
        "customer_id": f"card-{number % 7}",
        "terminal_id": f"shop-{number % 3}",
        "amount_minor": 1000 + number,
        "currency": "EUR",
        "event_time": format_instant(moment_us),
    }
    return body | changed


def label(number: int) -> dict[str, object]:
    moment = format_instant(STARTED_US)
    return {
        "type": LABEL_TYPE,
        "transaction_id": f"e2e-{number:04}",
        "verdict": "fraud",
        "source": "analyst",
        "event_time": moment,
        "known_at": moment,
        "confidence": 90,
        "author": "ann",
    }


def send(settings: TwinSettings, hub: str, bodies: list[bytes]) -> None:
    with EventHubProducerClient.from_connection_string(settings.hub_connection(), eventhub_name=hub) as producer:
        for start in range(0, len(bodies), 30):
            batch = producer.create_batch(partition_id=str(start // 30 % 2))
            for body in bodies[start : start + 30]:
                batch.add(EventData(body))
            producer.send_batch(batch)


def received(settings: TwinSettings, count: int) -> list[dict[str, Any]]:
    """Decisions on their hub, until there are so many or a minute is over."""
    found: list[dict[str, Any]] = []
    client = EventHubConsumerClient.from_connection_string(
        settings.hub_connection(), consumer_group="check", eventhub_name="decisions"
    )
    deadline = time.monotonic() + 60

    def take(_: PartitionContext, events: list[EventData]) -> None:
        found.extend(json.loads(event.body_as_str()) for event in events)
        if sum(item["transaction_id"].startswith("e2e-") for item in found) >= count or time.monotonic() > deadline:
            client.close()

    client.receive_batch(take, starting_position="-1", max_wait_time=0.2)
    return found


def count(settings: TwinSettings, query: str) -> int:
    with psycopg.connect(settings.database_dsn()) as connection:
        row = connection.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0


def until(condition: Callable[[], bool], what: str, twin: Twin, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} took too long\n{twin.logs()}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def deciding(make_twin: Callable[[], Twin]) -> Twin:
    """A twin with a champion."""
    twin = make_twin()
    twin.run("up")
    with BlobServiceClient.from_connection_string(twin.settings.storage_connection()) as service:
        store = BlobBundles(service.get_container_client("models"))
        publish(store, golden_files(), Role.CHAMPION, clock=SystemClock(), author="tests", reason="e2e")
    return twin


def test_events_become_decisions_once_and_survive_a_killed_database(deciding: Twin) -> None:
    settings = deciding.settings
    good = [json.dumps(transaction(number)).encode() for number in range(N_TRANSACTIONS)]
    bad = [
        b"{",
        json.dumps(transaction(0, transaction_id="e2e-bad", amount_minor=-5)).encode(),
        json.dumps(transaction(0, transaction_id="e2e-usd", currency="USD")).encode(),
    ]
    send(settings, "labels", [json.dumps(label(3)).encode()])
    send(settings, "transactions", [*good, *bad, *good[:40]])
    until(
        lambda: (
            count(settings, "SELECT count(*) FROM tollgate.predictions") == N_TRANSACTIONS
            and count(settings, "SELECT count(*) FROM tollgate.dead_letters") >= len(bad)
        ),
        "deciding",
        deciding,
    )
    send(settings, "labels", [json.dumps(label(number)).encode() for number in (4, 4, 999)])
    until(lambda: count(settings, "SELECT count(*) FROM tollgate.feedback_labels") == 3, "labelling", deciding)
    waiting = "SELECT count(*) FROM tollgate.feedback_labels WHERE customer_version IS NULL"
    assert count(settings, waiting) == 1
    decided = [item for item in received(settings, N_TRANSACTIONS) if item["transaction_id"].startswith("e2e-")]
    assert sorted(item["transaction_id"] for item in decided) == [f"e2e-{n:04}" for n in range(N_TRANSACTIONS)]
    assert {item["type"] for item in decided} == {"tollgate.decision"}
    until(lambda: count(settings, "SELECT count(*) FROM tollgate.outbox") == 0, "the outbox", deciding)
    for customer in {item["customer"] for item in decided}:
        own = [item["transaction_id"] for item in decided if item["customer"] == customer]
        assert len(own) == len(set(own))
    reasons = "SELECT count(*) FROM tollgate.dead_letters WHERE field IN ('amount_minor', 'currency', '')"
    assert count(settings, reasons) == len(bad)

    a_killed_database_delays_and_loses_nothing(deciding)


def a_killed_database_delays_and_loses_nothing(deciding: Twin) -> None:
    settings = deciding.settings
    late = "SELECT count(*) FROM tollgate.predictions WHERE transaction_id LIKE 'late-%'"
    extra = [json.dumps(transaction(number, transaction_id=f"late-{number:04}")).encode() for number in range(60)]
    os.kill(deciding.pid("postgres"), signal.SIGKILL)
    send(settings, "transactions", extra)
    time.sleep(2)
    deciding.run("up")
    until(
        lambda: count(settings, late) == 60,
        "deciding after the database came back",
        deciding,
        timeout_s=90,
    )
