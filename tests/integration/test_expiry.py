"""What has expired is deleted with the rights of the drift app, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from shared.adapters.postgres_expiry import LOCK, PostgresExpiringRows
from shared.adapters.postgres_readings import SETTLED_US, PostgresReadings
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.retention import Expiring, Keeping
from shared.services.expiring import Expiry
from shared.services.metering import LAYOUT
from tests.conftest import MigratedDatabase
from tests.fakes.probes import FakeClock

NOW_US = 1_800_000_000_000_000 // US_PER_HOUR * US_PER_HOUR
KEEPING = Keeping()
LONG = {"lock_timeout": "120s", "statement_timeout": "120s"}
TABLES = (
    "notifications",
    "pipeline_execution_log",
    "task_metrics",
    "app_meters",
    "announced_changes",
    "data_quality_log",
    "performance_metrics",
    "drift_metrics",
    "dead_letters",
    "shadow_scores",
    "tallies",
)


class Bench:
    """A database without rows, and what deletes in it as the drift app does."""

    def __init__(self, database: MigratedDatabase) -> None:
        self.database = database
        self.connection = psycopg.connect(database.dsn, autocommit=True)
        self.connection.execute(f"TRUNCATE {', '.join(f'tollgate.{name}' for name in TABLES)}".encode())
        self.session = PostgresSession(database.role_connection(Role.DRIFT), "tests")
        self.rows = PostgresExpiringRows(self.session)
        self.readings = PostgresReadings(database.role_connection(Role.DRIFT), "tests")

    def put(self, table: str, **values: Any) -> None:
        columns, places = ", ".join(values), ", ".join(["%s"] * len(values))
        wrapped = [Jsonb(value) if isinstance(value, dict) else value for value in values.values()]
        self.connection.execute(f"INSERT INTO tollgate.{table} ({columns}) VALUES ({places})".encode(), wrapped)

    def expire(self, batch: int = 5_000) -> dict[str, object]:
        return dict(Expiry(self.rows, KEEPING, FakeClock(NOW_US), batch=batch).expire())

    def column(self, table: str, column: str) -> list[Any]:
        query = f"SELECT {column} FROM tollgate.{table} ORDER BY 1"
        return [row[0] for row in self.connection.execute(query.encode())]

    def counters(self) -> dict[tuple[str, ...], float]:
        return {
            (sample.name, *(value for _, value in sample.labels)): sample.value
            for sample in self.readings.read(NOW_US)
            if sample.name.endswith("_total")
        }

    def run(self, pipeline: str, started_at_us: int, status: str = "done", **metrics: float) -> str:
        run_id = f"{pipeline}/{started_at_us}" + ("" if status == "done" else f"/{status}")
        ended = None if status == "running" else started_at_us + 1
        self.put(
            "pipeline_execution_log",
            run_id=run_id,
            pipeline=pipeline,
            status=status,
            started_at_us=started_at_us,
            ended_at_us=ended,
        )
        for metric, value in metrics.items():
            self.put(
                "task_metrics", run_id=run_id, task="run", metric=metric, value=value, recorded_at_us=started_at_us
            )
        return run_id


@pytest.fixture
def bench(migrated_database: MigratedDatabase) -> Iterator[Bench]:
    made = Bench(migrated_database)
    with closing(made.connection), closing(made.session):
        yield made


def at(what: Expiring, older_us: int) -> int:
    """A time that lies so much before the end of what is kept."""
    return KEEPING.until_us(what, NOW_US) - older_us


def put_figures(bench: Bench, name: str, recorded_at_us: int) -> None:
    window = {"window_start_us": 1, "window_end_us": 2, "recorded_at_us": recorded_at_us}
    rows = {"reference_rows": 1, "current_rows": 1}
    bench.put("drift_metrics", bundle_digest=name, subject="amount", statistic="psi", **rows, **window)
    bench.put("data_quality_log", source=name, rule="volume", passed=True, **window)
    bench.put("performance_metrics", bundle_digest=name, segment="all", metric="recall", n_rows=0, n_frauds=0, **window)
    bench.put(
        "announced_changes", subject=name, start_us=1, end_us=recorded_at_us, author="a", reason="b", recorded_at_us=1
    )


def test_figures_expire_to_the_microsecond(bench: Bench) -> None:
    for name, older_us in (("kept", 0), ("gone", 1)):
        put_figures(bench, name, at(Expiring.DRIFT, older_us))
    done = bench.expire()
    for table, column in (
        ("drift_metrics", "bundle_digest"),
        ("data_quality_log", "source"),
        ("performance_metrics", "bundle_digest"),
        ("announced_changes", "subject"),
    ):
        assert bench.column(table, column) == ["kept"], table
        assert done[table] == 1
    assert (done["rows"], done["behind"]) == (4, 0)
    assert bench.expire()["rows"] == 0


def test_notices_that_wait_stay_whatever_their_age(bench: Bench) -> None:
    for key, status, ended in (
        ("waits", "waiting", None),
        ("sent of late", "sent", at(Expiring.NOTICES, 0)),
        ("sent long ago", "sent", at(Expiring.NOTICES, 1)),
        ("failed long ago", "failed", 1),
    ):
        bench.put(
            "notifications",
            channel="mail",
            dedup_key=key,
            severity=2,
            title="t",
            status=status,
            created_at_us=1,
            next_at_us=1,
            ended_at_us=ended,
        )
    assert bench.expire()["notifications"] == 2
    assert bench.column("notifications", "dedup_key") == ["sent of late", "waits"]


def test_dead_letters_that_wait_are_kept_longer_and_the_counter_stays(bench: Bench) -> None:
    for offset, received, replayed in (
        ("waits", at(Expiring.LETTERS, 0), None),
        ("waited", at(Expiring.LETTERS, 1), None),
        ("taken of late", 1, at(Expiring.TAKEN_LETTERS, 0)),
        ("taken", 1, at(Expiring.TAKEN_LETTERS, 1)),
    ):
        bench.put(
            "dead_letters",
            source="transactions",
            partition_id="0",
            event_offset=offset,
            reason="bad",
            body=b"x",
            received_at_us=received,
            replayed_at_us=replayed,
        )
    assert bench.expire()["dead_letters"] == 0, "they are not in the tally yet"
    before = bench.counters()
    assert bench.readings.fold(NOW_US + SETTLED_US) == 4
    assert bench.expire()["dead_letters"] == 2
    assert bench.column("dead_letters", "event_offset") == ["taken of late", "waits"]
    assert bench.counters() == before
    assert before["tollgate_dead_letters_total", "transactions", "event"] == 4


def test_the_last_runs_stay_and_the_counters_too(bench: Bench) -> None:
    old_us = at(Expiring.RUNS, 10 * US_PER_DAY)
    retrained = bench.run("retrain", old_us)
    bench.run("retrain", old_us - US_PER_DAY)
    bench.run("retrain", old_us - 2 * US_PER_DAY, "failed")
    died = bench.run("drift", old_us + 1, "running")
    bench.run("drift", old_us - US_PER_DAY, "running")
    kept = [bench.run("drift", at(Expiring.RUNS, -number)) for number in range(2)]
    bench.run("drift", old_us)
    failed = bench.run("retrain", old_us, "failed")
    before = bench.counters()
    done = bench.expire()
    assert done["pipeline_execution_log"] == 4
    assert set(bench.column("pipeline_execution_log", "run_id")) == {retrained, failed, died, *kept}
    assert bench.counters() == before
    assert before["tollgate_pipeline_runs_total", "retrain", "done"] == 2
    assert bench.expire()["rows"] == 0


def test_replays_are_added_up_once_for_each_hour(bench: Bench) -> None:
    hour_us = at(Expiring.RUNS, 3 * US_PER_DAY) // US_PER_HOUR * US_PER_HOUR
    for number in range(3):
        slot_us = hour_us + number * US_PER_HOUR
        bench.run("replaying", slot_us, equal=500.0 - number, different=number, seconds=0.7)
        # A second attempt at the same hour drew the same sample.
        bench.put(
            "pipeline_execution_log",
            run_id=f"replaying/{slot_us}/2",
            pipeline="replaying",
            status="done",
            started_at_us=slot_us + 60_000_000,
            ended_at_us=slot_us + 60_000_001,
        )
        for metric, value in (("equal", 500.0 - number), ("different", number)):
            bench.put(
                "task_metrics",
                run_id=f"replaying/{slot_us}/2",
                task="run",
                metric=metric,
                value=value,
                recorded_at_us=slot_us,
            )
    before = bench.counters()
    assert before["tollgate_replays_total", "retrain", "equal"] == 500 + 499 + 498
    done = bench.expire()
    assert (done["pipeline_execution_log"], done["task_metrics"]) == (4, 2 * 5), "the last hour stays"
    assert bench.counters() == before
    bench.run("replaying", NOW_US, equal=1.0)
    assert bench.expire()["pipeline_execution_log"] == 2
    assert bench.counters()["tollgate_replays_total", "retrain", "equal"] == 500 + 499 + 498 + 1


def test_counts_of_a_release_that_is_gone_expire_and_those_of_this_one_do_not(bench: Bench) -> None:
    for layout in (LAYOUT, "of another release"):
        for writer, updated in (("gone", 1), ("late", at(Expiring.COUNTS, 0))):
            bench.put(
                "app_meters",
                app="score",
                writer=writer,
                layout=layout,
                cells=[1.0],
                started_at_us=1,
                updated_at_us=updated,
            )
    assert bench.expire()["app_meters"] == 1
    assert bench.column("app_meters", "layout || ' ' || writer") == [
        *sorted(f"{LAYOUT} {writer}" for writer in ("gone", "late")),
        "of another release late",
    ]


def put_scores(bench: Bench, digest: str, event_time_us: int, count: int) -> None:
    bench.connection.execute(
        "INSERT INTO tollgate.shadow_scores (bundle_digest, event_time_us, transaction_id, raw, score, recorded_at_us)"
        " SELECT %s, %s, 't' || g, 0, 0, 1 FROM generate_series(1, %s) g",
        [digest, event_time_us, count],
    )


def test_shadow_scores_of_all_models_expire_in_pieces(bench: Bench) -> None:
    for digest in ("a", "b", "c"):
        put_scores(bench, digest, at(Expiring.SHADOW_SCORES, 1), 25)
        put_scores(bench, digest, at(Expiring.SHADOW_SCORES, 0), 2)
    before_us = KEEPING.until_us(Expiring.SHADOW_SCORES, NOW_US)
    pieces = [bench.rows.delete(Expiring.SHADOW_SCORES, before_us, 30) for _ in range(4)]
    assert [piece.rows["shadow_scores"] for piece in pieces] == [30, 30, 15, 0]
    assert [piece.more for piece in pieces] == [True, True, False, False]
    assert len(bench.column("shadow_scores", "bundle_digest")) == 6


def test_who_deletes_waits_for_nobody_and_nobody_for_them(bench: Bench) -> None:
    put_scores(bench, "a", 1, 10)
    with (
        psycopg.connect(bench.database.dsn) as other,
        psycopg.connect(bench.database.role_dsn(Role.RETRAIN), autocommit=True) as writer,
    ):
        other.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        assert bench.expire()["rows"] == 0, "another one deletes at this moment"
        other.rollback()
        with bench.session.transaction() as deleting:
            deleting.execute("DELETE FROM tollgate.shadow_scores")
            writer.execute("SET statement_timeout = '60s'")
            writer.execute(
                "INSERT INTO tollgate.shadow_scores (bundle_digest, event_time_us, transaction_id, raw, score,"
                " recorded_at_us) VALUES ('a', %s, 'new', 0, 0, 1)",
                [NOW_US],
            )
    assert bench.expire()["rows"] == 0
    assert bench.column("shadow_scores", "transaction_id") == ["new"]


def test_a_row_that_is_changed_at_this_moment_is_judged_by_what_it_is_then(bench: Bench) -> None:
    bench.put(
        "dead_letters",
        source="transactions",
        partition_id="0",
        event_offset="1",
        reason="bad",
        body=b"x",
        received_at_us=1,
    )
    bench.readings.fold(NOW_US)
    session = PostgresSession(bench.database.role_connection(Role.DRIFT), "deleting", LONG)
    before_us = KEEPING.until_us(Expiring.LETTERS, NOW_US)
    with psycopg.connect(bench.database.dsn) as replaying, closing(session), ThreadPoolExecutor(1) as aside:
        replaying.execute("UPDATE tollgate.dead_letters SET replayed_at_us = %s", [NOW_US])
        deleting = aside.submit(PostgresExpiringRows(session).delete, Expiring.LETTERS, before_us, 10)
        # Of sessions of other users, who waits is told by the locks alone.
        waits = (
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE application_name = 'deleting' AND NOT granted"
        )
        deadline = time.monotonic() + 50
        while bench.connection.execute(waits.encode()).fetchone() == (0,):
            assert time.monotonic() < deadline
            assert not deleting.done()
            time.sleep(0.02)
        replaying.commit()
        assert deleting.result(60).rows == {"dead_letters": 0}
    assert bench.column("dead_letters", "event_offset") == ["1"]


def test_what_proves_is_out_of_reach(bench: Bench) -> None:
    with psycopg.connect(bench.database.role_dsn(Role.DRIFT), autocommit=True) as connection:
        for table in (
            "transactions",
            "predictions",
            "feedback_labels",
            "transaction_ids",
            "log_blocks",
            "log_seals",
            "promotions",
            "promotion_verdicts",
            "model_versions",
            "retraining_triggers",
            "registry_outbox",
            "forgotten",
            "tallies",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"DELETE FROM tollgate.{table}".encode())


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.DRIFT])
def test_nobody_else_deletes_them(bench: Bench, role: Role) -> None:
    with psycopg.connect(bench.database.role_dsn(role), autocommit=True) as connection:
        for table in TABLES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"DELETE FROM tollgate.{table}".encode())
