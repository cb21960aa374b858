"""The timer that replays a sample, with the rights of its app, on a real database and storage."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import azure.functions as func
import psycopg
import pytest
from azure.storage.blob import BlobServiceClient

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_readings import PostgresReadings
from shared.adapters.postgres_replay_sample import PostgresReplaySample
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.bootstrap.retrain_replaying import replay_parts
from shared.domain.decision import STRICTNESS
from shared.domain.decision_record import decision_bytes
from shared.domain.errors import Transient
from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE
from shared.entrypoints.replay_timers import ReplayParts, replay
from shared.ports.models import Scorer
from shared.services.metering import REPLAYS
from shared.services.scoring import Decided
from tests.conftest import MigratedDatabase, free_ports
from tests.contract.ledger_stores import scoring
from tests.fakes.bundles import golden_files, trained_scorer
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.host.hosting import ROOT, HostProcess, until
from tests.unit.domain.worlds import BASE_US, transaction

HOUR_US: Final = BASE_US // US_PER_HOUR * US_PER_HOUR + 30 * US_PER_DAY
"""The hour that is sampled."""


class Timer(func.TimerRequest):
    """A firing on time."""

    past_due = False


@dataclass
class Desk:
    """A deployment that decided something, its retrain app, and who looks at its database."""

    database: MigratedDatabase
    owner: psycopg.Connection[Any]
    parts: ReplayParts
    clock: FakeClock
    models: str
    decided: int = 0

    def decide(
        self,
        count: int = 1,
        *,
        scorer: Scorer | None = None,
        recorded_at_us: int = HOUR_US,
        event_time_us: int = HOUR_US,
        raw_score: float | None = None,
    ) -> list[str]:
        """Keep decisions, made by the deciding use case; with another raw score than the model's if it is given."""
        names: list[str] = []
        for _ in range(count):
            self.decided += 1
            item = replace(transaction(self.decided, 0), event_time_us=event_time_us)
            scorers: Any = FixedScorers()
            scorers.scorer = scorer or trained_scorer()
            (verdict,) = scoring(FakeLedger(), scorers).decide([item])
            assert isinstance(verdict, Decided)
            record = verdict.record if raw_score is None else replace(verdict.record, raw_score=raw_score)
            self.owner.execute(
                "INSERT INTO tollgate.predictions VALUES (%s, %s, %s, %s, %s, %s, 'w', 0, 0, %s)",
                [
                    item.transaction_id,
                    item.event_time_us,
                    decision_bytes(record),
                    STRICTNESS.index(record.decision.outcome),
                    record.decision.score.probability,
                    record.decision.score.bundle_digest,
                    recorded_at_us,
                ],
            )
            names.append(item.transaction_id)
        return names

    def fire(self, hour_us: int = HOUR_US) -> None:
        """Fire the timer for an hour."""
        self.clock.time_us = hour_us + US_PER_HOUR + 12 * US_PER_MINUTE
        replay(Timer(), self.parts)

    def noted(self) -> dict[str, dict[str, float]]:
        """What was noted, by run."""
        found: dict[str, dict[str, float]] = {}
        for run, metric, value in self.owner.execute("SELECT run_id, metric, value FROM tollgate.task_metrics"):
            if metric != "seconds":
                found.setdefault(run, {})[metric] = value
        return found

    def told(self) -> list[tuple[int, str, str]]:
        """Severity, title and evidence of the notices."""
        query = "SELECT severity, title, evidence::text FROM tollgate.notifications ORDER BY severity, dedup_key"
        return self.owner.execute(query).fetchall()

    def watched(self) -> dict[str, float]:
        """What the drift app reads of replays, by verdict."""
        read = PostgresReadings(self.database.role_connection(Role.DRIFT), "test").read(self.clock.time_us)
        return {dict(one.labels)["verdict"]: one.value for one in read if one.name == REPLAYS.name}


