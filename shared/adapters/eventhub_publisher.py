"""Events to a hub, with the SDK's own producer: a failed send is known, which an output binding's is not.

A key's events go to one partition, chosen here by a hash of the key, and leave in their order. The partition is chosen
here and not by the service because a batch with a partition key holds events of that key only: 500 decisions of 400
customers would be 400 sends, by partition they are one or two for each.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from shared.adapters.connections import credential, hub_options, parse_hub
from shared.domain.errors import BrokenInvariant, TollgateError, Transient
from shared.domain.event import OutgoingEvent

if TYPE_CHECKING:
    from azure.eventhub import EventHubProducerClient

RETRIES: Final = 2
"""The SDK's own retries of a send; what fails after them waits in the outbox for the next run."""


class EventHubPublisher:
    """Sends to one hub; used by one thread at a time.

    The client is made at the first use and after every error: a producer link that failed is not trusted again.
    """

    def __init__(self, make_client: Callable[[], EventHubProducerClient]) -> None:
        self._make_client = make_client
        self._client: EventHubProducerClient | None = None
        self._partitions: list[str] = []

    @classmethod
    def of_setting(cls, name: str, hub: str, settings: Mapping[str, str]) -> EventHubPublisher:
        """The publisher of a hub by an app's connection setting.

        Raises:
            ConnectionSettingError: The setting is missing or malformed.
        """
        connection = parse_hub(name, settings)
        options = {**hub_options(connection), "eventhub_name": hub, "retry_total": RETRIES}

        def make() -> EventHubProducerClient:
            from azure.eventhub import EventHubProducerClient  # noqa: PLC0415 - paid by those who send

            if connection.identity is None:
                return EventHubProducerClient.from_connection_string(**options)
            return EventHubProducerClient(credential=credential(connection.identity), **options)

        return cls(make)

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        """Send events, a partition after the other."""
        if not events:
            return
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - as above
        from azure.eventhub.exceptions import EventHubError  # noqa: PLC0415

        try:
            self._publish(events)
        except (EventHubError, AzureError, OSError) as error:
            self.close()
            raise meaning(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection; the next use opens another one."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # a broken link may fail to close; it is gone either way
                client.close()

    def _publish(self, events: Sequence[OutgoingEvent]) -> None:
        from azure.eventhub import EventData  # noqa: PLC0415 - as above

        if self._client is None:
            self._client = self._make_client()
            self._partitions = sorted(self._client.get_partition_ids())
        grouped: dict[str, list[OutgoingEvent]] = defaultdict(list)
        for event in events:
            grouped[self._partitions[zlib.crc32(event.key.encode()) % len(self._partitions)]].append(event)
        for partition, own in sorted(grouped.items()):
            batch = self._client.create_batch(partition_id=partition)
            for event in own:
                data = EventData(event.body)
                data.properties = {"key": event.key}
                try:
                    batch.add(data)
                except ValueError as error:  # the batch is full, or the event alone is too large
                    if len(batch) == 0:
                        raise BrokenInvariant(
                            f"an event of {len(event.body)} bytes is too large for the hub"
                        ) from error
                    self._client.send_batch(batch)
                    batch = self._client.create_batch(partition_id=partition)
                    try:
                        batch.add(data)
                    except ValueError as larger:
                        raise BrokenInvariant(
                            f"an event of {len(event.body)} bytes is too large for the hub"
                        ) from larger
            self._client.send_batch(batch)


def meaning(error: Exception) -> TollgateError:
    """The error of Tollgate's tree that an error of the SDK stands for.

    A refused login and an event that the service will never take are broken installations; whatever else, the
    decisions wait in the outbox and the next attempt may succeed.
    """
    from azure.eventhub.exceptions import AuthenticationError, EventDataError  # noqa: PLC0415 - as above

    doing = "sending to the hub"
    if isinstance(error, AuthenticationError):
        return BrokenInvariant(f"{doing}: the login was refused")
    if isinstance(error, EventDataError):
        return BrokenInvariant(f"{doing}: an event was refused ({type(error).__name__})")
    return Transient(f"{doing}: {type(error).__name__}")
