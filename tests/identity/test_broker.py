"""The broker with tokens over TLS, through the shared library and the unmodified Event Hubs SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import jwt
import pytest
from azure.core.credentials import AccessToken
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.aio import EventHubConsumerClient
from azure.eventhub.exceptions import AuthenticationError, ConnectError
from azure.identity.aio import ManagedIdentityCredential

from shared.adapters import connections
from tests.identity import servers
from tests.identity.servers import ISSUER, ROOT, SCORE
from twin.identity.certificates import trust_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.identity.servers import RunningEndpoint
    from twin.identity.certificates import Certificates

AUDIENCE = "https://eventhubs.azure.net"
CLIENT_ID = str(SCORE["client_id"])


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker that takes tokens, over TLS only."""

    tls_port: int
    log: Path

    def settings(self, tls: Certificates) -> dict[str, str]:
        return {
            "Events__fullyQualifiedNamespace": f"localhost:{self.tls_port}",
            "Events__credential": "managedidentity",
            "Events__clientId": CLIENT_ID,
            "SSL_CERT_FILE": str(tls.bundle),
        }

    def options(self, tls: Certificates, **more: Any) -> dict[str, Any]:
        connection = connections.parse_hub("Events", self.settings(tls))
        return connections.hub_options(connection) | {"eventhub_name": "probes"} | more


@contextlib.contextmanager
def broker(folder: Path, tls: Certificates, endpoint: RunningEndpoint) -> Iterator[RunningBroker]:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "host": "127.0.0.1",
        "port": 0,
        "data_dir": str(folder / "data"),
        "hubs": [{"name": "probes", "partitions": 1, "consumer_groups": ["$Default"]}],
        "tls": {"port": 0, "certificate": str(tls.certificate), "key": str(tls.key)},
        "tokens": {
            "issuer": ISSUER,
            "audience": [AUDIENCE, f"{AUDIENCE}/"],
            "public_key_file": endpoint.config["public_key_file"],
        },
    }
    (folder / "broker.json").write_text(json.dumps(config))
    log = folder / "broker.log"
    command = [sys.executable, "-m", "twin.broker", "--config", str(folder / "broker.json")]
    with servers.process(command, log, cwd=ROOT) as child:

        def ready() -> dict[str, Any] | None:
            assert child.poll() is None, log.read_text()
            lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
            return json.loads(lines[0]) if lines else None

        yield RunningBroker(servers.wait_until("the broker listens", 30, ready)["tls_port"], log)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, tls: Certificates, endpoint: RunningEndpoint
) -> Iterator[RunningBroker]:
    with broker(tmp_path_factory.mktemp("broker"), tls, endpoint) as found:
        yield found


def set_environment(monkeypatch: pytest.MonkeyPatch, endpoint: RunningEndpoint, tls: Certificates) -> None:
    for name, value in {**endpoint.environment, **trust_environment(tls)}.items():
        monkeypatch.setenv(name, value)


def send(producer: EventHubProducerClient, *bodies: str) -> None:
    producer.send_batch([EventData(body) for body in bodies])


async def receive(options: dict[str, Any], wanted: set[str], seconds: float = 30) -> set[str]:
    """Read from the start until all wanted bodies have come."""
    found: set[str] = set()
    complete = asyncio.Event()

    async def on_event(_context: Any, event: Any) -> None:
        found.add(event.body_as_str())
        if wanted <= found:
            complete.set()

    async with ManagedIdentityCredential(client_id=CLIENT_ID) as credential:
        consumer = EventHubConsumerClient(credential=credential, consumer_group="$Default", **options)
        async with consumer:
            task = asyncio.create_task(consumer.receive(on_event, starting_position="-1"))
            try:
                await asyncio.wait_for(complete.wait(), seconds)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    return found


