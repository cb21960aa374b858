"""The broker under the unmodified Python SDK: throughput in and out, latency when idle, and what it costs.

Clients and broker share the cores; the clients' own cost is most of what limits the throughput. The peers without
an aim say what durability costs. Aims: the figures of the feasibility proof on two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.aio import EventHubConsumerClient

from benchmarks.report import Report

_BODY = b"x" * 300
_BATCH = 200
_PARTITIONS = 4
_EVENTS = 40_000
_DURABLE_EVENTS = 8_000
_SINGLE_EVENTS = 400
_MIXED_S = 4.0
_IDLE_EVENTS = 200
_IDLE_PAUSE_S = 0.02
_LIMIT_S = 30.0
"""No step takes longer; what is not done by then counts as not done."""
_KEY = "YmVuY2gta2V5"


@dataclass(frozen=True, slots=True)
class _Broker:
    connection_string: str
    process: psutil.Process

    def producer(self) -> EventHubProducerClient:
        return EventHubProducerClient.from_connection_string(self.connection_string)

    def cpu_s(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system


@contextlib.contextmanager
def _broker(**overrides: object) -> Iterator[_Broker]:
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as directory:
        config = Path(directory) / "broker.json"
        settings = {
            "port": 0,
            "data_dir": f"{directory}/data",
            "hubs": [{"name": "bench", "partitions": _PARTITIONS}],
            "keys": [{"name": "bench", "key": _KEY}],
            **overrides,
        }
        config.write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "twin.broker", "--config", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                port = json.loads(process.stdout.readline())["port"]
                endpoint = f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=bench;SharedAccessKey={_KEY}"
                string = f"{endpoint};UseDevelopmentEmulator=true;EntityPath=bench"
                yield _Broker(string, psutil.Process(process.pid))
            finally:
                process.terminate()


def _send(producer: EventHubProducerClient, total: int, batch_size: int, until: Callable[[], bool]) -> float:
    """Send events and return how many per second were acknowledged; links are opened before the clock starts."""
    for partition in range(_PARTITIONS):
        producer.send_batch([EventData(_BODY)], partition_id=str(partition))
    sent, started = 0, time.perf_counter()
    while sent < total and not until():
        batch = producer.create_batch(partition_id=str(sent // batch_size % _PARTITIONS))
        for _ in range(batch_size):
            batch.add(EventData(_BODY))
        producer.send_batch(batch)
        sent += batch_size
    return sent / (time.perf_counter() - started)


def _within(limit_s: float) -> Callable[[], bool]:
    deadline = time.perf_counter() + limit_s
    return lambda: time.perf_counter() > deadline


async def _receive(broker: _Broker, total: int, limit_s: float, batch_size: int = 100) -> float:
    """Read from the start with one consumer; events per second, from the first event on."""
    count, first, last = 0, 0.0, 0.0
    done = asyncio.Event()

    async def on_batch(_: Any, events: list[Any]) -> None:
        nonlocal count, first, last
        last = time.perf_counter()
        first = first or last
        count += len(events)
        if count >= total:
            done.set()

    client = EventHubConsumerClient.from_connection_string(broker.connection_string, "$Default")
    task = asyncio.create_task(
        client.receive_batch(on_batch, max_batch_size=batch_size, starting_position="-1", prefetch=300)
    )
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), limit_s)
    await client.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return count / (last - first) if last > first else 0.0


async def _latencies_ms(broker: _Broker) -> list[float]:
    """From the call of send to the consumer's handler, at 50 events/s."""
    latencies: list[float] = []
    attached, done = asyncio.Event(), asyncio.Event()

    async def on_event(_: Any, event: Any) -> None:
        body = event.body_as_str()
        attached.set()
        if body != "warm":
            latencies.append((time.perf_counter() - float(body)) * 1000)
            if len(latencies) == _IDLE_EVENTS:
                done.set()

    def produce() -> None:
        with broker.producer() as producer:
            for _ in range(_IDLE_EVENTS):
                producer.send_event(EventData(repr(time.perf_counter())), partition_id="1")
                time.sleep(_IDLE_PAUSE_S)

    with broker.producer() as producer:
        producer.send_event(EventData("warm"), partition_id="1")
    client = EventHubConsumerClient.from_connection_string(broker.connection_string, "$Default")
    task = asyncio.create_task(client.receive(on_event, partition_id="1", starting_position="-1"))
    await asyncio.wait_for(attached.wait(), _LIMIT_S)
    await asyncio.to_thread(produce)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), _LIMIT_S)
    await client.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return latencies


def _throughput(report: Report) -> None:
    with _broker() as broker:
        before = broker.cpu_s()
        with broker.producer() as producer:
            rate = _send(producer, _EVENTS, _BATCH, _within(_LIMIT_S))
        after_in = broker.cpu_s()
        report.add("in, sync, batches of 200", rate, "events/s", aim=8_500, note="300-byte bodies, one producer")
        rate = asyncio.run(_receive(broker, _EVENTS, _LIMIT_S))
        after_out = broker.cpu_s()
        report.add("out, aio", rate, "events/s", aim=10_000, note="one consumer, 4 partitions, max_batch_size 100")
        scale = 100_000 / _EVENTS
        report.add("broker CPU per 100k events in", (after_in - before) * scale, "s", better="lower")
        report.add("broker CPU per 100k events out", (after_out - after_in) * scale, "s", better="lower")
        rss = broker.process.memory_info().rss / 2**20
        report.add("broker RSS", rss, "MiB", better="lower", note=f"after {_EVENTS:,} events")


def _mixed(report: Report) -> None:
    with _broker() as broker:
        rates: list[float] = []

        def produce() -> None:
            with broker.producer() as producer:
                rates.append(_send(producer, 10**9, _BATCH, _within(_MIXED_S)))

        thread = threading.Thread(target=produce)
        thread.start()
        out = asyncio.run(_receive(broker, 10**9, _MIXED_S + 1))
        thread.join()
        note = "at once, from one client process"
        report.add("in while reading", rates[0], "events/s", note=note)
        report.add("out while sending", out, "events/s", note=note)


def _idle(report: Report) -> None:
    with _broker() as broker:
        found = asyncio.run(_latencies_ms(broker))
    cuts = statistics.quantiles(found, n=20)
    note = f"50 events/s, aio, prefetch 300, {len(found)} of {_IDLE_EVENTS} arrived"
    report.add("idle latency p50", statistics.median(found), "ms", aim=60, better="lower", note=note)
    report.add("idle latency p95", cuts[18], "ms", better="lower", note=note)


def _durability(report: Report) -> None:
    for name, fsync in (("append", False), ("append + group fsync", "group")):
        with _broker(fsync=fsync) as broker, broker.producer() as producer:
            rate = _send(producer, _DURABLE_EVENTS, _BATCH, _within(_LIMIT_S / 4))
            report.add(f"acknowledged, {name}, batches of 200", rate, "events/s")
            rate = _send(producer, _SINGLE_EVENTS, 1, _within(_LIMIT_S / 4))
            report.add(f"acknowledged, {name}, one per call", rate, "events/s")


def run() -> Report:
    """Measure everything; about half a minute."""
    report = Report("broker")
    _throughput(report)
    _mixed(report)
    _idle(report)
    _durability(report)
    return report
