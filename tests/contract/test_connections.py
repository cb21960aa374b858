"""Settings to clients: the two forms, what is refused, and that no secret shows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shared.adapters import connections, postgres
from shared.adapters.connections import ConnectionSettingError, HubConnection, Identity, StorageConnection

KEY = "c2VjcmV0LWtleS1zZWNyZXQta2V5"
BLOBS = f"DefaultEndpointsProtocol=http;AccountName=dev;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:1/dev;"
HUBS = f"Endpoint=sb://127.0.0.1:5672;SharedAccessKeyName=k;SharedAccessKey={KEY};UseDevelopmentEmulator=true;"


def test_a_connection_string_is_taken_as_it_is() -> None:
    storage = connections.parse_storage("Store", {"Store": BLOBS, "Other__accountName": "x"})
    assert storage == StorageConnection(name="Store", connection_string=BLOBS)
    with connections.blob_service(storage) as client:
        assert client.url == "http://127.0.0.1:1/dev/"
    hub = connections.parse_hub("Events", {"Events": HUBS})
    assert connections.hub_options(hub) == {"conn_str": HUBS}


def test_an_account_name_stands_for_the_addresses_of_the_public_cloud() -> None:
    settings = {
        "Store__accountName": "tollgateprod",
        "Store__credential": "managedidentity",
        "Store__clientId": "6f0e",
    }
    storage = connections.parse_storage("Store", settings)
    assert storage.blob_uri == "https://tollgateprod.blob.core.windows.net"
    assert storage.queue_uri == "https://tollgateprod.queue.core.windows.net"
    assert storage.identity == Identity(managed=True, client_id="6f0e")


def test_addresses_of_services_are_taken_one_by_one() -> None:
    storage = connections.parse_storage("Store", {"Store__blobServiceUri": "https://localhost:10000/dev/"})
    assert storage.blob_uri == "https://localhost:10000/dev"
    assert storage.queue_uri is None
    assert storage.identity == Identity(managed=False, client_id=None)


def test_a_namespace_with_a_port_and_own_roots_are_passed_to_the_sdk_by_name() -> None:
    local = {"E__fullyQualifiedNamespace": "localhost:5671", "E__credential": "managedidentity", "SSL_CERT_FILE": "ca"}
    options = connections.hub_options(connections.parse_hub("E", local))
    assert str(options.pop("transport_type")) == "TransportType.Amqp"
    assert options == {
        "fully_qualified_namespace": "localhost:5671",
        "custom_endpoint_address": "sb://localhost:5671",
        "connection_verify": "ca",
    }
    cloud = connections.parse_hub("E", {"E__fullyQualifiedNamespace": "tg.servicebus.windows.net"})
    assert connections.hub_options(cloud) == {"fully_qualified_namespace": "tg.servicebus.windows.net"}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "neither is given"),
        ({"C": "  ", "C__clientId": ""}, "neither is given"),
        ({"C": BLOBS, "C__accountName": "abc"}, "not both; given besides it: C__accountName"),
        ({"C__accountName": "abc", "C__accountKey": KEY}, "unknown C__accountKey"),
        ({"C__accountName": "No-Account"}, "C__accountName: 3 to 24"),
        ({"C__credential": "managedidentity"}, "C__accountName or C__blobServiceUri"),
        ({"C__accountName": "abc", "C__blobServiceUri": "https://x"}, "C__accountName or C__blobServiceUri"),
        ({"C__blobServiceUri": "http://x"}, "C__blobServiceUri: an identity needs an https:// address"),
        ({"C__accountName": "abc", "C__credential": "password"}, "C__credential: only managedidentity"),
    ],
)
def test_storage_settings_that_cannot_be_used_are_named(settings: dict[str, str], problem: str) -> None:
    with pytest.raises(ConnectionSettingError) as error:
        connections.parse_storage("C", settings)
    assert problem in str(error.value)
    assert KEY not in str(error.value)


@pytest.mark.parametrize("namespace", ["", "sb://x", "x:0", "x:99999", "x/y", "x y"])
def test_a_namespace_is_a_host_name(namespace: str) -> None:
    with pytest.raises(ConnectionSettingError, match="C__fullyQualifiedNamespace"):
        connections.parse_hub("C", {"C__fullyQualifiedNamespace": namespace, "C__credential": "managedidentity"})


def test_a_malformed_connection_string_is_not_quoted() -> None:
    storage = connections.parse_storage("C", {"C": f"AccountKey={KEY}"})
    with pytest.raises(ConnectionSettingError) as error:
        connections.blob_service(storage)
    assert error.value.__cause__ is None
    assert KEY not in str(error.value)


def test_no_secret_is_in_a_repr() -> None:
    shown = repr(connections.parse_storage("C", {"C": BLOBS})) + repr(connections.parse_hub("C", {"C": HUBS}))
    shown += repr(postgres.parse_postgres("C", {"C": f"postgresql://app:{KEY}@localhost/tollgate"}))
    assert KEY not in shown
    assert isinstance(connections.parse_hub("C", {"C": HUBS}), HubConnection)


def test_one_credential_per_identity_and_process() -> None:
    first = connections.credential(Identity(managed=True, client_id="a"))
    assert connections.credential(Identity(managed=True, client_id="a")) is first
    assert connections.credential(Identity(managed=True, client_id="b")) is not first


def test_importing_the_module_imports_no_sdk() -> None:
    code = (
        "import sys; import shared.adapters.connections, shared.adapters.postgres; "
        "print([m for m in sys.modules if m.split('.')[0] in ('azure', 'psycopg', 'certifi', 'msal', 'cryptography')])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
