"""Publishing against a server that is slow, throttles, fails, or stops half-way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from infra.delivery.code_package import CodePackageProvider
from infra.delivery.errors import DeliveryError, PackageError
from infra.delivery.package import Package, read_package
from infra.delivery.publishing import Patience, Publisher, Target
from infra.delivery.requests import Clock, Deadline, send
from infra.delivery.vault_key import VaultKeyProvider, ensure_key
from tests.infra.azure_server import APP_ID, AzureServer, Reply, listing, serving
from tests.infra.recording import write_packages


class FakeTime:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.seconds += seconds

    def clock(self) -> Clock:
        return Clock(now=lambda: self.seconds, sleep=self.sleep, wall=lambda: 1_800_000_000 + self.seconds)


@pytest.fixture
def azure() -> Iterator[AzureServer]:
    with serving(AzureServer()) as server:
        yield server


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return read_package("score", write_packages(tmp_path))


def publish(azure: AzureServer, time: FakeTime, package: Package) -> str:
    tokens = iter(range(10_000))
    publisher = Publisher(
        token=lambda scope: f"{scope}#{next(tokens)}", patience=Patience(), clock=time.clock(), tell=lambda _: None
    )
    return publisher.publish(package, Target(azure.url, azure.url, APP_ID, azure.url))


def test_a_package_is_published_and_seen_to_run(azure: AzureServer, time: FakeTime, package: Package) -> None:
    assert publish(azure, time, package) == "d-1"
    ((method, path, headers, body),) = azure.requests("/api/publish")
    assert (method, path) == ("POST", "/api/publish?RemoteBuild=false&Deployer=pulumi")
    assert headers["authorization"].startswith("Bearer https://management.azure.com/.default#")
    assert headers["content-type"] == "application/zip"
    assert hashlib.sha256(body).hexdigest() == package.sha256
    assert [path for _, path, _, _ in azure.requests("/api/deployments/")] == ["/api/deployments/d-1"] * 2
    for route in ("live", "ready"):
        ((_, _, headers, _),) = azure.requests(f"/api/health/{route}")
        assert "authorization" not in headers


def test_roles_that_still_spread_are_waited_for(azure: AzureServer, time: FakeTime, package: Package) -> None:
    azure.publish = [Reply(403), Reply(401), Reply(202, "d-1")]
    publish(azure, time, package)
    assert len(azure.requests("/api/publish")) == 3
    tokens = {headers["authorization"] for _, _, headers, _ in azure.requests("/api/publish")}
    assert len(tokens) == 3, "a token is asked for at each attempt"


def test_a_server_that_throttles_is_given_the_time_it_asks_for(
    azure: AzureServer, time: FakeTime, package: Package
) -> None:
    later = formatdate(1_800_000_000 + 17 + 90, usegmt=True)
    azure.publish = [
        Reply(429, headers={"Retry-After": "17"}),
        Reply(503, headers={"Retry-After": later}),
        Reply(202, "d-1"),
    ]
    publish(azure, time, package)
    assert time.pauses[:2] == [17.0, 90.0]


def test_a_connection_that_breaks_is_tried_again(azure: AzureServer, time: FakeTime, package: Package) -> None:
    azure.publish = [Reply(0), Reply(502), Reply(202, "d-1")]
    azure.status = [Reply(0), Reply(200, {"status": 4})]
    publish(azure, time, package)


def test_another_deployment_that_runs_is_waited_for(azure: AzureServer, time: FakeTime, package: Package) -> None:
    azure.publish = [Reply(409, "another deployment is in progress"), Reply(202, "d-1")]
    publish(azure, time, package)


@pytest.mark.parametrize("status", [400, 404, 413, 302])
def test_a_refused_package_is_not_offered_twice(
    azure: AzureServer, time: FakeTime, package: Package, status: int
) -> None:
    azure.publish = [Reply(status, "no", headers={"Location": "http://127.0.0.1:1/"})]
    with pytest.raises(DeliveryError, match=f"refused: HTTP {status}"):
        publish(azure, time, package)
    assert len(azure.requests("/api/publish")) == 1
    assert not azure.requests("/api/deployments/")


def test_a_server_that_never_accepts_is_given_up(azure: AzureServer, time: FakeTime, package: Package) -> None:
    azure.publish = [Reply(503, "busy")]
    with pytest.raises(DeliveryError, match="publishing: gave up waiting; last seen: HTTP 503"):
        publish(azure, time, package)
    assert time.seconds <= Patience().accept_s


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"status": 3, "status_text": "could not unpack"}, "could not unpack"),
        ({"status": 6, "complete": True, "message": "partly done"}, "partly done"),
        ({"status": 5, "complete": True}, "no reason"),
    ],
)
def test_a_deployment_that_ends_badly_fails(
    azure: AzureServer, time: FakeTime, package: Package, state: dict[str, Any], reason: str
) -> None:
    azure.status = [Reply(202, {"status": 1}), Reply(200, state)]
    with pytest.raises(DeliveryError, match=f"deployment d-1 failed: {reason}"):
        publish(azure, time, package)
    assert not azure.requests(f"{APP_ID}/functions")


def test_a_slow_deployment_is_waited_for_and_an_endless_one_given_up(
    azure: AzureServer, time: FakeTime, package: Package
) -> None:
    azure.status = [*[Reply(202, {"status": 1})] * 100, Reply(200, {"status": 4})]
    publish(azure, time, package)
    assert 500 <= time.seconds <= Patience().deploy_s
    azure.status = [Reply(202, {"status": 1})]
    with pytest.raises(DeliveryError, match="deployment d-1: gave up waiting"):
        publish(azure, time, package)


def test_a_status_that_is_not_known_yet_is_asked_for_again(
    azure: AzureServer, time: FakeTime, package: Package
) -> None:
    azure.status = [Reply(404), Reply(404), Reply(200, {"status": 4})]
    publish(azure, time, package)


def test_a_status_that_cannot_be_had_fails(azure: AzureServer, time: FakeTime, package: Package) -> None:
    azure.status = [Reply(400, "odd")]
    with pytest.raises(DeliveryError, match="deployment d-1: HTTP 400"):
        publish(azure, time, package)


@pytest.mark.parametrize(
    ("body", "asked"),
    [("d-2", "d-2"), (b"d-3", "d-3"), ({"id": "d-4"}, "d-4"), (None, "latest"), ("../../admin", "latest")],
)
def test_the_id_of_a_deployment_is_read_in_every_form(
    azure: AzureServer, time: FakeTime, package: Package, body: Any, asked: str
) -> None:
    azure.publish = [Reply(202, body)]
    publish(azure, time, package)
    assert {path for _, path, _, _ in azure.requests("/api/deployments/")} == {f"/api/deployments/{asked}"}


def test_functions_that_appear_late_are_waited_for(azure: AzureServer, time: FakeTime, package: Package) -> None:
    azure.functions = [listing(), listing("health_live"), listing("health_live", "health_ready")]
    publish(azure, time, package)
    assert not azure.requests("/api/health/live")[1:]


@pytest.mark.parametrize("names", [(), ("health_live",), ("health_live", "health_ready", "of_another_version")])
def test_other_functions_than_those_of_the_package_fail(
    azure: AzureServer, time: FakeTime, package: Package, names: tuple[str, ...]
) -> None:
    azure.functions = [listing(*names)]
    with pytest.raises(DeliveryError, match="list of functions: gave up waiting; last seen: missing"):
        publish(azure, time, package)
    assert not azure.requests("/api/health/")


def test_a_list_of_functions_may_have_pages(azure: AzureServer, time: FakeTime, package: Package) -> None:
    first = listing("health_live")
    azure.functions = [
        Reply(200, {**first.body, "nextLink": f"{azure.url}{APP_ID}/functions?page=2"}),
        listing("health_ready"),
    ]
    publish(azure, time, package)
    assert len(azure.requests(f"{APP_ID}/functions")) == 2


def test_a_link_to_another_kind_of_address_gets_no_token(azure: AzureServer, time: FakeTime, package: Package) -> None:
    azure.functions = [Reply(200, {"value": [], "nextLink": "http://elsewhere.example/"})]
    with pytest.raises(DeliveryError, match="is not an https address"):
        publish(azure, time, package)


@pytest.mark.parametrize("route", ["live", "ready"])
def test_an_app_that_is_not_ready_fails_and_says_why(
    azure: AzureServer, time: FakeTime, package: Package, route: str
) -> None:
    setattr(azure, route, [Reply(503, {"title": "not ready: champion"})])
    with pytest.raises(DeliveryError, match=f"health/{route}: gave up waiting; last seen: HTTP 503 .*champion"):
        publish(azure, time, package)


def test_an_app_that_wakes_slowly_is_waited_for(azure: AzureServer, time: FakeTime, package: Package) -> None:
    azure.live = [Reply(0), Reply(502), Reply(404), Reply(200)]
    azure.ready = [Reply(503), Reply(200)]
    publish(azure, time, package)


def test_publishing_again_after_a_failure_succeeds(azure: AzureServer, time: FakeTime, package: Package) -> None:
    azure.status = [Reply(200, {"status": 3})]
    with pytest.raises(DeliveryError):
        publish(azure, time, package)
    azure.status = [Reply(200, {"status": 4})]
    publish(azure, time, package)


def test_a_zip_that_changed_since_it_was_built_is_not_published(
    azure: AzureServer, time: FakeTime, package: Package
) -> None:
    package.path.write_bytes(b"something else")
    with pytest.raises(PackageError, match="is not the package of its manifest"):
        publish(azure, time, package)
    assert not azure.seen
    with pytest.raises(PackageError, match="cannot be read"):
        publish(azure, time, replace(package, path=package.path.with_name("gone.zip")))


def test_manifests_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    folder = write_packages(tmp_path)
    path = folder / "score.manifest.json"
    good = json.loads(path.read_text(encoding="utf-8"))

    def refused(match: str, **changes: Any) -> None:
        path.write_text(json.dumps({**good, **changes}), encoding="utf-8")
        with pytest.raises(PackageError, match=match):
            read_package("score", folder)

    refused("format 2 for score", format=2)
    refused("for drift", app="drift")
    refused("never listed", functions=None)
    refused("is missing", file="gone.zip")
    refused("not a package manifest", functions=[{"title": "x"}])
    path.write_text("{", encoding="utf-8")
    with pytest.raises(PackageError, match="not a package manifest"):
        read_package("score", folder)
    path.unlink()
    with pytest.raises(PackageError, match="run `tollgate package`"):
        read_package("score", folder)


def test_a_package_is_published_again_only_when_it_or_its_app_changed() -> None:
    provider = CodePackageProvider()
    old = {"sha256": "a", "deployment_url": "u", "app_id": "i", "file": "here/score.zip"}
    assert not provider.diff("", old, {**old, "file": "there/score.zip"}).changes
    for name in ("sha256", "deployment_url", "app_id"):
        assert provider.diff("", old, {**old, name: "other"}).changes
        assert provider.diff("", old, {**old, name: "other"}).replaces == []


def test_a_key_is_drawn_once_and_never_seen(azure: AzureServer, time: FakeTime) -> None:
    uri = f"{azure.url}/secrets/surrogate-keys"
    azure.versions = [Reply(403), Reply(404)]
    assert ensure_key(uri, lambda scope: scope, time.clock())
    ((method, path, headers, body),) = [seen for seen in azure.seen if seen[0] == "PUT"]
    assert (method, path) == ("PUT", "/secrets/surrogate-keys?api-version=7.4")
    assert headers["authorization"] == "Bearer https://vault.azure.net/.default"
    value = json.loads(body)["value"]
    assert value.startswith("k1:")
    assert len(value) == 3 + 44
    azure.versions = [Reply(200, {"value": [{"id": "v1"}]})]
    assert not ensure_key(uri, lambda scope: scope, time.clock())
    assert len([seen for seen in azure.seen if seen[0] == "PUT"]) == 1


@pytest.mark.parametrize("route", ["versions", "secret"])
def test_a_vault_that_refuses_fails(azure: AzureServer, time: FakeTime, route: str) -> None:
    setattr(azure, route, [Reply(400, "no")])
    with pytest.raises(DeliveryError, match="key surrogate-keys: HTTP 400"):
        ensure_key(f"{azure.url}/secrets/surrogate-keys", lambda scope: scope, time.clock())


def test_another_vault_needs_another_key() -> None:
    assert not VaultKeyProvider().diff("", {"secret_uri": "a"}, {"secret_uri": "a"}).changes
    assert VaultKeyProvider().diff("", {"secret_uri": "a"}, {"secret_uri": "b"}).replaces == ["secret_uri"]


def test_a_token_goes_to_https_only(time: FakeTime) -> None:
    deadline = Deadline.after(10, "x", time.clock())
    for url in (
        "http://func.scm.azurewebsites.net/",
        "ftp://x/",
        "file:///etc/passwd",
        "http://127.0.0.1.evil.example/",
    ):
        with pytest.raises(DeliveryError, match="is not an https address"):
            send("GET", url, deadline)
