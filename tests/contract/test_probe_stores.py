"""The same suite against the fakes and against Blob storage, so that the fakes cannot lie."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterator

import pytest
from azure.core import exceptions as azure_errors
from azure.identity import CredentialUnavailableError
from azure.storage.blob import BlobServiceClient, ContainerClient

from shared.adapters.blob_container import BlobContainerDependency
from shared.adapters.blob_dead_letters import BlobDeadLetters
from shared.adapters.blob_errors import meaning
from shared.adapters.blob_probes import BlobProbeReceipts
from shared.domain.errors import BrokenInvariant, TollgateError, Transient
from shared.domain.event import DeadLetter, StreamEvent
from shared.domain.probe import Probe, ProbeReceipt
from shared.ports.letters import DeadLetters
from shared.ports.probes import ProbeReceipts
from tests.conftest import free_ports
from tests.fakes.probes import FakeDeadLetters, FakeProbeReceipts

NOW_US = 1_700_000_000_000_000


@pytest.fixture
def container(storage: str) -> Iterator[ContainerClient]:
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        client = service.create_container(f"test-{uuid.uuid4().hex}")
        yield client
        client.delete_container()


@pytest.fixture(params=["fake", "blob"])
def receipts(request: pytest.FixtureRequest) -> ProbeReceipts:
    if request.param == "fake":
        return FakeProbeReceipts()
    return BlobProbeReceipts(request.getfixturevalue("container"))


def receipt(probe_id: str, received_at_us: int = NOW_US) -> ProbeReceipt:
    return ProbeReceipt(Probe(probe_id, NOW_US - 5), "transactions", "3", 42, NOW_US - 2, received_at_us)


def test_a_receipt_is_found_as_it_was_recorded(receipts: ProbeReceipts) -> None:
    assert receipts.find("a") is None
    assert receipts.record(receipt("a"))
    assert receipts.find("a") == receipt("a")
    assert receipts.find("b") is None


def test_the_first_receipt_stays(receipts: ProbeReceipts) -> None:
    assert receipts.record(receipt("a"))
    assert not receipts.record(receipt("a", NOW_US + 9))
    assert receipts.find("a") == receipt("a")


def test_receipts_expire_by_age_and_only_by_age(receipts: ProbeReceipts) -> None:
    for name in ("a", "b", "c"):
        receipts.record(receipt(name))
    assert receipts.expire(NOW_US - 60_000_000) == 0
    assert receipts.expire(4_000_000_000_000_000) == 3
    assert receipts.find("a") is None
    assert receipts.expire(4_000_000_000_000_000) == 0


@pytest.fixture(params=["fake", "blob"])
def dead_letters(request: pytest.FixtureRequest) -> tuple[DeadLetters, Callable[[], list[dict[str, object]]]]:
    if request.param == "fake":
        fake = FakeDeadLetters()
        return fake, lambda: [
            {"rule": item.rule, "body": item.event.body, "sequence": item.event.sequence_number}
            for item in fake.kept.values()
        ]
    container: ContainerClient = request.getfixturevalue("container")

    def read() -> list[dict[str, object]]:
        found = []
        for name in container.list_blob_names():
            document = json.loads(container.download_blob(name).readall())
            body = base64.b64decode(document["body_base64"])
            found.append({"rule": document["rule"], "body": body, "sequence": document["sequence_number"]})
        return found

    return BlobDeadLetters(container), read


def letter(sequence: int, enqueued_at_us: int = NOW_US) -> DeadLetter:
    event = StreamEvent("transactions", "1", sequence, "77", enqueued_at_us, b"\x00\xff\n")
    return DeadLetter(event, "amount", "must be positive", NOW_US)


def test_dead_letters_keep_reason_and_raw_body_once_per_event(
    dead_letters: tuple[DeadLetters, Callable[[], list[dict[str, object]]]],
) -> None:
    store, read = dead_letters
    for item in (letter(1), letter(2), letter(1), letter(1, NOW_US + 1)):
        store.put(item)
    found = read()
    assert [item["sequence"] for item in found].count(1) == 2
    assert len(found) == 3
    assert all(item["rule"] == "must be positive" and item["body"] == b"\x00\xff\n" for item in found)


def test_a_container_that_is_there_is_usable(container: ContainerClient) -> None:
    dependency = BlobContainerDependency(container)
    assert dependency.name == f"blob container {container.container_name}"
    dependency.check()


def test_a_missing_container_is_a_broken_installation(storage: str) -> None:
    with BlobServiceClient.from_connection_string(storage, retry_total=0) as service:
        missing = service.get_container_client("not-there")
        with pytest.raises(BrokenInvariant, match="does not exist"):
            BlobContainerDependency(missing).check()
        with pytest.raises(BrokenInvariant, match="does not exist"):
            BlobProbeReceipts(missing).record(receipt("a"))
        with pytest.raises(BrokenInvariant, match="does not exist"):
            BlobProbeReceipts(missing).find("a")


def test_storage_that_is_down_is_transient(storage: str) -> None:
    blob = next(part for part in storage.split(";") if part.startswith("BlobEndpoint="))
    port = free_ports(1)[0]
    moved = storage.replace(blob, f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1")
    with BlobServiceClient.from_connection_string(moved, retry_total=0) as service:
        with pytest.raises(Transient, match="cannot be reached"):
            BlobProbeReceipts(service.get_container_client("probes")).find("a")
        with pytest.raises(Transient, match="cannot be reached"):
            BlobContainerDependency(service.get_container_client("probes")).check()


def _all_subclasses(kind: type[azure_errors.AzureError]) -> set[type[azure_errors.AzureError]]:
    return {kind}.union(*(_all_subclasses(child) for child in kind.__subclasses__()))


@pytest.mark.parametrize("kind", sorted(_all_subclasses(azure_errors.AzureError), key=str))
def test_every_error_of_the_sdk_has_a_meaning(kind: type[azure_errors.AzureError]) -> None:
    # made without their own constructors, which ask for live requests and responses
    error = kind.__new__(kind)
    if isinstance(error, azure_errors.HttpResponseError):
        azure_errors.HttpResponseError.__init__(error, "made for a test")
    else:
        azure_errors.AzureError.__init__(error, "made for a test")
    assert type(meaning(error, "testing")) in {Transient, BrokenInvariant}


def test_an_identity_endpoint_that_fails_is_transient_and_a_refused_token_is_not() -> None:
    assert type(meaning(CredentialUnavailableError(message="no answer"), "testing")) is Transient
    assert type(meaning(azure_errors.ClientAuthenticationError("refused"), "testing")) is BrokenInvariant


@pytest.mark.parametrize(
    ("status", "kind"), [(503, Transient), (429, Transient), (409, Transient), (403, BrokenInvariant)]
)
def test_http_statuses_are_told_apart(status: int, kind: type[TollgateError]) -> None:
    error = azure_errors.HttpResponseError("made for a test")
    error.status_code = status
    assert type(meaning(error, "testing")) is kind


@pytest.mark.parametrize("stored", [b"", b"[]", b"{}", b"\xff"])
def test_a_stored_receipt_that_cannot_be_read_is_a_broken_invariant(container: ContainerClient, stored: bytes) -> None:
    container.upload_blob("receipts/a.json", stored)
    with pytest.raises(BrokenInvariant, match="cannot be read"):
        BlobProbeReceipts(container).find("a")
