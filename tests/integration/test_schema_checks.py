"""What the tables refuse by themselves, whoever writes."""

from __future__ import annotations

import time

import psycopg
import pytest

from tests.conftest import MigratedDatabase
from twin.services.database import bring_up_to_date
from twin.services.settings import TwinSettings

DIGEST = "decode(repeat('00', 32), 'hex')"
BUNDLE = "repeat('a', 64)"

GOOD = [
    f"transaction_ids (transaction_id, digest, event_time_us) VALUES ('t', {DIGEST}, 1)",
    "transaction_ids (transaction_id) VALUES ('t')",
    "transactions VALUES ('c', 1, 't', 'm', 1, 'EUR', 1, 1, 0, 3)",
    f"predictions VALUES ('t', 1, 'x', 2, 1, {BUNDLE}, 'w', 0, 0, 0)",
    f"feedback_labels VALUES ('t', {DIGEST}, 0, 0, 1, 1, 100, '', 1, 1, 1)",
    f"log_blocks VALUES ('w', 0, {DIGEST}, {DIGEST}, 1, {DIGEST}, {DIGEST}, 0)",
    "retraining_triggers (cause, priority, created_at_us) VALUES ('person', 0, 1)",
]
BAD = [
    ("transaction_ids (transaction_id, digest, event_time_us) VALUES ('t', 'short', 1)", "ck_transaction_ids_digest"),
    ("transaction_ids (transaction_id, customer_id) VALUES ('t', 'c')", "ck_transaction_ids_placeholder"),
    ("transactions VALUES ('c', 1, 't', 'm', 0, 'EUR', 1, 1, 0, 0)", "ck_transactions_amount"),
    ("transactions VALUES ('c', 1, 't', 'm', 1, 'EURO', 1, 1, 0, 0)", "ck_transactions_currency"),
    ("transactions VALUES ('c', 1, 't', 'm', 1, 'EUR', -1, 1, 0, 0)", "ck_transactions_versions"),
    ("transactions VALUES ('c', 1, 't', 'm', 1, 'EUR', 1, 1, 0, 4)", "ck_transactions_flags"),
    (f"predictions VALUES ('t', 1, 'x', 3, 1, {BUNDLE}, 'w', 0, 0, 0)", "ck_predictions_outcome"),
    (f"predictions VALUES ('t', 1, 'x', 2, 'NaN', {BUNDLE}, 'w', 0, 0, 0)", "ck_predictions_score"),
    ("predictions VALUES ('t', 1, 'x', 2, 1, 'a', 'w', 0, 0, 0)", "ck_predictions_bundle_digest"),
    (f"predictions VALUES ('t', 1, 'x', 2, 1, {BUNDLE}, 'w', 0, -1, 0)", "ck_predictions_place"),
    ("entity_tiles VALUES (2, 'k', 0, 1, 'x')", "ck_entity_tiles_entity"),
    ("customer_features VALUES ('c', -1, NULL, 'x', NULL)", "ck_customer_features_version"),
    (f"feedback_labels VALUES ('t', {DIGEST}, 0, 0, 1, 1, 101, '', 1, 1, 1)", "ck_feedback_labels_confidence"),
    (f"feedback_labels VALUES ('t', {DIGEST}, 0, 0, 1, 1, 1, '', 1, 1, NULL)", "ck_feedback_labels_versions"),
    (f"log_blocks VALUES ('w', 0, {DIGEST}, {DIGEST}, 2, {DIGEST}, {DIGEST}, 0)", "ck_log_blocks_leaves"),
    (f"log_blocks VALUES ('w', 0, {DIGEST}, 'x', 1, {DIGEST}, {DIGEST}, 0)", "ck_log_blocks_root"),
    (
        "retraining_triggers (cause, priority, created_at_us, status) VALUES ('person', 0, 1, 'done')",
        "ck_retraining_triggers_closed",
    ),
]


def test_rows_that_make_sense_are_taken(migrated_database: MigratedDatabase) -> None:
    migrated_database.make_partitions(0, 2)
    with psycopg.connect(migrated_database.dsn, autocommit=True) as connection:
        for row in GOOD:
            with connection.transaction(force_rollback=True):
                connection.execute(f"INSERT INTO tollgate.{row}".encode())


def test_rows_that_make_none_are_refused_by_the_check_meant_for_them(migrated_database: MigratedDatabase) -> None:
    migrated_database.make_partitions(0, 2)
    with psycopg.connect(migrated_database.dsn, autocommit=True) as connection:
        for row, check in BAD:
            with pytest.raises(psycopg.errors.CheckViolation) as caught, connection.transaction():
                connection.execute(f"INSERT INTO tollgate.{row}".encode())
            assert caught.value.diag.constraint_name == check


def test_a_database_that_cannot_be_brought_up_to_date_is_one_error_for_people(database: TwinSettings) -> None:
    with psycopg.connect(database.database_dsn(), autocommit=True) as connection:
        connection.execute("ALTER FUNCTION tollgate.make_partitions(bigint, bigint) RENAME TO hidden")
        connection.execute("CREATE FUNCTION tollgate.make_partitions(text) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$")
        try:
            with pytest.raises(OSError, match=r"making partitions: .*tollgate db upgrade"):
                bring_up_to_date(database.database_dsn(), time.time_ns() // 1000)
        finally:
            connection.execute("DROP FUNCTION tollgate.make_partitions(text)")
            connection.execute("ALTER FUNCTION tollgate.hidden(bigint, bigint) RENAME TO make_partitions")
    bring_up_to_date(database.database_dsn(), time.time_ns() // 1000)
