"""Logins of identities, on a real server; Azure's own function is played by one of ours."""

from __future__ import annotations

import psycopg
import pytest

from infra.delivery.logins import make_logins
from twin.services.settings import TwinSettings


def test_logins_are_made_once(database: TwinSettings) -> None:
    with psycopg.connect(database.database_dsn(), autocommit=True) as connection:
        connection.execute("create schema if not exists infra_logins")
        connection.execute(
            "create or replace function infra_logins.pgaadauth_create_principal(name text, admin boolean, mfa boolean)"
            " returns text language plpgsql as"
            " $$ begin execute format('create role %I login', name); return name; end $$"
        )
        connection.execute("set search_path to infra_logins, public")
        try:
            assert make_logins(connection, ["id-score-t1", "id-drift-t1"]) == ["id-score-t1", "id-drift-t1"]
            assert make_logins(connection, ["id-score-t1", "id-ingest-t1"]) == ["id-ingest-t1"]
            with pytest.raises(ValueError, match="lower-case letters"):
                make_logins(connection, ["id-ok-t1", "no good"])
            row = connection.execute("select count(*) from pg_roles where rolname like 'id-%-t1'").fetchone()
            assert row == (3,)
        finally:
            connection.execute("drop schema infra_logins cascade")
            for name in ("score", "drift", "ingest"):
                connection.execute(f'drop role if exists "id-{name}-t1"')
