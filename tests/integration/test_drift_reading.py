"""A week of labels is read in pieces: memory follows from the columns that are kept, not from the rows."""

from __future__ import annotations

import tracemalloc
from contextlib import closing

import numpy as np
import psycopg
import pytest

from shared.adapters import postgres_drift
from shared.adapters.postgres_drift import SESSION, PostgresDecidedWindows
from shared.adapters.postgres_ledger_statements import VERDICT_CODES
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.labels import Verdict
from tests.conftest import MigratedDatabase

START_US = 1_700_000_000_000_000
ROWS = 20_000
FRAUDS = 400
DIGEST = "d" * 64


def _fill(database: MigratedDatabase) -> None:
    database.make_partitions(START_US, START_US + ROWS)
    series = f"FROM generate_series(0, {ROWS - 1}) g"
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE tollgate.transactions, tollgate.predictions, tollgate.feedback_labels")
        connection.execute(
            "INSERT INTO tollgate.transactions (customer_id, event_time_us, transaction_id, terminal_id, amount_minor,"
            " currency, customer_version, terminal_version, recorded_at_us, flags)"
            f" SELECT 'c' || g, {START_US} + g, 't' || g, 'm' || g % 7, 1, 'EUR', 1, 1, 1, 0 {series}".encode()
        )
        connection.execute(
            "INSERT INTO tollgate.predictions (transaction_id, event_time_us, record, outcome, score, bundle_digest,"
            " log_writer, log_sequence, log_leaf, recorded_at_us)"
            f" SELECT 't' || g, {START_US} + g, '', 0, g / {ROWS}.0, '{DIGEST}', 'w', 0, 0, 1 {series}".encode()
        )
        codes = f"CASE WHEN g < {FRAUDS} THEN {VERDICT_CODES[Verdict.FRAUD]} ELSE {VERDICT_CODES[Verdict.GENUINE]} END"
        connection.execute(
            "INSERT INTO tollgate.feedback_labels (transaction_id, label_digest, verdict, source, event_time_us,"
            f" known_at_us, confidence, author, recorded_at_us) SELECT 't' || g, decode(repeat('00', 32), 'hex'),"
            f" {codes}, 1, 1, 1, 100, 'a', 1 {series}".encode()
        )
        connection.execute("ANALYZE")


def test_a_window_takes_no_more_memory_than_a_piece_and_its_columns(
    migrated_database: MigratedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_drift, "PIECE", 1_000)
    _fill(migrated_database)
    with closing(PostgresSession(migrated_database.role_connection(Role.DRIFT), "tests", SESSION)) as session:
        windows = PostgresDecidedWindows(session)
        assert len(windows.matured(DIGEST, START_US - 10, START_US, as_of_us=2).score) == 0
        tracemalloc.start()
        try:
            found = windows.matured(DIGEST, START_US, START_US + ROWS, as_of_us=2)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert np.array_equal(np.sort(found.score), np.arange(ROWS) / ROWS)
    assert found.is_fraud.sum() == FRAUDS
    assert found.score[found.is_fraud].max() < FRAUDS / ROWS
    assert len(np.unique(found.customer)) == ROWS
    assert len(np.unique(found.terminal)) == 7
    columns = sum(column.nbytes for column in (found.score, found.is_fraud, found.customer, found.terminal))
    # The columns twice, while they are put together, and a piece of 1,000 rows with its objects: some 300 kB.
    assert peak < 2 * columns + 600_000
