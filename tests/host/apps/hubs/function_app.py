"""Event Hub functions for the tests. SCENARIO chooses which are there; each call is a line in the file RECORD."""

# The worker library refuses list[...] in the annotations of bindings.
# ruff: noqa: UP006, UP035

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, List

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
SCENARIO = os.environ.get("SCENARIO")
MANY, ONE = func.Cardinality.MANY, func.Cardinality.ONE


def record(name: str, events: Sequence[func.EventHubEvent], **more: object) -> None:
    line = json.dumps(
        {
            "name": name,
            "at": time.time(),
            "pid": os.getpid(),
            "instance": os.environ.get("INSTANCE"),
            "bodies": [event.get_body().decode() for event in events],
            "sequence": [event.sequence_number for event in events],
            **more,
        }
    )
    with Path(os.environ["RECORD"]).open("a") as file:
        file.write(line + "\n")


def allowed() -> bool:
    """Whether the test lets go of what it holds back."""
    return Path(os.environ["RECORD"] + ".pass").exists()


def wait_allowed() -> None:
    """Stay until the test lets go."""
    while not allowed():
        time.sleep(0.02)


def partition_of(event: func.EventHubEvent) -> str:
    metadata: Any = event.metadata
    return str(metadata["PartitionContext"]["PartitionId"])


if SCENARIO == "tx":

    @app.event_hub_message_trigger("events", event_hub_name="%HUB%", connection="EH", cardinality=MANY)
    def batches(events: List[func.EventHubEvent]) -> None:
        first = events[0]
        record(
            "batches",
            events,
            partition=partition_of(first),
            keys=[event.partition_key for event in events],
            enqueued=[str(event.enqueued_time) for event in events],
            metadata=sorted(dict(first.metadata or {})),
            properties=first.metadata["PropertiesArray"] if first.metadata else None,
        )


if SCENARIO == "one":

    @app.event_hub_message_trigger(
        "event", event_hub_name="one", connection="EH", cardinality=ONE, data_type=func.DataType.STRING
    )
    async def single(event: func.EventHubEvent) -> None:
        record("single", [event], partition=partition_of(event), key=event.partition_key)


if (
    SCENARIO == "slow"
):  # also crash, drain and balance: a batch takes as long as PAUSE says, that with HOLD until let go

    @app.event_hub_message_trigger("events", event_hub_name="%HUB%", connection="EH", cardinality=MANY)
    def slow(events: List[func.EventHubEvent]) -> None:
        record("begin", events, partition=partition_of(events[0]))
        time.sleep(float(os.environ["PAUSE"]))
        if os.environ.get("HOLD") in [event.get_body().decode() for event in events]:
            wait_allowed()
        record("end", events, partition=partition_of(events[0]))


if SCENARIO == "retry":

    @app.event_hub_message_trigger("events", event_hub_name="retry", connection="EH", cardinality=MANY)
    @app.retry(strategy="fixed_delay", max_retry_count="2", delay_interval="00:00:01")
    def gives_up(events: List[func.EventHubEvent], context: func.Context) -> None:
        retry = context.retry_context
        cause: Any = getattr(retry, "rpc_exception", None)
        problem = cause.message if cause else None
        record("try", events, count=retry.retry_count, maximum=retry.max_retry_count, problem=problem)
        if "poison" in events[0].get_body().decode():
            if retry.retry_count == retry.max_retry_count:
                wait_allowed()
            raise ValueError("poison")


if SCENARIO == "forever":

    @app.event_hub_message_trigger("events", event_hub_name="forever", connection="EH", cardinality=MANY)
    @app.retry(
        strategy="exponential_backoff", max_retry_count="-1", minimum_interval="00:00:01", maximum_interval="00:00:02"
    )
    def stubborn(events: List[func.EventHubEvent], context: func.Context) -> None:
        record("try", events, count=context.retry_context.retry_count)
        if not allowed():
            raise ValueError("not yet")


if SCENARIO == "outputs":

    @app.event_hub_message_trigger("events", event_hub_name="out", connection="EH", cardinality=MANY)
    def sink(events: List[func.EventHubEvent]) -> None:
        record("sink", events)

    @app.route(route="hub", methods=["POST"])
    @app.event_hub_output("hub", event_hub_name="out", connection="EH")
    def to_hub(req: func.HttpRequest, hub: func.Out[str]) -> str:
        hub.set(req.get_body().decode())
        return "sent"

    @app.route(route="hub-list", methods=["POST"])
    @app.event_hub_output("hub", event_hub_name="out", connection="EH")
    def to_hub_list(req: func.HttpRequest, hub: func.Out[List[str]]) -> str:
        hub.set([json.dumps({"n": number}) for number in range(3)])
        return "sent"

    @app.route(route="hub-bytes", methods=["POST"])
    @app.event_hub_output("hub", event_hub_name="out", connection="EH")
    def to_hub_bytes(req: func.HttpRequest, hub: func.Out[bytes]) -> str:
        hub.set(req.get_body())
        return "sent"

    @app.route(route="hub-broken", methods=["POST"])
    @app.event_hub_output("hub", event_hub_name="nowhere", connection="EH")
    def to_nowhere(req: func.HttpRequest, hub: func.Out[str]) -> str:
        hub.set("lost")
        return "sent"

    @app.route(route="store/{name}", methods=["POST"])
    @app.queue_output("message", queue_name="%QUEUE%", connection="AzureWebJobsStorage")
    @app.blob_output("copy", path="%CONTAINER%/{name}.txt", connection="AzureWebJobsStorage")
    @app.blob_output("unique", path="%CONTAINER%/unique/{rand-guid}", connection="AzureWebJobsStorage")
    def store(req: func.HttpRequest, message: func.Out[str], copy: func.Out[str], unique: func.Out[bytes]) -> str:
        text = req.get_body().decode()
        message.set(text)
        copy.set(text)
        unique.set(text.encode())
        return "stored"

    @app.timer_trigger(schedule="0 0 0 1 1 *", arg_name="timer")
    @app.event_hub_output("hub", event_hub_name="out", connection="EH")
    def from_timer(timer: func.TimerRequest, hub: func.Out[str]) -> None:
        hub.set("from timer")

    @app.event_hub_message_trigger("events", event_hub_name="relay", connection="EH", cardinality=MANY)
    @app.event_hub_output("$return", event_hub_name="out", connection="EH")
    def relay(events: List[func.EventHubEvent]) -> str:
        return json.dumps([f"relayed {event.get_body().decode()}" for event in events])
