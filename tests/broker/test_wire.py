"""Frames and timings no SDK would produce: flow control, limits, garbage, and clients that do not read."""

from __future__ import annotations

import random
import signal
import socket
import struct
from collections.abc import Callable

import psutil
import pytest
from azure.eventhub import EventData

from tests.broker.support import DEADLINE_S, BrokerProcess, until
from tests.broker.wire import WireClient, condition, event
from twin.broker import codec
from twin.broker.codec import NULL
from twin.broker.framing import AMQP_HEADER, EMPTY_FRAME, SASL_HEADER, frame
from twin.broker.performatives import Code
from twin.broker.probe import ProbeFailed, probe

READ = "tx/ConsumerGroups/$Default/Partitions/{}"


def last_sequence(broker: BrokerProcess, partition: str) -> int:
    with broker.producer() as producer:
        return int(producer.get_partition_properties(partition)["last_enqueued_sequence_number"])


def test_the_probe_names_product_and_version(broker: BrokerProcess) -> None:
    result = probe("127.0.0.1", broker.port, 5)
    assert (result.product, result.version) == ("tollgate-broker", "1")
    assert 0 < result.elapsed_s < 5


def test_the_probe_tells_silence_strangers_and_nobody_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ProbeFailed, match="timed out"):
            probe("127.0.0.1", port, 0.2)
    with pytest.raises(ProbeFailed, match="refused"):
        probe("127.0.0.1", port, 5)


@pytest.mark.parametrize("header", [AMQP_HEADER, b"GET / HT", b"AMQP\x02\x01\x00\x00"])
def test_another_protocol_is_answered_with_ours_and_the_end(broker: BrokerProcess, header: bytes) -> None:
    with WireClient(broker.port) as client:
        client.send(header)
        assert client.header() == SASL_HEADER
        assert client.ends()


def test_an_unknown_mechanism_is_refused(broker: BrokerProcess) -> None:
    with WireClient(broker.port) as client:
        client.send(SASL_HEADER)
        client.header()
        client.expect(Code.SASL_MECHANISMS)
        client.say(Code.SASL_INIT, codec.symbol("PLAIN"), NULL, NULL, sasl=True)
        assert client.expect(Code.SASL_OUTCOME).fields[0] == 1
        assert client.ends()


def test_credit_is_respected_and_drain_returns_the_rest(broker: BrokerProcess) -> None:
    with WireClient(broker.port) as client:
        client.ready()
        for number in range(5):
            if number == 0:
                client.attach(1, "tx/Partitions/0", receive=False)
                client.expect(Code.FLOW)
            client.transfer(1, 100 + number, event(b"drain"))
            client.expect(Code.DISPOSITION)
        client.attach(2, READ.format(0), receive=True)
        client.credit(2, 2)
        seen = [client.expect(Code.TRANSFER) for _ in range(2)]
        assert [said.fields[1] for said in seen] == [seen[0].fields[1], seen[0].fields[1] + 1]
        assert {bytes(said.fields[2]) for said in seen} == {b"\x00"}, "one constant tag"
        assert all(said.fields[4] for said in seen), "settled by the sender"
        # Two are used; ask for everything there is, and the rest of the credit back.
        client.credit(2, 1000, count=2, drain=True)
        while (said := client.next()).code == Code.TRANSFER:
            continue
        assert said.code == Code.FLOW
        count, credit, drained = said.fields[5], said.fields[6], said.fields[8]
        assert (count, credit, drained) == (1002, 0, True)


def test_drain_on_an_empty_partition(broker: BrokerProcess) -> None:
    filters = codec.mapping(
        {
            codec.symbol("apache.org:selector-filter:string"): b"\x00"
            + codec.symbol("apache.org:selector-filter:string")
            + codec.string("amqp.annotation.x-opt-offset > '@latest'")
        }
    )
    with WireClient(broker.port) as client:
        client.ready()
        client.attach(2, READ.format(3), receive=True, filters=filters)
        client.credit(2, 10, drain=True)
        said = client.expect(Code.FLOW)
        assert (said.fields[5], said.fields[6], said.fields[8]) == (10, 0, True)


def test_the_session_window_is_respected(broker: BrokerProcess) -> None:
    broker.send([f"window {number}" for number in range(10)], partition_id="1")
    with WireClient(broker.port) as client:
        client.ready()
        client.attach(2, READ.format(1), receive=True)
        sent_before = 1  # the reply to put-token
        client.credit(2, 100, window=sent_before + 3)
        for _ in range(3):
            client.expect(Code.TRANSFER)
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.next()
        client.socket.settimeout(60)
        client.say(Code.FLOW, codec.uint(4), codec.uint(1000), codec.uint(0), codec.uint(1000))
        assert client.expect(Code.TRANSFER)


