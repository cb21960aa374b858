"""Where the feeding commands write, and with whose keys."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
import typer

from shared.domain.errors import Transient
from twin.feed_connections import DATABASE, KEYS, NOT_DONE, feed_connection, ingest_environment, told
from twin.services.app_settings import surrogate_keys
from twin.services.settings import SettingsError, TwinSettings

DSN = "postgresql://someone:secret@db.example/tollgate"
OTHERS = "k9:" + base64.b64encode(bytes(32)).decode()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing but a twin's home."""
    for name in list(os.environ):
        if name.startswith((DATABASE, KEYS, "TWIN_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))


def test_the_twin_has_its_own_keys_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, OTHERS)
    where = feed_connection(None)
    assert where.keys.current.key_id == "k1"
    assert where.rows != where.owner
    assert ingest_environment()[KEYS] == surrogate_keys(TwinSettings.read(os.environ))


def test_another_database_needs_its_keys_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="SURROGATE_KEYS must be set"):
        feed_connection(DSN)
    monkeypatch.setenv(DATABASE, DSN)
    with pytest.raises(SettingsError, match="SURROGATE_KEYS must be set"):
        feed_connection(None)
    monkeypatch.setenv(KEYS, OTHERS)
    where = feed_connection(None)
    assert where.keys.current.key_id == "k9"
    assert where.rows == where.owner == feed_connection(DSN).rows
    assert ingest_environment()[DATABASE] == DSN


@pytest.mark.parametrize(("error", "code"), [(Transient("down"), NOT_DONE), (KeyboardInterrupt(), 130)])
def test_what_ends_a_command_has_its_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, told():
        raise error
    assert caught.value.exit_code == code
    assert "tollgate: " in capsys.readouterr().err
