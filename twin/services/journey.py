"""One event and one request through the real apps: what `tollgate check` and the demo do."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from azure.eventhub import EventData, EventHubProducerClient

from shared.adapters.connections import credential, hub_options, parse_hub
from shared.adapters.system_clock import SystemClock
from shared.services import probing
from twin.services.settings import HOST

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Journey:
    """What went in and what came out.

    Attributes:
        sent: The event's body.
        url: The request that asked for it.
        status: HTTP status of the last answer.
        answer: The last answer's body.
        seconds: From before sending to the answer.
    """

    sent: str
    url: str
    status: int
    answer: str
    seconds: float

    @property
    def arrived(self) -> bool:
        """Whether the receipt was found."""
        return self.status == 200

    @property
    def receipt(self) -> dict[str, Any]:
        """The receipt as an object; empty if there is none."""
        return dict(json.loads(self.answer)) if self.arrived else {}


def producer(hub: str, settings: Mapping[str, str]) -> EventHubProducerClient:
    """The unmodified SDK's producer for a hub, connected as an app with these settings would be."""
    connection = parse_hub("EVENT_HUBS", settings)
    options = {**hub_options(connection), "eventhub_name": hub, "retry_total": 2}
    if connection.identity is None:
        return EventHubProducerClient.from_connection_string(**options)
    return EventHubProducerClient(credential=credential(connection.identity), **options)


def send(hub: str, bodies: list[str | bytes], settings: Mapping[str, str]) -> None:
    """Send events in one batch each, so that one oversized body does not keep the others back.

    Raises:
        azure.eventhub.exceptions.EventHubError: The broker cannot be reached or refuses.
    """
    with producer(hub, settings) as client:
        for body in bodies:
            client.send_batch([EventData(body)])


def travel(
    score_port: int,
    settings: Mapping[str, str],
    *,
    headers: Mapping[str, str] | None = None,
    hub: str = "transactions",
    timeout_s: float = 30,
) -> Journey:
    """Send a probe to the hub, then ask the score app for its receipt until it is there or the time is up.

    Raises:
        azure.eventhub.exceptions.EventHubError: The broker cannot be reached or refuses.
    """
    began = time.monotonic()
    probe_id = uuid.uuid4().hex
    body = probing.compose(probe_id, SystemClock())
    send(hub, [body], settings)
    url = f"http://{HOST}:{score_port}/api/probes/{probe_id}"
    while True:
        status, answer = get(url, headers=headers)
        seconds = time.monotonic() - began
        if status == 200 or seconds > timeout_s:
            return Journey(body, url, status, answer, seconds)
        time.sleep(_POLL_S)


def get(url: str, *, timeout_s: float = 10, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Status and body of a GET; status 0 with the reason if nobody answers."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - our own loopback URLs
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - our own loopback URLs
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode("utf-8", "replace")
    except OSError as error:
        return 0, str(getattr(error, "reason", error))