def test_a_large_event_crosses_in_many_frames_both_ways(broker: BrokerProcess) -> None:
    body = bytes(range(256)) * 1000
    with WireClient(broker.port) as client:
        client.ready(max_frame_size=4096)
        client.attach(1, "tx/Partitions/2", receive=False)
        client.expect(Code.FLOW)
        message = event(body)
        pieces = [message[start : start + 50_000] for start in range(0, len(message), 50_000)]
        for index, piece in enumerate(pieces):
            client.transfer(1, 5, piece, more=index < len(pieces) - 1)
        assert client.expect(Code.DISPOSITION).fields[4].descriptor == Code.ACCEPTED
        client.attach(2, READ.format(2), receive=True)
        client.credit(2, 1)
        received, frames, more = b"", 0, True
        while more:
            said = client.expect(Code.TRANSFER)
            received, frames, more = received + said.payload, frames + 1, bool(said.fields[5])
        assert received.endswith(message)
        assert frames > 60


def test_an_aborted_delivery_leaves_no_trace(broker: BrokerProcess) -> None:
    before = last_sequence(broker, "0")
    with WireClient(broker.port) as client:
        client.ready()
        client.attach(1, "tx/Partitions/0", receive=False)
        client.expect(Code.FLOW)
        client.transfer(1, 1, b"half", more=True)
        client.transfer(1, 1, b"", aborted=True)
        client.transfer(1, 2, event(b"whole"))
        assert client.expect(Code.DISPOSITION).fields[1] == 2
    assert last_sequence(broker, "0") == before + 1


def test_a_malformed_event_is_rejected_and_the_link_goes_on(broker: BrokerProcess) -> None:
    malformed = [b"", b"\x00", b"\x00\x53\x75\x40", b"\x00\x53\x72\xc1\x01\x00", event() + event()[:3], b"\xff" * 50]
    # Sections in the wrong order, twice, or not of their type.
    malformed += [event() + codec.described(0x70, codec.listing([])), codec.described(0x70, codec.TRUE) + event()]
    malformed += [codec.described(0x74, codec.mapping({})) * 2 + event()]
    before = last_sequence(broker, "0")
    with WireClient(broker.port) as client:
        client.ready()
        client.attach(1, "tx/Partitions/0", receive=False)
        client.expect(Code.FLOW)
        for number, payload in enumerate(malformed):
            client.transfer(1, number, payload)
            outcome = client.expect(Code.DISPOSITION).fields[4]
            assert outcome.descriptor == Code.REJECTED, payload
            assert condition(outcome.value) == "amqp:decode-error"
        client.transfer(1, 99, event())
        assert client.expect(Code.DISPOSITION).fields[4].descriptor == Code.ACCEPTED
    assert last_sequence(broker, "0") == before + 1


def test_a_batch_with_one_bad_event_is_refused_as_a_whole(broker: BrokerProcess) -> None:
    before = last_sequence(broker, "0")
    with WireClient(broker.port) as client:
        client.ready()
        client.attach(1, "tx/Partitions/0", receive=False)
        client.expect(Code.FLOW)
        members = event(event(b"good")) + event(event(b"good")) + event(b"bad")
        fields = [codec.uint(1), codec.uint(1), codec.binary(b"t"), codec.uint(0x80013700)]
        client.say(Code.TRANSFER, *fields, payload=members)
        assert client.expect(Code.DISPOSITION).fields[4].descriptor == Code.REJECTED
    assert last_sequence(broker, "0") == before


def test_a_message_above_the_limit_ends_the_link_only(broker: BrokerProcess) -> None:
    with WireClient(broker.port) as client:
        client.ready()
        client.attach(1, "tx/Partitions/0", receive=False)
        client.expect(Code.FLOW)
        for _ in range(6):
            client.transfer(1, 1, bytes(200_000), more=True)
        assert condition(client.expect(Code.DETACH).fields) == "amqp:link:message-size-exceeded"
        client.attach(3, "tx/Partitions/0", receive=False)
        client.expect(Code.FLOW)
        client.transfer(3, 2, event())
        assert client.expect(Code.DISPOSITION).fields[4].descriptor == Code.ACCEPTED


