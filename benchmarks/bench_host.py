"""What the functions host costs: in process, end to end on loopback, and for a hub trigger.

Each claim is measured beside its peer in the same run: the function called directly, a bare uvicorn handler on the same
settings. The machine is shared, so only medians are claimed. The whole run is bounded to about a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import Report

ROOT = Path(__file__).parents[1]
BODY = json.dumps({"transaction_id": "t" * 32, "amount_minor": 129900, "card": "c" * 64, "note": "n" * 100}).encode()
CALLS = 4000
WARM_UP = 400
THROUGHPUT_S = 3.0
CONNECTIONS = 16
EVENTS = 20_000
PACE_HZ = 20
KEY = "YmVuY2g="

# The proof measured this much over a direct call for an async function.
ASYNC_AIM_US = 43.0

APP = """
import json, os, time
from typing import List
import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

@app.route(route="a", methods=["POST"])
async def a(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps({"amount": req.get_json()["amount_minor"]}), mimetype="application/json")

@app.route(route="s", methods=["POST"])
def s(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps({"amount": req.get_json()["amount_minor"]}), mimetype="application/json")
"""

HUB = """
@app.event_hub_message_trigger("events", event_hub_name="bench", connection="EH", cardinality=func.Cardinality.MANY)
def consume(events: List[func.EventHubEvent]) -> None:
    with open(os.environ["RECORD"], "a") as file:
        file.write(f"{time.time()} {len(events)}\\n")
    sent_at = json.loads(events[-1].get_body()).get("sent_at")
    if sent_at:
        with open(os.environ["RECORD"] + ".latency", "a") as file:
            file.write(f"{time.time() - sent_at}\\n")
"""

HOST_JSON = {
    "version": "2.0",
    "extensionBundle": {"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[4.0.0, 5.0.0)"},
}


def run() -> Report:
    """Measure everything and report it."""
    report = Report("host")
    with tempfile.TemporaryDirectory(prefix="bench-host-") as folder:
        directory = Path(folder)
        _in_process(report, directory)
        _end_to_end(report, directory)
        _hub(report, directory)
    return report


def _in_process(report: Report, directory: Path) -> None:
    """A process of its own, because an app's module, registry and environment are global to a process."""
    app_dir = _write_app(directory / "inprocess", APP)
    command = [sys.executable, "-m", "benchmarks.bench_host", "measure", str(app_dir)]
    figures = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60).stdout)
    report.add(
        "direct call p50", figures["direct"], "us", better="lower", note="peer: build HttpRequest, call, read body"
    )
    for kind, aim in (("async", ASYNC_AIM_US), ("sync", None)):
        report.add(f"in-process invoke, {kind} p50", figures[kind], "us", better="lower")
        over = figures[kind] - figures["direct"]
        report.add(f"in-process invoke, {kind}, over direct", over, "us", aim=aim, better="lower")


def _end_to_end(report: Report, directory: Path) -> None:
    with _bare() as port:
        bare = _latency_us(port, "/api/a")
        report.add("loopback p50, bare uvicorn handler", bare, "us", better="lower", note="peer: httptools, uvloop")
        report.add("throughput, bare uvicorn handler", asyncio.run(_throughput(port, "/api/a")), "1/s", note="peer")
    for workers in (1, 2):
        settings = {"FUNCTIONS_WORKER_PROCESS_COUNT": str(workers)}
        with _host(directory / f"http{workers}", APP, settings) as (port, _):
            if workers == 1:
                for kind, route in (("async", "a"), ("sync", "s")):
                    p50 = _latency_us(port, f"/api/{route}")
                    note = f"{p50 - bare:.0f} us over the bare handler"
                    report.add(f"loopback p50, {kind} function", p50, "us", better="lower", note=note)
            rate = asyncio.run(_throughput(port, "/api/a"))
            report.add(
                f"throughput, async function, {workers} worker(s)", rate, "1/s", note=f"{CONNECTIONS} connections"
            )


