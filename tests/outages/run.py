"""Outages under traffic: each thing that ingest depends on dies or hangs for a while, on a whole twin.

Events are sent at a steady rate by the unmodified SDK, whatever happens. A victim is killed and stays away, or is
stopped so that connections hang instead of being refused; then the platform brings it back (here: `tollgate up`,
or the process goes on). Nothing else is restarted: the apps have to come back by themselves. In the end every event has
exactly one decision, none is a dead letter, the outbox is empty, and the log verifies.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import psutil
import psycopg
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.exceptions import EventHubError

from shared.domain.instants import format_instant
from shared.domain.transaction import TRANSACTION_TYPE
from tests.e2e.conftest import Twin

PARTITIONS: Final = 4
CUSTOMERS: Final = 97
TERMINALS: Final = 31
SEND_EVERY_S: Final = 0.25
CAUGHT_UP_S: Final = 2.0
"""A lag from which on traffic counts as flowing again: what a firing's poll and one batch take on a busy machine."""


@dataclass(frozen=True, slots=True)
class Outage:
    """One thing that goes wrong.

    Attributes:
        victim: The twin's service.
        hangs: Whether it is stopped instead of killed.
    """

    victim: str
    hangs: bool = False

    def __str__(self) -> str:
        return f"{self.victim} {'hangs' if self.hangs else 'is killed'}"


