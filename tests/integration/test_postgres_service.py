from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psycopg
import pytest

from tests.conftest import twin_settings
from twin.services.orchestra import bring_up, take_down
from twin.services.postgres import postgres_service
from twin.services.postgres_account import programs, unprivileged
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
@pytest.mark.parametrize("tools", [("unshare", "setpriv"), ("setpriv",)])
def test_root_runs_it_as_somebody_else_even_from_its_own_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: tuple[str, ...]
) -> None:
    for name in tools:
        (tmp_path / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
    (tmp_path / "true").symlink_to(shutil.which("true") or "/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    unprivileged.cache_clear()
    programs.cache_clear()
    try:
        settings = twin_settings(home / "twin")
        records = Records(settings.root / "run")
        layers = [[postgres_service(settings)]]
        bring_up(layers, records, lambda *_: None, timeout_s=60)
        with psycopg.connect(settings.database_dsn()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        take_down(layers, records, lambda *_: None)
    finally:
        unprivileged.cache_clear()
        programs.cache_clear()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_without_a_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    unprivileged.cache_clear()
    try:
        with pytest.raises(PermissionError, match="neither unshare nor setpriv"):
            unprivileged()
    finally:
        unprivileged.cache_clear()


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
