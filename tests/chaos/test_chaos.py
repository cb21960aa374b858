"""Three seeds of chaos; `make chaos` runs twenty, and larger ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.chaos.comparing import verified
from tests.chaos.run import TEMPLATE, prepared, run
from tests.chaos.server import Server
from tests.chaos.stores import KINDS, LOGIN, real_scorer, stores_at
from tests.chaos.streams import streams
from tests.chaos.writer import ingestion, take_all


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with prepared(tmp_path_factory.mktemp("chaos")) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("seed", [101, 102, 103])
def test_every_promise_holds_whatever_is_killed(server: Server, seed: int, tmp_path: Path) -> None:
    outcome = run(server, seed, tmp_path, n_transactions=900)
    print(outcome)
    assert not outcome.problems, str(outcome)
    assert outcome.faults.total() >= 3, "the writers were done before much could go wrong"


TAMPERING = {
    "a bit of a decision": "UPDATE predictions SET record = set_byte(record, length(record) - 3, 7) WHERE {one}",
    "an amount": "UPDATE transactions SET amount_minor = amount_minor + 1 WHERE {one}",
    "a decision less": "DELETE FROM predictions WHERE {one}",
    "a version": "UPDATE transactions SET terminal_version = terminal_version + 1 WHERE {one}",
    "a block less": "DELETE FROM log_blocks WHERE sequence = 0",
    "a label turned round": "UPDATE feedback_labels SET verdict = 1 - verdict",
    "labels forgotten": "UPDATE feedback_labels SET customer_version = NULL, terminal_version = NULL",
}


@pytest.fixture(scope="module")
def taken(server: Server) -> Server:
    """A database that a small stream was taken into."""
    server.copy(TEMPLATE, "control")
    dsn = server.login_dsn(LOGIN, "control")
    world = streams(7, 250, 1)
    with stores_at(KINDS[1], dsn) as stores:
        take_all(world.clean, ingestion(*stores, real_scorer()))
    assert verified(server.dsn("control"), 250) == []
    return server


@pytest.mark.parametrize("what", TAMPERING)
def test_the_comparison_notices(taken: Server, what: str) -> None:
    name = f"tampered_{list(TAMPERING).index(what)}"
    taken.copy("control", name)
    one = "transaction_id = (SELECT max(transaction_id) FROM predictions)"
    with psycopg.connect(taken.dsn(name)) as connection:
        connection.execute("SET search_path = tollgate")
        connection.execute(TAMPERING[what].format(one=one).encode())
    problems = verified(taken.dsn(name), 250)
    taken.drop(name)
    assert problems
