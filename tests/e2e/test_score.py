"""Scoring on the twin, as an integrator meets it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from shared.adapters.blob_bundles import BlobBundles
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.instants import format_instant
from tests.e2e.conftest import Twin
from tests.fakes.bundles import golden_files
from tests.integration.score_app import serves
from twin.services.journey import get


def publish(twin: Twin) -> str:
    """Make the recorded bundle the champion of a twin, if it has none."""
    with BlobServiceClient.from_connection_string(twin.settings.storage_connection()) as service:
        store = BlobBundles(service.get_container_client("models"))
        current = store.pointer(Role.CHAMPION)
        if current.digest is None:
            digest = store.put(golden_files())
            change = Pointer(Role.CHAMPION, digest, current.next_number, time.time_ns() // 1000, "a test", "a test")
            current = store.point(change, current.tag)
    assert current.digest is not None
    return current.digest


def url(twin: Twin, path: str) -> str:
    return f"http://127.0.0.1:{twin.settings.score}/api/{path}"


def score(twin: Twin, fields: dict[str, Any]) -> tuple[int, bytes]:
    request = urllib.request.Request(
        url(twin, "score"), json.dumps(fields).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture(scope="module")
def digest(twin: Twin) -> str:
    published = publish(twin)
    serves(twin.settings.score, 2, published)
    return published


def test_a_decision_on_the_twin(twin: Twin, digest: str) -> None:
    fields = {
        "transaction_id": uuid.uuid4().hex,
        "customer_id": "card-1",
        "terminal_id": "terminal-1",
        "amount_minor": 4_250,
        "currency": "EUR",
        "event_time": format_instant(time.time_ns() // 1000),
    }
    status, first = score(twin, fields)
    assert status == 200, first
    assert json.loads(first)["model"]["digest"] == digest
    assert score(twin, fields) == (200, first)
    assert score(twin, {**fields, "amount_minor": 1})[0] == 409
    status, known = get(url(twin, f"decisions/{fields['transaction_id']}"))
    assert status == 200
    assert json.loads(first).items() <= json.loads(known).items()


def test_the_check_decides_too(twin: Twin, digest: str) -> None:
    output = twin.run("check")
    assert "the same when repeated" in output
    assert "All checks hold." in output
