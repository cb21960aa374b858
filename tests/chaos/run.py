"""One chaos run: a hostile stream, writers that are killed, a server that is killed; then everything is compared."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from tests.chaos.comparing import differences, verified
from tests.chaos.server import Server
from tests.chaos.stores import KINDS, LOGIN, migrate, real_scorer, stores_at
from tests.chaos.streams import Streams, streams
from tests.chaos.writer import ingestion, take_all

ROOT: Final = Path(__file__).resolve().parents[2]
TEMPLATE: Final = "template_tollgate"
RUN_TIMEOUT_S: Final = 150
LOCK_S: Final = 1.5


@dataclass
class Outcome:
    """What a run did and found.

    Attributes:
        seed: Its seed; the same seed makes the same stream and the same plan of faults.
        faults: How often each kind of fault was made.
        transactions: Transactions in the stream.
        deliveries: Events delivered, repeats included.
        problems: What is wrong in the end; empty if every promise held.
        seconds: Duration.
    """

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    transactions: int = 0
    deliveries: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        made = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        verdict = "holds" if not self.problems else "; ".join(self.problems[:5])
        return (
            f"seed {self.seed}: {self.transactions} transactions, {self.deliveries} deliveries,"
            f" {made}; {self.seconds:.0f} s: {verdict}"
        )


def run(server: Server, seed: int, folder: Path, *, n_transactions: int = 1200, n_writers: int = 3) -> Outcome:
    """Run one seed against a server that is up; it is up again afterwards."""
    began = time.monotonic()
    world = streams(seed, n_transactions, n_writers)
    outcome = Outcome(seed, transactions=world.transactions)
    outcome.deliveries = sum(len(batch) for own in world.hostile for batch in own)
    clean, hostile = f"clean_{seed}", f"hostile_{seed}"
    for name in (clean, hostile):
        server.copy(TEMPLATE, name)
    with stores_at(KINDS[0], server.login_dsn(LOGIN, clean)) as stores:
        take_all(world.clean, ingestion(*stores, real_scorer()))
    _storm(server, hostile, world, folder, outcome)
    if not outcome.problems:
        outcome.problems += differences(server.dsn(clean), server.dsn(hostile))
        outcome.problems += verified(server.dsn(hostile), world.transactions)
        outcome.problems += verified(server.dsn(clean), world.transactions)
    server.drop(clean)
    server.drop(hostile)
    outcome.seconds = time.monotonic() - began
    return outcome


@contextmanager
def prepared(home: Path) -> Iterator[Server]:
    """A server with the migrated template, for the time of some runs."""
    server = Server(home)
    server.up()
    try:
        server.copy("template1", TEMPLATE)
        migrate(server, TEMPLATE)
        yield server
    finally:
        server.down()


def _storm(server: Server, database: str, world: Streams, folder: Path, outcome: Outcome) -> None:
    """Let the writers work while faults are made, until all of them are done."""
    seed, dsn = outcome.seed, server.login_dsn(LOGIN, database)
    rng = random.Random(seed * 7919)
    writers = [
        _Writer(place, KINDS[(seed + place) % len(KINDS)], dsn, own, folder / f"seed{seed}")
        for place, own in enumerate(world.hostile)
    ]
    for writer in writers:
        writer.start()
    kinds: list[Callable[[], None]] = [
        lambda: _kill_writer(rng, writers, outcome),
        lambda: _kill_writer(rng, writers, outcome),
        lambda: _kill_writer(rng, writers, outcome),
        lambda: _break(server, database, rng, outcome),
        lambda: _lock(server.dsn(database), outcome),
        lambda: _kill_server(server, outcome),
    ]
    rng.shuffle(kinds)
    kinds.append(kinds[0] if seed % 2 else lambda: _kill_writer(rng, writers, outcome))
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while any(writer.running() for writer in writers):
        if time.monotonic() > deadline:
            outcome.problems.append(f"the writers were not done after {RUN_TIMEOUT_S} s")
            break
        time.sleep(rng.uniform(0.1, 0.5))
        if kinds:
            kinds.pop()()
        for writer in writers:
            writer.start_again_if_killed()
    for writer in writers:
        outcome.problems += writer.end()


class _Writer:
    """A writer process and its files."""

    def __init__(self, place: int, kind: str, dsn: str, batches: object, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.place = place
        self._stream = folder / f"writer{place}.batches"
        self._stream.write_bytes(pickle.dumps(batches))
        self._log = folder / f"writer{place}.log"
        arguments = [kind, dsn, str(self._stream), str(folder / f"writer{place}.checkpoint")]
        self._command = [sys.executable, "-m", "tests.chaos.writer", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=ROOT, env=dict(os.environ))
        self._killed = False

    def running(self) -> bool:
        """Whether it has still work to do: it runs, or was killed and has to be started again."""
        return self._process is not None and (self._killed or self._process.poll() is None)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._killed = True

    def start_again_if_killed(self) -> None:
        if self._killed:
            self.start()

    def end(self) -> list[str]:
        """What was wrong with its end; a writer that still runs is killed."""
        if self._process is None:
            return []
        if self._process.poll() is None:
            self.kill()
            return [f"writer {self.place} was still running"]
        if self._process.returncode:
            return [f"writer {self.place} ended with {self._process.returncode}: {self._log.read_text()[-800:]}"]
        return []


def _kill_writer(rng: random.Random, writers: list[_Writer], outcome: Outcome) -> None:
    running = [writer for writer in writers if writer.running()]
    if running:
        rng.choice(running).kill()
        outcome.faults["writers killed"] += 1


def _break(server: Server, database: str, rng: random.Random, outcome: Outcome) -> None:
    outcome.faults["connections broken"] += server.end_sessions(database, 0.7, rng.randrange(1000))


def _lock(dsn: str, outcome: Outcome) -> None:
    """Hold what every writer needs for a while."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET search_path = tollgate; SET lock_timeout = '60s'")  # slow writers come first
        connection.execute("SELECT FROM merchant_features WHERE terminal_id = 'hot' FOR UPDATE")
        time.sleep(LOCK_S)
    outcome.faults["long locks"] += 1


def _kill_server(server: Server, outcome: Outcome) -> None:
    server.kill()
    server.up()
    outcome.faults["servers killed"] += 1
