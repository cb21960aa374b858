"""What is read every few seconds stays cheap in tables that have grown: by the plan, not by a clock."""

from __future__ import annotations

import psycopg
import pytest

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


def test_large_tables_are_not_read_as_a_whole(migrated_database: MigratedDatabase) -> None:
    tables = ("feedback_labels", "log_blocks", "drift_metrics", *(f"transaction_ids_h{n}" for n in range(8)))
    with psycopg.connect(migrated_database.dsn, autocommit=True) as connection:
        _fill(connection)

        def whole() -> dict[str, int]:
            connection.execute("SELECT pg_stat_clear_snapshot()")
            query = "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname = ANY(%s)"
            return dict(connection.execute(query, [list(tables)]).fetchall())

        # Sessions of other tests in this database may count theirs up to a minute late, so one clean round will do:
        # what reading itself scans as a whole would show in every round.
        for _ in range(4):
            before = whole()
            told = {
                sample.name: sample.value
                for sample in PostgresReadings(migrated_database.role_connection(Role.DRIFT), "tests").read(NOW_US)
            }
            assert told["tollgate_label_delay_days"] == 1
            assert told["tollgate_newest_decision_age_seconds"] == 0
            after = whole()
            if after == before:
                return
        pytest.fail(f"read as a whole, by the counts of the session that read: {before} then {after}")