def test_incomplete_messages_have_a_limit_per_connection(broker: BrokerProcess) -> None:
    with WireClient(broker.port) as client:
        client.ready()
        for handle in range(10):
            client.attach(handle, "tx", receive=False)
            client.expect(Code.FLOW)
            for _ in range(5):
                client.transfer(handle, handle, bytes(200_000), more=True)
        assert condition(client.expect(Code.DETACH).fields) == "amqp:resource-limit-exceeded"


@pytest.mark.parametrize(
    ("address", "receive", "expected"),
    [
        ("nowhere", False, "amqp:not-found"),
        ("tx/Partitions/9", False, "com.microsoft:argument-out-of-range"),
        ("tx/Partitions/-1", False, "com.microsoft:argument-out-of-range"),
        ("tx/ConsumerGroups/nobody/Partitions/0", True, "amqp:not-found"),
        ("tx/ConsumerGroups/$Default/Partitions/4", True, "com.microsoft:argument-out-of-range"),
        ("tx/ConsumerGroups/$Default", True, "amqp:not-found"),
        ("", False, "amqp:not-found"),
    ],
)
def test_a_refusal_is_an_attach_and_then_a_detach(
    broker: BrokerProcess, address: str, receive: bool, expected: str
) -> None:
    with WireClient(broker.port) as client:
        client.ready("")
        said = client.attach(1, address, receive=receive)
        assert None not in (said.fields[5], said.fields[6]), "the SDK needs both termini"
        assert len(said.fields) == 14
        assert condition(client.expect(Code.DETACH).fields) == expected


def test_heartbeats_come_before_the_client_loses_patience(broker: BrokerProcess) -> None:
    with WireClient(broker.port) as client:
        client.open(idle_timeout_ms=6000)
        client.socket.settimeout(6)
        assert client.socket.recv(len(EMPTY_FRAME)) == EMPTY_FRAME


def test_frames_after_the_end_of_a_session_are_ignored(broker: BrokerProcess) -> None:
    with WireClient(broker.port) as client:
        client.ready()
        client.say(Code.END, NULL)
        client.expect(Code.END)
        client.say(Code.DETACH, codec.uint(100), codec.TRUE)
        client.begin()
        client.say(Code.CLOSE, NULL)
        client.expect(Code.CLOSE)
        assert client.ends()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"\x00\x10\x00\x00\x02\x00\x00\x00", "amqp:connection:framing-error"),
        (b"\x00\x00\x00\x09\x01\x00\x00\x00\x00", "amqp:connection:framing-error"),
        (frame(0, b"\x00\x53\x99\x45"), "amqp:decode-error"),
        (frame(0, b"\x00\x53\x14\xd0" + struct.pack(">II", 4, 0)), "amqp:decode-error"),
        (frame(0, b"\x00" * 3000), "amqp:decode-error"),
        (frame(0, codec.described(Code.DETACH, codec.listing([codec.ulong(2**40)]))), "amqp:decode-error"),
        (frame(300, codec.described(Code.BEGIN, codec.listing([NULL, *[codec.uint(1)] * 3]))), "amqp:not-allowed"),
    ],
)
def test_bad_input_closes_with_its_condition(broker: BrokerProcess, raw: bytes, expected: str) -> None:
    with WireClient(broker.port) as client:
        client.open()
        client.send(raw)
        assert condition(client.expect(Code.CLOSE).fields) == expected
        assert client.ends()


def _garbage(generator: random.Random, recorded: bytes) -> bytes:
    """Noise, or a recorded conversation with some bytes changed, cut or repeated."""
    if generator.random() < 0.25:
        return SASL_HEADER[: generator.randrange(9)] + generator.randbytes(generator.randrange(400))
    data = bytearray(recorded)
    for _ in range(generator.randrange(1, 6)):
        data[generator.randrange(len(data))] = generator.randrange(256)
    if generator.random() < 0.3:
        start = generator.randrange(len(data))
        data[start:start] = data[: generator.randrange(len(data))]
    return bytes(data[: generator.randrange(8, len(data) + 1)])


