"""Access: shared access signatures, JSON Web Tokens, expiry and refresh, and the TLS listener."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import jwt
import pytest
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.aio import EventHubConsumerClient as AioConsumer
from azure.eventhub.aio import EventHubProducerClient as AioProducer
from azure.eventhub.exceptions import AuthenticationError, ConnectError, EventHubError
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.broker.support import (
    DEADLINE_S,
    HUB,
    KEY,
    KEY_NAME,
    NAMESPACE,
    AsyncTokenCredential,
    Authority,
    BrokerProcess,
    TokenCredential,
    reached,
    receiving,
)
from tests.broker.wire import WireClient, condition, event, sas
from twin.broker import codec
from twin.broker.performatives import Code
from twin.broker.probe import probe

AUDIENCE = "sb://127.0.0.1/tx"


@pytest.fixture(scope="module")
def secure(start_broker: Callable[..., BrokerProcess], authority: Authority) -> BrokerProcess:
    """A broker with TLS and tokens, two hubs."""
    hubs = [{"name": name, "partitions": 2, "consumer_groups": ["drift"]} for name in (HUB, "other")]
    return start_broker(hubs=hubs, **authority.settings())


def client_on(broker: BrokerProcess) -> WireClient:
    client = WireClient(broker.port).open()
    client.begin()
    client.put_token("warm-up")
    return client


# ------------------------------------------------------------------------------------------------ signatures


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda: sas("tx"), 202),
        (lambda: sas(""), 202),
        (lambda: sas("TX"), 202),
        (lambda: sas("tx", key="wrong"), 401),
        (lambda: sas("tx", name="nobody"), 401),
        (lambda: sas("tx", name="nobody", key=""), 401),
        (lambda: sas("tx", life_s=-5), 401),
        (lambda: sas("other"), 401),
        (lambda: sas("t"), 401),
        (lambda: sas("tx").replace("&se=", "&se=9"), 401),
        (lambda: sas("tx", life_s=10**400), 401),
        (lambda: sas("tx").split("&skn")[0], 401),
        (lambda: "SharedAccessSignature nonsense", 401),
        (lambda: "SharedAccessSignature sr=%FF&sig=%FF&se=x&skn=root", 401),
        (lambda: "", 401),
    ],
)
def test_shared_access_signatures(secure: BrokerProcess, make: Callable[[], str], status: int) -> None:
    """Signed in the test: signed when tests are collected, they would expire before a long run comes to them."""
    with client_on(secure) as client:
        assert client.put_raw_token(make(), AUDIENCE) == status


def test_the_resource_of_a_token_is_its_limit(secure: BrokerProcess) -> None:
    with WireClient(secure.port).open() as client:
        client.begin()
        client.attach(1, "tx", receive=False)
        assert condition(client.expect(Code.DETACH).fields) == "amqp:unauthorized-access"
        assert client.put_token("tx/ConsumerGroups/drift") == 202
        for handle, (address, receive, works) in enumerate(
            [
                ("tx", False, False),
                ("other", False, False),
                ("tx/ConsumerGroups/$Default/Partitions/0", True, False),
                ("tx/ConsumerGroups/drift/Partitions/0", True, True),
                ("amqps://any.host:1/TX/consumergroups/DRIFT/partitions/1", True, True),
            ]
        ):
            client.attach(handle, address, receive=receive)
            if not works:
                assert condition(client.expect(Code.DETACH).fields) == "amqp:unauthorized-access"
        client.say(Code.DETACH, codec.uint(3), codec.TRUE)
        assert client.next().code == Code.DETACH


def test_the_sdk_reports_a_wrong_key(secure: BrokerProcess) -> None:
    wrong = EventHubProducerClient.from_connection_string(secure.connection_string_for(HUB, "wrong"), retry_total=0)
    with wrong, pytest.raises((AuthenticationError, ConnectError), match=r"InvalidSignature|401"):
        wrong.send_event(EventData("x"))


def test_links_end_when_their_token_does_and_the_connection_stays(secure: BrokerProcess) -> None:
    with WireClient(secure.port).open() as client:
        client.begin()
        client.put_token("tx", life_s=5)
        client.attach(1, "tx", receive=False)
        client.expect(Code.FLOW)
        said = client.expect(Code.DETACH)
        assert said.fields[0] == 1
        assert condition(said.fields) == "amqp:unauthorized-access"
        assert client.put_token("tx") == 202
        client.attach(1, "tx", receive=False)
        client.expect(Code.FLOW)
        client.transfer(1, 1, event())
        assert client.expect(Code.DISPOSITION).fields[4].descriptor == Code.ACCEPTED


def test_a_refreshed_token_keeps_the_link(secure: BrokerProcess) -> None:
    with WireClient(secure.port).open() as client:
        client.begin()
        started = time.monotonic()
        client.put_token("tx", life_s=5)
        client.attach(1, "tx", receive=False)
        client.expect(Code.FLOW)
        client.put_token("tx", life_s=600)
        number = 0
        while time.monotonic() - started < 6.2:
            number += 1
            client.transfer(1, number, event())
            assert client.next().fields[4].descriptor == Code.ACCEPTED
            time.sleep(0.05)


def test_each_control_node_replies_on_its_own_link(secure: BrokerProcess) -> None:
    with WireClient(secure.port).ready() as client:
        client.attach(5, "$management", receive=True)
        client.attach(6, "tx/$management", receive=False)
        client.expect(Code.FLOW)
        client.credit(5, 10)
        assert client.put_token("tx") == 202
        assert client.reply_handle == 100


# ------------------------------------------------------------------------------------------------ JSON Web Tokens


def _unsigned(authority: Authority) -> str:
    parts = [{"alg": "none", "typ": "JWT"}, jwt.decode(authority.token(), options={"verify_signature": False})]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join((*encoded, ""))


def _confused(authority: Authority) -> str:
    """Signed by HMAC with the public key as the secret, the classic confusion of algorithms."""
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()
    body = authority.token().split(".")[1]
    digest = hmac.digest(authority.public_key.read_bytes(), f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda a: a.token(), 202),
        (lambda a: a.token(aud=["x", a.audience]), 202),
        (lambda a: a.token(-60), 401),
        (lambda a: a.token(iss="https://elsewhere/"), 401),
        (lambda a: a.token(aud="https://storage.azure.com"), 401),
        (lambda a: a.token(key=OTHER_KEY), 401),
        (lambda a: a.token(exp=None), 401),
        (lambda a: a.token(nbf=time.time() + 600), 401),
        (_unsigned, 401),
        (_confused, 401),
        (lambda a: "not.a.token", 401),
        (lambda a: a.token()[:-4] + "AAAA", 401),
    ],
)
def test_json_web_tokens(
    secure: BrokerProcess, authority: Authority, make: Callable[[Authority], str], status: int
) -> None:
    with client_on(secure) as client:
        try:
            token = make(authority)
        except TypeError:
            claims = {"iss": authority.issuer, "aud": authority.audience}
            token = jwt.encode(claims, authority.key, algorithm="RS256")
        assert client.put_raw_token(token, AUDIENCE, "jwt") == status
        assert token not in client.said_by_cbs.decode(errors="replace") or not token


def test_an_unknown_kind_of_token(secure: BrokerProcess, authority: Authority) -> None:
    with client_on(secure) as client:
        assert client.put_raw_token(authority.token(), AUDIENCE, "saml") == 401


def test_tokens_without_an_issuer_configured(broker: BrokerProcess, authority: Authority) -> None:
    with client_on(broker) as client:
        assert client.put_raw_token(authority.token(), AUDIENCE, "jwt") == 401


# ------------------------------------------------------------------------------------------------ over TLS


def test_the_keyless_path_over_tls(secure: BrokerProcess, authority: Authority) -> None:
    options = authority.client_options(secure.tls_port)
    credential = TokenCredential(authority.token)
    with EventHubProducerClient(NAMESPACE, HUB, credential, **options) as producer:
        assert producer.get_partition_ids() == ["0", "1"]
        producer.send_batch([EventData(f"tls-{number}" + "x" * 5000) for number in range(50)], partition_id="0")

    async def run() -> None:
        token = AsyncTokenCredential(authority.token)
        async with AioProducer(NAMESPACE, HUB, token, **options) as aio:
            await aio.send_event(EventData("tls-aio"), partition_id="0")
        consumer = AioConsumer(NAMESPACE, HUB, "$Default", token, **options)
        async with receiving(consumer, partition_id="0") as received:
            await reached(lambda: "tls-aio" in received.bodies, "the event")
            assert received.errors == []
            assert sum(body.startswith("tls-") for body in received.bodies) == 51

    asyncio.run(run())
    assert credential.calls > 0


def test_keys_and_signatures_work_over_tls(secure: BrokerProcess, authority: Authority) -> None:
    options = authority.client_options(secure.tls_port)
    named = AzureNamedKeyCredential(KEY_NAME, KEY)
    with EventHubProducerClient(NAMESPACE, HUB, named, **options) as producer:
        producer.send_event(EventData("named key"))
    with EventHubProducerClient(NAMESPACE, HUB, AzureSasCredential(sas("")), **options) as producer:
        producer.send_event(EventData("signature"))
    plain = f"Endpoint=sb://{NAMESPACE}/;SharedAccessKeyName={KEY_NAME};SharedAccessKey={KEY};EntityPath={HUB}"
    with EventHubProducerClient.from_connection_string(plain, **options) as producer:
        producer.send_event(EventData("connection string"))


def test_a_token_for_someone_else_is_refused_over_tls(secure: BrokerProcess, authority: Authority) -> None:
    options = authority.client_options(secure.tls_port)
    credential = TokenCredential(lambda: authority.token(aud="https://storage.azure.com"))
    producer = EventHubProducerClient(NAMESPACE, HUB, credential, retry_total=0, **options)
    with producer, pytest.raises((AuthenticationError, ConnectError), match=r"InvalidAudience|401"):
        producer.send_event(EventData("x"))


def test_a_certificate_that_is_not_trusted_is_the_clients_to_refuse(
    secure: BrokerProcess, authority: Authority
) -> None:
    options = {**authority.client_options(secure.tls_port), "connection_verify": None}
    producer = EventHubProducerClient(NAMESPACE, HUB, TokenCredential(authority.token), retry_total=0, **options)
    with producer, pytest.raises(EventHubError, match="CERTIFICATE_VERIFY_FAILED"):
        producer.send_event(EventData("x"))


def test_noise_on_the_tls_port_hurts_nobody(secure: BrokerProcess, authority: Authority) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", secure.tls_port), 5) as stranger:
            stranger.sendall(b"AMQP\x03\x01\x00\x00 is not TLS")
    context = ssl.create_default_context(cafile=str(authority.certificate))
    assert probe("127.0.0.1", secure.tls_port, 5, context).product == "tollgate-broker"


# ------------------------------------------------------------------------------------------------ refresh by the SDK


@dataclass(frozen=True)
class Refreshed:
    sent: int
    calls: tuple[int, int]
    errors: list[Exception]


async def _outlive_tokens(broker: BrokerProcess, authority: Authority) -> Refreshed:
    """Send and read for longer than tokens live, over 50 events; the SDK refreshes in the last tenth of their life.

    It counts that tenth in whole seconds, of a life that may already be one second shorter: 2 of 22, and none of 10.
    """
    options = authority.client_options(broker.tls_port)
    life_s = 22
    sending, reading = (AsyncTokenCredential(lambda: authority.token(life_s), life_s) for _ in range(2))
    sent, started = 0, time.monotonic()
    consumer = AioConsumer(NAMESPACE, "other", "$Default", reading, **options)
    async with (
        AioProducer(NAMESPACE, "other", sending, retry_total=0, **options) as producer,
        receiving(consumer, partition_id="0") as received,
    ):
        while sent <= 50 or time.monotonic() - started < life_s + 3:
            assert time.monotonic() - started < DEADLINE_S, f"only {sent} sent"
            await producer.send_event(EventData(str(sent)), partition_id="0")
            sent += 1
            await asyncio.sleep(0.1)
        await reached(lambda: len(received.events) == sent, "everything sent")
    return Refreshed(sent, (sending.calls, reading.calls), received.errors)


@pytest.fixture(scope="module", autouse=True)
def refreshed(secure: BrokerProcess, authority: Authority) -> Iterator[Future[Refreshed]]:
    """Runs beside the other tests of this file, because it is mostly waiting."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(lambda: asyncio.run(_outlive_tokens(secure, authority)))


def test_the_sdk_refreshes_tokens_without_an_error(refreshed: Future[Refreshed]) -> None:
    outcome = refreshed.result(2 * DEADLINE_S)
    assert outcome.errors == []
    assert outcome.sent > 50
    assert min(outcome.calls) >= 2