def _hub(report: Report, directory: Path) -> None:
    record = directory / "record"
    with _azurite(directory / "azurite") as storage, _broker(directory / "broker") as hubs:
        _fill(hubs)
        settings = {"AzureWebJobsStorage": storage, "EH": hubs, "RECORD": str(record)}
        settings["FUNCTIONS_WORKER_PROCESS_COUNT"] = "2"
        with _host(directory / "hub", APP + HUB, settings):
            _until(lambda: sum(count for _, count in _batches(record)) >= EVENTS, 40)
            batches = _batches(record)
            latencies = _trickle(hubs, Path(f"{record}.latency"))
    span_s = max(at for at, _ in batches) - min(at for at, _ in batches)
    note = f"{EVENTS} events of {len(BODY)} bytes, batches up to 100, a checkpoint each"
    report.add("hub trigger", EVENTS / span_s, "events/s", note=note)
    note = f"{PACE_HZ} events a second, from send to the function's first line"
    report.add("hub trigger latency p50", statistics.median(latencies) * 1000, "ms", better="lower", note=note)


# Measuring in one process


async def _measure(app_dir: str) -> dict[str, float]:
    from twin.host.protos import ParameterBinding, RpcHttp, TypedData  # noqa: PLC0415  (only in the child process)
    from twin.host.worker.runtime import App  # noqa: PLC0415  (only in the child process)

    sys.path.insert(0, app_dir)
    logging.disable(logging.INFO)
    app = await App.load(app_dir)
    import azure.functions as func  # noqa: PLC0415  (only in the child process)
    import function_app  # type: ignore[import-not-found]  # noqa: PLC0415  (the app of this benchmark)

    handler: Any = function_app.a.build().get_user_function()
    headers = {"content-type": "application/json", "host": "127.0.0.1"}

    async def direct() -> None:
        request = func.HttpRequest(method="POST", url="http://127.0.0.1/api/a", headers=headers, body=BODY)
        (await handler(request)).get_body()

    async def invoke(name: str) -> None:
        request = RpcHttp(
            method="POST",
            url="http://127.0.0.1/api/a",
            headers=headers,
            query={},
            params={},
            body=TypedData(bytes=BODY),
        )
        inputs = [ParameterBinding(name="req", data=TypedData(http=request))]
        outcome = await app.invoke(app.functions[name], "bench", inputs, {})
        assert outcome.error is None

    return {
        "direct": await _p50_us(direct),
        "async": await _p50_us(lambda: invoke("a")),
        "sync": await _p50_us(lambda: invoke("s")),
    }


async def _p50_us(call: Callable[[], Awaitable[None]]) -> float:
    spans = []
    for _ in range(WARM_UP + CALLS):
        started = time.perf_counter_ns()
        await call()
        spans.append(time.perf_counter_ns() - started)
    return statistics.median(spans[WARM_UP:]) / 1000


# Measuring on loopback


def _wire(path: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {len(BODY)}", "", ""]).encode() + BODY


def _latency_us(port: int, path: str) -> float:
    """Median round trip on one kept connection."""
    wire, spans = _wire(path), []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(WARM_UP + CALLS):
            started = time.perf_counter_ns()
            connection.sendall(wire)
            answer = connection.recv(65536)
            # The answer may come in two pieces: head and body.
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            spans.append(time.perf_counter_ns() - started)
            assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
    return statistics.median(spans[WARM_UP:]) / 1000


class _Caller(asyncio.Protocol):
    """Sends the next request as soon as an answer is complete."""

    def __init__(self, wire: bytes) -> None:
        self._wire = wire
        self._answer = b""
        self._transport: asyncio.Transport | None = None
        self.done = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._wire)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._answer.endswith(b"}"):
            assert self._answer.startswith(b"HTTP/1.1 200"), self._answer[:200]
            self._answer = b""
            self.done += 1
            if self._transport is not None and not self._transport.is_closing():
                self._transport.write(self._wire)


async def _throughput(port: int, path: str) -> float:
    """Requests per second on `CONNECTIONS` kept connections; the load shares the machine with the server."""
    loop = asyncio.get_running_loop()
    wire = _wire(path)
    pairs = [await loop.create_connection(lambda: _Caller(wire), "127.0.0.1", port) for _ in range(CONNECTIONS)]
    await asyncio.sleep(0.3)
    before, started = sum(caller.done for _, caller in pairs), time.perf_counter()
    await asyncio.sleep(THROUGHPUT_S)
    rate = (sum(caller.done for _, caller in pairs) - before) / (time.perf_counter() - started)
    for transport, _ in pairs:
        transport.abort()
    return rate


# The processes


