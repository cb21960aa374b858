"""How an app's connection setting becomes an SDK client: the one place.

A connection has a name, and its setting has one of two forms, as in Azure Functions:

* `<NAME>`: a connection string, which holds a key (the twin's default, and nothing else);
* `<NAME>__<part>`: where the service is and who calls it, without a secret (the cloud, and the twin with `--identity`).

| part | for | meaning |
| --- | --- | --- |
| `blobServiceUri`, `queueServiceUri` | storage | `https://...` address of the service |
| `accountName` | storage | instead of the addresses: an account of the public cloud |
| `fullyQualifiedNamespace` | event hubs | host name; a port is for local brokers only |
| `credential` | all | `managedidentity`; without it the developer's own login is tried as well |
| `clientId` | all | the user-assigned identity to use; without it the system-assigned one |

Importing this module costs nothing: SDKs are imported when a client is made.

Source: Azure Functions, "Connect to host storage with an identity" and "Common properties for identity-based
connections" (functions-reference).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azure.core.credentials import TokenCredential
    from azure.storage.blob import BlobServiceClient

MANAGED_IDENTITY = "managedidentity"
# Where OpenSSL, and so aiohttp, looks for the trusted roots. The Event Hubs SDK and libpq have to be told.
CA_FILE_SETTING = "SSL_CERT_FILE"

_IDENTITY_PARTS = frozenset({"credential", "clientId"})
_STORAGE_PARTS = _IDENTITY_PARTS | {"accountName", "blobServiceUri", "queueServiceUri", "tableServiceUri"}
_HUB_PARTS = _IDENTITY_PARTS | {"fullyQualifiedNamespace"}
# Azure: 3 to 24 lower-case letters and digits.
_ACCOUNT_NAME = re.compile(r"[a-z0-9]{3,24}")
_NAMESPACE = re.compile(r"[A-Za-z0-9.-]+(?::(?P<port>[0-9]{1,5}))?")


class ConnectionSettingError(ValueError):
    """A connection's settings cannot be used. The text names the settings, never their values."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls a service.

    Attributes:
        managed: True for a managed identity only; False tries the developer's own login as well.
        client_id: Client id of a user-assigned identity; None is the system-assigned one.
    """

    managed: bool
    client_id: str | None


@dataclass(frozen=True, slots=True)
class StorageConnection:
    """Where blobs and queues are. Either `connection_string` or `identity` is set, never both.

    Attributes:
        name: Name of the setting.
        connection_string: Holds a key: never logged, not in the repr.
        blob_uri: `https://...` without a slash at the end; None when only queues were addressed.
        queue_uri: The same for queues.
        identity: Who calls.
    """

    name: str
    connection_string: str | None = field(default=None, repr=False)
    blob_uri: str | None = None
    queue_uri: str | None = None
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class HubConnection:
    """Where the event hubs are. Either `connection_string` or `identity` is set, never both.

    Attributes:
        name: Name of the setting.
        connection_string: Holds a key: never logged, not in the repr.
        namespace: Fully qualified name, `host` or (local brokers) `host:port`.
        identity: Who calls.
        ca_file: File of trusted roots, or None for those of certifi.
    """

    name: str
    connection_string: str | None = field(default=None, repr=False)
    namespace: str | None = None
    identity: Identity | None = None
    ca_file: str | None = None


def parse_storage(name: str, settings: Mapping[str, str]) -> StorageConnection:
    """Read the storage connection `name` from an app's settings.

    Raises:
        ConnectionSettingError: Neither or both forms are given, a part is unknown, missing or malformed.
    """
    text, parts = read_parts(name, settings, _STORAGE_PARTS)
    if text is not None:
        return StorageConnection(name=name, connection_string=text)
    account = parts.get("accountName")
    addresses = {kind: parts.get(f"{kind}ServiceUri") for kind in ("blob", "queue")}
    if (account is None) == (not any(addresses.values())):
        raise ConnectionSettingError(f"{name}: give {name}__accountName or {name}__blobServiceUri/__queueServiceUri")
    if account is not None:
        if not _ACCOUNT_NAME.fullmatch(account):
            raise ConnectionSettingError(f"{name}__accountName: 3 to 24 lower-case letters and digits")
        addresses = {kind: f"https://{account}.{kind}.core.windows.net" for kind in addresses}
    for kind, address in addresses.items():
        if address is not None and not address.startswith("https://"):
            # A token sent in clear could be used by whoever reads it; the SDK refuses it as well, but later.
            raise ConnectionSettingError(f"{name}__{kind}ServiceUri: an identity needs an https:// address")
    blob, queue = (address.rstrip("/") if address else None for address in addresses.values())
    return StorageConnection(name=name, blob_uri=blob, queue_uri=queue, identity=parse_identity(name, parts))


def parse_hub(name: str, settings: Mapping[str, str]) -> HubConnection:
    """Read the event hubs connection `name` from an app's settings.

    Raises:
        ConnectionSettingError: Neither or both forms are given, a part is unknown, missing or malformed.
    """
    text, parts = read_parts(name, settings, _HUB_PARTS)
    ca_file = settings.get(CA_FILE_SETTING) or None
    if text is not None:
        return HubConnection(name=name, connection_string=text, ca_file=ca_file)
    namespace = parts.get("fullyQualifiedNamespace", "")
    match = _NAMESPACE.fullmatch(namespace)
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise ConnectionSettingError(f"{name}__fullyQualifiedNamespace: a host name such as x.servicebus.windows.net")
    return HubConnection(name=name, namespace=namespace, identity=parse_identity(name, parts), ca_file=ca_file)


def read_parts(name: str, settings: Mapping[str, str], known: frozenset[str]) -> tuple[str | None, dict[str, str]]:
    """Split the settings of connection `name` into its string and its parts. A blank value counts as absent.

    Returns:
        `(text, {})` or `(None, parts)`.

    Raises:
        ConnectionSettingError: Neither or both are given, or a part is not one of `known`.
    """
    text = settings.get(name, "").strip() or None
    prefix = f"{name}__"
    parts = {key.removeprefix(prefix): value.strip() for key, value in settings.items() if key.startswith(prefix)}
    parts = {key: value for key, value in parts.items() if value}
    if text is None and not parts:
        raise ConnectionSettingError(f"{name}: set {name} or {name}__<part>; neither is given")
    if text is not None and parts:
        given = ", ".join(prefix + key for key in sorted(parts))
        raise ConnectionSettingError(f"{name}: set {name} or {name}__<part>, not both; given besides it: {given}")
    unknown = sorted(parts.keys() - known)
    if unknown:
        raise ConnectionSettingError(f"{name}: unknown {', '.join(prefix + key for key in unknown)}")
    return text, parts


def parse_identity(name: str, parts: Mapping[str, str]) -> Identity:
    """Read who calls from the parts of connection `name`.

    Raises:
        ConnectionSettingError: `credential` is neither absent nor `managedidentity`.
    """
    kind = parts.get("credential")
    if kind is not None and kind.lower() != MANAGED_IDENTITY:
        raise ConnectionSettingError(f"{name}__credential: only {MANAGED_IDENTITY} is supported")
    return Identity(managed=kind is not None, client_id=parts.get("clientId"))


@cache
def credential(identity: Identity) -> TokenCredential:
    """Return this process's credential of an identity: always the same one, so that its tokens are cached once."""
    from azure import identity as entra  # noqa: PLC0415 - 150 ms that an app with connection strings does not pay

    if identity.managed:
        return entra.ManagedIdentityCredential(client_id=identity.client_id)
    return entra.DefaultAzureCredential(managed_identity_client_id=identity.client_id)


