"""`tollgate policy fit` on a real database and storage: a model that decided, and one that scored in shadow."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import psycopg
import pytest
from azure.storage.blob import BlobServiceClient
from typer.testing import CliRunner

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.postgres_ledger_pipelined import PipelinedLedger
from shared.adapters.postgres_scores import PostgresModelScores
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role as Group
from shared.adapters.system_clock import SystemClock
from shared.domain.bundle import bundle_digest
from shared.domain.bundle_manifest import MANIFEST
from shared.domain.bundle_pointer import Role
from shared.domain.cost_policy import CostPolicy, Costs
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.score import CalibrationTable
from shared.services.scoring import Scoring
from shared.services.training_publication import publish
from tests.conftest import MigratedDatabase
from tests.fakes.bundles import golden_files
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.unit.domain.worlds import BASE_US, transaction
from tests.unit.shared.test_scoring import KEYS
from twin.cli import app

OLD, CHAMPION = (golden_files(f"format-{version}") for version in (1, 2))
CHAMPIONS = bundle_digest(CHAMPION[MANIFEST])
SHADOW = bundle_digest(OLD[MANIFEST])
PER_DAY = 6
POLICY = CostPolicy(Costs(declines=False))


class BundleScorer(LinearScorer):
    """Gives everything the score .4, in the name of a recorded bundle."""

    @property
    def bundle_digest(self) -> str:
        return CHAMPIONS


@dataclass
class Gate:
    """A deployment at which transactions were decided."""

    environment: dict[str, str]

    def run(self, *arguments: str, code: int = 0) -> str:
        whole = {name: None for name in os.environ if name.startswith("DATABASE")}
        done = CliRunner().invoke(
            app, ["policy", "fit", *arguments], env={**whole, **self.environment, "COLUMNS": "200"}
        )
        assert done.exit_code == code, done.output
        return done.output

    def fit(self, *arguments: str) -> dict[str, tuple[int, list[int]]]:
        """Price and reviews by day, by the price's name."""
        found = json.loads(self.run("--until", "2018-04-04", "--days", "3", "--json", *arguments))
        return {one["of"]: (one["price"], one["reviews"]) for one in found["prices"]}


@pytest.fixture(scope="module")
def gate(migrated_database: MigratedDatabase, storage: str) -> Iterator[Gate]:
    """Three days that the champion decided; the second of them another model scored in shadow."""
    migrated_database.make_partitions(BASE_US - US_PER_DAY, BASE_US + 4 * US_PER_DAY)
    level = CalibrationTable((0.5,), (0.4, 0.4))
    scorers = FixedScorers(BundleScorer(calibration=level))
    items = [
        transaction(number, day * US_PER_DAY + place * US_PER_HOUR, amount=1_000 * (place + 1) + 100 * day)
        for number, (day, place) in enumerate((day, place) for day in range(3) for place in range(PER_DAY))
    ]
    with closing(PipelinedLedger(migrated_database.role_connection(Group.INGEST), "test")) as ledger:
        clock = FakeClock(BASE_US + 3 * US_PER_DAY)
        Scoring(ledger, scorers, policy=POLICY, keys=KEYS, clock=clock).decide(items)
    with psycopg.connect(migrated_database.role_dsn(Group.RETRAIN)) as connection:
        for item in items[PER_DAY : 2 * PER_DAY]:
            connection.execute(
                "INSERT INTO tollgate.shadow_scores VALUES (%s, %s, %s, .5, .8, 0)",
                [SHADOW, item.event_time_us, item.transaction_id],
            )
    name = f"models-{uuid.uuid4().hex[:12]}"
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        store = BlobBundles(service.create_container(name))
        store.put(OLD)
        publish(store, CHAMPION, Role.CHAMPION, clock=SystemClock(), author="test", reason="test")
        yield Gate(
            {
                "DATABASE": migrated_database.role_dsn(Group.RETRAIN),
                "DATA_STORAGE": storage,
                "MODELS_CONTAINER": name,
                "POLICY_DECLINES": "false",
            }
        )
        service.delete_container(name)


def test_scores_come_with_amounts_whoever_decided(gate: Gate, migrated_database: MigratedDatabase) -> None:
    with closing(PostgresSession(migrated_database.role_connection(Group.RETRAIN), "test")) as session:
        scores = PostgresModelScores(session)
        found = scores.scored(SHADOW, BASE_US, BASE_US + 2 * US_PER_DAY)
        assert (found.probability[found.event_time_us >= BASE_US + US_PER_DAY] == 0.8).all()
        assert sorted(found.amount_minor.tolist()) == sorted(
            [1_000 * n + 100 * day for n in range(1, 7) for day in (0, 1)]
        )
        by_champion = scores.scored(CHAMPIONS, BASE_US, BASE_US + 2 * US_PER_DAY)
        assert by_champion.probability.tolist() == [0.4] * 2 * PER_DAY
        assert [len(column) for column in scores.scored(CHAMPIONS, 0, BASE_US)] == [0, 0, 0]


def test_a_price_is_fitted_to_what_the_champion_said(gate: Gate) -> None:
    """An approval is expected to cost .4 of 1,000 to 6,200 minor units, a review 500."""
    found = gate.fit("--reviews-per-day", "2", "--price", "1900")
    assert found["no limit"] == (0, [5, 5, 5])
    assert found["REVIEW_SHADOW_PRICE_MINOR"] == (0, [5, 5, 5])
    price, reviews = found["fitted, for 2 a day"]
    assert reviews == [2, 2, 2]
    # The dearest that is not reviewed any more is the fourth of the third day: .4 * 4,200, of which the review is 500.
    assert price == 1_680 - 500
    assert found["--price 1900"] == (1_900, [0, 1, 1])
    assert found["the bundle's, for 1 a day"][0] == 403


def test_what_is_in_force_is_told(gate: Gate) -> None:
    told = gate.run("--until", "2018-04-04", "--days", "3")
    assert f"{CHAMPIONS[:12]}: 3 whole days from 2018-04-01 to 2018-04-03, 18 decisions" in told
    assert "expected-loss-v1 takes REVIEW_SHADOW_PRICE_MINOR" in told
    other = gate.run("--until", "2018-04-04", "--days", "3", "--reviews-per-day", "1")
    assert "takes REVIEW_SHADOW_PRICE_MINOR: the bundle's shadow price is for other costs" in other
    as_trained = replace(gate, environment={**gate.environment, "POLICY_DECLINES": "true"})
    same = as_trained.run("--until", "2018-04-04", "--days", "3", "--reviews-per-day", "1")
    assert "takes the bundle's" in same


def test_a_model_that_scored_in_shadow_is_fitted_by_the_days_it_scored(gate: Gate) -> None:
    found = gate.fit("--bundle", SHADOW, "--reviews-per-day", "2")
    assert found["no limit"] == (0, [6])
    assert found["fitted, for 2 a day"] == (round(0.8 * 4_100) - 500, [2])
    assert "the bundle's" not in " ".join(found)


def test_what_cannot_be_fitted_is_said(gate: Gate) -> None:
    assert "none does" in gate.run("--until", "2018-04-01", "--days", "1", code=2)
    assert "--until must be a day" in gate.run("--until", "yesterday", code=2)
    assert "names no bundle" in gate.run("--bundle", "abcdef", code=2)
