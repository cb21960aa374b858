"""Stores of counts: the fake and Postgres, with the rights of the apps that write and of the app that reads."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from shared.adapters.postgres_meters import PostgresMeters
from shared.adapters.schema.grants import Role
from shared.ports.metering import CountsRow, CountsStore
from tests.conftest import MigratedDatabase
from tests.fakes.counts import FakeCounts

type Stores = Callable[[Role], CountsStore]

A_DAY = 86_400_000_000


@pytest.fixture(params=["fake", "postgres"])
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "fake":
        fake = FakeCounts()
        return lambda _: fake
    database: MigratedDatabase = request.getfixturevalue("migrated_database")
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE tollgate.app_meters")
    return lambda role: PostgresMeters(database.role_connection(role), "tests")


def row(app: str, writer: str, *cells: float, layout: str = "a", at: int = 1) -> CountsRow:
    return CountsRow(app, writer, layout, cells, 1, at)


def sums(store: CountsStore, layout: str = "a") -> dict[str, tuple[float, ...]]:
    return {app: tuple(cells) for app, cells in store.sums(layout)}


def test_counts_of_writers_add_up(stores: Stores) -> None:
    score, ingest, drift = stores(Role.SCORE), stores(Role.INGEST), stores(Role.DRIFT)
    assert list(drift.sums("a")) == []
    assert score.put(row("score", "one", 1.0, 0.5), known=False)
    assert score.put(row("score", "two", 2.0, 0.0), known=False)
    assert ingest.put(row("ingest", "one", 7.0, 0.0), known=False)
    assert score.put(row("score", "new", 9.0, layout="b"), known=False)
    assert sums(drift) == {"ingest": (7.0, 0.0), "score": (3.0, 0.5)}
    assert score.put(row("score", "one", 4.0, 0.5), known=True)
    assert sums(drift) == {"ingest": (7.0, 0.0), "score": (6.0, 0.5)}
    assert sums(drift, "b") == {"score": (9.0,)}


def test_folding_changes_no_sum_and_is_told_to_who_comes_back(stores: Stores) -> None:
    score, drift = stores(Role.SCORE), stores(Role.DRIFT)
    for number in range(4):
        assert score.put(row("score", str(number), 1.0, 0.25, at=number * A_DAY), known=False)
    assert score.put(row("score", "0", 3.0, layout="b", at=0), known=False)
    before = sums(drift)
    assert drift.fold(2 * A_DAY, 5 * A_DAY) == 3
    assert sums(drift) == before == {"score": (4.0, 1.0)}
    assert sums(drift, "b") == {"score": (3.0,)}
    assert drift.fold(3 * A_DAY, 5 * A_DAY) == 1
    assert drift.fold(3 * A_DAY, 5 * A_DAY) == 0
    assert drift.fold(9 * A_DAY, 10 * A_DAY) == 1
    assert sums(drift) == before
    assert not score.put(row("score", "0", 5.0, 0.25), known=True)
    assert sums(drift) == before
