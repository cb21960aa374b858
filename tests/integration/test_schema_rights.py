"""Each role can do what its app needs and nothing else, on a real server."""

from __future__ import annotations

import psycopg
import pytest

from shared.adapters import postgres_ledger_statements as statements
from shared.adapters.schema import grants
from shared.adapters.schema.grants import Role
from tests.conftest import MigratedDatabase

DECIDING = (
    statements.CLAIM,
    statements.REPEATS,
    statements.WAITING,
    statements.NEW_CUSTOMERS,
    statements.NEW_TERMINALS,
    statements.LOCK_CUSTOMERS,
    statements.LOCK_TERMINALS,
    statements.TILES,
    statements.LAYOUT,
    statements.WRITE_TRANSACTIONS,
    statements.WRITE_DECISIONS,
    statements.WRITE_OUTBOX,
    statements.WRITE_BLOCK,
    statements.WRITE_CUSTOMERS,
    statements.WRITE_TERMINALS,
    statements.WRITE_TILES,
    statements.DELETE_TILES,
    statements.DELETE_UNUSED_CUSTOMERS,
    statements.DELETE_UNUSED_TERMINALS,
    statements.WRITE_WAITED,
    statements.CLEAR_LABELLED,
)
LABELLING = (
    statements.CLAIM_LABELLED,
    statements.LABELLED,
    statements.LABELS_HELD,
    statements.WRITE_FOLDED,
    statements.WRITE_UNFOLDED,
    statements.MARK_LABELLED,
)


@pytest.mark.parametrize(("role", "needed"), [(Role.SCORE, DECIDING), (Role.INGEST, DECIDING + LABELLING)])
def test_an_app_may_run_every_statement_of_its_ledger(
    migrated_database: MigratedDatabase, role: Role, needed: tuple[statements.Statement, ...]
) -> None:
    with psycopg.connect(migrated_database.role_dsn(role)) as connection:
        for statement in needed:
            # EXPLAIN checks rights as execution does, and changes nothing.
            assert connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement.sql}".encode()).fetchall(), statement.name


FORBIDDEN = [
    *(
        (role, statement)
        for role in Role
        for statement in (
            "DELETE FROM tollgate.log_blocks",
            "UPDATE tollgate.log_blocks SET root = root",
            "TRUNCATE tollgate.log_blocks",
            "TRUNCATE tollgate.predictions",
            "DELETE FROM tollgate.deployments",
            "UPDATE tollgate.log_seals SET hash = hash",
            "DELETE FROM tollgate.forgotten",
            "CREATE TABLE tollgate.mine (value int)",
            "CREATE TABLE public.mine (value int)",
            "DROP TABLE tollgate.outbox",
            "ALTER TABLE tollgate.predictions DISABLE TRIGGER ALL",
            "UPDATE tollgate.customer_features SET salt = salt",
            "SELECT * FROM pg_authid",
            "DELETE FROM tollgate.predictions",
            "UPDATE tollgate.predictions SET score = 0",
            "DELETE FROM tollgate.transactions",
            "UPDATE tollgate.transactions SET amount_minor = 1",
            "DELETE FROM tollgate.transaction_ids",
            "DELETE FROM tollgate.feedback_labels",
            "UPDATE tollgate.promotions SET reason = reason",
            "DELETE FROM tollgate.promotion_verdicts",
        )
    ),
    *(
        (role, "INSERT INTO tollgate.forgotten VALUES ('k1.00', 0, 'asked')")
        for role in Role
        if role is not Role.FORGET
    ),
    *((role, "SELECT tollgate.make_partitions(0, 1)") for role in Role if role is not Role.DRIFT),
    (Role.SCORE, "INSERT INTO tollgate.feedback_labels SELECT * FROM tollgate.feedback_labels"),
    (Role.SCORE, "SELECT * FROM tollgate.dead_letters"),
    (Role.SCORE, "INSERT INTO tollgate.feature_views DEFAULT VALUES"),
    (Role.INGEST, "UPDATE tollgate.feature_views SET status = 'complete'"),
    (Role.RETRAIN, "UPDATE tollgate.feature_views SET status = 'complete'"),
    (Role.BACKFILL, "UPDATE tollgate.feature_views SET definition = definition"),
    (Role.BACKFILL, "DELETE FROM tollgate.feature_views"),
    (Role.BACKFILL, "UPDATE tollgate.merchant_features SET version = version"),
    (Role.BACKFILL, "DELETE FROM tollgate.customer_features"),
    (Role.BACKFILL, "SELECT salt FROM tollgate.customer_features"),
    (Role.BACKFILL, "INSERT INTO tollgate.transactions DEFAULT VALUES"),
    (Role.BACKFILL, "UPDATE tollgate.feedback_labels SET author = author"),
    (Role.SCORE, "INSERT INTO tollgate.model_versions DEFAULT VALUES"),
    (Role.INGEST, "UPDATE tollgate.dead_letters SET body = body"),
    (Role.INGEST, "SELECT * FROM tollgate.transactions"),
    (Role.INGEST, "INSERT INTO tollgate.data_quality_log DEFAULT VALUES"),
    (Role.DRIFT, "SELECT * FROM tollgate.registry_outbox"),
    (Role.DRIFT, "DELETE FROM tollgate.leases"),
    (Role.RETRAIN, "UPDATE tollgate.app_meters SET cells = cells"),
    (Role.RETRAIN, "SELECT * FROM tollgate.drift_metrics"),
    (Role.DRIFT, "INSERT INTO tollgate.predictions DEFAULT VALUES"),
    (Role.DRIFT, "SELECT * FROM tollgate.customer_features"),
    (Role.RETRAIN, "SELECT * FROM tollgate.customer_features"),
    (Role.RETRAIN, "INSERT INTO tollgate.predictions DEFAULT VALUES"),
    (Role.READER, "SELECT salt FROM tollgate.customer_features"),
    (Role.READER, "INSERT INTO tollgate.outbox (transaction_id, event_time_us, recorded_at_us) VALUES ('a', 1, 1)"),
]


