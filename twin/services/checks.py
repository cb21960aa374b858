"""Validate every service by using it: what `tollgate check` runs."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import psycopg
from azure.core.exceptions import AzureError, ResourceExistsError
from azure.eventhub.exceptions import EventHubError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient

from shared.adapters.connections import ConnectionSettingError, blob_service, parse_storage
from shared.domain.instants import format_instant
from twin.services.journey import get, producer, travel
from twin.services.orchestra import State
from twin.services.settings import CONTAINERS, HOST, HUBS, TwinSettings

type Check = Callable[[], str]
"""Uses something; returns what it found, for people; raises if it cannot be used."""


@dataclass(frozen=True, slots=True)
class Result:
    """One check: what was checked, whether it holds, what was found, and how long it took in seconds."""

    name: str
    holds: bool
    detail: str
    seconds: float


class CheckFailed(Exception):
    """What was checked does not hold; the message says what was found."""


def service_results(states: list[State]) -> Iterator[Result]:
    """One result per service: does it run and does it answer."""
    for state in states:
        where = f"pid {state.running.pid}" if state.running else "external"
        yield Result(state.service.name, not state.problem, state.problem or where, 0.0)


def use_results(
    settings: TwinSettings,
    app_settings: Mapping[str, str],
    headers: Mapping[str, str],
    connect: Callable[[], psycopg.Connection],
) -> Iterator[Result]:
    """One result per use: storage, database, every hub, an event through the apps, and a decision."""
    checks: dict[str, Check] = {
        "blob round trip": partial(_blob, app_settings),
        "postgres round trip": partial(_database, connect),
        **{f"hub {hub}": partial(_hub, hub, app_settings) for hub in HUBS},
        "event to answer": partial(_journey, settings, app_settings, headers),
        "decision over HTTP": partial(_decision, settings, headers),
    }
    if app_settings.get("AzureWebJobsStorage"):
        checks["queue round trip"] = partial(_queue, app_settings["AzureWebJobsStorage"])
    for name, check in checks.items():
        yield run(name, check)


def run(name: str, check: Check) -> Result:
    """Run one check; errors of the services become its result, errors of ours do not."""
    began = time.monotonic()
    try:
        detail, holds = check(), True
    except (AzureError, EventHubError, psycopg.Error, OSError, CheckFailed, ConnectionSettingError) as error:
        text = str(error).strip()
        detail, holds = text.splitlines()[0] if text else type(error).__name__, False
    return Result(name, holds, detail, time.monotonic() - began)


def _blob(app_settings: Mapping[str, str]) -> str:
    body = uuid.uuid4().bytes
    connection = parse_storage("DATA_STORAGE", app_settings)
    with blob_service(connection, retry_total=0, connection_timeout=3) as service:
        _need_containers(service)
        blob = service.get_blob_client(CONTAINERS[0], f"check/{uuid.uuid4().hex}")
        blob.upload_blob(body)
        try:
            if blob.download_blob().readall() != body:
                raise CheckFailed("a blob came back changed")
        finally:
            blob.delete_blob()
    return f"written, read, deleted; containers {', '.join(CONTAINERS)}"


def _need_containers(service: BlobServiceClient) -> None:
    there = {container.name for container in service.list_containers()}
    missing = [name for name in CONTAINERS if name not in there]
    if missing:
        raise CheckFailed(f"missing containers: {', '.join(missing)}; run tollgate up")


def _queue(connection: str) -> str:
    with QueueClient.from_connection_string(connection, "tollgate-check", retry_total=0) as queue:
        try:
            queue.create_queue()
        except ResourceExistsError:
            queue.clear_messages()
        try:
            queue.send_message("check")
            message = queue.receive_message()
            if message is None or message.content != "check":
                raise CheckFailed("a message did not come back")
        finally:
            queue.delete_queue()
    return "sent, received, deleted"


def _database(connect: Callable[[], psycopg.Connection]) -> str:
    with connect() as connection:
        connection.execute("CREATE TEMP TABLE tollgate_check (value bigint)")
        connection.execute("INSERT INTO tollgate_check VALUES (42)")
        row = connection.execute("SELECT sum(value), current_user FROM tollgate_check GROUP BY 2").fetchone()
        connection.rollback()
        if row is None or row[0] != 42:
            raise CheckFailed(f"a row came back as {row}")
        return f"server {connection.info.server_version // 10000}, user {row[1]}"


def _hub(hub: str, app_settings: Mapping[str, str]) -> str:
    with producer(hub, app_settings) as client:
        found = client.get_eventhub_properties()
    want = HUBS[hub][0]
    if len(found["partition_ids"]) != want:
        raise CheckFailed(f"{len(found['partition_ids'])} partitions, not {want}")
    return f"{want} partitions"


def _journey(settings: TwinSettings, app_settings: Mapping[str, str], headers: Mapping[str, str]) -> str:
    journey = travel(settings.score, app_settings, headers=headers)
    if not journey.arrived:
        raise CheckFailed(f"no receipt after {journey.seconds:.0f} s ({journey.url} answered {journey.status})")
    return f"hub to ingest in {journey.receipt['lag_ms']:.0f} ms, seen over HTTP after {journey.seconds * 1000:.0f} ms"


def _decision(settings: TwinSettings, headers: Mapping[str, str]) -> str:
    """A decision of a transaction of this moment, sent twice."""
    document = {
        "transaction_id": f"check-{uuid.uuid4().hex}",
        "customer_id": "tollgate-check",
        "terminal_id": "tollgate-check",
        "amount_minor": 100,
        "currency": "EUR",
        "event_time": format_instant(time.time_ns() // 1000),
    }
    began = time.monotonic()
    status, first = _score(settings, document, headers)
    took = time.monotonic() - began
    if status == 503 and _lacks_champion(settings):
        return "no champion yet, so nothing is decided; `tollgate train --publish` makes one"
    if status != 200:
        raise CheckFailed(f"score answered {status}: {first[:200].decode(errors='replace')}")
    status, second = _score(settings, document, headers)
    if (status, second) != (200, first):
        raise CheckFailed("the same transaction got another answer the second time")
    answer = json.loads(first)
    model = answer["model"]
    return f"{answer['decision']} by {model['name']} {model['version']} in {took * 1000:.0f} ms, the same when repeated"


def _score(settings: TwinSettings, document: Mapping[str, object], headers: Mapping[str, str]) -> tuple[int, bytes]:
    request = urllib.request.Request(
        f"http://{HOST}:{settings.score}/api/score",
        data=json.dumps(document).encode(),
        headers={"Content-Type": "application/json", **headers},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def _lacks_champion(settings: TwinSettings) -> bool:
    _, body = get(f"http://{HOST}:{settings.score}/api/health/ready")
    return any(item["name"] == "champion" and not item["usable"] for item in json.loads(body).get("dependencies", ()))
