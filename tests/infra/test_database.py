"""The bootstrap of the database: what is run, with which environment, and what a failure says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from infra.delivery.database import SCHEMA, Bootstrap, DatabaseSchemaProvider, run_command, schema_digest
from infra.delivery.errors import DeliveryError
from infra.delivery.logins import ROLE_PREFIX, make_logins
from infra.topology import APPS
from shared.adapters.postgres import parse_postgres

if TYPE_CHECKING:
    from psycopg import Connection

HOST = "psql-dev-62a9ed.postgres.database.azure.com"


class Commands:
    """Records commands; one of them may fail."""

    def __init__(self, fails: str = "") -> None:
        self.ran: list[tuple[list[str], dict[str, str]]] = []
        self._fails = fails

    def __call__(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
        self.ran.append((list(command), dict(environment)))
        failed = bool(self._fails) and self._fails in command
        return (1, "relation exists") if failed else (0, "done")


def bring_up(commands: Commands, host: str = HOST) -> list[str]:
    told: list[str] = []
    bootstrap = Bootstrap(token=lambda scope: f"token for {scope}", run=commands, tell=told.append)
    logins = {"score": "id-score-dev", "drift": "id-drift-dev", "mlflow": "id-mlflow-dev"}
    bootstrap.bring_up(host, "tollgate", "tollgate-operators", logins)
    return told


def test_logins_come_first_then_migrations_then_rights_then_partitions() -> None:
    commands = Commands()
    told = bring_up(commands)
    assert [command[1:] for command, _ in commands.ran] == [
        ["-m", "infra.delivery.logins", "id-score-dev", "id-drift-dev", "id-mlflow-dev"],
        ["db", "upgrade"],
        ["db", "grants", "--member=id-score-dev=tollgate_score", "--member=id-drift-dev=tollgate_drift"],
        ["db", "partitions"],
    ]
    assert all(command[0].endswith("/.venv/bin/tollgate") for command, _ in commands.ran[1:])
    assert told[1] == "database: db upgrade: done"


def test_the_roles_are_those_that_the_product_makes() -> None:
    source = (SCHEMA / "grants.py").read_text(encoding="utf-8")
    for app in APPS:
        assert f'"{ROLE_PREFIX}{app}"' in source


def test_the_token_is_in_the_environment_and_in_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("DATABASE", "postgresql://elsewhere")
    commands = Commands()
    told = bring_up(commands)
    logins, *product = commands.ran
    assert logins[1]["PGPASSWORD"] == "token for https://ossrdbms-aad.database.windows.net/.default"
    # Logins are made in the database where Azure's server has the function for it.
    assert (logins[1]["PGSSLMODE"], logins[1]["PGDATABASE"]) == ("verify-full", "postgres")
    assert "token" not in " ".join([*told, *(part for command, _ in commands.ran for part in command)])
    for _, environment in product:
        own = {name: value for name, value in environment.items() if name.startswith(("DATABASE", "PG"))}
        assert parse_postgres("DATABASE", own).identity is not None
        assert (own["DATABASE__host"], own["DATABASE__user"]) == (HOST, "tollgate-operators")


@pytest.mark.parametrize(
    ("fails", "ran"), [("infra.delivery.logins", 1), ("upgrade", 2), ("grants", 3), ("partitions", 4)]
)
def test_a_failure_stops_the_rest_and_shows_what_was_printed(fails: str, ran: int) -> None:
    commands = Commands(fails)
    with pytest.raises(DeliveryError, match="exit code 1: relation exists"):
        bring_up(commands)
    assert len(commands.ran) == ran


def test_a_host_that_is_none_reaches_no_command() -> None:
    commands = Commands()
    with pytest.raises(DeliveryError, match="not a host name"):
        bring_up(commands, "x/../y?sslmode=disable")
    assert not commands.ran


def test_commands_are_run_and_their_output_kept() -> None:
    assert run_command(["/bin/sh", "-c", "echo $WORD; exit 3"], {"WORD": "hello"}) == (3, "hello\n")
    code, text = run_command(["/nowhere/tollgate"], {})
    assert (code, "make setup" in text) == (127, True)


def test_the_digest_follows_the_migrations(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "a.py").write_text("1", encoding="utf-8")
    first = schema_digest(tmp_path)
    (tmp_path / "versions" / "note.txt").write_text("1", encoding="utf-8")
    assert schema_digest(tmp_path) == first
    (tmp_path / "versions" / "b.py").write_text("1", encoding="utf-8")
    assert schema_digest(tmp_path) != first
    (tmp_path / "versions" / "b.py").rename(tmp_path / "versions" / "c.py")
    renamed = schema_digest(tmp_path)
    (tmp_path / "versions" / "c.sql").write_text("SELECT 1", encoding="utf-8")
    assert len({first, renamed, schema_digest(tmp_path)}) == 3


def test_the_database_is_brought_up_when_anything_about_it_changed() -> None:
    provider = DatabaseSchemaProvider()
    old = {"host": "h", "database": "d", "user": "u", "logins": {"score": "id-score-dev"}, "digest": "x"}
    assert not provider.diff("", old, dict(old)).changes
    for name in old:
        assert provider.diff("", old, {**old, name: "other"}).changes


@pytest.mark.parametrize("login", ["id'; drop role x; --", 'a"b', "", "x" * 64])
def test_a_login_that_could_be_anything_else_is_refused(login: str) -> None:
    with pytest.raises(ValueError, match="lower-case letters"):
        make_logins(cast("Connection[Any]", None), [login])
