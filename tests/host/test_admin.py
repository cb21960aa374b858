"""Keys and admin routes, with keys enforced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.host.conftest import StartHost
from tests.host.hosting import HostProcess


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def host(new_host: StartHost, keys_file: Path) -> HostProcess:
    settings = {"AzureWebJobs.boom.Disabled": "true"}
    return new_host("http", settings, enforce_keys=True, keys_file=str(keys_file)).start()


@pytest.fixture(scope="module")
def keys(host: HostProcess, keys_file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(keys_file.read_text())
    return document


def test_keys_file_is_private_and_complete(host: HostProcess, keys_file: Path, keys: dict[str, Any]) -> None:
    assert keys_file.stat().st_mode & 0o777 == 0o600
    assert "default" in keys["hostKeys"]
    assert "default" in keys["functionKeys"]["level_function"]
    assert len(keys["masterKey"]) > 40


def test_anonymous_needs_no_key(host: HostProcess) -> None:
    assert host.get("/api/text").status == 200


@pytest.mark.parametrize("way", ["header", "query"])
def test_function_level_is_opened_by_function_host_and_master_keys(
    host: HostProcess, keys: dict[str, Any], way: str
) -> None:
    def status(key: str) -> int:
        if way == "header":
            return host.get("/api/level-function", x_functions_key=key).status
        return host.get(f"/api/level-function?code={key}").status

    assert status(keys["functionKeys"]["level_function"]["default"]) == 200
    assert status(keys["hostKeys"]["default"]) == 200
    assert status(keys["masterKey"]) == 200
    assert status(keys["functionKeys"]["level_admin"]["default"]) == 401
    assert status("wrong") == 401


def test_no_key_is_401_without_a_body(host: HostProcess) -> None:
    answer = host.get("/api/level-function")
    assert (answer.status, answer.body) == (401, b"")


def test_admin_level_is_opened_by_the_master_key_only(host: HostProcess, keys: dict[str, Any]) -> None:
    assert host.get("/api/level-admin", x_functions_key=keys["masterKey"]).status == 200
    assert host.get("/api/level-admin", x_functions_key=keys["hostKeys"]["default"]).status == 401


def test_admin_routes_want_the_master_key(host: HostProcess, keys: dict[str, Any]) -> None:
    assert host.get("/admin/host/status").status == 401
    assert host.get("/admin/functions", x_functions_key=keys["hostKeys"]["default"]).status == 401
    status = host.get("/admin/host/status", x_functions_key=keys["masterKey"]).json()
    assert status["state"] == "Running"
    assert host.get("/admin/host/ping").status == 200


def test_functions_are_listed_and_described(host: HostProcess, keys: dict[str, Any]) -> None:
    master = {"x_functions_key": keys["masterKey"]}
    listed = {item["name"]: item for item in host.get("/admin/functions", **master).json()}
    assert listed["item_by_number"]["invoke_url_template"] == "/api/items/{id:int}"
    one = host.get("/admin/functions/TEXT", **master).json()
    assert one["config"]["bindings"][0]["type"] == "httpTrigger"
    assert host.get("/admin/functions/nobody", **master).status == 404
    assert host.get("/admin/elsewhere", **master).status == 404


def test_http_functions_are_not_run_by_hand(host: HostProcess, keys: dict[str, Any]) -> None:
    answer = host.post("/admin/functions/text", b"{}", x_functions_key=keys["masterKey"])
    assert answer.status == 400
    assert host.post("/admin/functions/text", b"{}").status == 401


def test_disabled_function_is_not_there(host: HostProcess) -> None:
    assert host.get("/api/boom").status == 404


def test_keys_survive_a_restart(new_host: StartHost, host: HostProcess, keys_file: Path, keys: dict[str, Any]) -> None:
    again = new_host("http", {}, enforce_keys=True, keys_file=str(keys_file)).start()
    assert json.loads(keys_file.read_text())["masterKey"] == keys["masterKey"]
    key = keys["functionKeys"]["level_function"]["default"]
    assert again.get("/api/level-function", x_functions_key=key).status == 200
