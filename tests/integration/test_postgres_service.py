from __future__ import annotations

import os
import signal
from pathlib import Path

import psycopg
import pytest

from tests.conftest import twin_settings
from twin.services.orchestra import bring_up, take_down
from twin.services.postgres import postgres_service
from twin.services.processes import Records
from twin.services.settings import TwinSettings


def test_the_product_user_owns_its_database(database: TwinSettings) -> None:
    with psycopg.connect(database.database_dsn()) as connection:
        row = connection.execute(
            "SELECT current_user, pg_get_userbyid(datdba), rolsuper, current_setting('server_version_num')::int / 10000"
            " FROM pg_database, pg_roles WHERE datname = current_database() AND rolname = current_user"
        ).fetchone()
    assert row == ("tollgate", "tollgate", False, 16)


def test_only_loopback_with_a_password(database: TwinSettings) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(database.database_dsn().replace("tollgate-local", "guess"))
    with psycopg.connect(database.database_dsn()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)


def test_committed_rows_survive_kill_minus_nine_of_the_server(tmp_path: Path) -> None:
    settings = twin_settings(tmp_path / "twin")
    records = Records(settings.root / "run")
    layers = [[postgres_service(settings)]]
    bring_up(layers, records, lambda *_: None, timeout_s=60)
    try:
        with psycopg.connect(settings.database_dsn()) as connection:
            connection.execute("CREATE TABLE kept (value int)")
            connection.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
        running = records.find("postgres")
        assert running is not None
        os.kill(running.pid, signal.SIGKILL)
        bring_up(layers, records, lambda *_: None, timeout_s=60)
        with psycopg.connect(settings.database_dsn()) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
    finally:
        take_down(layers, records, lambda *_: None)
    assert records.find("postgres") is None
