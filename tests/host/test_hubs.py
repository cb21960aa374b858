"""Event Hub triggers and output bindings: real hosts, the broker, the unmodified SDK, Azurite."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.eventhub import EventData, EventHubProducerClient
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient

from tests.broker.support import BrokerProcess
from tests.host.conftest import Hubs, StartHost
from tests.host.hosting import APPS, HostProcess, kill, until, write_app

type HubHost = Callable[..., HostProcess]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record"


@pytest.fixture
def hub_host(new_host: StartHost, storage: str, hubs: Hubs, record: Path, tmp_path: Path) -> HubHost:
    """Hosts of the hubs app; `hub_options` replace extensions.eventHubs of host.json."""

    def make(scenario: str, hub_options: dict[str, Any] | None = None, **settings: str) -> HostProcess:
        app_dir = APPS / "hubs"
        if hub_options is not None:
            code = (app_dir / "function_app.py").read_text()
            app_dir = write_app(tmp_path / "app", code, {"extensions": {"eventHubs": hub_options}})
        values = {
            "AzureWebJobsStorage": storage,
            "EH": hubs.connection,
            "RECORD": str(record),
            "SCENARIO": scenario,
            "AzureFunctionsWebHost__hostid": tmp_path.name,
            **settings,
        }
        return new_host(app_dir, values)

    return make


def runs(record: Path, name: str = "") -> list[dict[str, Any]]:
    lines = record.read_text().splitlines() if record.exists() else []
    return [run for run in map(json.loads, lines) if run["name"].startswith(name)]


def let_go(record: Path) -> None:
    """Let functions go on that wait for the test."""
    Path(f"{record}.pass").touch()


def bodies(record: Path, name: str = "") -> list[str]:
    return [body for run in runs(record, name) for body in run["bodies"]]


def send(hubs: Hubs, hub: str, texts: list[str], **options: Any) -> None:
    with EventHubProducerClient.from_connection_string(hubs.connection, eventhub_name=hub) as producer:
        producer.send_batch([EventData(text) for text in texts], **options)


def checkpoint(storage: str, hubs: Hubs, hub: str, partition: str) -> int | None:
    """The sequence number in the blob where the cloud's extension looks for it."""
    name = f"127.0.0.1:{hubs.port}/{hub}/$default/checkpoint/{partition}"
    with BlobServiceClient.from_connection_string(storage) as service:
        client = service.get_blob_client("azure-webjobs-eventhub", name)
        try:
            return int(client.get_blob_properties().metadata["sequencenumber"])
        except ResourceNotFoundError:
            return None


def test_batches_metadata_and_checkpoints(hub_host: HubHost, hubs: Hubs, storage: str, record: Path) -> None:
    host = hub_host("tx", HUB="tx", FUNCTIONS_WORKER_PROCESS_COUNT="2").start()
    event = EventData(json.dumps({"n": 0}))
    event.properties = {"kind": "payment", "attempt": 1}
    with EventHubProducerClient.from_connection_string(hubs.connection, eventhub_name="tx") as producer:
        producer.send_batch([event], partition_key="card-1")
    first = until(lambda: runs(record), "the first event")[0]
    assert first["keys"] == ["card-1"]
    assert first["properties"] == [{"kind": "payment", "attempt": 1}]
    assert {"SystemPropertiesArray", "PartitionContext", "OffsetArray"} <= set(first["metadata"])
    sent = [f"event {number}" for number in range(95)]
    send(hubs, "tx", sent, partition_id="0")
    until(lambda: len(bodies(record)) == 96, "all events")
    assert max(len(run["bodies"]) for run in runs(record)) == 10  # maxEventBatchSize
    ordered = [body for run in runs(record) if run["partition"] == "0" for body in run["bodies"] if body in set(sent)]
    assert ordered == sent
    last = max(max(run["sequence"]) for run in runs(record) if run["partition"] == "0")
    until(lambda: checkpoint(storage, hubs, "tx", "0") == last, "the checkpoint")
    assert len({run["pid"] for run in runs(record)}) == 2, "both workers take batches"
    assert host.stop() == 0
    again = hub_host("tx", HUB="tx").start()
    send(hubs, "tx", ["after restart"], partition_id="0")
    until(lambda: "after restart" in bodies(record), "the event after the restart")
    assert len(bodies(record)) == 97, "a clean stop repeats nothing"
    again.discard()


def test_cardinality_one_with_text(hub_host: HubHost, hubs: Hubs, record: Path) -> None:
    host = hub_host("one").start()
    send(hubs, "one", ["a", "b", "c"], partition_key="k")
    until(lambda: len(runs(record)) == 3, "three calls")
    assert bodies(record) == ["a", "b", "c"]
    assert {run["key"] for run in runs(record)} == {"k"}
    host.run_by_hand("single", "by hand")
    until(lambda: "by hand" in bodies(record), "the call by hand")
    host.discard()


