"""The endpoint's protocol, and azure-identity as it is on top of it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError, ManagedIdentityCredential
from azure.identity import aio as azure_aio

from tests.identity import servers
from tests.identity.servers import INGEST, ISSUER, ROOT, SCORE

if TYPE_CHECKING:
    from tests.identity.servers import RunningEndpoint

STORAGE = "https://storage.azure.com"
VERSION = {"api-version": "2019-08-01"}
SCORE_ID, INGEST_ID = str(SCORE["client_id"]), str(INGEST["client_id"])


def test_a_token_has_the_documented_fields(endpoint: RunningEndpoint) -> None:
    status, body = endpoint.get(resource=STORAGE, client_id=SCORE_ID, **VERSION)
    assert status == 200
    assert set(body) == {"access_token", "expires_on", "resource", "token_type", "client_id"}
    assert (body["resource"], body["token_type"], body["client_id"]) == (STORAGE, "Bearer", SCORE_ID)
    public = Path(endpoint.config["public_key_file"]).read_bytes()
    claims = jwt.decode(body["access_token"], public, ["RS256"], audience=STORAGE, issuer=ISSUER)
    assert body["expires_on"] == str(claims["exp"])


@pytest.mark.parametrize("key", ["object_id", "principal_id"])
def test_an_identity_may_be_named_by_its_object(endpoint: RunningEndpoint, key: str) -> None:
    status, body = endpoint.get(resource=STORAGE, **{key: str(SCORE["object_id"]).upper()}, **VERSION)
    assert (status, body["client_id"]) == (200, SCORE_ID)


@pytest.mark.parametrize(
    ("header", "query", "status", "text"),
    [
        ("", {"resource": STORAGE, "client_id": SCORE_ID} | VERSION, 401, "X-IDENTITY-HEADER"),
        ("wrong", {"resource": STORAGE, "client_id": SCORE_ID} | VERSION, 401, "X-IDENTITY-HEADER"),
        (None, {"resource": STORAGE, "client_id": SCORE_ID}, 400, "api-version"),
        (None, {"resource": STORAGE, "client_id": SCORE_ID, "api-version": "2017-09-01"}, 400, "api-version"),
        (None, {"client_id": SCORE_ID} | VERSION, 400, "resource is missing"),
        (None, {"resource": STORAGE, "client_id": "nobody"} | VERSION, 400, "No User Assigned"),
        (None, {"resource": STORAGE, "mi_res_id": "/subscriptions/x"} | VERSION, 400, "No User Assigned"),
        (None, {"resource": STORAGE} | VERSION, 400, "No system-assigned"),
        (None, {"resource": "https://vault.azure.net", "client_id": INGEST_ID} | VERSION, 500, "resource"),
    ],
)
def test_refusals_have_azures_fields(
    endpoint: RunningEndpoint, header: str | None, query: dict[str, str], status: int, text: str
) -> None:
    got, body = endpoint.get(header, **query)
    assert got == status
    assert set(body) == {"statusCode", "message", "correlationId"}
    assert body["statusCode"] == status
    assert text in body["message"]
    assert body["correlationId"] in endpoint.log.read_text()


def test_headers_that_are_not_text_and_lines_in_parameters_do_no_harm(endpoint: RunningEndpoint) -> None:
    host, _, port = endpoint.url.split("/")[2].partition(":")
    lines = [b"GET /msi/token HTTP/1.1", b"Host: x", b"X-IDENTITY-HEADER: \xff\xfe", b"Connection: close", b"", b""]
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"\r\n".join(lines))
        assert b" 401 " in connection.recv(65536).splitlines()[0]
    endpoint.get(resource="https://x.test\nforged line", client_id=SCORE_ID, **VERSION)
    log = endpoint.log.read_text()
    assert "\nforged line" not in log
    assert "Traceback" not in log


def test_health_is_open_and_says_nothing_secret(endpoint: RunningEndpoint) -> None:
    with urllib.request.urlopen(endpoint.url.replace("/msi/token", "/health"), timeout=10) as response:
        assert json.load(response) == {"status": "healthy", "identities": ["score", "ingest"]}


def test_the_only_identity_is_the_system_assigned_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.endpoint(tmp_path, identities=[SCORE]) as running:
        set_environment(monkeypatch, running)
        with ManagedIdentityCredential() as credential:
            token = credential.get_token(f"{STORAGE}/.default").token
        assert token == running.token(STORAGE)


def set_environment(monkeypatch: pytest.MonkeyPatch, running: RunningEndpoint) -> None:
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)


def test_azure_identity_gets_and_caches_a_token(endpoint: RunningEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, endpoint)
    before = endpoint.token(STORAGE)
    with ManagedIdentityCredential(client_id=SCORE_ID) as credential:
        first = credential.get_token(f"{STORAGE}/.default")
        asked = endpoint.log.read_text().count("token for score")
        assert credential.get_token(f"{STORAGE}/.default").token == first.token
        assert endpoint.log.read_text().count("token for score") == asked
    assert first.token in {before, endpoint.token(STORAGE)}  # another one once a day


def test_azure_identity_aio_gets_the_same_token(endpoint: RunningEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, endpoint)

    async def ask() -> str:
        async with azure_aio.ManagedIdentityCredential(client_id=SCORE_ID) as credential:
            first = await credential.get_token(f"{STORAGE}/.default")
            assert (await credential.get_token(f"{STORAGE}/.default")).token == first.token
            return str(first.token)

    before = endpoint.token(STORAGE)
    assert asyncio.run(ask()) in {before, endpoint.token(STORAGE)}


def test_azure_identity_reports_an_unknown_identity_at_once(
    endpoint: RunningEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, endpoint)
    with (
        ManagedIdentityCredential(client_id=servers.TENANT) as credential,
        pytest.raises((ClientAuthenticationError, CredentialUnavailableError), match="No User Assigned"),
    ):
        credential.get_token(f"{STORAGE}/.default")


def test_azure_identity_takes_the_next_token_when_one_is_near_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.endpoint(tmp_path, token_lifetime_s=4) as running:
        set_environment(monkeypatch, running)
        with ManagedIdentityCredential(client_id=SCORE_ID) as credential:
            first = credential.get_token(f"{STORAGE}/.default").token
            servers.wait_until("another token", 60, lambda: credential.get_token(f"{STORAGE}/.default").token != first)


def test_a_restart_changes_no_token(tmp_path: Path) -> None:
    with servers.endpoint(tmp_path) as running:
        before = running.token(STORAGE)
        config = running.config
    with servers.endpoint(tmp_path, header=config["header"]) as running:
        assert running.token(STORAGE) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_on_request_with_exit_code_0(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "identity.json").write_text(json.dumps(servers.endpoint_config(tmp_path)))
    log = tmp_path / "log"
    command = [sys.executable, "-m", "twin.identity", "--config", str(tmp_path / "identity.json")]
    with servers.process(command, log, cwd=ROOT) as child:
        servers.wait_until("it listens", 30, lambda: "listening" in log.read_text())
        child.send_signal(number)
        assert child.wait(60) == 0
    assert "Traceback" not in log.read_text()


def test_no_secret_is_logged(endpoint: RunningEndpoint) -> None:
    token = endpoint.token(STORAGE)
    endpoint.get("a-wrong-secret", resource=STORAGE, client_id=SCORE_ID, **VERSION)
    log = endpoint.log.read_text()
    for secret in (token, token.split(".")[2], endpoint.header, "a-wrong-secret"):
        assert secret not in log
