"""How Postgres runs the ledger's statements: by looking single keys up, in a new database and in one with many rows."""

from __future__ import annotations

import re

import psycopg

from shared.adapters import postgres_ledger_statements
from shared.adapters.postgres_ledger import PLANS
from shared.adapters.postgres_ledger_statements import Statement
from shared.adapters.postgres_session import PostgresSession
from tests.conftest import MigratedDatabase
from tests.contract.ledger_stores import FIRST_US, LAST_US
from tests.unit.domain.worlds import BASE_US

NOT_BY_KEY = {"begin", "commit", "rollback", "layout"}
"""What reads no row, and the one table that is read whole: it has a row per feature view."""

STATEMENTS = [
    item
    for item in vars(postgres_ledger_statements).values()
    if isinstance(item, Statement) and item.name not in NOT_BY_KEY
]

FILL = f"""
INSERT INTO tollgate.transaction_ids SELECT 't' || n, sha256(''), {BASE_US} + n, 'c' || n, 'm' || n
FROM generate_series(1, 5000) n;
INSERT INTO tollgate.predictions SELECT 't' || n, {BASE_US} + n, '', 0, 0.5, repeat('0', 64), 'w', n, 0, 0
FROM generate_series(1, 5000) n;
INSERT INTO tollgate.customer_features (customer_id, salt) SELECT 'c' || n, '' FROM generate_series(1, 5000) n;
INSERT INTO tollgate.merchant_features (terminal_id) SELECT 'm' || n FROM generate_series(1, 5000) n;
INSERT INTO tollgate.entity_tiles SELECT n % 2, 'c' || n / 4, n, n, '' FROM generate_series(1, 5000) n;
INSERT INTO tollgate.feedback_labels SELECT 't' || n, sha256(''), 0, 0, 0, 0, 0, 'a', 0, NULL, NULL
FROM generate_series(1, 5000) n;
ANALYZE;
"""


def dear_plans(session: PostgresSession) -> list[str]:
    """Statements that would read more than the rows they name."""
    found = []
    for statement in STATEMENTS:
        answer = session.connection.pgconn.exec_(f"EXPLAIN (GENERIC_PLAN) {statement.sql}".encode())
        assert answer.status == psycopg.pq.ExecStatus.TUPLES_OK, answer.error_message
        plan = b"\n".join(answer.get_value(row, 0) or b"" for row in range(answer.ntuples)).decode()
        scans = len(re.findall(r"(Index Only Scan|Index Scan|Bitmap Index Scan)", plan))
        by_key = len(re.findall(r"Index Cond: \(+(transaction_id|customer_id|terminal_id|entity) = ", plan))
        if scans != by_key or any(word in plan for word in ("Seq Scan", "Hash Join", "Merge Join", "Gather")):
            found.append(f"{statement.name}: {plan}")
    return found


def test_every_statement_looks_its_rows_up_by_key(migrated_database: MigratedDatabase) -> None:
    migrated_database.make_partitions(FIRST_US, LAST_US)
    session = PostgresSession(migrated_database.connection, "test", PLANS)
    in_a_new_database = dear_plans(session)
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute(FILL.encode())
    in_a_full_one = dear_plans(session)
    session.close()
    assert (in_a_new_database, in_a_full_one) == ([], [])