def test_exhausted_retries_move_the_checkpoint_on(hub_host: HubHost, hubs: Hubs, storage: str, record: Path) -> None:
    host = hub_host("retry").start()
    send(hubs, "retry", ["poison"], partition_id="1")
    until(lambda: len(runs(record)) == 3, "the last attempt, which waits")
    send(hubs, "retry", ["behind it"], partition_id="1")
    assert checkpoint(storage, hubs, "retry", "1") is None, "nothing is noted while retries go on"
    let_go(record)
    until(lambda: "behind it" in bodies(record), "the event behind the poison")
    attempts = runs(record)[:3]
    assert [run["bodies"] for run in attempts] == [["poison"]] * 3, "the partition is held back meanwhile"
    assert [run["count"] for run in attempts] == [0, 1, 2]
    assert attempts[1]["problem"] == "ValueError: poison"
    assert attempts[2]["at"] - attempts[0]["at"] >= 2
    until(lambda: checkpoint(storage, hubs, "retry", "1") == 1, "the checkpoint behind both")
    host.discard()


def test_unlimited_retries_hold_the_partition(hub_host: HubHost, hubs: Hubs, storage: str, record: Path) -> None:
    host = hub_host("forever").start()
    send(hubs, "forever", ["stubborn"], partition_id="0")
    until(lambda: len(runs(record)) >= 2, "two attempts")
    assert checkpoint(storage, hubs, "forever", "0") is None
    assert host.stop() == 0
    assert checkpoint(storage, hubs, "forever", "0") is None, "a stop in the middle of retries notes nothing"
    let_go(record)
    again = hub_host("forever").start()
    until(lambda: checkpoint(storage, hubs, "forever", "0") == 0, "success after the restart")
    again.discard()


def test_minimum_batch_is_gathered(hub_host: HubHost, hubs: Hubs, record: Path) -> None:
    options = {"minEventBatchSize": 5, "maxEventBatchSize": 50, "maxWaitTime": "00:00:08"}
    host = hub_host("tx", options, HUB="gather").start()
    with EventHubProducerClient.from_connection_string(hubs.connection, eventhub_name="gather") as producer:
        for number in range(5):
            producer.send_batch([EventData(f"{number}")], partition_id="0")
    until(lambda: runs(record), "a full batch")
    assert bodies(record) == ["0", "1", "2", "3", "4"]
    assert len(runs(record)) == 1
    started = time.monotonic()
    send(hubs, "gather", ["late"], partition_id="0")
    until(lambda: "late" in bodies(record), "the rest after maxWaitTime")
    assert time.monotonic() - started > 6
    host.discard()


def test_checkpoint_every_third_batch(hub_host: HubHost, hubs: Hubs, storage: str, record: Path) -> None:
    host = hub_host("tx", {"maxEventBatchSize": 1, "batchCheckpointFrequency": 3}, HUB="sparse").start()
    send(hubs, "sparse", ["a", "b", "c", "d"], partition_id="0")
    until(lambda: len(bodies(record)) == 4, "four batches of one")
    assert checkpoint(storage, hubs, "sparse", "0") == 2
    host.discard()


def test_group_without_checkpoint_may_begin_at_the_end(hub_host: HubHost, hubs: Hubs, record: Path) -> None:
    send(hubs, "ends", ["old"], partition_id="0")
    host = hub_host("tx", {"initialOffsetOptions": {"type": "fromEnd"}}, HUB="ends").start()

    def new_arrives() -> bool:
        send(hubs, "ends", ["new"], partition_id="0")  # again and again: the consumer may not be attached yet
        return "new" in bodies(record)

    until(new_arrives, "an event sent after the start", pause_s=0.2)
    assert "old" not in bodies(record)
    host.discard()


def test_consumer_outlives_its_broker(new_host: StartHost, storage: str, record: Path, tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path).start()
    try:
        values = {"AzureWebJobsStorage": storage, "EH": broker.connection_string, "HUB": "tx"}
        values |= {"RECORD": str(record), "SCENARIO": "tx"}
        host = new_host("hubs", values).start()
        broker.send(["before"], partition_id="0")
        until(lambda: "before" in bodies(record), "an event before the crash")
        broker.kill()
        broker.start()
        broker.send(["after"], partition_id="0")
        until(lambda: "after" in bodies(record), "an event after the crash")
        assert host.stop() == 0
    finally:
        if broker.process is not None:
            broker.kill()


def test_partitions_are_balanced_between_instances(hub_host: HubHost, hubs: Hubs, record: Path) -> None:
    first = hub_host("slow", HUB="balance", PAUSE="0", INSTANCE="first").start()
    second = hub_host("slow", HUB="balance", PAUSE="0", INSTANCE="second").start()

    def owners() -> bool:
        for partition in "01":
            send(hubs, "balance", ["ping"], partition_id=partition)
        latest = {run["partition"]: run["instance"] for run in runs(record, "end")}
        return len(set(latest.values())) == 2

    until(owners, "each instance owns a partition", pause_s=0.5)
    first.discard()
    second.discard()


