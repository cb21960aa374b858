"""Connections named by bindings, resolved from app settings as the cloud resolves them, and the SDK clients on them.

`<name>` is a connection string, or `<name>__fullyQualifiedNamespace` (hubs) or `<name>__accountName` /
`<name>__blobServiceUri` (storage) with `<name>__credential=managedidentity` and `<name>__clientId` for a user-assigned
identity. A port in the namespace (127.0.0.1:5671) is for local brokers: the SDK ignores it unless told by name.
Source: learn.microsoft.com, "Guidance for developing Azure Functions", Connections.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from twin.host.bindings import (
    DEFAULT_STORAGE,
    Function,
    HttpTrigger,
    HubOutput,
    HubTrigger,
)
from twin.host.errors import BrokenApp
from twin.host.hostjson import ClientRetry

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.eventhub.aio import EventHubConsumerClient, EventHubProducerClient
    from azure.storage.blob.aio import BlobServiceClient
    from azure.storage.queue.aio import QueueServiceClient

IDENTITY = frozenset({"credential", "clientId", "tenantId", "clientSecret"})
HUB = IDENTITY | {"fullyQualifiedNamespace"}
STORAGE = IDENTITY | {"accountName", "blobServiceUri", "queueServiceUri", "tableServiceUri", "serviceUri"}


class BadConnection(ValueError):
    """A connection whose settings are incomplete or not supported; the text names the setting."""


class Connections:
    """The connections of one app; clients are made once each and closed by `close`.

    Args:
        settings: The app's environment.
        retry: How hub clients repeat what was not answered.
    """

    def __init__(self, settings: Mapping[str, str], retry: ClientRetry) -> None:
        self._settings = settings
        self._retry = retry
        self._clients: dict[tuple[str, ...], Any] = {}
        self._credentials: dict[str, AsyncTokenCredential] = {}

    def check(self, functions: Iterable[Function]) -> None:
        """Find broken connections before anything listens. Raises BrokenApp naming each."""
        problems: list[str] = []
        hubs: set[str] = set()
        storages: set[str] = set()
        for function in functions:
            trigger = function.trigger
            if isinstance(trigger, HubTrigger):
                hubs.add(trigger.connection)
            if not isinstance(trigger, HttpTrigger):  # schedules and checkpoints live there
                storages.add(DEFAULT_STORAGE)
            for output in function.outputs:
                if isinstance(output, HubOutput):
                    hubs.add(output.connection)
                else:
                    storages.add(output.connection)
        for name in sorted(hubs):
            problems += self._problems(name, HUB, ("fullyQualifiedNamespace",))
        for name in sorted(storages):
            problems += self._problems(
                name, STORAGE, ("accountName", "blobServiceUri", "queueServiceUri", "serviceUri")
            )
        if problems:
            raise BrokenApp(problems)

    def blobs(self, connection: str = DEFAULT_STORAGE) -> BlobServiceClient:
        """A client of a storage account's blobs."""
        from azure.storage.blob.aio import BlobServiceClient  # noqa: PLC0415  (slow to import)

        return self._storage(connection, "blob", BlobServiceClient)  # type: ignore[no-any-return]

    def queues(self, connection: str) -> QueueServiceClient:
        """A client of a storage account's queues."""
        from azure.storage.queue.aio import QueueServiceClient  # noqa: PLC0415  (slow to import)

        return self._storage(connection, "queue", QueueServiceClient)  # type: ignore[no-any-return]

    def producer(self, connection: str, hub: str) -> EventHubProducerClient:
        """A client that sends to a hub."""
        from azure.eventhub.aio import EventHubProducerClient  # noqa: PLC0415  (slow to import)

        key = ("producer", connection, hub)
        if key not in self._clients:
            self._clients[key] = self._hub_client(EventHubProducerClient, connection, hub, {})
        return self._clients[key]  # type: ignore[no-any-return]

    def consumer(self, connection: str, hub: str, group: str, **options: object) -> EventHubConsumerClient:
        """A new client that reads a hub; the caller closes it."""
        from azure.eventhub.aio import EventHubConsumerClient  # noqa: PLC0415  (slow to import)

        client: EventHubConsumerClient = self._hub_client(
            EventHubConsumerClient, connection, hub, {"consumer_group": group, **options}
        )
        return client

    async def close(self) -> None:
        """Close every client and credential."""
        for client in [*self._clients.values(), *self._credentials.values()]:
            await client.close()
        self._clients.clear()
        self._credentials.clear()

    def _section(self, name: str) -> dict[str, str]:
        start = f"{name}__"
        return {key[len(start) :]: value for key, value in self._settings.items() if key.startswith(start)}

    def _problems(self, name: str, known: frozenset[str], one_of: tuple[str, ...]) -> list[str]:
        text = self._settings.get(name)
        if text:
            # Without the SDK's own message, which may quote the key.
            return [] if _is_connection_string(text, known) else [f"app setting {name}: is no connection string"]
        section = self._section(name)
        problems = [f"app setting {name}__{key}: not supported by this host" for key in sorted(set(section) - known)]
        if not any(section.get(key) for key in one_of):
            problems.append(f"app setting {name}: is required (a connection string, or one of {name}__{one_of[0]} ...)")
        if section.get("credential", "managedidentity").lower() != "managedidentity":
            problems.append(f"app setting {name}__credential: must be managedidentity, not {section['credential']!r}")
        return problems

    def _credential(self, name: str) -> AsyncTokenCredential:
        if name not in self._credentials:
            self._credentials[name] = _make_credential(self._section(name))
        return self._credentials[name]

    def _storage(self, name: str, service: str, kind: Any) -> Any:
        key = (service, name)
        if key in self._clients:
            return self._clients[key]
        text = self._settings.get(name)
        if text:
            client = kind.from_connection_string(text, **_tls_trust())
        else:
            section = self._section(name)
            address = section.get(f"{service}ServiceUri") or section.get("serviceUri")
            if not address:
                account = section.get("accountName")
                if not account:
                    raise BadConnection(f"app setting {name}__{service}ServiceUri: is required")
                address = f"https://{account}.{service}.core.windows.net"
            client = kind(address, credential=self._credential(name), **_tls_trust())
        self._clients[key] = client
        return client

    def _hub_client(self, kind: Any, name: str, hub: str, options: dict[str, Any]) -> Any:
        from azure.eventhub import TransportType  # noqa: PLC0415  (slow to import)

        section = self._section(name)
        options.update(
            _tls_trust(),
            retry_mode=self._retry.mode,
            retry_total=self._retry.maximum_retries,
            retry_backoff_factor=self._retry.delay_s,
            retry_backoff_max=self._retry.maximum_delay_s,
        )
        text = self._settings.get(name)
        if text:
            return kind.from_connection_string(text, eventhub_name=hub, **options)
        namespace = section["fullyQualifiedNamespace"]
        if ":" in namespace:
            # Unless told to stay with AMQP, a custom endpoint makes the SDK talk over a web socket.
            options.update(custom_endpoint_address=f"sb://{namespace}", transport_type=TransportType.Amqp)
        return kind(
            fully_qualified_namespace=namespace,
            eventhub_name=hub,
            credential=self._credential(name),
            **options,
        )


