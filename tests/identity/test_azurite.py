"""Azurite with OAuth over TLS, through the shared library and the unmodified SDKs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import jwt
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.storage.blob import BlobServiceClient

from shared.adapters import connections
from tests.identity.servers import ISSUER, ROOT, SCORE
from twin.identity.certificates import trust_environment

if TYPE_CHECKING:
    from tests.identity.servers import RunningAzurite, RunningEndpoint
    from twin.identity.certificates import Certificates

ACCOUNT = "devstoreaccount1"
AS_AN_APP = Path(__file__).with_name("storage_app.py")


def settings(url: str) -> dict[str, str]:
    return {
        "Store__blobServiceUri": url,
        "Store__credential": "managedidentity",
        "Store__clientId": str(SCORE["client_id"]),
    }


def test_a_blob_travels_through_the_shared_library(
    azurite: RunningAzurite, endpoint: RunningEndpoint, tls: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**endpoint.environment, **trust_environment(tls)}.items():
        monkeypatch.setenv(name, value)
    connection = connections.parse_storage("Store", settings(azurite.url))
    with connections.blob_service(connection) as service:
        container = service.create_container(f"c{uuid.uuid4().hex}")
        container.upload_blob("probe", b"keyless")
        assert container.download_blob("probe").readall() == b"keyless"
        container.delete_container()


def test_without_a_stated_credential_the_developers_chain_finds_the_endpoint(
    azurite: RunningAzurite, endpoint: RunningEndpoint, tls: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**endpoint.environment, **trust_environment(tls)}.items():
        monkeypatch.setenv(name, value)
    parts = settings(azurite.url)
    del parts["Store__credential"]
    with connections.blob_service(connections.parse_storage("Store", parts)) as service:
        service.get_service_properties()


def test_a_process_needs_its_environment_and_nothing_else(
    azurite: RunningAzurite, endpoint: RunningEndpoint, tls: Certificates
) -> None:
    """Sync and aio, blobs and queues, in a process whose only knowledge are settings and variables."""
    environment = (
        os.environ | {"PYTHONPATH": str(ROOT)} | settings(azurite.url) | endpoint.environment | trust_environment(tls)
    )
    command = [sys.executable, "-W", "error", str(AS_AN_APP), azurite.url, azurite.queue_url, str(SCORE["client_id"])]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"sync": "sync blob", "aio": "aio blob", "queue": "message"}


def test_public_roots_alone_do_not_trust_azurite(
    azurite: RunningAzurite, endpoint: RunningEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**endpoint.environment, "REQUESTS_CA_BUNDLE": certifi.where()}.items():
        monkeypatch.setenv(name, value)
    connection = connections.parse_storage("Store", settings(azurite.url))
    with connections.blob_service(connection, retry_total=0) as service, pytest.raises(ServiceRequestError):
        service.get_service_properties()


class _Given:
    """A credential that has one token, whatever is asked for."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return AccessToken(self._token, int(time.time()) + 3600)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"aud": "https://storage.azure.com/"}, None),
        ({"aud": f"https://{ACCOUNT}.blob.core.windows.net"}, None),
        ({"aud": "https://other.blob.core.windows.net"}, "audience"),
        ({"aud": "https://eventhubs.azure.net"}, "audience"),
        ({"exp": -60}, "expired"),
        ({"nbf": 600}, "Lifetime validation failed"),
        ({"iss": "https://login.example.test/"}, "issuer"),
    ],
)
def test_azurite_checks_audience_time_and_issuer(
    azurite: RunningAzurite, endpoint: RunningEndpoint, tls: Certificates, changes: dict[str, Any], problem: str | None
) -> None:
    now = int(time.time())
    claims: dict[str, Any] = {"aud": "https://storage.azure.com", "iss": ISSUER, "iat": now, "nbf": 0, "exp": 600}
    claims |= changes
    claims |= {"nbf": now + claims["nbf"], "exp": now + claims["exp"]}
    token = jwt.encode(claims, Path(endpoint.config["key_file"]).read_bytes(), "RS256")
    options: dict[str, Any] = {"credential": _Given(token), "connection_verify": str(tls.bundle), "retry_total": 0}
    with BlobServiceClient(azurite.url, **options) as service:
        if problem is None:
            service.get_service_properties()
            return
        with pytest.raises(ClientAuthenticationError) as error:
            service.get_service_properties()
    assert error.value.status_code in (401, 403)
    assert problem in str(error.value.message)


def test_a_token_is_not_sent_over_plain_http() -> None:
    with pytest.raises(connections.ConnectionSettingError, match="https"):
        connections.parse_storage("Store", settings("http://localhost:10000/x"))


def test_no_secret_is_in_azurites_output(azurite: RunningAzurite, endpoint: RunningEndpoint, tls: Certificates) -> None:
    token = endpoint.token("https://storage.azure.com")
    with BlobServiceClient(azurite.url, credential=_Given(token), connection_verify=str(tls.bundle)) as service:
        service.get_service_properties()
    for log in (endpoint.log, azurite.log):
        assert token.rsplit(".", 1)[1] not in log.read_text()
