"""What is read every few seconds stays cheap in tables that have grown: by the plan, not by a clock."""

from __future__ import annotations

import time

import psycopg

from shared.adapters.postgres_readings import US, PostgresReadings
from shared.adapters.schema.grants import Role
from tests.conftest import MigratedDatabase

NOW_US = 1_800_000_000_000_000
ROWS = 100_000
BYTES = "decode(repeat('00', 32), 'hex')"


def _fill(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    connection.execute(
        f"INSERT INTO tollgate.transaction_ids (transaction_id, digest, event_time_us)"
        f" SELECT 't' || g, {BYTES}, 1 FROM generate_series(1, {ROWS}) g"
    )
    connection.execute(
        "INSERT INTO tollgate.feedback_labels (transaction_id, label_digest, verdict, source, event_time_us,"
        f" known_at_us, confidence, author, recorded_at_us) SELECT 't' || g, {BYTES}, 1, 1, 1, 86400000001, 100, 'a', 1"
        f" FROM generate_series(1, {ROWS}) g"
    )
    connection.execute(
        "INSERT INTO tollgate.drift_metrics (bundle_digest, subject, statistic, value, window_start_us, window_end_us,"
        " reference_rows, current_rows, recorded_at_us) SELECT repeat('a', 64), 'f' || g % 30, 'psi', .1, g,"
        f" g + 3600000000, 1, 1, 1 FROM generate_series(1, {ROWS}) g"
    )
    connection.execute(
        "INSERT INTO tollgate.log_blocks (writer, sequence, previous, root, count, leaves, hash, recorded_at_us)"
        f" SELECT 'w', g, {BYTES}, {BYTES}, 1, {BYTES}, {BYTES}, {NOW_US} - ({ROWS} - g::bigint) * {US}"
        f" FROM generate_series(0, {ROWS}) g"
    )
    connection.execute("VACUUM ANALYZE")


def _wait_until_gone(connection: psycopg.Connection[tuple[object, ...]], application_name: str) -> None:
    """A session adds what it counted to the statistics before it leaves the list of those who are connected."""
    there = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
    deadline = time.monotonic() + 60
    while connection.execute(there, [application_name]).fetchone() != (0,):
        assert time.monotonic() < deadline, "the session that read is still there"
        time.sleep(0.02)


def test_large_tables_are_not_read_as_a_whole(migrated_database: MigratedDatabase) -> None:
    tables = ("feedback_labels", "log_blocks", "drift_metrics", *(f"transaction_ids_h{n}" for n in range(8)))
    with psycopg.connect(migrated_database.dsn, autocommit=True) as connection:
        # Vacuuming a table with a BRIN index reads parts of it, which count as scans whoever vacuums. So the server
        # shall not do it by itself meanwhile, and what this session counted is added up before anybody reads.
        for table in tables:
            connection.execute(f"ALTER TABLE tollgate.{table} SET (autovacuum_enabled = false)".encode())
        _fill(connection)
        connection.execute("SELECT pg_stat_force_next_flush()")

        def scans() -> dict[str, tuple[int, int]]:
            connection.execute("SELECT pg_stat_clear_snapshot()")
            query = "SELECT relname, seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = ANY(%s)"
            return {name: (whole, by_index) for name, whole, by_index in connection.execute(query, [list(tables)])}

        before = scans()
        told = {
            sample.name: sample.value
            for sample in PostgresReadings(migrated_database.role_connection(Role.DRIFT), "tests").read(NOW_US)
        }
        assert told["tollgate_label_delay_days"] == 1
        assert told["tollgate_newest_decision_age_seconds"] == 0
        _wait_until_gone(connection, "tests")
        after = scans()
        assert {name: whole for name, (whole, _) in after.items()} == {
            name: whole for name, (whole, _) in before.items()
        }
        assert after["log_blocks"][1] > before["log_blocks"][1], "what the reading counted has been added up"