@pytest.mark.parametrize("role", Role)
def test_nobody_may_do_more(migrated_database: MigratedDatabase, role: Role) -> None:
    allowed = []
    with psycopg.connect(migrated_database.role_dsn(role), autocommit=True) as connection:
        for statement in (statement for who, statement in FORBIDDEN if who is role):
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(statement.encode())
            except psycopg.errors.InsufficientPrivilege:
                continue
            allowed.append(statement)
    assert not allowed


def test_a_reader_sees_everything_but_secrets(migrated_database: MigratedDatabase) -> None:
    with psycopg.connect(migrated_database.role_dsn(Role.READER)) as connection:
        for table in grants.TABLES[Role.READER]:
            columns = "customer_id, version, header, surrogate" if table == "customer_features" else "*"
            connection.execute(f"SELECT {columns} FROM tollgate.{table}".encode())


def test_granting_again_changes_nothing_and_strays_are_taken_back(migrated_database: MigratedDatabase) -> None:
    with psycopg.connect(migrated_database.dsn) as connection:
        assert grants.apply(connection) == ([], [])
        connection.execute("GRANT DELETE ON tollgate.log_blocks TO tollgate_score")
        connection.execute("GRANT SELECT (salt) ON tollgate.customer_features TO tollgate_reader")
        connection.execute("REVOKE INSERT ON tollgate.log_blocks FROM tollgate_ingest")
        changes = grants.apply(connection)
        assert [(right.role, right.item, right.privilege) for right in changes.given] == [
            ("tollgate_ingest", "log_blocks", "INSERT")
        ]
        assert [(right.role, right.item, right.column, right.privilege) for right in changes.taken] == [
            ("tollgate_reader", "customer_features", "salt", "SELECT"),
            ("tollgate_score", "log_blocks", "", "DELETE"),
        ]
        assert grants.held(connection) == grants.wanted()


def test_a_login_is_in_one_group_only(migrated_database: MigratedDatabase, database: object) -> None:
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute("CREATE ROLE somebody LOGIN")
        assert grants.join(connection, "somebody", Role.READER)
        assert not grants.join(connection, "somebody", Role.READER)
        assert grants.join(connection, "somebody", Role.SCORE)
        rows = connection.execute(
            "SELECT pg_has_role('somebody', 'tollgate_reader', 'USAGE'),"
            " pg_has_role('somebody', 'tollgate_score', 'USAGE')"
        )
        assert rows.fetchone() == (False, True)
        connection.rollback()