class _Recorder(WireClient):
    """Keeps what it sends."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        super().send(data)


def _conversation(port: int) -> bytes:
    """What a well-behaved client sends from the first byte to an event and a read."""
    with _Recorder(port) as client:
        client.ready()
        client.attach(1, "tx/Partitions/3", receive=False)
        client.transfer(1, 9, event(b"recorded"))
        client.attach(2, READ.format(3), receive=True)
        client.credit(2, 10)
        client.expect(Code.TRANSFER)
        return b"".join(client.sent)


def test_garbage_hurts_nobody_else(start_broker: Callable[..., BrokerProcess]) -> None:
    """At least 400 broken conversations, while a client sends and reads undisturbed; the log has no traceback."""
    broker = start_broker()
    recorded = _conversation(broker.port)
    generator = random.Random(20260101)
    with broker.producer(retry_total=0) as producer, WireClient(broker.port) as reader:
        reader.ready()
        reader.attach(2, READ.format(0), receive=True)
        reader.credit(2, 2000)
        for number in range(420):
            with socket.create_connection(("127.0.0.1", broker.port), 5) as victim:
                victim.sendall(_garbage(generator, recorded))
                if number % 7 == 0:
                    # Half of the clients vanish without waiting; some reset the connection.
                    victim.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if number % 10 == 0:
                producer.send_event(EventData(f"sound {number}"), partition_id="0")
                while f"sound {number}".encode() not in reader.expect(Code.TRANSFER).payload:
                    continue  # garbage may have become an event
    assert probe("127.0.0.1", broker.port, 5).product == "tollgate-broker"
    assert "Traceback" not in broker.log()


def test_a_client_that_does_not_read_costs_bounded_memory(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker()
    assert broker.process is not None
    with broker.producer() as producer:
        for _ in range(60):
            producer.send_batch([EventData(b"x" * 90_000) for _ in range(10)], partition_id="0")
    process = psutil.Process(broker.process.pid)
    before = process.memory_info().rss
    idle = [WireClient(broker.port) for _ in range(5)]
    try:
        for client in idle:
            client.ready()
            client.attach(2, READ.format(0), receive=True)
            client.credit(2, 100_000, window=100_000)
        until(lambda: len(process.net_connections()) >= 6, "all are connected")
        # The broker serves somebody else meanwhile, from the start to the end.
        with WireClient(broker.port) as reader:
            reader.ready()
            reader.attach(2, "tx/ConsumerGroups/drift/Partitions/0", receive=True)
            reader.credit(2, 100_000, window=100_000)
            for _ in range(600):
                while reader.expect(Code.TRANSFER).fields[5]:
                    continue
        assert process.memory_info().rss - before < 40 * 1024 * 1024
    finally:
        for client in idle:
            client.socket.close()


def test_a_reader_that_wakes_up_gets_everything(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker()
    with broker.producer() as producer:
        for _number in range(30):
            producer.send_batch([EventData(b"y" * 90_000) for _ in range(10)], partition_id="0")
    with WireClient(broker.port) as client:
        client.ready()
        client.attach(2, READ.format(0), receive=True)
        client.credit(2, 1000)
        with WireClient(broker.port) as other:
            other.ready()
        received = 0
        while received < 300:
            received += not client.expect(Code.TRANSFER).fields[5]
    assert received == 300


def test_the_number_of_connections_has_a_limit(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker(max_connections=3)
    clients = [WireClient(broker.port).open() for _ in range(3)]
    with WireClient(broker.port) as fourth:
        assert fourth.ends()
    clients[0].socket.close()

    def admitted() -> bool:
        try:
            return bool(probe("127.0.0.1", broker.port, 2))
        except ProbeFailed:
            return False

    until(admitted, "a place is free again")
    for client in clients:
        client.socket.close()


def test_silence_and_a_missing_token_have_an_end(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker(handshake_timeout_s=5, idle_timeout_s=5)  # long enough for what comes before the silence
    with WireClient(broker.port) as mute, WireClient(broker.port) as stranger, WireClient(broker.port) as quiet:
        quiet.ready()
        stranger.open()
        assert condition(stranger.expect(Code.CLOSE).fields) == "amqp:unauthorized-access"
        assert mute.ends()
        assert condition(quiet.expect(Code.CLOSE).fields) == "amqp:connection:forced"


def test_links_share_the_window_of_their_session(broker: BrokerProcess) -> None:
    broker.send(["shared"], partition_id="3")
    with WireClient(broker.port) as client:
        client.ready()
        client.attach(2, READ.format(3), receive=True)
        client.credit(2, 1, window=1)
        client.attach(3, READ.format(3), receive=True)
        # Told on the other link, the wider window serves the one that waits for it.
        client.credit(3, 0, window=1000)
        assert client.expect(Code.TRANSFER).fields[0] == 2


def test_a_stopping_broker_says_so(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker()
    with WireClient(broker.port) as client:
        client.ready()
        assert broker.process is not None
        broker.process.send_signal(signal.SIGINT)
        assert condition(client.expect(Code.CLOSE).fields) == "amqp:connection:forced"
        assert client.ends()
    assert broker.process.wait(DEADLINE_S) == 0
    assert broker.process.stdout is not None
    broker.process.stdout.close()
    broker.process = None
