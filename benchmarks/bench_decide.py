"""What a durable, explained decision costs, with everything in its one transaction.

Claim, locks, state, features, model, reasons, log block, outbox, time partitions. States of the Handbook's customers
and terminals just before its last weeks are loaded into a migrated Postgres, beside a million older ids; then the last
transactions are decided, a third of them moved to one merchant, in batches of 1, 16 and 128. CPU is that of both sides,
this process and its backend, read from the kernel's accounting. Peer of the same run: one row and its commit.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import psycopg

from benchmarks.bench_features import load
from benchmarks.bench_state import warmed, with_hot_terminal
from benchmarks.report import Report
from shared.adapters.system_clock import SystemClock
from shared.domain.decision import Policy
from shared.domain.entity_state import EntityState
from shared.domain.entity_state_codec import header_bytes, tile_bytes
from shared.domain.feature_view import Entity
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.surrogates import KeyRing, SurrogateKey, surrogate_of
from shared.domain.transaction import Transaction
from shared.ports.ledger import Ledger
from shared.ports.models import Scorer
from shared.services.scoring import Decided, Scoring
from shared.services.stages import StageTimes
from tests.chaos.run import TEMPLATE, prepared
from tests.chaos.server import Server
from tests.chaos.stores import KINDS, real_scorer, stores_at
from tests.chaos.writer import OneScorer

BATCHES: Final = (1, 16, 128)
PER_BATCH: Final = {1: 440, 16: 1_200, 128: 1_200}
"""Transactions measured at each size: a few seconds each."""

WARM_UP: Final = 160

OLD_IDS: Final = 1_000_000
"""Ids that are there before, so that indexes have a depth."""

AIM_PER_S: Final = 3_500
"""Decisions per second of the experiment without model, reasons and log, on its slower days."""

KEYS: Final = KeyRing(SurrogateKey("bench", bytes(range(32))))
POLICY: Final = Policy(0.5, 0.9)


def backend_cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, to the nanosecond (`/proc/<pid>/schedstat`, first field)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


@dataclass(frozen=True, slots=True)
class Cost:
    """What deciding some transactions took.

    Attributes:
        decisions: How many.
        wall_s: By the clock.
        own_s: CPU of this process.
        backend_s: CPU of the backend.
        stages: Seconds by the clock per stage.
    """

    decisions: int
    wall_s: float
    own_s: float
    backend_s: float
    stages: dict[str, float]

    @property
    def cpu_us(self) -> float:
        """CPU of both sides per decision, microseconds."""
        return (self.own_s + self.backend_s) / self.decisions * 1e6


class Backend:
    """The server, a database in it that holds states and old ids, and ledgers on it."""

    def __init__(self, server: Server, dsn: str) -> None:
        self._server = server
        self.dsn = dsn

    def cpu_s(self, application: str) -> float:
        """CPU seconds of the backends of an application so far."""
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            found = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", [application])
            return sum(backend_cpu_s(int(pid)) for (pid,) in found.fetchall())


@contextmanager
def backend() -> Iterator[Backend]:
    """A migrated database on a server of its own, for the time of the benchmark."""
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as home, prepared(Path(home)) as server:
        server.copy(TEMPLATE, "bench")
        yield Backend(server, server.dsn("bench"))


def run() -> Report:
    """The figures."""
    report = Report("decide")
    columns, labels, source = load()
    world = warmed(with_hot_terminal(columns), labels)
    del columns, labels
    gc.collect()
    stream = [event.transaction for event in world.events]
    with backend() as base:
        size = _fill(base.dsn, world.states, stream)
        report.add("entities", len(world.states), "states", note=f"{size / 1e6:.0f} MB of tiles; {source}")
        del world
        gc.collect()
        scorer = real_scorer()
        for kind in KINDS:
            named = [replace(item, transaction_id=TransactionId(f"{kind}-{item.transaction_id}")) for item in stream]
            left = iter(named)
            with stores_at(kind, base.dsn) as stores:
                warm_up = [next(left) for _ in range(WARM_UP)]  # plans, caches
                _decide(stores.ledger, scorer, warm_up, 16, lambda: 0.0)
                for batch in BATCHES:
                    part = [next(left) for _ in range(PER_BATCH[batch])]
                    cost = _decide(stores.ledger, scorer, part, batch, partial(base.cpu_s, f"chaos-{kind}"))
                    _add(report, kind, batch, cost)
        report.add("floor", _bare_commit_us(base.dsn), "us by the clock", note="one small row, one commit")
    return report


def _decide(
    ledger: Ledger, scorer: Scorer, transactions: list[Transaction], batch: int, backend_s: Callable[[], float]
) -> Cost:
    """Decide transactions in batches of one size."""
    stages = StageTimes()
    scoring = Scoring(ledger, OneScorer(scorer), policy=POLICY, keys=KEYS, clock=SystemClock(), stages=stages)
    gc.collect()
    gc.disable()
    backend_before, own_before, wall_before = backend_s(), time.process_time(), time.perf_counter()
    refused = 0
    for start in range(0, len(transactions), batch):
        verdicts = scoring.decide(transactions[start : start + batch])
        refused += sum(not isinstance(verdict, Decided) for verdict in verdicts)
    wall_s, own_s = time.perf_counter() - wall_before, time.process_time() - own_before
    cost = Cost(len(transactions), wall_s, own_s, backend_s() - backend_before, stages.taken())
    gc.enable()
    if refused:
        raise RuntimeError(f"{refused} transactions were refused")
    return cost


def _add(report: Report, kind: str, batch: int, cost: Cost) -> None:
    """The figures of one ledger at one size of batch."""
    name = f"{kind}, batches of {batch}"
    aim = AIM_PER_S if batch == BATCHES[-1] else None
    report.add(f"{name}: decisions per CPU second", 1e6 / cost.cpu_us, "1/s", aim=aim, note=_shares(cost))
    report.add(f"{name}: by the clock", cost.decisions / cost.wall_s, "1/s")


def _shares(cost: Cost) -> str:
    """Where the time went, per decision, microseconds."""
    us = {stage: seconds / cost.decisions * 1e6 for stage, seconds in cost.stages.items()}
    stages = ", ".join(f"{stage} {value:.0f}" for stage, value in us.items())
    own, other = cost.own_s / cost.decisions * 1e6, cost.backend_s / cost.decisions * 1e6
    return f"us by the clock: {stages}; CPU us: Python {own:.0f}, backend {other:.0f}"


def _fill(dsn: str, states: dict[tuple[Entity, str], EntityState], stream: list[Transaction]) -> int:
    """Store states, old ids and partitions; returns the bytes of all tiles."""
    times = [item.event_time_us for item in stream]
    size = 0
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tollgate.make_partitions(%s, %s)", [min(times), max(times) + US_PER_DAY])
        for entity, table, columns in (
            (Entity.CUSTOMER, "customer_features", "customer_id, version, header, surrogate, salt"),
            (Entity.TERMINAL, "merchant_features", "terminal_id, version, header, surrogate"),
        ):
            with cursor.copy(f"COPY tollgate.{table} ({columns}) FROM STDIN") as copy:
                for (kind, key), state in states.items():
                    if kind is entity:
                        salt = (bytes(16),) if entity is Entity.CUSTOMER else ()
                        surrogate = surrogate_of(KEYS.current, entity, key, *salt)
                        header = header_bytes(state.header, len(state.tiles))
                        copy.write_row((key, state.header.version, header, surrogate, *salt))
        with cursor.copy("COPY tollgate.entity_tiles (entity, entity_key, start_us, version, data) FROM STDIN") as copy:
            for (entity, key), state in states.items():
                for tile in state.tiles:
                    data = tile_bytes(tile)
                    size += len(data)
                    copy.write_row((list(Entity).index(entity), key, tile.start_us, state.header.version, data))
        cursor.execute(
            "INSERT INTO tollgate.transaction_ids (transaction_id, digest, event_time_us, customer_id, terminal_id)"
            " SELECT 'old-' || number, sha256(number::text::bytea), %s, 'c', 'm' FROM generate_series(1, %s) number",
            [min(times), OLD_IDS],
        )
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return size


def _bare_commit_us(dsn: str) -> float:
    """One small row and its commit, microseconds by the clock."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.floor (id bigint PRIMARY KEY)")
        began = time.perf_counter()
        for number in range(300):
            connection.execute("INSERT INTO public.floor VALUES (%s)", [number], prepare=True)
        return (time.perf_counter() - began) / 300 * 1e6
