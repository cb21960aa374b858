"""`tollgate models` and `tollgate promote` on a real database and storage, and a writer that is killed half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import azure.functions as func
import psycopg
import pytest
from azure.storage.blob import BlobServiceClient
from typer.testing import CliRunner

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.postgres import PostgresConnection
from shared.adapters.schema.grants import Role as Group
from shared.adapters.system_clock import SystemClock
from shared.bootstrap.retrain_shadow import shadow_parts
from shared.bootstrap.succession import succession_of
from shared.domain.bundle_manifest import canonical_json
from shared.domain.bundle_pointer import Role
from shared.domain.promotion import Check, CheckName, GateRules, Verdict, write_verdict
from shared.entrypoints.shadow_timers import ShadowParts, score
from tests.conftest import MigratedDatabase
from tests.fakes.bundles import golden_files
from twin.cli import app


class Timer(func.TimerRequest):
    """A firing on time."""

    past_due = False


PROGRAM: Final = """
import os, signal
from twin.models import throne_of
with throne_of() as (throne, store):
    store.point = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    {statement}
"""


def files(version: int) -> dict[str, bytes]:
    """The recorded bundle as another version of its model."""
    made = golden_files()
    return made | {"manifest.json": canonical_json(json.loads(made["manifest.json"]) | {"version": version})}


@dataclass
class Desk:
    """Somebody at a terminal, in front of a deployment."""

    environment: dict[str, str]
    where: PostgresConnection
    store: BlobBundles
    timer: ShadowParts

    def run(self, *arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, arguments, env={**os.environ, **self.environment, "COLUMNS": "200"})
        assert done.exit_code == code, done.output
        return done.output

    def judge(self, digest: str, champion: str | None, *, passed: bool = True) -> None:
        """Enter a verdict, as the retrain app does."""
        recall = Check(CheckName.RECALL, 0.5, None, "at least 0.8", passed, "as found")
        checks = (Check(CheckName.OPENS, None, None, "all", True, "it opens"), recall)
        verdict = Verdict(digest, champion, "golden", 1, GateRules(), None, checks)
        with succession_of(self.where, self.store, SystemClock(), "test") as throne:
            throne.judged(write_verdict(verdict), None, time.time_ns() // 1000)

    def die(self, statement: str) -> None:
        """Run a statement with the throne in a process of its own, which it kills before a pointer is written."""
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(statement=statement)],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr

    def champion(self) -> str | None:
        return self.store.pointer(Role.CHAMPION).digest


@pytest.fixture
def desk(migrated_database: MigratedDatabase, storage: str) -> Iterator[Desk]:
    """A deployment with nobody who decides."""
    with psycopg.connect(migrated_database.dsn) as connection:
        for table in ("promotions", "promotion_verdicts", "model_versions"):
            connection.execute(f"DELETE FROM tollgate.{table}")
    name = f"models-{uuid.uuid4().hex[:12]}"
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        container = service.create_container(name)
        environment = {
            "DATABASE": migrated_database.role_dsn(Group.RETRAIN),
            "DATA_STORAGE": storage,
            "MODELS_CONTAINER": name,
        }
        where = migrated_database.role_connection(Group.RETRAIN)
        yield Desk(environment, where, BlobBundles(container), shadow_parts(service, name, where, SystemClock(), ""))
        container.delete_container()


def test_a_succession_by_commands(desk: Desk) -> None:
    first, second = (desk.store.put(files(version)) for version in (1, 2))
    assert "no model is known yet" in desk.run("models", "list")
    assert "no role was ever given" in desk.run("models", "history")
    assert "no verdict of the gate" in desk.run("promote", first[:8], "--reason", "good", code=1)
    desk.judge(first, None, passed=False)
    assert "recall floor" in desk.run("promote", first, "--reason", "good", code=1)
    assert "or --accept" in desk.run("promote", first, code=1)
    accepted = desk.run("promote", first[:6], "--accept", "the [best] there is", "--author", "ada")
    assert "by ada: the [best] there is" in accepted
    assert desk.champion() == first
    assert "only for a first champion" in desk.run("models", "promote", second, "--accept", "also good", code=1)
    desk.judge(second, first)
    desk.run("models", "promote", second[:9], "--reason", "it is better", "--author", "grace")
    assert desk.champion() == second
    listed = [json.loads(line) for line in desk.run("models", "list", "--json").splitlines()]
    assert {row["digest"]: (row["status"], row["by"]) for row in listed} == {
        first: ("retired", None),
        second: ("champion", "grace"),
    }
    assert second[:12] in desk.run("models", "list")
    shown = desk.run("models", "show", second[:7])
    assert second in shown
    assert "passed" in shown
    assert "golden 1" in desk.run("models", "diff", first, second)
    desk.run("models", "rollback", "--reason", "it was not", "--author", "ada")
    assert desk.champion() == first
    assert "there is none" in desk.run("models", "rollback", "--reason", "once more", code=1)
    history = [json.loads(line) for line in desk.run("models", "history", "--role", "champion", "--json").splitlines()]
    assert [(one["number"], one["action"], one["author"]) for one in history] == [
        (1, "accept", "ada"),
        (2, "promote", "grace"),
        (3, "rollback", "ada"),
    ]
    assert "the [best] there is" in desk.run("models", "history")
    assert not desk.run("models", "history", "--role", "shadow", "--json")


def test_what_is_meant_must_be_clear(desk: Desk) -> None:
    assert "6 to 64 hexadecimal digits" in desk.run("models", "show", "abc", code=1)
    assert "names no bundle" in desk.run("models", "show", "abcdef", code=1)
    assert "must be --reason" in desk.run("promote", "abcdef", "--reason", "a", "--accept", "b", code=1)


def test_what_cannot_be_reached_is_told(desk: Desk) -> None:
    desk.environment["DATABASE"] = "postgresql://nobody@127.0.0.1:9/none"
    assert "cannot" in desk.run("models", "list", code=2)


@pytest.mark.parametrize("next_one", ["timer", "rollback"])
def test_a_writer_that_is_killed_between_account_and_pointer_is_followed(desk: Desk, next_one: str) -> None:
    first, second = (desk.store.put(files(version)) for version in (1, 2))
    desk.run("promote", first, "--accept", "the first")
    desk.judge(second, first)
    desk.die(f"throne.promote({second!r}, author='ada', reason='it is better')")
    assert desk.champion() == first
    history = [json.loads(line) for line in desk.run("models", "history", "--json").splitlines()]
    assert [one["digest"] for one in history] == [first, second]
    if next_one == "timer":
        score(Timer(), desk.timer)
        assert desk.champion() == second
    else:
        desk.run("models", "rollback", "--reason", "no")
        assert desk.champion() == first
    numbers = [state.number for state in desk.store.history(Role.CHAMPION)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) == (2 if next_one == "timer" else 3)
