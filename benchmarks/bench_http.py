"""A durable, explained decision over HTTP, beside the origin documents' stack and the floor, in one run.

All share the machine with the load, which asks from 1, 16 and 64 clients on kept connections. Gate and origin stack
score with the same trees, write to the same Postgres and are held against each other with as many processes. Of the
gate everything is on: claim, state, features, model, exact reasons, log block, outbox, time partitions, the worker
library. The HTTP front is the twin's, not Azure's: what is ours (the deciding stages, from `Server-Timing`) is reported
apart. The database is as one is that has run for a while (`_age`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import psycopg

from benchmarks.bundle import trained
from benchmarks.http_peers import FLOOR_APP, body_of_origin, pickled
from benchmarks.load import Load, apply_load
from benchmarks.report import Report
from shared.domain.bundle_manifest import BOOSTER
from shared.domain.instants import format_instant
from tests.chaos.server import Server
from tests.conftest import free_ports
from tests.host.hosting import ROOT, HostProcess, request, until, write_app
from tests.integration.score_app import Models, running, settings
from twin.services.azurite import azurite_service
from twin.services.orchestra import bring_up, take_down
from twin.services.processes import Records
from twin.services.settings import DATABASE_PASSWORD, DATABASE_USER

CLIENTS: Final = (1, 16, 64)
WORKERS: Final = (1, 2)
"""Processes of each system. The aims are those of one: two, their load and Postgres are more than this machine has."""

SECONDS: Final = float(os.environ.get("BENCH_HTTP_SECONDS", "2"))
ROUNDS: Final = 5
"""How often each system is asked for so many seconds, by turns: a shared machine is fast now and slow then."""

WARM_UP_S: Final = 0.5
LONG_S: Final = float(os.environ.get("BENCH_HTTP_LONG_SECONDS", "60"))
"""How long the gate is asked from 16 clients at the end, hot merchants and autovacuum on."""

CUSTOMERS: Final = 5_000
TERMINALS: Final = 1_000
HOT_SHARE: Final = 0.2
"""Of the traffic goes to one merchant."""

LOG_FILES: Final = 64
"""Of 16 MB, `max_wal_size` as it comes: what a busy server keeps of its log and writes again after each checkpoint."""

P50_AIM_MS: Final = 2.0
RATIO_AIM: Final = 5.0
P99_RATIO_AIM: Final = 0.2


@dataclass(frozen=True, slots=True)
class Ground:
    """What all systems stand on.

    Attributes:
        server: Postgres.
        storage: Connection string of Azurite.
        models: Where the gate's model is published.
        artefact: The same trees, pickled for the origin stack.
    """

    server: Server
    storage: str
    models: Models
    artefact: Path

    @property
    def postmaster(self) -> int:
        """Postgres's first process."""
        lock = self.server.settings.root / "postgres" / "data" / "postmaster.pid"
        return int(lock.read_text(encoding="utf-8").split()[0])


@dataclass(frozen=True, slots=True)
class Served:
    """A system that answers.

    Attributes:
        port: Where.
        process_id: Its first process.
        path: What is asked.
        bodies: With what.
    """

    port: int
    process_id: int
    path: str
    bodies: Callable[[int], Iterator[bytes]]


@dataclass(slots=True)
class Measured:
    """What a load met, and what its answers cost: the measure that a shared machine disturbs least.

    Attributes:
        load: What it met.
        answers: How many there were, those of warming up too.
        own_s: CPU of the system's processes.
        database_s: CPU of Postgres.
    """

    load: Load = field(default_factory=Load)
    answers: float = 0.0
    own_s: float = 0.0
    database_s: float = 0.0

    @property
    def cost(self) -> str:
        """What an answer cost, in words."""
        own, database = (seconds / self.answers * 1e6 for seconds in (self.own_s, self.database_s))
        return f"CPU {own:.0f} us, Postgres {database:.0f} us"


def run() -> Report:
    """Measure everything and report it."""
    report = Report("http")
    with tempfile.TemporaryDirectory(prefix="bench-http-") as folder:
        directory = Path(folder)
        with ground(directory) as under:
            _age(under.server)
            _commit_floor(report, under)
            found: dict[str, dict[int, Measured]] = {}
            for workers in WORKERS:
                with _origin(under, workers, directory) as origin, _gate(under, workers, directory) as gate:
                    systems = {f"origin stack, {workers} worker(s)": origin, f"gate, {workers} worker(s)": gate}
                    found |= _measured(under, systems)
            with _floor(directory) as floor:
                found |= _measured(under, {"floor: same front, constant bytes": floor})
            _tell(report, found)
            _long(report, under, directory)
    return report


