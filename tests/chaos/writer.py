"""One writer of a chaos run, as a process of its own: takes the batches of a stream until all are taken.

It remembers how far it came, now and then, in a file; a writer that is started again goes on from there, so it takes
some batches twice, as a consumer does whose checkpoint lags.
"""

from __future__ import annotations

import pickle
import random
import sys
import time
from pathlib import Path
from typing import Final

from shared.domain.decision import Policy
from shared.domain.errors import Transient
from shared.domain.surrogates import KeyRing, SurrogateKey
from shared.ports.ledger import Ledger
from shared.ports.letters import DeadLetters
from shared.ports.models import Scorer
from shared.services.ingestion import Ingestion
from shared.services.labelling import Labelling
from shared.services.scoring import Scoring
from tests.chaos.streams import NOW_US, Batch
from tests.fakes.probes import FakeClock, FakeProbeReceipts

MOST_PAUSE_S: Final = 0.06
"""Between batches, so that writers overlap and there is time to kill them."""

KEYS = KeyRing(SurrogateKey("k1", bytes(range(32))))
POLICY = Policy(0.05, 0.4)


class OneScorer:
    """The source of a scorer that never changes."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def current(self) -> Scorer:
        return self._scorer


def ingestion(ledger: Ledger, dead_letters: DeadLetters, scorer: Scorer) -> Ingestion:
    """What a writer takes batches with."""
    clock = FakeClock(NOW_US)
    return Ingestion(
        Scoring(ledger, OneScorer(scorer), policy=POLICY, keys=KEYS, clock=clock),
        Labelling(ledger, KEYS, clock),
        receipts=FakeProbeReceipts(),
        dead_letters=dead_letters,
        clock=clock,
        currency="EUR",
        lateness_us=None,
    )


def take_all(batches: list[Batch], into: Ingestion, *, start: int = 0, checkpoint: Path | None = None) -> int:
    """Take batches from a place on; returns how many times a batch had to be taken again."""
    rng = random.Random(start)
    again = 0
    for place in range(start, len(batches)):
        if checkpoint is not None:
            time.sleep(rng.uniform(0, MOST_PAUSE_S))
        while True:
            try:
                into.take(batches[place])
                break
            except Transient:
                again += 1
                time.sleep(rng.uniform(0.02, 0.2))
        if checkpoint is not None and rng.random() < 0.3:
            partial = checkpoint.with_suffix(".partial")
            partial.write_text(str(place + 1), encoding="ascii")
            partial.replace(checkpoint)
    return again


def main() -> None:
    """Arguments: kind of ledger, connection string, file of batches, file of the checkpoint."""
    from tests.chaos.stores import real_scorer, stores_at

    kind, dsn, stream, remembered = sys.argv[1:]
    batches: list[Batch] = pickle.loads(Path(stream).read_bytes())
    checkpoint = Path(remembered)
    start = int(checkpoint.read_text(encoding="ascii")) if checkpoint.exists() else 0
    with stores_at(kind, dsn) as stores:
        again = take_all(batches, ingestion(*stores, real_scorer()), start=start, checkpoint=checkpoint)
    print(f"{again} batches taken again", flush=True)


if __name__ == "__main__":
    main()