@pytest.fixture
def desk(migrated_database: MigratedDatabase, storage: str) -> Iterator[Desk]:
    """A deployment that has a model and decided nothing yet."""
    migrated_database.make_partitions(HOUR_US - 60 * US_PER_DAY, HOUR_US + US_PER_DAY)
    clock, name = FakeClock(), f"models-{uuid.uuid4().hex[:12]}"
    with (
        psycopg.connect(migrated_database.dsn, autocommit=True) as owner,
        BlobServiceClient.from_connection_string(storage, retry_total=0) as service,
    ):
        for table in ("predictions", "notifications", "task_metrics", "pipeline_execution_log"):
            owner.execute(f"DELETE FROM tollgate.{table}".encode())
        container = service.create_container(name)
        BlobBundles(container).put(golden_files())
        parts = replay_parts(service, name, migrated_database.role_connection(Role.RETRAIN), clock)
        yield Desk(migrated_database, owner, parts, clock, name)
        container.delete_container()


def test_a_record_that_was_changed_is_found_and_told_once(desk: Desk) -> None:
    desk.decide(20)
    names = desk.decide(raw_score=0.123)
    for _ in range(2):
        desk.fire()
    run = f"replaying/{HOUR_US + US_PER_HOUR}"
    assert desk.noted() == {run: {"sampled": 21, "equal": 20, "different": 1, "unchecked": 0}}
    assert desk.watched() == {"equal": 20, "different": 1, "unchecked": 0}
    ((severity, title, evidence),) = desk.told()
    assert (severity, title) == (0, "1 of 21 sampled decisions came out different when decided again")
    assert '"raw_score": 1' in evidence
    assert names[0] not in evidence
    desk.fire(HOUR_US + US_PER_HOUR)
    assert desk.watched() == {"equal": 20, "different": 1, "unchecked": 0}
    assert len(desk.told()) == 1, "nothing was decided in the hour after"


def test_a_bundle_that_is_not_kept_is_told_apart_from_a_mismatch(desk: Desk) -> None:
    desk.decide(3)
    desk.decide(2, scorer=LinearScorer())
    desk.fire()
    assert desk.watched() == {"equal": 3, "different": 0, "unchecked": 2}
    ((severity, title, evidence),) = desk.told()
    assert (severity, title) == (2, "2 of 5 sampled decisions could not be decided again")
    assert f"its bundle {LinearScorer().bundle_digest[:12]} is not kept" in evidence


def test_a_deployment_without_a_champion_or_decisions_is_quiet(desk: Desk) -> None:
    desk.fire()
    assert list(desk.noted().values()) == [{"sampled": 0, "equal": 0, "different": 0, "unchecked": 0}]
    assert desk.watched() == {"equal": 0, "different": 0, "unchecked": 0}
    assert not desk.told()


def test_the_app_as_it_is_deployed_does_it(desk: Desk, storage: str, tmp_path: Path) -> None:
    this_us = time.time_ns() // 1000 // US_PER_HOUR * US_PER_HOUR
    # In both hours, because the second may begin before the timer is fired.
    for hour_us in (this_us - US_PER_HOUR, this_us):
        desk.decide(2, recorded_at_us=hour_us, event_time_us=hour_us)
        desk.decide(recorded_at_us=hour_us, event_time_us=hour_us, raw_score=0.123)
    never = "0 0 0 1 1 *"
    app = HostProcess(
        tmp_path,
        ROOT / "functions" / "retrain",
        {
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "AzureWebJobsStorage": storage,
            "DATA_STORAGE": storage,
            "DATABASE": desk.database.role_dsn(Role.RETRAIN),
            "MODELS_CONTAINER": desk.models,
            "DAILY_TRAINING_SCHEDULE": never,
            "TRIGGER_POLL_SCHEDULE": never,
        },
    )
    try:
        app.start()
        assert app.run_by_hand("replay_sample").status == 202
        until(lambda: desk.watched()["different"] == 1, "the sample to be noted", 60)
    finally:
        app.discard()
    assert desk.watched() == {"equal": 2, "different": 1, "unchecked": 0}
    assert [title for _, title, _ in desk.told()] == ["1 of 3 sampled decisions came out different when decided again"]