def _age(server: Server) -> None:
    """Bring a new server's log to the state that it stays in: files to write again.

    A new server makes each file, 16 MB of zeros, and whoever commits meanwhile waits: 40 to 75 ms every two seconds of
    these loads (measured). One that has had such a load for a while writes its files again after each checkpoint.
    Source: PostgreSQL 16, "WAL Configuration".
    """
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for files in (LOG_FILES, 1):  # the second checkpoint gives back what the first one left behind
            for _ in range(files):
                connection.execute("SELECT pg_logical_emit_message(true, 'age', '')")  # an empty file is not left
                connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")


def _tell(report: Report, found: dict[str, dict[int, Measured]]) -> None:
    for name, loads in found.items():
        for clients, measured in loads.items():
            load = measured.load
            failed = f", {sum(load.failures.values())} failed" if load.failures else ""
            note = f"p99 {load.quantile_ms(0.99):.1f} ms; {measured.cost}{failed}"
            report.add(f"{name}, {clients} clients", load.rate, "1/s", note=note)
            aim = P50_AIM_MS if name == "gate, 1 worker(s)" and clients == 1 else None
            report.add(f"{name}, {clients} clients, p50", load.quantile_ms(0.5), "ms", aim=aim, better="lower")
    for workers in WORKERS:
        for clients in CLIENTS[1:]:
            gate, peer = (found[f"{system}, {workers} worker(s)"][clients].load for system in ("gate", "origin stack"))
            is_aimed = (workers, clients) == (WORKERS[0], CLIENTS[1])
            of_both = f"gate over origin stack, {workers} worker(s) each, {clients} clients"
            report.add(of_both, gate.rate / peer.rate, "times", aim=RATIO_AIM if is_aimed else None)
            ratio = gate.quantile_ms(0.99) / peer.quantile_ms(0.99)
            report.add(f"p99 of {of_both}", ratio, "times", aim=P99_RATIO_AIM if is_aimed else None, better="lower")


def _long(report: Report, under: Ground, directory: Path) -> None:
    """The gate alone for longer, and where its time goes."""
    with _gate(under, 1, directory) as served:
        load = apply_load(
            served.port, served.path, clients=16, seconds=LONG_S, warm_up_s=WARM_UP_S, bodies=served.bodies
        )
        stages = _stages(served.port)
    traffic = f"{HOT_SHARE:.0%} of the traffic on one merchant, autovacuum on"
    note = f"{LONG_S:.0f} s, {traffic}; {len(load.latencies_ms)} decisions"
    report.add("gate, 1 worker, 16 clients, long", load.rate, "1/s", note=note)
    for share in (0.5, 0.99, 0.999):
        report.add(f"gate, long, p{share * 100:g}", load.quantile_ms(share), "ms", better="lower")
    report.add("gate, long, failures", sum(load.failures.values()), "requests", aim=0, better="lower")
    count = stages.pop("count")
    for stage, seconds in stages.items():
        report.add(f"stage {stage}", seconds / count * 1e6, "us per decision", better="lower")


def _stages(port: int) -> dict[str, float]:
    """Seconds by stage of all units, and how many transactions those had."""
    import urllib.request  # noqa: PLC0415 - here alone

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = {
        stage: float(value)
        for stage, value in re.findall(r'tollgate_stage_seconds_total\{stage="(\w+)"\} (\S+)', text)
        if float(value)
    }
    (total,) = re.findall(r"tollgate_unit_transactions_sum (\S+)", text)
    return {**found, "count": float(total)}


def _measured(under: Ground, systems: dict[str, Served]) -> dict[str, dict[int, Measured]]:
    """Ask systems that are up side by side, by turns."""
    found = {name: {clients: Measured() for clients in CLIENTS} for name in systems}
    for clients in CLIENTS:
        for _ in range(ROUNDS):
            for name, served in systems.items():
                _measure(under, served, clients, found[name][clients])
    return found


def _measure(under: Ground, served: Served, clients: int, measured: Measured) -> None:
    own, database = _cpu_s(served.process_id), _cpu_s(under.postmaster)
    load = apply_load(
        served.port, served.path, clients=clients, seconds=SECONDS, warm_up_s=WARM_UP_S, bodies=served.bodies
    )
    # The warm-up is part of the CPU's time and, at the same rate, of the answers.
    measured.answers += max(1.0, len(load.latencies_ms) * (SECONDS + WARM_UP_S) / SECONDS)
    measured.own_s += _cpu_s(served.process_id) - own
    measured.database_s += _cpu_s(under.postmaster) - database
    measured.load.add(load)


