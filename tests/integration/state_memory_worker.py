"""A process that decides on ever new entities and says what memory it takes: `DSN CACHE_BYTES ROUNDS COUNT`.

Prints a line of JSON after each round of so many transactions.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing

import psutil

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_ledger_pipelined import PipelinedLedger
from shared.domain.decision import Policy
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.labels import Label, LabelSource, Verdict
from shared.domain.surrogates import KeyRing, SurrogateKey
from shared.domain.transaction import Transaction
from shared.services.labelling import Labelling, LabelOutcome
from shared.services.scoring import Decided, Scoring
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers

BATCH = 100
TERMINALS = 50
KEYS = KeyRing(SurrogateKey("k1", bytes(range(32))))


def main(dsn: str, cache_bytes: int, rounds: int, count: int) -> None:
    """Decide, and record a label for each fourth transaction."""
    now_us = time.time_ns() // 1000
    clock, process = FakeClock(now_us), psutil.Process()
    with closing(
        PipelinedLedger(parse_postgres("DATABASE", {"DATABASE": dsn}), "memory", cache_bytes=cache_bytes)
    ) as ledger:
        scoring = Scoring(ledger, FixedScorers(), policy=Policy(0.05, 0.4), keys=KEYS, clock=clock)
        labelling = Labelling(ledger, KEYS, clock)
        for round_ in range(rounds):
            first = round_ * count
            made = [_transaction(number, now_us - rounds * count + number) for number in range(first, first + count)]
            for start in range(0, count, BATCH):
                batch = made[start : start + BATCH]
                decided = sum(isinstance(verdict, Decided) for verdict in scoring.decide(batch))
                recorded = labelling.record([_label(item, now_us) for item in batch[::4]])
                if decided != len(batch) or {each.outcome for each in recorded} != {LabelOutcome.RECORDED}:
                    raise RuntimeError(f"{decided} of {len(batch)} decided; {recorded}")
            said = {
                "resident": process.memory_info().rss,
                "states": len(ledger.cache),
                "counted": ledger.cache.n_bytes,
            }
            print(json.dumps(said), flush=True)


def _transaction(number: int, time_us: int) -> Transaction:
    return Transaction(
        transaction_id=TransactionId(f"memory-{number}"),
        customer_id=CustomerId(f"customer-{number}"),
        terminal_id=TerminalId(f"terminal-{number % TERMINALS}"),
        amount_minor=1_000 + number % 997,
        currency="EUR",
        event_time_us=time_us,
    )


def _label(item: Transaction, now_us: int) -> Label:
    return Label(item.transaction_id, Verdict.GENUINE, LabelSource.ANALYST, item.event_time_us, now_us, 100, "memory")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