def _until(probe: Callable[[], object], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not probe():
        if time.monotonic() > deadline:
            raise TimeoutError("a server or a result did not come in time")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield process
    except BaseException:
        sys.stderr.write(log.read_text(errors="replace"))
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _write_app(directory: Path, code: str) -> Path:
    directory.mkdir(parents=True)
    (directory / "function_app.py").write_text(code)
    (directory / "host.json").write_text(json.dumps(HOST_JSON))
    return directory


@contextlib.contextmanager
def _host(directory: Path, code: str, settings: dict[str, str]) -> Iterator[tuple[int, Path]]:
    app_dir = _write_app(directory, code)
    port = _free_port()
    config = {"app_dir": str(app_dir), "settings": settings, "port": port, "state_dir": str(directory / "state")}
    path = directory / "config.json"
    path.write_text(json.dumps({**config, "log_level": "WARNING"}))
    path.chmod(0o600)
    with _process([sys.executable, "-m", "twin.host", "--config", str(path)], directory / "host.log"):
        _until(lambda: _listens(port), 20)
        yield port, directory


@contextlib.contextmanager
def _bare() -> Iterator[int]:
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.bench_host", "bare", str(port)]
        with _process(command, Path(folder) / "bare.log"):
            _until(lambda: _listens(port), 20)
            yield port


@contextlib.contextmanager
def _azurite(directory: Path) -> Iterator[str]:
    port = _free_port()
    binary = ROOT / "twin" / "node" / "node_modules" / ".bin" / "azurite-blob"
    command = [str(binary), "--silent", "--location", str(directory), "--blobPort", str(port), "--skipApiVersionCheck"]
    directory.mkdir()
    # Azurite's well-known development account.
    account, key = (
        "devstoreaccount1",
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    )
    with _process(command, directory / "log"):
        _until(lambda: _listens(port), 20)
        yield (
            f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{account};"
        )


@contextlib.contextmanager
def _broker(directory: Path) -> Iterator[str]:
    port = _free_port()
    directory.mkdir()
    config = {
        "host": "127.0.0.1",
        "port": port,
        "data_dir": str(directory / "data"),
        "hubs": [{"name": "bench", "partitions": 4, "consumer_groups": ["$Default"]}],
        "keys": [{"name": "root", "key": KEY}],
        "retention_hours": 24,
    }
    path = directory / "broker.json"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    with _process([sys.executable, "-m", "twin.broker", "--config", str(path)], directory / "broker.log"):
        _until(lambda: _listens(port), 20)
        yield f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=root;SharedAccessKey={KEY};UseDevelopmentEmulator=true;"


def _fill(connection: str) -> None:
    from azure.eventhub import EventData, EventHubProducerClient  # noqa: PLC0415  (slow to import)

    with EventHubProducerClient.from_connection_string(connection, eventhub_name="bench") as producer:
        for number in range(EVENTS // 500):
            producer.send_batch([EventData(BODY) for _ in range(500)], partition_id=str(number % 4))


def _trickle(connection: str, record: Path) -> list[float]:
    """Seconds from sending to running, at a low rate."""
    from azure.eventhub import EventData, EventHubProducerClient  # noqa: PLC0415  (slow to import)

    with EventHubProducerClient.from_connection_string(connection, eventhub_name="bench") as producer:
        for number in range(PACE_HZ * 3):
            producer.send_batch([EventData(json.dumps({"sent_at": time.time()}))], partition_id=str(number % 4))
            time.sleep(1 / PACE_HZ)
    _until(lambda: record.exists() and len(record.read_text().splitlines()) >= PACE_HZ * 2, 10)
    return [float(line) for line in record.read_text().splitlines()]


def _batches(record: Path) -> list[tuple[float, int]]:
    if not record.exists():
        return []
    rows = [line.split() for line in record.read_text().splitlines()]
    return [(float(row[0]), int(row[1])) for row in rows if len(row) == 2]


def _serve_bare(port: int) -> None:
    """The peer: the same server, the same work on the body, no functions."""
    import uvicorn  # noqa: PLC0415  (only in the child process)

    async def handler(_scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        answer = json.dumps({"amount": json.loads(body)["amount_minor"]}).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(handler, port=port, http="httptools", ws="none", lifespan="off", access_log=False, log_level="warning")


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        _serve_bare(int(sys.argv[2]))
    else:
        os.chdir(sys.argv[2])
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sys.stdout.write(json.dumps(runner.run(_measure(sys.argv[2]))))