def test_a_sample_is_bounded_by_recorded_time_and_follows_from_its_seed(desk: Desk) -> None:
    inside = {
        *desk.decide(40),
        *desk.decide(recorded_at_us=HOUR_US + US_PER_HOUR - 1),
        *desk.decide(event_time_us=HOUR_US - 6 * US_PER_DAY),
    }
    desk.decide(recorded_at_us=HOUR_US - 1)
    desk.decide(recorded_at_us=HOUR_US + US_PER_HOUR)
    desk.decide(event_time_us=HOUR_US - 8 * US_PER_DAY)
    session = PostgresSession(desk.database.role_connection(Role.RETRAIN), "test")
    sample = PostgresReplaySample(session)

    def names(seed: int, limit: int) -> list[str]:
        drawn = sample.draw(HOUR_US, HOUR_US + US_PER_HOUR, seed=seed, limit=limit)
        return [one.transaction_id for one in drawn]

    assert set(names(HOUR_US, 100)) == inside
    assert names(HOUR_US, 10) == names(HOUR_US, 100)[:10]
    assert set(names(HOUR_US, 10)) != set(names(HOUR_US + US_PER_HOUR, 10))
    drawn = Counter(name for seed in range(420) for name in names(seed, 10))
    session.close()
    # Each is drawn 100 times on average, with a standard deviation of 9.
    assert drawn.keys() == inside
    assert 55 < min(drawn.values()) <= max(drawn.values()) < 145


def test_an_hour_is_drawn_without_reading_the_rest(desk: Desk) -> None:
    """60,000 decisions of six weeks, 60 of them of the hour: by the plan, not by a clock."""
    # Vacuuming a partition with a BRIN index reads parts of it, which count as rows read whoever vacuums: so the server
    # shall not do it by itself meanwhile, and what this session counted is added up before the sample is drawn.
    parts = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'tollgate.predictions'::regclass"
    for (part,) in desk.owner.execute(parts).fetchall():
        desk.owner.execute(f"ALTER TABLE {part} SET (autovacuum_enabled = false)".encode())
    desk.owner.execute(
        "INSERT INTO tollgate.predictions SELECT 't' || n, at, decode(repeat('00', 600), 'hex'), 0, .5,"
        " repeat('0', 64), 'w', n, 0, at FROM generate_series(1, 60000) n,"
        f" LATERAL (SELECT {HOUR_US + US_PER_HOUR} - (60000 - n) * 60000000::bigint - 1) AS made (at)".encode()
    )
    desk.owner.execute("VACUUM ANALYZE tollgate.predictions")
    desk.owner.execute("SELECT pg_stat_force_next_flush()")
    # Sessions of the tests before add what they counted just before they leave the list of those who are connected.
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    until(lambda: desk.owner.execute(others).fetchall() == [(0,)], "the sessions of others to end", 60)

    def counted() -> tuple[int, int]:
        """Rows that were read by going through whole partitions, and looks into the index on the recorded time."""
        desk.owner.execute("SELECT pg_stat_clear_snapshot()")
        query = """
            SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname LIKE 'predictions_p%'),
                (SELECT sum(idx_scan) FROM pg_stat_user_indexes
                    WHERE indexrelname LIKE 'predictions_p%_recorded_at_us_idx')
        """
        rows, looks = desk.owner.execute(query).fetchall()[0]
        return int(rows), int(looks)

    rows, looks = counted()
    session = PostgresSession(desk.database.role_connection(Role.RETRAIN), "test")
    drawn = PostgresReplaySample(session).draw(HOUR_US, HOUR_US + US_PER_HOUR, seed=1, limit=10)
    session.close()
    assert len(drawn) == 10
    until(lambda: counted()[1] > looks, "the counts of the session that ended", 60)
    assert counted()[0] == rows
    assert counted()[1] - looks <= 3, "partitions of transactions that are too old are passed over"


def test_a_database_that_is_away_is_transient() -> None:
    dsn = f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/none"
    sample = PostgresReplaySample(PostgresSession(parse_postgres("D", {"D": dsn}), "test"))
    with pytest.raises(Transient):
        sample.draw(0, 1, seed=0, limit=1)