def _is_connection_string(text: str, known: frozenset[str]) -> bool:
    """Whether the SDK of the service takes it."""
    try:
        if known is HUB:
            from azure.eventhub import parse_connection_string  # noqa: PLC0415  (slow to import)

            parse_connection_string(text)
        else:
            from azure.storage.blob import BlobServiceClient  # noqa: PLC0415  (slow to import)

            BlobServiceClient.from_connection_string(text).close()
    except ValueError:
        return False
    return True


def _tls_trust() -> dict[str, str]:
    """The certificate bundle named by SSL_CERT_FILE, which the SDKs do not read themselves."""
    bundle = os.environ.get("SSL_CERT_FILE")
    return {"connection_verify": bundle} if bundle else {}


def _make_credential(section: Mapping[str, str]) -> AsyncTokenCredential:
    from azure.identity.aio import (  # noqa: PLC0415  (slow to import)
        ClientSecretCredential,
        DefaultAzureCredential,
        ManagedIdentityCredential,
    )

    if section.get("credential"):
        return ManagedIdentityCredential(client_id=section.get("clientId"))
    if section.get("clientSecret"):
        return ClientSecretCredential(section["tenantId"], section["clientId"], section["clientSecret"])
    return DefaultAzureCredential(managed_identity_client_id=section.get("clientId"))
