"""The sidecar that keeps MLflow's database password fresh."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest

from infra.components.mlflow_token import EARLY_S, renew
from tests.infra.azure_server import AzureServer, Reply, serving


def answering(token: Reply, monkeypatch: pytest.MonkeyPatch, azure: AzureServer) -> None:
    azure.token = [token]
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "of the platform")
    monkeypatch.setenv("AZURE_CLIENT_ID", "client-id-mlflow-prod")


def test_a_token_becomes_the_password_and_is_renewed_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = tmp_path / "pgpass"
    with serving(AzureServer()) as azure:
        answering(Reply(200, {"access_token": "abc", "expires_on": "5000"}), monkeypatch, azure)
        assert renew(password, now=1000.0) == 5000 - 1000 - EARLY_S
        assert password.read_text(encoding="ascii") == "*:*:*:*:abc\n"
        assert password.stat().st_mode & 0o777 == 0o600, "libpq ignores a file that others may read"
        answering(Reply(200, {"access_token": "def", "expires_on": "1001"}), monkeypatch, azure)
        assert renew(password, now=1000.0) == 60, "never in a tight loop"
        assert password.read_text(encoding="ascii") == "*:*:*:*:def\n"
        _, path, headers, _ = azure.seen[0]
    assert "client_id=client-id-mlflow-prod" in path
    assert "resource=https%3A%2F%2Fossrdbms-aad.database.windows.net" in path
    assert headers["x-identity-header"] == "of the platform"


def test_a_refusal_ends_the_sidecar_and_keeps_the_last_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = tmp_path / "pgpass"
    password.write_text("old", encoding="ascii")
    with serving(AzureServer()) as azure:
        answering(Reply(400, {"error": "no"}), monkeypatch, azure)
        # The platform starts a container that ended again, with growing pauses.
        with pytest.raises(urllib.error.HTTPError) as refused:
            renew(password, now=0.0)
        refused.value.close()
    assert password.read_text(encoding="ascii") == "old"
