"""`tollgate db` against a real server, as a person or a deployment calls it."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typer.testing import CliRunner

from shared.adapters.postgres_readiness import REVISION
from tests.conftest import MigratedDatabase
from twin.cli import app


def run(*arguments: str, code: int = 0, **environment: str | None) -> str:
    result = CliRunner(env={"DATABASE": None, "COLUMNS": "200", **environment}).invoke(app, ["db", *arguments])
    assert result.exit_code == code, result.output
    return result.output.strip()


def test_a_database_is_taken_down_and_brought_up_again(migrated_database: MigratedDatabase) -> None:
    where = ("--database", migrated_database.dsn)
    assert run("current", *where) == REVISION
    assert run("upgrade", *where) == "nothing to apply"
    assert run("grants", *where) == "nothing to change"
    run("partitions", *where)  # another week may have begun since the template was made
    assert run("partitions", *where) == "made 0 partitions"
    assert run("downgrade", "base", *where, "--yes") == f"took back {REVISION}, 0001"
    assert "run `tollgate db upgrade`" in run("current", *where, code=1)
    assert run("upgrade", *where) == f"applied 0001, {REVISION}"
    assert "run `tollgate db partitions`" in run("current", *where, code=1)
    given = run("grants", *where).splitlines()
    assert "given INSERT table log_blocks tollgate_score" in given
    assert "given UPDATE(status) table model_versions tollgate_retrain" in given
    assert "made" in run("partitions", *where)
    assert run("current", *where) == REVISION


def test_taking_back_is_asked_about(migrated_database: MigratedDatabase) -> None:
    run("downgrade", "base", "--database", migrated_database.dsn, code=1)
    assert run("current", "--database", migrated_database.dsn) == REVISION


def test_history_is_partitioned_on_demand(migrated_database: MigratedDatabase) -> None:
    where = ("--database", migrated_database.dsn)
    assert run("partitions", "--from", "2018-04-01", "--to", "2018-04-05", *where) == "made 4 partitions"
    assert run("partitions", "--from", "2018-04-01", "--to", "2018-04-04", *where) == "made 0 partitions"
    assert "`from`" in run("partitions", "--from", "2018-04-02", "--to", "2018-04-01", *where, code=1)
    assert "wanted a day" in run("partitions", "--from", "01.04.2018", *where, code=1)


def test_a_login_gets_one_role(migrated_database: MigratedDatabase) -> None:
    where = ("--database", migrated_database.dsn)
    with psycopg.connect(migrated_database.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE dev_score LOGIN")
        assert run("grants", "--member", "dev_score=tollgate_score", *where) == "member dev_score"
        assert run("grants", "--member", "dev_score=tollgate_score", *where) == "nothing to change"
        connection.execute("DROP ROLE dev_score")
    assert "wanted LOGIN=ROLE" in run("grants", "--member", "dev_score=postgres", *where, code=1)


def test_the_setting_of_an_app_and_libpqs_password_will_do(migrated_database: MigratedDatabase) -> None:
    assert run("current", DATABASE=migrated_database.dsn) == REVISION
    parts = conninfo_to_dict(migrated_database.dsn)
    password = str(parts.pop("password"))
    bare = make_conninfo("", **parts)
    assert run("current", "--database", bare, PGPASSWORD=password) == REVISION


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("upgrade", "0999"), "0999"),
        (("upgrade", "--database", "postgresql://a:secret@127.0.0.1:1/none"), "refused"),
        (("current", "--database", "postgresql://a:secret@[::1/none"), "not a Postgres connection string"),
        (("partitions", "--database", "postgresql://a:secret@127.0.0.1:1/none"), "cannot do it now"),
    ],
)
def test_what_is_wrong_is_one_line_without_a_password(
    migrated_database: MigratedDatabase, arguments: tuple[str, ...], problem: str
) -> None:
    text = run(*arguments, code=1, DATABASE=migrated_database.dsn)
    assert text.startswith("tollgate: ")
    assert problem in text
    assert len(text.splitlines()) == 1
    assert "secret" not in text


def test_the_history_names_every_revision() -> None:
    assert run("history").startswith("0001  Revision 0001")
