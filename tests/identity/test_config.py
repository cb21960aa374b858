"""Configuration: every problem is named, none of them with its value; a taken port has its own exit code."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies

from tests.identity import servers
from tests.identity.servers import INGEST, ROOT, SCORE
from twin.identity import config
from twin.identity.config import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def run(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twin.identity", "--config", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"host": "0.0.0.0"}, "host: must be a loopback address (127.0.0.1, ::1)"),
        ({"port": 70000}, "port: must be a port from 0 to 65535"),
        ({"port": True}, "port: must be a port from 0 to 65535"),
        ({"header": "short"}, "header: must be a secret of at least 16 characters"),
        ({"issuer": "sts.windows.net"}, "issuer: must be an https:// address"),
        ({"issuer": "https://["}, "issuer: must be an https:// address"),
        ({"tenant_id": "tenant"}, "tenant_id: must be a UUID"),
        ({"key_file": "nowhere.pem"}, "key_file: must be a file that exists"),
        ({"token_lifetime_s": 3}, "token_lifetime_s: must be whole seconds, 4 to 86400"),
        ({"identities": []}, "identities: must be a list with at least one identity"),
        ({"identities": [SCORE, SCORE]}, "identities: two have the same client_id"),
        ({"identities": [SCORE | {"client_id": "x"}]}, "identities[0].client_id: must be a UUID"),
        ({"identities": [SCORE, "ingest"]}, "identities[1]: must be an object"),
        ({"identities": [SCORE | {"resources": "all"}]}, "identities[0].resources: must be a list of texts"),
        ({"identities": [{"name": "a"}]}, "identities[0].client_id: missing"),
        ({"postgres": []}, "postgres: must be an object or null"),
        ({"postgres": {"roles": {}}}, "postgres.admin_dsn: missing"),
        ({"postgres": {"admin_dsn": "x", "roles": {SCORE["client_id"]: 'a"b'}}}, "postgres.roles: must be"),
        ({"postgres": {"admin_dsn": "port=1", "roles": {servers.TENANT: "a"}}}, "is not the client_id of an identity"),
        ({"postgres": {"admin_dsn": "secret text", "roles": {}}}, "postgres.admin_dsn: must be a Postgres connection"),
        (
            {"postgres": {"admin_dsn": "port=1", "roles": {SCORE["client_id"]: "a", INGEST["client_id"]: "a"}}},
            "postgres.roles: two identities have the same role",
        ),
        (
            {"postgres": {"admin_dsn": "port=1", "roles": {}, "member_of": ""}},
            "postgres.member_of: must be a role name",
        ),
        ({"postgres": {"admin_dsn": "x", "roles": {}, "tls": {"port": 0}}}, "postgres.tls.certificate: missing"),
        ({"colour": "red"}, "colour: unknown"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.parse(servers.endpoint_config(tmp_path, **changes))
    assert any(text.startswith(problem) or problem in text for text in error.value.problems), error.value.problems
    assert len(error.value.problems) == len(set(error.value.problems))


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
    max_leaves=6,
)
VALID = {"port": 0, "admin_dsn": "port=1", "roles": {}, "server_host": "::1", "server_port": 1} | INGEST


@given(part=strategies.sampled_from(["", "identities", "postgres", "tls"]), changes=strategies.data())
def test_whatever_is_in_the_file_has_an_answer(part: str, changes: strategies.DataObject) -> None:
    raw: dict[str, Any] = {key: VALID.get(key, "x") for key in config.Config.__dataclass_fields__}
    raw |= {"identities": [dict(INGEST)], "postgres": {"admin_dsn": "port=1", "roles": {}}}
    raw["postgres"]["tls"] = {"port": 1, "certificate": "x", "key": "\0", "server_host": "::1", "server_port": 1}
    inside = {"": raw, "identities": raw["identities"][0], "postgres": raw["postgres"], "tls": raw["postgres"]["tls"]}
    inside[part] |= changes.draw(strategies.dictionaries(strategies.sampled_from(sorted(inside[part])), JSON))
    with pytest.raises(ConfigError):
        config.parse(raw)


@pytest.mark.parametrize("raw", [None, 1, "text", [], {}])
def test_what_is_no_configuration_at_all_is_refused(raw: object) -> None:
    with pytest.raises(ConfigError):
        config.parse(raw)


def test_the_command_names_all_problems_and_no_secret(tmp_path: Path) -> None:
    raw = servers.endpoint_config(tmp_path, port=-1, header="tiny-secret", colour="red")
    del raw["issuer"]
    file = tmp_path / "identity.json"
    file.write_text(json.dumps(raw))
    done = run(file)
    assert done.returncode == 2
    assert [line.removeprefix(f"{file}: ").split(":")[0] for line in done.stderr.splitlines()] == [
        "colour",
        "port",
        "header",
        "issuer",
    ]
    assert "tiny-secret" not in done.stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "cannot read it: No such file or directory"),
        ('{"header": "oops', "it is not JSON"),
        ("[]", "the file: must be an object"),
    ],
)
def test_files_that_hold_no_configuration(tmp_path: Path, text: str | None, problem: str) -> None:
    file = tmp_path / "identity.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as error:
        config.load(file)
    assert error.value.problems == [problem]


def test_keys_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    other = servers.endpoint_config(tmp_path / "other")
    raw = servers.endpoint_config(tmp_path, public_key_file=other["public_key_file"])
    (tmp_path / "identity.json").write_text(json.dumps(raw))
    done = run(tmp_path / "identity.json")
    assert done.returncode == 2
    assert "public_key_file: must be the public half of key_file" in done.stderr


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "identity.json").write_text(json.dumps(servers.endpoint_config(tmp_path, port=port)))
        done = run(tmp_path / "identity.json")
    assert done.returncode == 3
    assert done.stderr.strip() == f"port {port} on 127.0.0.1 is taken by another process"


def test_ids_are_compared_in_lower_case_and_no_secret_is_in_a_repr(tmp_path: Path) -> None:
    raw = servers.endpoint_config(
        tmp_path,
        identities=[INGEST | {"client_id": str(INGEST["client_id"]).upper()}],
        postgres={"admin_dsn": "password=hidden-away", "roles": {str(INGEST["client_id"]).upper(): "ingest"}},
    )
    parsed = config.parse(raw)
    assert parsed.identities[0].client_id == INGEST["client_id"]
    assert parsed.postgres is not None
    assert parsed.postgres.roles == {INGEST["client_id"]: "ingest"}
    assert raw["header"] not in repr(parsed)
    assert "hidden-away" not in repr(parsed)