def test_events_travel_with_tokens_over_tls(
    running: RunningBroker, endpoint: RunningEndpoint, tls: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, endpoint, tls)
    bodies = {uuid.uuid4().hex for _ in range(20)}
    connection = connections.parse_hub("Events", running.settings(tls))
    assert connection.identity is not None
    with EventHubProducerClient(
        credential=connections.credential(connection.identity), **running.options(tls)
    ) as producer:
        send(producer, *bodies)
        assert list(producer.get_partition_ids()) == ["0"]
    assert bodies <= asyncio.run(receive(running.options(tls), bodies))


@pytest.mark.slow
def test_a_connection_lives_on_through_new_tokens(
    tmp_path: Path,
    running: RunningBroker,
    endpoint: RunningEndpoint,
    tls: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tokens of 10 s, one producer until the third was asked for: the SDK puts new ones on the open connection."""
    key = {name: endpoint.config[name] for name in ("key_file", "public_key_file")}
    with servers.endpoint(tmp_path, token_lifetime_s=10, **key) as short:
        set_environment(monkeypatch, short, tls)
        bodies = []
        connection = connections.parse_hub("Events", running.settings(tls))
        assert connection.identity is not None
        credential = connections.credential(connection.identity)
        with EventHubProducerClient(credential=credential, **running.options(tls, retry_total=0)) as producer:
            deadline = time.monotonic() + 60
            while short.log.read_text().count("token for score") < 3:
                assert time.monotonic() < deadline
                bodies.append(uuid.uuid4().hex)
                send(producer, bodies[-1])
                time.sleep(0.1)
        set_environment(monkeypatch, endpoint, tls)
        assert set(bodies) <= asyncio.run(receive(running.options(tls), set(bodies)))


class _Given:
    """A credential that has one token, whatever is asked for."""

    def __init__(self, token: str, expires_on: int | None = None) -> None:
        self._token = AccessToken(token, expires_on or int(time.time()) + 3600)

    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return self._token


@pytest.mark.parametrize(
    "fault",
    [("aud", "https://storage.azure.com"), ("iss", "https://sts.windows.net/other/"), ("exp", 0), ("key", None)],
    ids=lambda fault: fault[0],
)
def test_the_broker_refuses_tokens_that_are_not_for_it(
    tmp_path: Path, running: RunningBroker, endpoint: RunningEndpoint, tls: Certificates, fault: tuple[str, object]
) -> None:
    now, (claim, value) = int(time.time()), fault
    claims: dict[str, Any] = {"aud": AUDIENCE, "iss": ISSUER, "iat": now - 120, "nbf": now - 120, "exp": now + 600}
    signer = servers.endpoint_config(tmp_path) if claim == "key" else endpoint.config
    if claim in claims:
        claims[claim] = value
    token = jwt.encode(claims, Path(signer["key_file"]).read_bytes(), "RS256")
    options = running.options(tls, retry_total=0, auth_timeout=20)
    with (
        EventHubProducerClient(credential=_Given(token), **options) as producer,
        pytest.raises((AuthenticationError, ConnectError)),
    ):
        send(producer, "never")
    assert token.rsplit(".", 1)[1] not in running.log.read_text()


def test_public_roots_alone_do_not_trust_the_broker(
    running: RunningBroker, endpoint: RunningEndpoint, tls: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, endpoint, tls)
    options = running.options(tls, retry_total=0) | {"connection_verify": certifi.where()}
    with (
        EventHubProducerClient(credential=_Given(endpoint.token(AUDIENCE)), **options) as producer,
        pytest.raises(ConnectError, match="certificate verify failed"),
    ):
        send(producer, "never")


def test_no_token_is_in_any_log(running: RunningBroker, endpoint: RunningEndpoint, tls: Certificates) -> None:
    token = endpoint.token(AUDIENCE)
    with EventHubProducerClient(credential=_Given(token), **running.options(tls)) as producer:
        send(producer, "once")
    for log in (running.log, endpoint.log):
        assert token.rsplit(".", 1)[1] not in log.read_text()
