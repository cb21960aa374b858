"""What the broker's tests are made of: broker processes, consumers that collect, tokens, certificates."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from azure.core.credentials import AccessToken
from azure.eventhub import EventData, EventHubProducerClient, TransportType
from azure.eventhub.aio import EventHubConsumerClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).parents[2]
KEY_NAME, KEY = "root", "cm9vdC1rZXktZm9yLXRlc3Rz"
HUB = "tx"
DEADLINE_S = 60.0
NAMESPACE = "tollgate.servicebus.windows.net"


def until(condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Poll until a condition holds; fail naming it when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)


def settings(data_dir: Path, **overrides: object) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": 0,
        "data_dir": str(data_dir),
        "hubs": [{"name": HUB, "partitions": 4, "consumer_groups": ["$Default", "drift"]}],
        "keys": [{"name": KEY_NAME, "key": KEY}],
        **overrides,
    }


@dataclass
class BrokerProcess:
    """A broker as a user runs it; stays on its port across restarts."""

    directory: Path
    overrides: dict[str, object] = field(default_factory=dict)
    port: int = 0
    tls_port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    def write_config(self) -> Path:
        path = self.directory / "broker.json"
        document = settings(self.data_dir, **self.overrides)
        if self.port:
            document["port"] = self.port
        path.write_text(json.dumps(document))
        return path

    def start(self) -> BrokerProcess:
        log = (self.directory / "broker.log").open("a")
        command = [sys.executable, "-m", "twin.broker", "--config", str(self.write_config())]
        with log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the broker did not start: {self.log()}"
        ready = json.loads(line)
        self.port, self.tls_port = ready["port"], ready["tls_port"] or 0
        return self

    def log(self) -> str:
        return (self.directory / "broker.log").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        process = self.process
        assert process is not None
        process.send_signal(number)
        code = process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
        self.process = None
        return code

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    @property
    def connection_string(self) -> str:
        return self.connection_string_for(HUB)

    def connection_string_for(self, hub: str, key: str = KEY) -> str:
        return (
            f"Endpoint=sb://127.0.0.1:{self.port};SharedAccessKeyName={KEY_NAME};SharedAccessKey={key};"
            f"UseDevelopmentEmulator=true;EntityPath={hub}"
        )

    def producer(self, **options: Any) -> EventHubProducerClient:
        return EventHubProducerClient.from_connection_string(self.connection_string, **options)

    def consumer(self, group: str = "$Default", **options: Any) -> EventHubConsumerClient:
        return EventHubConsumerClient.from_connection_string(self.connection_string, consumer_group=group, **options)

    def send(self, bodies: list[str], **options: Any) -> None:
        """Send events as one batch."""
        with self.producer() as producer:
            producer.send_batch([EventData(body) for body in bodies], **options)


@dataclass
class Received:
    """Events as a consumer got them."""

    events: list[tuple[str, Any]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    @property
    def bodies(self) -> list[str]:
        return [event.body_as_str() for _, event in self.events]

    def of(self, partition: str) -> list[Any]:
        return [event for owner, event in self.events if owner == partition]


async def reached(condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Await a condition without blocking the loop; fail naming it when it does not hold in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.01)


async def stop_receiving(consumer: EventHubConsumerClient, task: asyncio.Task[None]) -> None:
    """Close a consumer; its receive() would notice only after a load-balancing interval."""
    await consumer.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def receiving(consumer: EventHubConsumerClient, **options: Any) -> AsyncIterator[Received]:
    """Receive in the background; positions default to the start."""
    received = Received()

    async def on_event(context: Any, event: Any) -> None:
        if event is not None:
            received.events.append((context.partition_id, event))

    async def on_error(context: Any, error: Exception) -> None:
        received.errors.append(error)

    options = {"starting_position": "-1", **options}
    task = asyncio.create_task(consumer.receive(on_event, on_error=on_error, **options))
    try:
        yield received
    finally:
        await stop_receiving(consumer, task)


class Authority:
    """A certificate for 127.0.0.1 and a token issuer, both with one key."""

    issuer = "https://sts.tollgate.test/"
    audience = "https://eventhubs.azure.net"

    def __init__(self, directory: Path) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate, self.key_file = directory / "broker.pem", directory / "broker.key"
        self.public_key = directory / "issuer.pem"
        self.certificate.write_bytes(self._certificate().public_bytes(serialization.Encoding.PEM))
        self.key_file.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.public_key.write_bytes(
            self.key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def _certificate(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = x509.CertificateBuilder(name, name, self.key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return builder.add_extension(names, critical=False).sign(self.key, hashes.SHA256())

    def settings(self) -> dict[str, object]:
        return {
            "tls": {"port": 0, "certificate": str(self.certificate), "key": str(self.key_file)},
            "tokens": {
                "issuer": self.issuer,
                "audience": [self.audience],
                "public_key_file": str(self.public_key),
            },
        }

    def client_options(self, port: int) -> dict[str, Any]:
        return {
            "transport_type": TransportType.Amqp,
            "custom_endpoint_address": f"sb://127.0.0.1:{port}",
            "connection_verify": str(self.certificate),
        }

    def token(self, life_s: float = 3600, key: rsa.RSAPrivateKey | None = None, **claims: object) -> str:
        content = {"iss": self.issuer, "aud": self.audience, "exp": int(time.time() + life_s), **claims}
        return jwt.encode(content, key or self.key, algorithm="RS256")


class TokenCredential:
    """A credential as azure-identity has them, with tokens of our authority; counts its calls."""

    def __init__(self, make: Callable[[], str], life_s: float = 3600) -> None:
        self._make = make
        self._life_s = life_s
        self.calls = 0

    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        self.calls += 1
        return AccessToken(self._make(), int(time.time() + self._life_s))


class AsyncTokenCredential:
    """The same for the aio clients."""

    def __init__(self, make: Callable[[], str], life_s: float = 3600) -> None:
        self._inner = TokenCredential(make, life_s)

    @property
    def calls(self) -> int:
        return self._inner.calls

    async def get_token(self, *scopes: str, **options: object) -> AccessToken:
        return self._inner.get_token(*scopes)

    async def close(self) -> None:
        pass

    async def __aenter__(self) -> AsyncTokenCredential:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def collecting(broker: BrokerProcess) -> Iterator[Received]:
    """Receive everything from the start in a thread of its own: one consumer for many tests, as each takes seconds."""
    started, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    holder: list[Received] = []

    async def run() -> None:
        async with receiving(broker.consumer()) as received:
            loops.append(asyncio.get_running_loop())
            holder.append(received)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert started.wait(DEADLINE_S)
    try:
        yield holder[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(DEADLINE_S)


@dataclass(frozen=True)
class Azurite:
    """Blob storage for checkpoints."""

    connection_string: str


class BackgroundLines:
    """Lines a child process writes, read in a thread so that its pipe never fills."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self._process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def join(self) -> None:
        self._thread.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
