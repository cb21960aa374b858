"""Time partitions and readiness on a real server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_partitions import PostgresPartitions
from shared.adapters.postgres_readiness import PostgresSchemaDependency
from shared.adapters.schema.grants import Role
from shared.adapters.system_clock import SystemClock
from shared.domain.errors import BrokenInvariant, InvalidInput, Transient
from shared.domain.instants import US_PER_DAY
from shared.services.partitioning import MAX_WEEKS_PER_CALL, WIDTH_US, Span, names
from tests.conftest import MigratedDatabase

INSERT = """
INSERT INTO tollgate.transactions (customer_id, event_time_us, transaction_id, terminal_id, amount_minor, currency,
    customer_version, terminal_version, recorded_at_us, flags)
VALUES ('c', %s, 't', 'm', 100, 'EUR', 1, 1, 0, 0) RETURNING tableoid::regclass::text
"""


class At:
    """A clock that stands still."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us


def partitions(migrated_database: MigratedDatabase) -> PostgresPartitions:
    return PostgresPartitions(migrated_database.role_connection(Role.DRIFT), "tests")


def attached(migrated_database: MigratedDatabase) -> set[str]:
    with psycopg.connect(migrated_database.dsn) as connection:
        rows = connection.execute(
            "SELECT c.relname FROM pg_inherits i"
            " JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent"
            " WHERE p.relname IN ('transactions', 'predictions') AND c.relkind = 'r'"
        )
        return {row[0] for row in rows}


@pytest.mark.parametrize(
    ("start_us", "end_us"),
    [
        (0, 1),
        (7 * US_PER_DAY - 1, 7 * US_PER_DAY + 1),
        (1_522_540_800_000_000, 1_522_540_800_000_000 + 30 * US_PER_DAY),
    ],
)
def test_the_function_and_the_service_agree_on_names_and_edges(
    migrated_database: MigratedDatabase, start_us: int, end_us: int
) -> None:
    wanted = names(Span(start_us, end_us))
    before = attached(migrated_database)
    assert partitions(migrated_database).make(start_us, end_us) == len(set(wanted) - before)
    assert attached(migrated_database) == before | set(wanted)
    assert partitions(migrated_database).make(start_us, end_us) == 0
    with psycopg.connect(migrated_database.dsn) as connection:
        for time_us, name in ((start_us, wanted[0]), (end_us - 1, wanted[-2])):
            assert connection.execute(INSERT, [time_us]).fetchone() == (name,)
            connection.rollback()


def test_those_who_make_them_at_once_do_not_collide(migrated_database: MigratedDatabase) -> None:
    span = (1_000 * WIDTH_US, 1_010 * WIDTH_US)
    with ThreadPoolExecutor(max_workers=4) as pool:
        made = list(pool.map(lambda _: partitions(migrated_database).make(*span), range(4)))
    assert sorted(made) == [0, 0, 0, 20]


def test_neither_making_nor_writing_waits_for_the_other(migrated_database: MigratedDatabase) -> None:
    with psycopg.connect(migrated_database.dsn) as writer:
        migrated_database.make_partitions(2_000 * WIDTH_US, 2_001 * WIDTH_US)
        writer.execute(INSERT, [2_000 * WIDTH_US])
        with psycopg.connect(migrated_database.dsn) as maker:
            maker.execute("SET lock_timeout = '3s'")
            maker.execute("SELECT tollgate.make_partitions(%s, %s)", [2_001 * WIDTH_US, 2_002 * WIDTH_US])
            with psycopg.connect(migrated_database.dsn) as other:
                other.execute("SET lock_timeout = '3s'")
                other.execute(INSERT.replace("'t'", "'u'").encode(), [2_000 * WIDTH_US])
                other.rollback()
            maker.rollback()
        writer.rollback()


@pytest.mark.parametrize("span", [(-1, 5), (5, 5), (6, 5), (0, 253_370_764_800_000_001), (None, 5)])
def test_spans_that_make_no_sense_are_refused(migrated_database: MigratedDatabase, span: tuple[Any, Any]) -> None:
    with (
        psycopg.connect(migrated_database.dsn) as connection,
        pytest.raises(psycopg.errors.InvalidParameterValue, match="the span"),
    ):
        connection.execute("SELECT tollgate.make_partitions(%s, %s)", span)
    if span[0] is not None:
        with pytest.raises(InvalidInput):
            partitions(migrated_database).make(*span)


def test_one_call_has_a_bound_that_the_adapter_knows(migrated_database: MigratedDatabase) -> None:
    with (
        psycopg.connect(migrated_database.dsn) as connection,
        pytest.raises(psycopg.errors.InvalidParameterValue, match="at most 260 weeks"),
    ):
        connection.execute("SELECT tollgate.make_partitions(0, %s)", [MAX_WEEKS_PER_CALL * WIDTH_US + 1])


