"""From the hub to a durable, explained decision: a backlog, a live producer on the same cores, and where the time goes.

A twin of its own: broker, Azurite, Postgres and the ingest app with two worker processes, deciding with 100 trees of
depth 4; a third of the traffic is at one merchant. First a backlog is drained, then a producer sends at a steady rate
beside it, then the same use case runs in this process without hub and host, stage by stage. CPU is that of
whole process families, so that it says what a decision costs on a busy machine too; what else the machine did meanwhile
is said beside it. A run of many minutes is `bench_soak`.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil
import psycopg
from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient, PartitionContext
from azure.eventhub.amqp import AmqpAnnotatedMessage
from azure.functions import meta
from azure.functions.eventhub import EventHubTriggerConverter
from azure.storage.blob import BlobServiceClient

from benchmarks.bench_decide import KEYS, POLICY, backend_cpu_s
from benchmarks.bundle import trained
from benchmarks.report import Report
from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.eventhub_publisher import EventHubPublisher
from shared.adapters.onnx_scorer import OnnxScorer
from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_dead_letters import PostgresDeadLetters
from shared.adapters.postgres_ledger_pipelined import PipelinedLedger
from shared.adapters.postgres_outbox import PostgresOutbox
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.system_clock import SystemClock
from shared.domain.bundle import open_bundle
from shared.domain.bundle_pointer import Role
from shared.domain.event import StreamEvent, parse_object
from shared.domain.instants import US_PER_SECOND, format_instant
from shared.domain.transaction import ALLOWED_LATENESS_US, TRANSACTION_TYPE, Acceptance, parse_transaction
from shared.entrypoints.eventhub_ingest import to_events
from shared.entrypoints.timer_outbox import render
from shared.services.ingestion import Ingestion
from shared.services.labelling import Labelling
from shared.services.publishing import publish_decisions
from shared.services.scoring import Scoring
from shared.services.stages import StageTimes
from shared.services.training_publication import publish
from tests.chaos.writer import OneScorer
from tests.conftest import twin_settings
from tests.fakes.probes import FakeProbeReceipts
from tests.host.hosting import ROOT, HostProcess
from twin.host.bindings import HubTrigger
from twin.host.hub.payload import Event, many_payload
from twin.services.app_settings import surrogate_keys, with_keys
from twin.services.modes import Mode
from twin.services.orchestra import bring_up, take_down
from twin.services.plan import plan
from twin.services.processes import Records
from twin.services.settings import TwinSettings, login_of

BACKLOG: Final = int(os.environ.get("BENCH_STREAM_BACKLOG", "20000"))
"""Events in the hub before the app starts."""

LIVE_S: Final = float(os.environ.get("BENCH_STREAM_LIVE_SECONDS", "20"))
LIVE_HZ: Final = 1_050
"""A little above the aim: a producer at the aim itself could only just miss it."""

TICK_S: Final = 0.1
"""The producer sends what is due so often, one batch to each partition."""

WARM_S: Final = 3.0

IN_PROCESS: Final = (25, 100)
"""Batches without hub and host: about those of a live stream, and full ones."""

IN_PROCESS_EVENTS: Final = 3_000
IN_PROCESS_WARM_UP: Final = 400

DRAIN_LIMIT_S: Final = 90.0
SETTLE_LIMIT_S: Final = 45.0

CUSTOMERS: Final = 5_000
CUSTOMERS_PER_TERMINAL: Final = 5
HOT_SHARE: Final = 1 / 3

DRAIN_AIM: Final = 2_000
"""Decisions per second to reach; 3,000 are wanted."""

LIVE_AIM: Final = 1_000
APP: Final = ROOT / "functions" / "ingest"
HUB: Final = "transactions"
OUT: Final = "decisions"
HUB_SETTING: Final = "EVENT_HUBS"


def bodies(name: str, times_us: Iterator[int], customers: int = CUSTOMERS) -> Iterator[tuple[int, bytes]]:
    """One transaction per time as (customer, body), the same for the same name; a third is at one merchant.

    Args:
        name: What their ids begin with; events of another name are others.
        times_us: Their event times, microseconds since 1970 UTC.
        customers: How many there are, five to a terminal.
    """
    rng = random.Random(name)
    for number, moment_us in enumerate(times_us):
        customer = rng.randrange(customers)
        terminal = "m-hot" if rng.random() < HOT_SHARE else f"m-{rng.randrange(customers // CUSTOMERS_PER_TERMINAL)}"
        fields = {
            "type": TRANSACTION_TYPE,
            "transaction_id": f"{name}-{number}",
            "customer_id": f"c-{customer}",
            "terminal_id": terminal,
            "amount_minor": rng.randrange(100, 30_000),
            "currency": "EUR",
            "event_time": format_instant(moment_us),
        }
        yield customer, json.dumps(fields).encode()


def spread_us(count: int, hz: float, until_us: int) -> Iterator[int]:
    """The times of events that came at a steady rate until a moment."""
    return iter([until_us - int((count - place) * US_PER_SECOND / hz) for place in range(count)])


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share stays within; not a number without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


# CPU


def cpu_of_stat(stat: str, ticks_per_s: int) -> float:
    """CPU seconds of a process, all its threads and the children it has buried, from the text of its `stat` file.

    Fields 14 to 17 of proc_pid_stat(5). `schedstat`, finer, knows the first thread alone.
    """
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / ticks_per_s


def own_cpu_s(pid: int) -> float:
    """CPU seconds of one process; 0 if it is gone (its parent then has them)."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return cpu_of_stat(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8"), os.sysconf("SC_CLK_TCK"))
    return 0.0


