"""A whole keyless twin from one call: four servers, and an app that knows its settings only."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.identity import servers
from tests.identity.servers import ROOT
from twin.identity import config, plan
from twin.identity.plan import Database, Plan, Ports

if TYPE_CHECKING:
    from tests.identity.servers import RunningPostgres

NOW = datetime.now(UTC)
PORTS = Ports(endpoint=7070, blob=10000, queue=10001, amqps=5671, postgres_tls=5434, postgres=5433)
DATABASE = Database("postgresql://twin:hidden-away@127.0.0.1:5433/postgres", "postgres")
AS_AN_APP = Path(__file__).with_name("keyless_app.py")


def prepare(folder: Path, ports: Ports = PORTS, database: Database = DATABASE) -> Plan:
    return plan.prepare(folder, ("score", "ingest"), ports=ports, database=database, now=NOW)


def test_the_configuration_is_one_that_the_endpoint_takes(tmp_path: Path) -> None:
    made = prepare(tmp_path)
    loaded = config.load(made.config_file)
    assert [identity.name for identity in loaded.identities] == ["score", "ingest"]
    assert loaded.postgres is not None
    assert loaded.postgres.roles == {plan.client_id(name): f"{name}-identity" for name in ("score", "ingest")}
    assert made.broker_tokens["issuer"] == loaded.issuer


def test_settings_hold_no_secret_and_are_those_of_the_cloud_but_for_addresses(tmp_path: Path) -> None:
    made = prepare(tmp_path)
    settings = made.settings("score", storage=["Store"], hubs=["Events"], postgres=["Db"])
    caller = {"credential": "managedidentity", "clientId": plan.client_id("score")}
    expected = {
        "Store": {
            "blobServiceUri": "https://localhost:10000/devstoreaccount1",
            "queueServiceUri": "https://localhost:10001/devstoreaccount1",
        },
        "Events": {"fullyQualifiedNamespace": "localhost"},
        "Db": {"host": "localhost", "port": "5434", "database": "postgres", "user": "score-identity"},
    }
    assert settings == {
        f"{name}__{key}": text for name, parts in expected.items() for key, text in (parts | caller).items()
    }
    assert made.settings("ingest", hubs=["Events"])["Events__clientId"] != caller["clientId"]
    other = prepare(tmp_path, replace(PORTS, amqps=5679))
    assert other.settings("score", hubs=["Events"])["Events__fullyQualifiedNamespace"] == "localhost:5679"


def test_a_second_call_changes_nothing_that_runs(tmp_path: Path) -> None:
    first = prepare(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    later = NOW + timedelta(days=100)
    again = plan.prepare(tmp_path, ("score", "ingest"), ports=PORTS, database=DATABASE, now=later)
    assert again == first
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_secrets_are_in_private_files_only(tmp_path: Path) -> None:
    made = prepare(tmp_path)
    secret = made.environment["IDENTITY_HEADER"]
    for file in tmp_path.iterdir():
        private = stat.S_IMODE(file.stat().st_mode) == 0o600
        assert private or (secret not in file.read_text() and "PRIVATE KEY" not in file.read_text()), file
    assert secret not in repr(made)
    assert "hidden-away" not in repr(made)


@pytest.mark.slow
def test_an_app_needs_its_settings_and_no_key(tmp_path: Path, postgres: RunningPostgres) -> None:
    blob, queue, endpoint, front, amqp, amqps = (servers.free_port() for _ in range(6))
    ports = Ports(endpoint, blob, queue, amqps, front, postgres.port)
    made = prepare(tmp_path / "identity", ports, Database(postgres.admin_dsn, "postgres"))
    broker = {
        "host": plan.HOST,
        "port": amqp,
        "data_dir": str(tmp_path / "hubs"),
        "hubs": [{"name": "probes", "partitions": 1, "consumer_groups": ["$Default"]}],
        "tls": {"port": amqps, "certificate": str(made.certificates.certificate), "key": str(made.certificates.key)},
        "tokens": made.broker_tokens,
    }
    (tmp_path / "broker.json").write_text(json.dumps(broker))
    with contextlib.ExitStack() as stack:
        stack.enter_context(servers.azurite(tmp_path / "azurite", made.certificates, blob, queue))
        for name, command in (
            ("identity", list(made.command)),
            ("broker", [sys.executable, "-m", "twin.broker", "--config", str(tmp_path / "broker.json")]),
        ):
            log = tmp_path / f"{name}.log"
            stack.enter_context(servers.process(command, log, cwd=ROOT))
            servers.wait_until(f"{name} listens", 30, lambda log=log: '{"event"' in log.read_text())
        settings = made.settings("score", storage=["STORE"], hubs=["EVENTS"], postgres=["DATABASE"])
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | settings | made.environment
        done = subprocess.run(
            [sys.executable, "-W", "error", str(AS_AN_APP)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"blob": "kept", "hub": ["0"], "user": "score-identity"}