def blob_service(connection: StorageConnection, **options: Any) -> BlobServiceClient:
    """Make the blob client of a connection. It connects on first use; the caller closes it.

    Args:
        connection: What `parse_storage` returned.
        options: Passed on to the SDK, such as `retry_total`, `connection_timeout` and `read_timeout` (seconds).

    Raises:
        ConnectionSettingError: The connection has no blob address, or its connection string is malformed.
    """
    from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - paid by those who use it

    if connection.connection_string is not None:
        try:
            return BlobServiceClient.from_connection_string(connection.connection_string, **options)
        except ValueError:
            # Without the cause: the SDK's message may quote the key.
            raise ConnectionSettingError(f"{connection.name}: not a storage connection string") from None
    if connection.blob_uri is None or connection.identity is None:
        raise ConnectionSettingError(f"{connection.name}: no address for blobs")
    return BlobServiceClient(connection.blob_uri, credential=credential(connection.identity), **options)


def hub_options(connection: HubConnection) -> dict[str, Any]:
    """Return the keyword arguments of azure-eventhub's clients for a connection, without hub name and credential.

    With a connection string: `conn_str`, for `from_connection_string`. With an identity: `fully_qualified_namespace`
    and what the SDK does not find out itself. It trusts certifi's roots only and ignores `SSL_CERT_FILE`, and it
    ignores a port in the namespace; both have to be passed by name.
    """
    options: dict[str, Any] = {"connection_verify": connection.ca_file} if connection.ca_file else {}
    if connection.connection_string is not None:
        return {"conn_str": connection.connection_string, **options}
    if connection.namespace is not None and ":" in connection.namespace:
        from azure.eventhub import TransportType  # noqa: PLC0415 - only apps that talk to hubs have it

        # Unless told to stay with AMQP, a custom endpoint makes the SDK talk over a web socket.
        options |= {"custom_endpoint_address": f"sb://{connection.namespace}", "transport_type": TransportType.Amqp}
    return {"fully_qualified_namespace": connection.namespace, **options}