def family_cpu_s(pid: int) -> float:
    """CPU seconds of a process and of all that descend from it."""
    return sum(own_cpu_s(member) for member in _family(pid))


def family_rss_mb(pid: int) -> float:
    """Resident megabytes of a process and its descendants, what they share counted once (proportional set size)."""
    total = 0
    for member in _family(pid):
        with suppress(psutil.Error):
            total += psutil.Process(member).memory_full_info().pss
    return total / 1e6


def _family(pid: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


@dataclass(frozen=True, slots=True)
class Moment:
    """What had been used and decided at one moment.

    Attributes:
        at_us: When, microseconds since 1970 UTC.
        decided: Decisions so far.
        blocks: Units of work so far: blocks of the decision log.
        cpu_s: CPU seconds so far of each part.
        machine_s: CPU seconds of the machine, whoever used them.
    """

    at_us: int
    decided: int
    blocks: int
    cpu_s: Mapping[str, float]
    machine_s: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """What happened between two moments."""

    first: Moment
    last: Moment

    @property
    def seconds(self) -> float:
        """By the clock."""
        return (self.last.at_us - self.first.at_us) / US_PER_SECOND

    @property
    def decided(self) -> int:
        """Decisions in it."""
        return self.last.decided - self.first.decided

    @property
    def per_unit(self) -> float:
        """Decisions of one unit of work."""
        return self.decided / max(1, self.last.blocks - self.first.blocks)

    def cpu_ms(self) -> dict[str, float]:
        """CPU milliseconds per decision of each part."""
        return {
            part: (used - self.first.cpu_s.get(part, 0.0)) / max(1, self.decided) * 1000
            for part, used in self.last.cpu_s.items()
        }

    def others(self) -> float:
        """How many cores were busy with something else."""
        ours = sum(self.last.cpu_s.values()) - sum(self.first.cpu_s.get(part, 0.0) for part in self.last.cpu_s)
        return max(0.0, (self.last.machine_s - self.first.machine_s - ours) / self.seconds)


# The twin


class Ground:
    """Broker, storage and database of the benchmark, with a published model."""

    def __init__(self, settings: TwinSettings, files: Mapping[str, bytes]) -> None:
        self.settings = settings
        self.files = files
        self._records = Records(settings.root / "run")
        self.host: HostProcess | None = None
        self.producer: subprocess.Popen[bytes] | None = None
        self._workers: list[int] = []

    @contextmanager
    def hosting(self, own: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
        """The ingest app runs, with settings of its own beside the usual ones."""
        app_settings = {**with_keys("ingest", self.settings, surrogate_keys(self.settings)), **own}
        # A file that is saved meanwhile must not restart the app, so it is hosted here and not as `up` does.
        self.host = HostProcess(
            self.settings.root / "apps" / "ingest",
            APP,
            {**app_settings, "AzureFunctionsWebHost__hostid": "tollgate-ingest", "FUNCTIONS_WORKER_PROCESS_COUNT": "2"},
        )
        try:
            self.host.start()
            self._workers = self.host.workers()
            yield
            if self.host.workers() != self._workers:
                raise RuntimeError("a worker process ended meanwhile; its CPU is not counted")
            self.host.stop()
        finally:
            self.host.discard()
            self.host = None

    def pid(self, service: str) -> int:
        """The process of a service."""
        found = self._records.find(service)
        if found is None:
            raise RuntimeError(f"{service} does not run")
        return found.pid

    def families(self) -> dict[str, list[int]]:
        """The first processes of each part."""
        parts = {
            "broker": [self.pid("broker")],
            "storage": [self.pid("azurite")],
            "Postgres": [self.pid("postgres")],
            "workers": self._workers,
        }
        if self.producer is not None:
            parts["producer"] = [self.producer.pid]
        return parts

    def moment(self) -> Moment:
        """What has been used and decided by now."""
        cpu_s = {part: sum(map(family_cpu_s, pids)) for part, pids in self.families().items()}
        if self.host is not None and self.host.process is not None:
            cpu_s["host"] = own_cpu_s(self.host.process.pid)
        busy = psutil.cpu_times()
        machine_s = sum(busy) - busy.idle - busy.iowait - busy.guest - busy.guest_nice  # guest time is in user time
        at_us = time.time_ns() // 1000
        decided, blocks = self.counts()
        return Moment(at_us, decided, blocks, cpu_s, machine_s)

    def counts(self) -> tuple[int, int]:
        """Decisions and units of work so far; read from the log, whose rows are few."""
        rows = self.query("SELECT coalesce(sum(count), 0), count(*) FROM tollgate.log_blocks")
        return int(rows[0][0]), int(rows[0][1])

    def query(self, query: str, *given: object) -> list[tuple[int, ...]]:
        """Ask the database, as its owner."""
        with psycopg.connect(self.settings.database_dsn()) as connection:
            return connection.execute(query.encode(), list(given)).fetchall()

    def produce(self, name: str, hz: float, count: int) -> subprocess.Popen[bytes]:
        """Start a producer: so many events at a steady rate, or at once if the rate is 0."""
        arguments = [self.settings.hub_connection(), name, str(hz), str(count)]
        return subprocess.Popen([sys.executable, "-m", "benchmarks.bench_stream", *arguments], cwd=ROOT)


@contextmanager
def ground() -> Iterator[Ground]:
    """A twin's servers with a champion, for the time of the benchmark."""
    with tempfile.TemporaryDirectory(prefix="tollgate-stream-") as folder:
        settings = twin_settings(Path(folder))
        layers, records = plan(settings, Mode()).layers[:1], Records(settings.root / "run")
        try:
            bring_up(layers, records, lambda *_: None, timeout_s=60)
            files = trained()
            with BlobServiceClient.from_connection_string(settings.storage_connection()) as service:
                store = BlobBundles(service.get_container_client("models"))
                publish(store, files, Role.CHAMPION, clock=SystemClock(), author="bench", reason="stream")
            yield Ground(settings, files)
        finally:
            take_down(layers, records, lambda *_: None)


# The measurements


def run() -> Report:
    """The figures."""
    report = Report("stream")
    with ground() as under:
        if under.produce("backlog", 0, BACKLOG).wait(60) != 0:
            raise RuntimeError("the backlog was not sent")
        with under.hosting():
            _drain(report, under)
            _live(report, under)
        for batch in IN_PROCESS:
            _in_process(report, under, batch)
        _leaving(report, under)
    _library(report)
    return report


def _drain(report: Report, under: Ground) -> None:
    """How fast a backlog becomes decisions, from when an eighth is decided and all is warm."""
    _until(lambda: under.counts()[0] >= BACKLOG // 8, DRAIN_LIMIT_S, "the first eighth of the backlog")
    first = under.moment()
    _until(lambda: under.counts()[0] >= BACKLOG, DRAIN_LIMIT_S, "the rest of the backlog")
    stretch = Stretch(first, under.moment())
    waiting = _outbox(under)
    _add(report, "backlog", stretch, DRAIN_AIM, f"3,000 wanted; {waiting:,} decisions had not left yet in the end")
    _until(lambda: not _outbox(under), SETTLE_LIMIT_S, "all decisions to leave")


def _live(report: Report, under: Ground) -> None:
    """A producer on the same cores."""
    count = int((WARM_S + LIVE_S + 1) * LIVE_HZ)
    before = under.counts()[0]
    with _producing(under, "live", LIVE_HZ, count):
        _until(lambda: under.counts()[0] > before + WARM_S * LIVE_HZ, SETTLE_LIMIT_S, "the first live decisions")
        first = under.moment()
        time.sleep(LIVE_S)
        stretch = Stretch(first, under.moment())
    _until(lambda: under.counts()[0] >= before + count, SETTLE_LIMIT_S, "what was sent to be decided")
    lags = lags_ms(under, stretch.first.at_us, stretch.last.at_us)
    # Neither catching up with what came before nor a producer that the machine held back is a rate that was borne.
    borne = min(stretch.decided, len(lags)) / stretch.seconds
    note = f"producer at {LIVE_HZ:,}/s; in {stretch.seconds:.1f} s {len(lags):,} made, {stretch.decided:,} decided"
    report.add("live: borne", borne, "1/s", aim=LIVE_AIM, note="the lesser of made and decided")
    _add(report, "live", stretch, None, note)
    _add_lag(report, "live", lags)


def _outbox(under: Ground) -> int:
    """Decisions that have not left yet."""
    return under.query("SELECT count(*) FROM tollgate.outbox")[0][0]


@contextmanager
def _producing(under: Ground, name: str, hz: float, count: int) -> Iterator[None]:
    """A producer beside the block; afterwards it is waited for."""
    producer = under.producer = under.produce(name, hz, count)
    try:
        yield
        if producer.wait(SETTLE_LIMIT_S) != 0:
            raise RuntimeError("the producer failed")
    finally:
        under.producer = None
        if producer.poll() is None:
            producer.kill()
            producer.wait()


def _add(report: Report, name: str, stretch: Stretch, aim: float | None, note: str) -> None:
    """Rate and CPU of a stretch; the rate that the CPU alone would allow is what a busy machine cannot hide."""
    cpu_ms = stretch.cpu_ms()
    total_ms = sum(cpu_ms.values())
    said = f"{note}; {stretch.per_unit:.0f} events a unit; {stretch.others():.2f} cores busy with other work"
    report.add(f"{name}: decisions", stretch.decided / stretch.seconds, "1/s", aim=aim, note=said)
    cores = os.cpu_count() or 1
    report.add(f"{name}: what {cores} idle cores bear", cores * 1000 / total_ms, "1/s", note="cores over CPU")
    report.add(f"{name}: CPU", total_ms, "ms per decision", better="lower")
    for part, value in sorted(cpu_ms.items(), key=lambda item: -item[1]):
        report.add(f"{name}: CPU of {part}", value, "ms per decision", better="lower")


def _add_lag(report: Report, name: str, found: Mapping[str, float]) -> None:
    """How long events waited that were made in a stretch of time."""
    lags = list(found.values())
    note = f"enqueued to recorded, {len(lags):,} events"
    report.add(f"{name}: lag p50", quantile(lags, 0.5), "ms", better="lower", note=note)
    report.add(f"{name}: lag p99", quantile(lags, 0.99), "ms", better="lower", note=note)


def lags_ms(under: Ground, first_us: int, last_us: int) -> dict[str, float]:
    """Milliseconds from the hub's time of an event to its decision's, of events made between two moments.

    Read back from the hub afterwards, so that the measurement costs nothing while it runs.
    """
    with psycopg.connect(under.settings.database_dsn()) as connection:
        rows = connection.execute(
            "SELECT transaction_id, recorded_at_us FROM tollgate.predictions WHERE event_time_us BETWEEN %s AND %s",
            [first_us, last_us],
        ).fetchall()
    recorded = {str(identifier): int(at_us) for identifier, at_us in rows}
    found: dict[str, float] = {}
    deadline = time.monotonic() + SETTLE_LIMIT_S
    client = EventHubConsumerClient.from_connection_string(
        under.settings.hub_connection(), consumer_group="$Default", eventhub_name=HUB
    )

    def take(_: PartitionContext, events: list[EventData]) -> None:
        for event in events:
            identifier = json.loads(event.body_as_str())["transaction_id"]
            if identifier in recorded and event.enqueued_time is not None:
                found[identifier] = recorded[identifier] / 1000 - event.enqueued_time.timestamp() * 1000
        if len(found) == len(recorded) or time.monotonic() > deadline:
            client.close()

    start = datetime.fromtimestamp(first_us / US_PER_SECOND - 1, UTC)
    client.receive_batch(take, starting_position=start, max_wait_time=0.5, max_batch_size=1000)
    if len(found) < len(recorded):
        raise RuntimeError(f"{len(recorded) - len(found)} decided events are not in the hub")
    return found


# Without hub and host


def _in_process(report: Report, under: Ground, batch: int) -> None:
    """The use case alone, on events of the same kind, by stage."""
    name, stages, clock = f"alone{batch}", StageTimes(), SystemClock()
    count = IN_PROCESS_WARM_UP + IN_PROCESS_EVENTS
    made = [body for _, body in bodies(name, spread_us(count, LIVE_HZ, time.time_ns() // 1000))]
    events = [StreamEvent(HUB, "0", place, str(place), 0, body) for place, body in enumerate(made)]
    application = f"stream-{batch}"
    where = parse_postgres("DATABASE", {"DATABASE": under.settings.database_dsn(login_of("ingest"))})
    with (
        closing(PipelinedLedger(where, application)) as ledger,
        closing(PostgresSession(where, "stream-dead-letters")) as session,
        psycopg.connect(under.settings.database_dsn(), autocommit=True) as watching,
    ):
        scorer = OneScorer(OnnxScorer(open_bundle(under.files)))
        ingestion = Ingestion(
            Scoring(ledger, scorer, policy=POLICY, keys=KEYS, clock=clock, stages=stages),
            Labelling(ledger, KEYS, clock),
            receipts=FakeProbeReceipts(),
            dead_letters=PostgresDeadLetters(session),
            clock=clock,
            currency="EUR",
            lateness_us=ALLOWED_LATENESS_US,
        )
        _take(ingestion, events[:IN_PROCESS_WARM_UP], batch)
        stages.taken()
        found = watching.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", [application])
        backends = [int(pid) for (pid,) in found.fetchall()]
        backend_before, own_before, began = sum(map(backend_cpu_s, backends)), time.process_time(), time.perf_counter()
        _take(ingestion, events[IN_PROCESS_WARM_UP:], batch)
        wall_s, own_s = time.perf_counter() - began, time.process_time() - own_before
        backend_s = sum(map(backend_cpu_s, backends)) - backend_before
    acceptance = Acceptance("EUR", clock.now_us(), lateness_us=ALLOWED_LATENESS_US)
    began = time.perf_counter()
    for body in made[IN_PROCESS_WARM_UP:]:
        parse_transaction(parse_object(body), acceptance)
    spans = {"decode": time.perf_counter() - began, **stages.taken()}
    spans["rest"] = wall_s - sum(spans.values())
    title, us = f"use case alone, batches of {batch}", 1e6 / IN_PROCESS_EVENTS
    note = f"CPU us: Python {own_s * us:.0f}, Postgres {backend_s * us:.0f}"
    report.add(f"{title}: decisions per CPU second", IN_PROCESS_EVENTS / (own_s + backend_s), "1/s", note=note)
    for stage, seconds in spans.items():
        report.add(f"{title}: {stage}", seconds * us, "us by the clock", better="lower")


def _leaving(report: Report, under: Ground) -> None:
    """What letting decisions out costs besides: of those just made without the app, whose timer does it otherwise."""
    where = parse_postgres("DATABASE", {"DATABASE": under.settings.database_dsn(login_of("ingest"))})
    with (
        closing(PostgresSession(where, "stream-outbox")) as session,
        closing(EventHubPublisher.of_setting(HUB_SETTING, OUT, {HUB_SETTING: under.settings.hub_connection()})) as out,
    ):
        began = time.process_time()
        sent = publish_decisions(PostgresOutbox(session), out, render)
        spent_s = time.process_time() - began
    report.add(
        "publishing decisions alone", spent_s / sent * 1e6, "us of CPU, Python", better="lower", note=f"{sent:,}"
    )


def _library(report: Report) -> None:
    """What the platform's own library costs before the app sees a batch, and what the app makes of it."""
    size, rounds = IN_PROCESS[-1], 50
    now = datetime.now(UTC)
    made = bodies("library", itertools.repeat(time.time_ns() // 1000))
    batch = [Event(body, place, str(place), now) for place, (_, body) in enumerate(itertools.islice(made, size))]
    value, named = many_payload(
        HubTrigger("events", HUB, HUB_SETTING, "ingest", many=True, data_type="binary"), "0", batch
    )
    data = meta.Datum(value.collection_bytes, "collection_bytes")
    metadata = {name: meta.Datum(item.json, "json") for name, item in named}
    spent_s = [0.0, 0.0]
    for _ in range(rounds):
        began = time.process_time()
        events = EventHubTriggerConverter.decode_multiple_events(data, trigger_metadata=metadata)
        decoded = time.process_time()
        to_events(events)
        spent_s[0] += decoded - began
        spent_s[1] += time.process_time() - decoded
    us = 1e6 / (rounds * size)
    report.add("azure-functions alone: decode a batch", spent_s[0] * us, "us of CPU per event", better="lower")
    report.add("stream events from the library's", spent_s[1] * us, "us of CPU per event", better="lower")


def _take(ingestion: Ingestion, events: Sequence[StreamEvent], batch: int) -> None:
    decided = 0
    for start in range(0, len(events), batch):
        decided += ingestion.take(events[start : start + batch]).decided
    if decided != len(events):
        raise RuntimeError(f"{len(events) - decided} of {len(events)} events were not decided")


def _until(probe: Callable[[], object], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not probe():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.25)


# The producer, a process of its own


def produce(connection: str, name: str, hz: float, count: int) -> None:
    """Send transactions with the unmodified SDK, those of a customer on one partition.

    At a rate, each is made when it is due, with that moment as its event time; a producer that falls behind sends what
    is overdue at once. At rate 0 all are sent at once, as if they had come at the live rate until now.
    """
    with EventHubProducerClient.from_connection_string(connection, eventhub_name=HUB) as producer:
        partitions = sorted(producer.get_partition_ids())
        if not hz:
            made = bodies(name, spread_us(count, LIVE_HZ, time.time_ns() // 1000))
            while part := list(itertools.islice(made, 2_000)):
                _send(producer, partitions, part)
            return
        made = bodies(name, (time.time_ns() // 1000 for _ in range(count)))
        began, sent = time.monotonic(), 0
        while sent < count:
            due = min(count, int((time.monotonic() - began) * hz))
            _send(producer, partitions, list(itertools.islice(made, due - sent)))
            sent = due
            time.sleep(TICK_S - (time.monotonic() - began) % TICK_S)


def _send(producer: EventHubProducerClient, partitions: Sequence[str], part: Sequence[tuple[int, bytes]]) -> None:
    for place, partition in enumerate(partitions):
        own: list[EventData | AmqpAnnotatedMessage] = [
            EventData(body) for customer, body in part if customer % len(partitions) == place
        ]
        if own:
            producer.send_batch(own, partition_id=partition)


if __name__ == "__main__":
    produce(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