def test_killed_worker_loses_no_event(hub_host: HubHost, hubs: Hubs, storage: str, record: Path) -> None:
    host = hub_host("slow", HUB="slow", PAUSE="0", HOLD="precious", FUNCTIONS_WORKER_PROCESS_COUNT="2").start()
    send(hubs, "slow", ["precious"], partition_id="0")
    begun = until(lambda: runs(record, "begin"), "the batch begins")[0]
    kill(begun["pid"])
    let_go(record)
    ended = until(lambda: runs(record, "end"), "another worker finishes the batch")[0]
    assert ended["pid"] != begun["pid"]
    assert ended["bodies"] == ["precious"]
    until(lambda: checkpoint(storage, hubs, "slow", "0") == 0, "the checkpoint")
    host.discard()


def test_killed_host_repeats_from_the_last_checkpoint(
    hub_host: HubHost, hubs: Hubs, storage: str, record: Path
) -> None:
    host = hub_host("slow", HUB="crash", PAUSE="0", HOLD="30").start()
    sent = [f"{number}" for number in range(60)]
    send(hubs, "crash", sent, partition_id="0")
    until(lambda: "30" in bodies(record, "begin"), "the middle of a batch")
    host.kill()
    noted = checkpoint(storage, hubs, "crash", "0")
    assert noted is not None
    assert "30" not in bodies(record, "end")
    before = len(runs(record, "begin"))
    again = hub_host("slow", HUB="crash", PAUSE="0").start()
    until(lambda: set(bodies(record, "end")) == set(sent), "every event", 60)
    resumed = runs(record, "begin")[before]
    assert resumed["sequence"][0] == noted + 1, "redelivery begins right behind the checkpoint"
    again.discard()


def test_stop_lets_the_batch_end_and_notes_it(hub_host: HubHost, hubs: Hubs, storage: str, record: Path) -> None:
    host = hub_host("slow", HUB="drain", PAUSE="2").start()
    send(hubs, "drain", ["in flight"], partition_id="0")
    until(lambda: runs(record, "begin"), "the batch begins")
    assert host.stop() == 0
    assert bodies(record, "end") == ["in flight"]
    assert checkpoint(storage, hubs, "drain", "0") == 0
    name = f"127.0.0.1:{hubs.port}/drain/$default/ownership/0"
    with BlobServiceClient.from_connection_string(storage) as service:
        client = service.get_blob_client("azure-webjobs-eventhub", name)
        assert not client.get_blob_properties().metadata.get("ownerid"), "the partition is released"


@pytest.fixture(scope="module")
def outputs(new_host: StartHost, storage: str, hubs: Hubs, tmp_path_factory: pytest.TempPathFactory) -> HostProcess:
    settings = {
        "AzureWebJobsStorage": storage,
        "EH": hubs.connection,
        "RECORD": str(tmp_path_factory.mktemp("outputs") / "record"),
        "SCENARIO": "outputs",
        "QUEUE": "messages",
        "CONTAINER": "copies",
    }
    return new_host("hubs", settings).start()


def sunk(host: HostProcess) -> list[str]:
    assert host.settings is not None
    return bodies(Path(host.settings["RECORD"]), "sink")


@pytest.mark.parametrize(
    ("route", "body", "expected"),
    [
        ("hub", b"just text", ["just text"]),
        ("hub", b'[{"a": 1}, "two", 3]', ['{"a":1}', "two", "3"]),
        ("hub", b'{"b":   1}', ['{"b":1}']),
        ("hub", b"[not json", ["[not json"]),
        ("hub-list", b"", ['{"n": 0}', '{"n": 1}', '{"n": 2}']),
        ("hub-bytes", b'[{"c": 1}]', ['[{"c": 1}]']),
    ],
)
def test_hub_output_from_http(outputs: HostProcess, route: str, body: bytes, expected: list[str]) -> None:
    before = len([text for text in sunk(outputs) if text in expected])
    assert outputs.post(f"/api/{route}", body).status == 200
    until(
        lambda: len([text for text in sunk(outputs) if text in expected]) - before == len(expected),
        f"{expected} on the hub",
    )


def test_hub_output_from_timer_and_hub(outputs: HostProcess, hubs: Hubs) -> None:
    outputs.run_by_hand("from_timer")
    until(lambda: "from timer" in sunk(outputs), "the timer's event")
    send(hubs, "relay", ["hello"])
    until(lambda: "relayed hello" in sunk(outputs), "the relayed event")


def test_failed_output_fails_the_invocation(outputs: HostProcess) -> None:
    answer = outputs.post("/api/hub-broken")
    assert (answer.status, answer.body) == (500, b"")
    until(lambda: "output binding 'hub' of 'Functions.to_nowhere' failed" in outputs.log(), "the reason is logged")


def test_queue_and_blob_outputs(outputs: HostProcess, storage: str) -> None:
    assert outputs.post("/api/store/receipt", b'{"x": 1}').status == 200
    with QueueClient.from_connection_string(storage, "messages") as queue:
        message = next(iter(queue.receive_messages()))
        assert json.loads(base64.b64decode(message.content)) == {"x": 1}
        queue.delete_message(message)
    with BlobServiceClient.from_connection_string(storage) as service:
        container = service.get_container_client("copies")
        assert container.download_blob("receipt.txt").readall() == b'{"x": 1}'
        names = [name for name in container.list_blob_names() if name.startswith("unique/")]
        assert len(names) == 1
        assert len(names[0]) == len("unique/") + 36