ALL: Final = (
    Outage("postgres"),
    Outage("azurite"),
    Outage("broker"),
    Outage("ingest"),
    Outage("postgres", hangs=True),
    Outage("broker", hangs=True),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of an outage.

    Attributes:
        outage: Which one.
        away_s: How long the victim was away.
        sent: Events that were sent meanwhile, or that waited with their sender.
        behind: The most events that had no decision yet, when it came back.
        recovered_s: From then until the lag was small again.
    """

    outage: Outage
    away_s: float
    sent: int
    behind: int
    recovered_s: float

    def __str__(self) -> str:
        return (
            f"{self.outage} for {self.away_s:.0f} s: {self.sent} events sent, {self.behind} waiting when it came back, "
            f"fewer than {CAUGHT_UP_S:.0f} s of traffic waiting {self.recovered_s:.1f} s later"
        )


@dataclass
class Sender:
    """Sends events at a steady rate until it is told to stop; what could not be sent is sent again.

    Attributes:
        connection: Of the hub.
        prefix: Of the transactions' ids.
        rate: Events a second.
    """

    connection: str
    prefix: str
    rate: float
    sent: int = 0
    repeats: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End once all that is due has been accepted."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(120)
            assert not self._thread.is_alive(), "the sender does not get its events off"

    def _run(self) -> None:
        began, made = time.monotonic(), 0
        producer: EventHubProducerClient | None = None
        while not self._over.wait(SEND_EVERY_S):
            due = int((time.monotonic() - began) * self.rate)
            bodies = [self._body(number) for number in range(made, due)]
            made = due
            while bodies:
                try:
                    # Timeouts and retries of a sender that notices within seconds and tries again itself.
                    producer = producer or EventHubProducerClient.from_connection_string(
                        self.connection, eventhub_name="transactions", retry_total=0, socket_timeout=5
                    )
                    _send(producer, bodies, self.sent)
                except EventHubError:
                    self.repeats += 1
                    _close(producer)
                    producer = None
                    time.sleep(0.5)
                else:
                    self.sent += len(bodies)
                    bodies = []
        _close(producer)

    def _body(self, number: int) -> bytes:
        return json.dumps(
            {
                "type": TRANSACTION_TYPE,
                "transaction_id": f"{self.prefix}-{number:07}",
                "customer_id": f"card-{number % CUSTOMERS}",
                "terminal_id": f"shop-{number % TERMINALS}",
                "amount_minor": 500 + number % 9000,
                "currency": "EUR",
                "event_time": format_instant(time.time_ns() // 1000),
            }
        ).encode()


def _send(producer: EventHubProducerClient, bodies: Sequence[bytes], place: int) -> None:
    for start in range(0, len(bodies), 200):
        batch = producer.create_batch(partition_id=str((place + start) % PARTITIONS))
        for body in bodies[start : start + 200]:
            batch.add(EventData(body))
        producer.send_batch(batch)


def _close(producer: EventHubProducerClient | None) -> None:
    if producer is not None:
        try:
            producer.close()
        except EventHubError:  # it is gone, with the connection
            return


def run(
    twin: Twin, outages: Sequence[Outage], *, steady_s: float, away_s: float, rate: float, tell: Callable[[str], None]
) -> list[Seen]:
    """Play outages on a twin that decides.

    Args:
        twin: It is up and has a champion.
        outages: What goes wrong, one after the other.
        steady_s: Traffic before each.
        away_s: How long a victim is away.
        rate: Events a second.
        tell: Told of each outage when it is over.

    Raises:
        AssertionError: A promise broke.
    """
    prefix = f"outage-{time.time_ns() // 1_000_000}"
    sender = Sender(twin.settings.hub_connection(), prefix, rate)
    letters = _count(twin, "SELECT count(*) FROM tollgate.dead_letters")
    sender.start()
    seen = []
    try:
        for outage in outages:
            _await(lambda: _decided(twin, prefix) > 0, "the first decision", twin, 60)
            time.sleep(steady_s)
            seen.append(_play(twin, outage, sender, prefix, away_s))
            tell(str(seen[-1]))
    finally:
        sender.stop()
    _await(lambda: _decided(twin, prefix) == sender.sent, "deciding the rest", twin, 60)
    _await(lambda: _count(twin, "SELECT count(*) FROM tollgate.outbox") == 0, "the outbox", twin, 60)
    assert _count(twin, "SELECT count(*) FROM tollgate.dead_letters") == letters
    own = f"SELECT count(DISTINCT transaction_id) FROM tollgate.transactions WHERE transaction_id LIKE '{prefix}-%'"
    assert _count(twin, own) == sender.sent
    twin.run("seal", "--everything")
    assert "the log is whole" in twin.run("verify", "log")
    assert "decisions replayed" in twin.run("verify", "decisions")
    return seen


def _play(twin: Twin, outage: Outage, sender: Sender, prefix: str, away_s: float) -> Seen:
    """One outage, from the blow until traffic flows again."""
    apps = {name: twin.pid(name) for name in ("score", "ingest", "drift", "retrain") if name != outage.victim}
    before = sender.sent
    began = time.monotonic()
    if outage.hangs:
        stopped = [process for process in _tree(twin.pid(outage.victim)) if _suspended(process)]
        time.sleep(away_s)
        for process in stopped:
            process.resume()
    else:
        os.kill(twin.pid(outage.victim), signal.SIGKILL)
        time.sleep(away_s)
        twin.run("up")
    back = time.monotonic()
    _await(lambda: _answers(twin), "the database", twin, 30)
    behind = sender.sent - _decided(twin, prefix)
    limit = max(1, int(sender.rate * CAUGHT_UP_S))
    _await(
        lambda: sender.sent > before and sender.sent - _decided(twin, prefix) <= limit,
        f"catching up after {outage}",
        twin,
        90 + away_s,
    )
    assert {name: twin.pid(name) for name in apps} == apps, f"{outage}: an app was started anew"
    return Seen(outage, back - began, sender.sent - before, behind, time.monotonic() - back)


def _tree(pid: int) -> list[psutil.Process]:
    """A process and what it started, itself first, so that it starts nothing more."""
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def _suspended(process: psutil.Process) -> bool:
    """Stop a process; False if it has ended meanwhile, as a server's child does whose client leaves."""
    try:
        process.suspend()
    except psutil.NoSuchProcess:
        return False
    return True


def _answers(twin: Twin) -> bool:
    try:
        with psycopg.connect(twin.settings.database_dsn(), connect_timeout=3):
            return True
    except psycopg.OperationalError:
        return False


def _decided(twin: Twin, prefix: str) -> int:
    return _count(twin, f"SELECT count(*) FROM tollgate.predictions WHERE transaction_id LIKE '{prefix}-%'")


def _count(twin: Twin, query: str) -> int:
    with psycopg.connect(twin.settings.database_dsn(), connect_timeout=5) as connection:
        row = connection.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0


def _await(condition: Callable[[], bool], what: str, twin: Twin, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} took too long\n{twin.logs()}"
        time.sleep(0.2)
