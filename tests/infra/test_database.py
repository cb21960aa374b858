"""The bootstrap of the database: what is run, with which environment, and what a failure says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from infra.delivery.database import Bootstrap, DatabaseSchemaProvider, run_command, schema_digest
from infra.delivery.errors import DeliveryError
from infra.delivery.logins import login_statements, registry_statement

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
    bootstrap.bring_up(host, "tollgate", "tollgate-operators", {"score": "id-score-dev", "drift": "id-drift-dev"})
    return told


def test_migrations_come_first_then_grants_then_logins() -> None:
    commands = Commands()
    told = bring_up(commands)
    lines = [[part.rsplit("/", 1)[-1] for part in command[:3]] for command, _ in commands.ran]
    assert lines[0] == ["tollgate", "db", "upgrade"]
    assert lines[1] == ["tollgate", "db", "grants"]
    assert commands.ran[2][0][1:] == ["-m", "infra.delivery.logins", "score=id-score-dev", "drift=id-drift-dev"]
    assert len(told) == 3


def test_the_token_is_in_the_environment_and_in_no_argument() -> None:
    commands = Commands()
    told = bring_up(commands)
    for command, environment in commands.ran:
        assert environment["PGPASSWORD"] == "token for https://ossrdbms-aad.database.windows.net/.default"
        assert (environment["PGSSLMODE"], environment["PGUSER"]) == ("verify-full", "tollgate-operators")
        assert "token" not in " ".join(command)
    assert "token" not in " ".join(told)
    # Logins are made in the database where Azure's server has the function for it.
    assert [environment["PGDATABASE"] for _, environment in commands.ran] == ["tollgate", "tollgate", "postgres"]


@pytest.mark.parametrize(("fails", "ran"), [("upgrade", 1), ("grants", 2), ("infra.delivery.logins", 3)])
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
    assert len({first, schema_digest(tmp_path)}) == 2


def test_the_database_is_brought_up_when_anything_about_it_changed() -> None:
    provider = DatabaseSchemaProvider()
    old = {"host": "h", "database": "d", "user": "u", "logins": {"score": "id-score-dev"}, "digest": "x"}
    assert not provider.diff("", old, dict(old)).changes
    for name in old:
        assert provider.diff("", old, {**old, name: "other"}).changes


def test_each_login_gets_its_own_role_and_the_registry_none() -> None:
    statements = login_statements({"score": "id-score-dev", "mlflow": "id-mlflow-dev"})
    assert [s for s in statements if s.startswith("grant")] == ['grant "tollgate_score" to "id-score-dev"']
    assert sum("pgaadauth_create_principal" in s for s in statements) == 2
    assert registry_statement("id-mlflow-dev", exists=True).startswith("alter database mlflow owner")
    assert registry_statement("id-mlflow-dev", exists=False) == 'create database mlflow owner "id-mlflow-dev"'


@pytest.mark.parametrize("login", ["id'; drop role x; --", 'a"b', "", "x" * 64])
def test_a_login_that_could_be_anything_else_is_refused(login: str) -> None:
    with pytest.raises(ValueError, match="lower-case letters"):
        login_statements({"score": login})
