"""What a process counted is in the database when it has ended, on the real host."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shared.services.metering import LAYOUT, PREDICTIONS, place_of
from tests.conftest import MigratedDatabase
from tests.host.hosting import until
from tests.integration.score_app import PATIENT, Models, ScoreApp, fields, login, running, settings

SCORED = 7


def counted(database: MigratedDatabase) -> float:
    """Decisions of all processes, as the database knows them."""
    places = [place_of(PREDICTIONS, outcome) + 1 for outcome in PREDICTIONS.labels["decision"]]
    with psycopg.connect(database.dsn) as connection:
        query = (
            "SELECT coalesce(sum(cells[place]), 0) FROM tollgate.app_meters, unnest(%s::int[]) AS place"
            " WHERE layout = %s"
        )
        row = connection.execute(query, [places, LAYOUT]).fetchone()
    return float(row[0]) if row else 0.0


def score(app: ScoreApp) -> None:
    for _ in range(SCORED):
        assert app.score(fields()).status == 200


@pytest.fixture
def models(storage: str) -> Iterator[Models]:
    found = Models(storage)
    found.promote()
    yield found
    found.close()


def test_a_worker_that_is_killed_loses_no_count(
    storage: str, migrated_database: MigratedDatabase, models: Models, tmp_path: Path
) -> None:
    before = counted(migrated_database)
    app_settings = settings(storage, login(migrated_database), models.name, METERS_FLUSH_S="600", **PATIENT)
    with running(tmp_path / "app", app_settings) as app:
        score(app)
        last, killed = fields(), set(app.host.workers())
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        until(lambda: not killed & set(app.host.status().get("workers", killed)), "other workers")
        until(lambda: app.score(last).status == 200, "one of them decides")
        assert app.host.stop() == 0
        # If its answer was lost the first time it was a repeat the second time, and is counted once.
        assert counted(migrated_database) == before + SCORED + 1


def test_an_orderly_end_loses_no_count(
    storage: str, migrated_database: MigratedDatabase, models: Models, tmp_path: Path
) -> None:
    before = counted(migrated_database)
    app_settings = settings(storage, login(migrated_database), models.name, METERS_FLUSH_S="600", **PATIENT)
    with running(tmp_path / "app", app_settings) as app:
        score(app)
        assert counted(migrated_database) == before, "nothing was due to be written"
        assert app.host.stop() == 0
        assert counted(migrated_database) == before + SCORED
