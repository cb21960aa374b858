"""Decisions off the stream are counted as those over HTTP are."""

from __future__ import annotations

from shared.services.metering import CONFIDENCE, LATENCY, PREDICTIONS, REPEATS, Meters
from shared.services.metering_decisions import MeteredScoring
from tests.fakes.counts import FakeCells
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers
from tests.unit.domain.worlds import BASE_US, transaction
from tests.unit.shared.test_scoring import KEYS, POLICY


def test_each_decision_is_counted_once_with_its_latency() -> None:
    meters, ticks = Meters(FakeCells()), iter((0.0, 0.25, 1.0, 1.25))
    scoring = MeteredScoring(
        FakeLedger(),
        FixedScorers(),
        meters,
        policy=POLICY,
        keys=KEYS,
        clock=FakeClock(BASE_US),
        timer=lambda: next(ticks),
    )
    items = [transaction(number, number) for number in range(3)]
    verdicts = scoring.decide(items)
    scoring.decide(items[:1])
    assert len(verdicts) == 3
    assert sum(sample.value for sample in meters.samples(PREDICTIONS)) == 3
    assert [sample.value for sample in meters.samples(REPEATS)] == [1]
    assert [sample.value for sample in meters.samples(LATENCY)][-2:] == [0.75, 3.0]
    total, count = [sample.value for sample in meters.samples(CONFIDENCE)][-2:]
    assert count == 3
    assert 1.5 <= total <= 3
