"""One suite for reports in memory and in a blob container."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from shared.adapters.blob_reports import BlobReports
from shared.domain.errors import BrokenInvariant
from shared.ports.reports import ReportStore
from tests.fakes.reports import FakeReports


@pytest.fixture
def container(storage: str) -> Iterator[ContainerClient]:
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        client = service.create_container(f"test-{uuid.uuid4().hex}")
        yield client
        client.delete_container()


@pytest.fixture(params=["fake", "blob"])
def store(request: pytest.FixtureRequest) -> ReportStore:
    return FakeReports() if request.param == "fake" else BlobReports(request.getfixturevalue("container"))


def test_a_page_is_found_as_it_was_kept(store: ReportStore) -> None:
    assert store.get("evidently/a.html") is None
    store.put("evidently/a.html", b"one", "text/html; charset=utf-8")
    assert store.get("evidently/a.html") == (b"one", "text/html; charset=utf-8")
    store.put("evidently/a.html", b"two", "text/html; charset=utf-8")
    assert store.get("evidently/a.html") == (b"two", "text/html; charset=utf-8")


def test_paths_are_listed_by_prefix_and_sorted(store: ReportStore) -> None:
    for path in ("verdicts/b.html", "evidently/2.json", "evidently/10.json"):
        store.put(path, b"", "text/plain")
    assert store.paths("evidently/") == ["evidently/10.json", "evidently/2.json"]
    assert store.paths("nothing/") == []


def test_a_page_is_deleted_once(store: ReportStore) -> None:
    store.put("evidently/a.html", b"", "text/html")
    assert store.delete("evidently/a.html")
    assert not store.delete("evidently/a.html")
    assert store.get("evidently/a.html") is None


def test_a_missing_container_is_a_broken_installation(storage: str) -> None:
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        store = BlobReports(service.get_container_client("not-there"))
        for ask in (lambda: store.get("a"), lambda: store.delete("a"), lambda: store.paths("a")):
            with pytest.raises(BrokenInvariant):
                ask()