def _cpu_s(process_id: int) -> float:
    """CPU seconds of a process and all below it so far; those that ended are counted by their parents."""
    total = 0.0
    root = psutil.Process(process_id)
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _gate_bodies(client: int) -> Iterator[bytes]:
    rng, run_id = random.Random(client), uuid.uuid4().hex[:12]
    for number in itertools.count():
        terminal = "m-hot" if rng.random() < HOT_SHARE else f"m-{rng.randrange(TERMINALS)}"
        yield json.dumps(
            {
                "transaction_id": f"{run_id}-{client}-{number}",
                "customer_id": f"c-{rng.randrange(CUSTOMERS)}",
                "terminal_id": terminal,
                "amount_minor": rng.randrange(100, 30_000),
                "currency": "EUR",
                "event_time": format_instant(time.time_ns() // 1000),
            }
        ).encode()


def _origin_bodies(client: int) -> Iterator[bytes]:
    run_id = uuid.uuid4().hex[:12]
    for number in itertools.count():
        yield body_of_origin(f"{run_id}-{client}-{number}")


def _commit_floor(report: Report, under: Ground) -> None:
    """What one row and its commit cost, one after the other."""
    spans = []
    with psycopg.connect(_dsn(under), autocommit=True) as connection:
        connection.execute("CREATE TABLE bench_floor (id bigint PRIMARY KEY)")
        for number in range(1000):
            began = time.perf_counter()
            connection.execute("INSERT INTO bench_floor VALUES (%s)", [number])
            spans.append(time.perf_counter() - began)
    report.add("floor: one row and its commit, p50", sorted(spans)[500] * 1000, "ms", better="lower")


@contextlib.contextmanager
def ground(directory: Path) -> Iterator[Ground]:
    """Postgres, storage and a published model, until the block ends."""
    server = Server(directory / "postgres")
    server.up()
    records, layers = Records(directory / "run"), [[azurite_service(server.settings)]]
    bring_up(layers, records, lambda *_: None, timeout_s=60)
    try:
        models = Models(server.settings.storage_connection())
        files = trained()
        models.promote(files)
        artefact = directory / "model.pkl"
        artefact.write_bytes(pickled(files[BOOSTER]))
        yield Ground(server, server.settings.storage_connection(), models, artefact)
        models.close()
    finally:
        take_down(layers, records, lambda *_: None)
        server.down()


@contextlib.contextmanager
def _gate(under: Ground, workers: int, directory: Path) -> Iterator[Served]:
    app_settings = settings(
        under.storage,
        under.server.settings.database_dsn("score-app"),
        under.models.name,
        FUNCTIONS_WORKER_PROCESS_COUNT=str(workers),
        CHAMPION_POLL_S="10",
        LOG_LEVEL=os.environ.get("BENCH_LOG_LEVEL", "INFO"),
    )
    with running(directory / f"gate-{uuid.uuid4().hex[:6]}", app_settings) as app:
        deadline = time.monotonic() + 30
        while app.ready().status != 200:
            assert time.monotonic() < deadline, app.host.log()
            time.sleep(0.1)
        yield _served(app.host)


@contextlib.contextmanager
def _floor(directory: Path) -> Iterator[Served]:
    host = HostProcess(directory / "floor", write_app(directory / "floor-app", FLOOR_APP), {})
    host.start()
    try:
        yield _served(host)
    finally:
        host.discard()


@contextlib.contextmanager
def _origin(under: Ground, workers: int, directory: Path) -> Iterator[Served]:
    (port,) = free_ports(1)
    environment = {**os.environ, "BENCH_PICKLE": str(under.artefact), "BENCH_DSN": _dsn(under)}
    command = [sys.executable, "-m", "benchmarks.http_peers", str(port), str(workers)]
    with (directory / f"origin-{workers}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: _answers(port), "the origin stack")
        yield Served(port, process.pid, "/predict", _origin_bodies)
    finally:
        process.terminate()
        process.wait(20)


def _served(host: HostProcess) -> Served:
    assert host.process is not None
    return Served(host.port, host.process.pid, "/api/score", _gate_bodies)


def _answers(port: int) -> bool:
    try:
        return request(port, "POST", "/predict", b"{}", {"content-type": "application/json"}).status == 422
    except OSError:
        return False


def _dsn(under: Ground) -> str:
    """The owner of the database, who may make tables."""
    settings_ = under.server.settings
    return f"postgresql://{DATABASE_USER}:{DATABASE_PASSWORD}@127.0.0.1:{settings_.postgres}/tollgate"
