"""What is read at each scrape and deleted each hour stays cheap in tables that have grown: by the plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from shared.adapters import postgres_expiry, postgres_tallies
from shared.adapters.postgres_readings import PostgresReadings
from shared.adapters.schema.grants import Role
from shared.domain.retention import Expiring
from tests.conftest import MigratedDatabase

ROWS = 20_000
NOW_US = 1_800_000_000_000_000
GROWN = {
    "dead_letters": (
        "(source, partition_id, event_offset, reason, body, received_at_us, replayed_at_us)"
        " SELECT 'transactions', '0', g::text, 'bad', '', g, CASE WHEN g % 2 = 0 THEN g END"
    ),
    "notifications": (
        "(channel, dedup_key, severity, title, status, created_at_us, next_at_us, ended_at_us)"
        " SELECT 'mail', g::text, 2, 't', 'sent', g, g, g"
    ),
    "pipeline_execution_log": "(run_id, pipeline, status, started_at_us, ended_at_us) SELECT g, 'p', 'done', g, g",
    "drift_metrics": (
        "(bundle_digest, subject, statistic, window_start_us, window_end_us, reference_rows, current_rows,"
        " recorded_at_us) SELECT 'a', 'f', 'psi', g, g + 1, 1, 1, g"
    ),
    "data_quality_log": (
        "(source, rule, passed, window_start_us, window_end_us, recorded_at_us) SELECT 's', 'r', true, g, g + 1, g"
    ),
    "performance_metrics": (
        "(bundle_digest, segment, metric, n_rows, n_frauds, window_start_us, window_end_us, recorded_at_us)"
        " SELECT 'a', 'all', 'recall', 1, 0, g, g + 1, g"
    ),
    "shadow_scores": (
        "(bundle_digest, event_time_us, transaction_id, raw, score, recorded_at_us)"
        " SELECT (g % 3)::text, g, g::text, 0, 0, g"
    ),
}


@pytest.fixture(scope="module")
def grown(migrated_database: MigratedDatabase) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(migrated_database.dsn, autocommit=True) as connection:
        for table, rows in GROWN.items():
            connection.execute(f"INSERT INTO tollgate.{table} {rows} FROM generate_series(1, {ROWS}) g".encode())
        assert PostgresReadings(migrated_database.role_connection(Role.DRIFT), "tests").fold(NOW_US) == ROWS
        connection.execute("VACUUM ANALYZE")
        yield connection


def whole(plan: dict[str, Any]) -> list[str]:
    """Tables of a plan that are read from end to end; an EXISTS for a row stops at the first that it finds."""
    parts = [part for part in plan.get("Plans", ()) if part.get("Parent Relationship") != "SubPlan"]
    below = [name for part in parts for name in whole(part)]
    return [plan["Relation Name"], *below] if plan["Node Type"] == "Seq Scan" else below


def plan_of(connection: psycopg.Connection[Any], statement: str, values: dict[str, object]) -> dict[str, Any]:
    row = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}".encode(), values).fetchone()
    assert row is not None
    found: dict[str, Any] = row[0][0]["Plan"]
    return found


@pytest.mark.parametrize("name", ["LETTERS", "LETTERS_WAITING"])
def test_a_scrape_reads_no_dead_letters_that_were_added_up(grown: psycopg.Connection[Any], name: str) -> None:
    assert "dead_letters" not in whole(plan_of(grown, getattr(postgres_tallies, name), {}))


@pytest.mark.parametrize("what", [what for what in Expiring if what not in {Expiring.RUNS, Expiring.COUNTS}])
def test_what_has_expired_is_found_by_an_index(grown: psycopg.Connection[Any], what: Expiring) -> None:
    table, statement = postgres_expiry.STATEMENTS[what]
    plan = plan_of(grown, statement, {"before": ROWS // 50, "limit": 100, "layout": "L"})
    assert table not in whole(plan) or table == "announced_changes", "a few rows, which people wrote"


def test_runs_that_have_expired_are_found_by_an_index(grown: psycopg.Connection[Any]) -> None:
    values: dict[str, object] = {"before": ROWS // 50, "hour": 10, "start": 0, "until": 10}
    for statement in (postgres_expiry.OLDEST_RUN, postgres_tallies.RUNS_GONE):
        plan = plan_of(grown, statement, values)
        assert "pipeline_execution_log" not in whole(plan)
