"""What is told of a sample that was decided again, on fakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from shared.domain.decision_record import decision_bytes, read_decision
from shared.domain.errors import Transient
from shared.domain.instants import US_PER_HOUR, US_PER_MINUTE
from shared.domain.pipeline import Severity
from shared.ports.archive import SampledDecision
from shared.services.replay_sampling import ReplaySampling
from shared.services.replaying import Replaying
from shared.services.scoring import Decided
from tests.contract.ledger_stores import scoring
from tests.fakes.archive import FakeArchivedScorers
from tests.fakes.ledger import FakeLedger
from tests.fakes.notices import FakeNotices
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.unit.domain.worlds import transaction

KEPT = LinearScorer()
UNKNOWN = LinearScorer("unknown", 2)


def decided(number: int, scorer: LinearScorer = KEPT) -> SampledDecision:
    (verdict,) = scoring(FakeLedger(), FixedScorers(scorer)).decide([transaction(number, 0)])
    assert isinstance(verdict, Decided)
    return SampledDecision(verdict.record.transaction_id, verdict.data)


def changed(stored: SampledDecision) -> SampledDecision:
    record = read_decision(stored.record)
    return stored._replace(record=decision_bytes(replace(record, raw_score=record.raw_score / 2)))


@dataclass
class Bench:
    """One hour's sample, which is drawn for whatever is asked; what was asked is kept."""

    drawn: list[SampledDecision] = field(default_factory=list)
    asked: list[tuple[int, int, int, int]] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)
    notices: FakeNotices = field(default_factory=FakeNotices)

    def __post_init__(self) -> None:
        replaying = Replaying(FakeArchivedScorers([KEPT]))
        self.sampling = ReplaySampling(self, replaying, self.notices, self.clock, most=9)

    def draw(self, since_us: int, until_us: int, *, seed: int, limit: int) -> Sequence[SampledDecision]:
        self.asked.append((since_us, until_us, seed, limit))
        return self.drawn


def test_the_hour_that_ended_is_sampled_and_all_firings_of_an_hour_ask_for_the_same() -> None:
    bench = Bench()
    hour_us = bench.clock.time_us // US_PER_HOUR * US_PER_HOUR
    for minute in (1, 12, 59):
        bench.clock.time_us = hour_us + minute * US_PER_MINUTE
        bench.sampling.check()
    bench.clock.time_us = hour_us + US_PER_HOUR
    bench.sampling.check()
    earlier_us = hour_us - US_PER_HOUR
    assert bench.asked[:3] == [(earlier_us, hour_us, earlier_us, 9)] * 3
    assert bench.asked[3] == (hour_us, hour_us + US_PER_HOUR, hour_us, 9)


@pytest.mark.parametrize("count", [0, 3])
def test_nobody_is_told_of_an_hour_without_decisions_or_without_faults(count: int) -> None:
    bench = Bench([decided(number) for number in range(count)])
    assert bench.sampling.check() == {"sampled": count, "equal": count, "different": 0, "unchecked": 0}
    assert not bench.notices.told


def test_a_mismatch_is_told_once_an_hour_without_names(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench([decided(1), changed(decided(2)), SampledDecision(decided(3).transaction_id, b"nothing")])
    for _ in range(2):
        assert bench.sampling.check() == {"sampled": 3, "equal": 1, "different": 2, "unchecked": 0}
    (told,) = bench.notices.told
    assert told.severity is Severity.CRITICAL
    assert told.title == "2 of 3 sampled decisions came out different when decided again"
    assert told.evidence["fields"] == {"raw_score": 1, "record": 1}
    for stored in bench.drawn:
        assert stored.transaction_id not in f"{told.title} {told.evidence} {told.dedup_key}"
    assert f"{bench.drawn[1].transaction_id}, {bench.drawn[2].transaction_id}" in caplog.text
    bench.clock.time_us += US_PER_HOUR
    bench.sampling.check()
    assert len(bench.notices.told) == 2


def test_what_cannot_be_decided_again_is_no_mismatch_and_told_once_a_day() -> None:
    bench = Bench([decided(1), decided(2, UNKNOWN)])
    bench.clock.time_us = bench.clock.time_us // (24 * US_PER_HOUR) * 24 * US_PER_HOUR + US_PER_HOUR
    for _ in range(24):
        assert bench.sampling.check() == {"sampled": 2, "equal": 1, "different": 0, "unchecked": 1}
        bench.clock.time_us += US_PER_HOUR
    (told,) = bench.notices.told
    assert told.severity is Severity.WARNING
    assert told.evidence["obstacles"] == {f"its bundle {UNKNOWN.bundle_digest[:12]} is not kept": 1}
    bench.sampling.check()
    assert len(bench.notices.told) == 2


def test_a_notice_that_could_not_be_left_is_left_by_the_next_firing() -> None:
    bench = Bench([changed(decided(1))])
    bench.notices.fault = Transient("away")
    with pytest.raises(Transient):
        bench.sampling.check()
    bench.sampling.check()
    assert len(bench.notices.told) == 1