def test_an_event_time_without_a_partition_is_refused(migrated_database: MigratedDatabase) -> None:
    with psycopg.connect(migrated_database.dsn) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(INSERT, [3_000 * WIDTH_US])


@pytest.mark.parametrize("role", [Role.SCORE, Role.INGEST])
def test_a_migrated_database_is_ready_and_says_what_is_missing_at_another_time(
    migrated_database: MigratedDatabase, role: Role
) -> None:
    where = migrated_database.role_connection(role)
    PostgresSchemaDependency(where, "tests", SystemClock()).check()
    with pytest.raises(BrokenInvariant) as caught:
        PostgresSchemaDependency(where, "tests", At(4_000 * WIDTH_US)).check()
    assert str(caught.value) == (
        f"missing partitions {', '.join(names(Span(3_999 * WIDTH_US, 4_001 * WIDTH_US)))}: run `tollgate db partitions`"
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE tollgate.alembic_version SET version_num = '0000'", r"the schema is at 0000.*tollgate db upgrade"),
        ("DELETE FROM tollgate.alembic_version", r"the schema is missing.*tollgate db upgrade"),
        (
            "UPDATE tollgate.alembic_version SET version_num = '9999'; CREATE OR REPLACE FUNCTION"
            " tollgate.oldest_release() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '9000' $$",
            r"serves releases from 9000.*deploy a newer one",
        ),
        ("DROP TABLE tollgate.alembic_version", r"the schema is missing"),
        ("UPDATE tollgate.alembic_version SET version_num = '9999'", ""),
    ],
)
def test_a_schema_of_another_release(migrated_database: MigratedDatabase, change: str, problem: str) -> None:
    dependency = PostgresSchemaDependency(migrated_database.role_connection(Role.SCORE), "tests", SystemClock())
    with psycopg.connect(migrated_database.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT version_num FROM tollgate.alembic_version")
        connection.execute(change.encode())
        try:
            if problem:
                with pytest.raises(BrokenInvariant, match=problem):
                    dependency.check()
            else:
                dependency.check()
        finally:
            connection.execute("CREATE TABLE IF NOT EXISTS tollgate.alembic_version (version_num text PRIMARY KEY)")
            connection.execute("GRANT SELECT ON tollgate.alembic_version TO tollgate_score, tollgate_ingest")
            connection.execute("DELETE FROM tollgate.alembic_version")
            connection.execute("INSERT INTO tollgate.alembic_version SELECT version_num FROM kept")
            connection.execute("DROP TABLE kept")
            connection.execute(
                "CREATE OR REPLACE FUNCTION tollgate.oldest_release() RETURNS text LANGUAGE sql IMMUTABLE"
                " AS $$ SELECT '0001' $$"
            )


def test_a_database_that_is_away_may_come_back() -> None:
    where = parse_postgres("DATABASE", {"DATABASE": "postgresql://a:b@127.0.0.1:1/none"})
    with pytest.raises(Transient):
        PostgresSchemaDependency(where, "tests", SystemClock()).check()
    with pytest.raises(Transient):
        PostgresPartitions(where, "tests").make(0, 1)


@pytest.mark.parametrize("us", [0, 1, 999_999, 1_700_000_000_123_457, 9_223_371_999_999_999, -1, -1_500_001])
def test_instants_for_people_are_exact(migrated_database: MigratedDatabase, us: int) -> None:
    with psycopg.connect(migrated_database.dsn) as connection:
        row = connection.execute("SELECT (extract(epoch FROM tollgate.instant(%s)) * 1000000)::bigint", [us]).fetchone()
    assert row == (us,)


def test_views_put_codes_and_times_in_words(migrated_database: MigratedDatabase) -> None:
    with psycopg.connect(migrated_database.dsn) as connection:
        migrated_database.make_partitions(0, 1)
        connection.execute(INSERT.replace("0, 0)", "0, 2)").encode(), [1])
        connection.execute(
            "INSERT INTO tollgate.predictions VALUES ('t', 1, 'x', 2, 0.5, repeat('a', 64), 'w', 0, 0, 1000000)"
        )
        first = connection.execute(
            "SELECT late_for_customer, late_for_terminal, event_time::text FROM tollgate.v_transactions"
        ).fetchone()
        second = connection.execute("SELECT outcome, recorded_at::text FROM tollgate.v_predictions").fetchone()
        connection.rollback()
    assert first == (False, True, "1970-01-01 00:00:00.000001+00")
    assert second == ("decline", "1970-01-01 00:00:01+00")
