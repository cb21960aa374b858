"""Models that are tried: they say what they would have answered, in every bit, and lose no decision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from shared.adapters.file_bundles import FileBundles
from shared.adapters.onnx_scorer import OnnxScorer
from shared.domain.bundle_manifest import MANIFEST, read_manifest
from shared.domain.bundle_pointer import Role
from shared.domain.decision_record import decision_bytes, read_decision
from shared.domain.errors import Transient
from shared.domain.instants import US_PER_DAY
from shared.domain.retention import LEAST_SHADOW_DAYS, Expiring, Keeping
from shared.ports.models import Scorer
from shared.ports.shadowing import Place, ShadowScore, Unscored
from shared.services import shadowing
from shared.services.scoring import Decided
from shared.services.shadowing import FULL_EVERY_US, OVERLAP_US, REACH_US, Shadowing, learnt_until_us, shadow_scores
from shared.services.training_publication import give, publish
from tests.contract.ledger_stores import scoring
from tests.fakes.bundles import golden_files, trained_scorer
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock
from tests.fakes.shadowing import FakeShadowScores
from tests.unit.domain.worlds import random_world


class Fixed:
    """A source of one scorer of any kind."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def current(self) -> Scorer:
        return self._scorer


def second_files() -> dict[str, bytes]:
    files = golden_files()
    return files | {MANIFEST: files[MANIFEST].replace(b'"name":"golden"', b'"name":"second"')}


def decisions(scorer: Scorer, n_rows: int = 60) -> list[tuple[Place, bytes]]:
    """Decisions of a world, by the deciding use case: vectors with missing values and repeated entities."""
    verdicts = scoring(FakeLedger(), Fixed(scorer)).decide(random_world(3, n_rows).transactions)
    found = [verdict for verdict in verdicts if isinstance(verdict, Decided)]
    assert len(found) == n_rows
    return [(Place(one.record.event_time_us, one.record.transaction_id), one.data) for one in found]


class World:
    """A store with a champion and one that is tried, and decisions of the champion."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.store = FileBundles(folder)
        word = {"author": "ada", "reason": "because"}
        self.tried = publish(self.store, second_files(), Role.CHALLENGER, clock=self.clock, **word).digest
        assert self.tried is not None
        self.scores = FakeShadowScores(views={trained_scorer().bundle_digest: "card-v1"})
        self.use = Shadowing(self.store, OnnxScorer, self.scores, self.clock)
        # The tried model has learnt of nothing before its test span; the world's days come after it.
        self.since_us = learnt_until_us(read_manifest(self.store.manifest(self.tried)))

    def add(self, found: list[tuple[Place, bytes]], recorded_at_us: int | None = None) -> None:
        for place, data in found:
            record = read_decision(data)
            moved = Place(self.since_us + place.event_time_us % (50 * US_PER_DAY), place.transaction_id)
            assert record.transaction_id == place.transaction_id
            self.scores.decisions[moved] = data, self.clock.now_us() if recorded_at_us is None else recorded_at_us

    def retire(self) -> None:
        give(self.store, None, Role.CHALLENGER, clock=self.clock, author="ada", reason="because")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_shadow_score_is_what_the_model_would_have_answered_in_every_bit(world: World) -> None:
    found = decisions(trained_scorer())
    world.add(found)
    assert world.use.score()["rows"] == len(found)
    records = {place.transaction_id: read_decision(data) for place, data in found}
    # The tried bundle is the champion's under another name: what it says must be what was answered.
    for score in world.scores.scores.values():
        record = records[score.place.transaction_id]
        assert np.float64(score.raw).tobytes() == np.float64(record.raw_score).tobytes()
        assert np.float64(score.probability).tobytes() == np.float64(record.decision.score.probability).tobytes()


def test_pages_change_no_bit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    found = decisions(trained_scorer())
    world.add(found)
    monkeypatch.setattr(shadowing, "PAGE", 7)
    assert world.use.score()["rows"] == len(found)
    whole = shadow_scores(trained_scorer(), [Unscored(place, data) for place, data in found])
    by_id = {score.place.transaction_id: (score.raw, score.probability) for score in whole}
    paged = {score.place.transaction_id: (score.raw, score.probability) for score in world.scores.scores.values()}
    assert paged == by_id


def test_nothing_is_scored_twice_and_nothing_without_a_model_that_is_tried(world: World) -> None:
    world.add(decisions(trained_scorer(), 5))
    assert world.use.score() == {"models": 1, "rows": 5, "unusable": 0, "behind": 0, "refused": 0}
    assert world.use.score()["rows"] == 0
    world.retire()
    world.add(decisions(trained_scorer(), 9))
    assert world.use.score() == {"models": 0, "rows": 0, "unusable": 0, "behind": 0, "refused": 0}


def test_what_the_model_learnt_of_is_left_alone(world: World) -> None:
    place, data = decisions(trained_scorer(), 1)[0]
    now_us = world.clock.now_us()
    world.scores.decisions[Place(world.since_us - 1, place.transaction_id)] = data, now_us
    assert world.use.score()["rows"] == 0
    world.scores.decisions[Place(world.since_us, place.transaction_id)] = data, now_us
    assert world.use.score()["rows"] == 1


def test_events_whose_scores_have_expired_are_not_scored_again(world: World) -> None:
    world.clock.time_us = now_us = world.since_us + REACH_US + US_PER_DAY
    place, data = decisions(trained_scorer(), 1)[0]
    world.scores.decisions[Place(now_us - REACH_US - 1, place.transaction_id)] = data, now_us
    world.scores.decisions[Place(now_us - REACH_US, place.transaction_id)] = data, now_us
    assert world.use.score()["rows"] == 1
    assert [one.event_time_us for _, one in world.scores.scores] == [now_us - REACH_US]
    expire_until_us = Keeping(shadow_days=LEAST_SHADOW_DAYS).until_us(Expiring.SHADOW_SCORES, now_us)
    assert expire_until_us < now_us - REACH_US, "whatever the setting, no score is deleted that would be made again"


def test_a_firing_does_its_share_and_the_next_one_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadowing, "PAGE", 10)
    use = Shadowing(world.store, OnnxScorer, world.scores, world.clock, most_rows=20)
    world.add(decisions(trained_scorer(), 45))
    found = [use.score() for _ in range(3)]
    assert [one["rows"] for one in found] == [20, 20, 5]
    assert [one["behind"] for one in found] == [1, 1, 0]


def test_a_firing_stops_when_its_time_is_up(world: World) -> None:
    world.add(decisions(trained_scorer(), 5))
    seconds = iter([0.0, 41.0, 0.0, 1.0, 2.0])
    use = Shadowing(world.store, OnnxScorer, world.scores, world.clock, monotonic_s=lambda: next(seconds))
    assert use.score() == {"models": 1, "rows": 0, "unusable": 0, "behind": 1, "refused": 0}
    assert use.score()["rows"] == 5


def test_a_look_that_takes_several_firings_goes_on_where_it_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decisions that cannot be scored stay missing, so a look that began again would meet them again, and no others."""
    found = decisions(trained_scorer(), 45)
    found.sort(key=lambda one: world.since_us + one[0].event_time_us % (50 * US_PER_DAY))
    world.add([(place, _of_another_view(data)) for place, data in found[:30]])
    world.add(found[30:])
    monkeypatch.setattr(shadowing, "PAGE", 10)
    ticks = iter(range(1_000))
    use = Shadowing(
        world.store, OnnxScorer, world.scores, world.clock, budget_s=1.5, monotonic_s=lambda: float(next(ticks))
    )
    began_us = world.clock.now_us()
    firings = 0
    while True:
        done = use.score()
        firings += 1
        world.clock.time_us += 1_000_000
        if not done["behind"]:
            break
        assert firings < 10, "it never advances"
    assert firings > 1
    assert len(world.scores.scores) == 15
    use.score()
    assert world.scores.looks[-1].recorded_since_us == began_us - OVERLAP_US, "what came meanwhile is looked at"


def test_a_page_that_could_not_be_written_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadowing, "PAGE", 10)
    world.add(decisions(trained_scorer(), 25))
    put, calls = world.scores.put, iter([True, False, True, True])

    def away(digest: str, scores: Sequence[ShadowScore], recorded_at_us: int) -> int:
        if not next(calls):
            raise Transient("away")
        return put(digest, scores, recorded_at_us)

    monkeypatch.setattr(world.scores, "put", away)
    with pytest.raises(Transient):
        world.use.score()
    assert len(world.scores.scores) == 10
    assert world.use.score()["behind"] == 0
    assert len(world.scores.scores) == 25


def test_most_firings_look_back_a_little_and_one_in_an_hour_at_everything(world: World) -> None:
    began_us = world.clock.now_us()
    world.use.score()
    world.clock.time_us += 60_000_000
    world.use.score()
    world.clock.time_us = began_us + FULL_EVERY_US
    world.use.score()
    world.clock.time_us += 60_000_000
    world.use.score()
    assert [look.recorded_since_us for look in world.scores.looks] == [
        0,
        began_us - OVERLAP_US,
        0,
        began_us + FULL_EVERY_US - OVERLAP_US,
    ]


@pytest.mark.parametrize("late_us", [0, OVERLAP_US - 1, 3 * OVERLAP_US])
def test_a_decision_that_appears_late_is_scored_in_the_end(world: World, late_us: int) -> None:
    world.use.score()
    recorded_at_us = world.clock.now_us() - late_us
    world.clock.time_us += 1
    world.add(decisions(trained_scorer(), 3), recorded_at_us)
    rows = world.use.score()["rows"]
    assert rows == (3 if late_us <= OVERLAP_US else 0)
    world.clock.time_us += FULL_EVERY_US
    assert rows + int(str(world.use.score()["rows"])) == 3


def test_damaged_decisions_and_vectors_of_other_views_keep_nobody_up(world: World) -> None:
    found = decisions(trained_scorer(), 6)
    usable = shadow_scores(
        trained_scorer(),
        [Unscored(place, data) for place, data in found[:4]]
        + [Unscored(found[4][0], b"garbage"), Unscored(found[5][0], _of_another_view(found[5][1]))],
    )
    assert [score.place for score in usable] == [place for place, _ in found[:4]]
    assert shadow_scores(trained_scorer(), [Unscored(found[4][0], b"garbage")]) == []


def _of_another_view(data: bytes) -> bytes:
    from dataclasses import replace

    return decision_bytes(replace(read_decision(data), view="another-v1"))


def test_a_model_that_cannot_be_used_keeps_no_other_up(world: World, tmp_path: Path) -> None:
    clock = world.clock
    publish(world.store, golden_files(), Role.SHADOW, clock=clock, author="ada", reason="because")
    model = next(tmp_path.rglob(f"*{world.tried}*/model.onnx"))
    model.chmod(0o644)
    model.write_bytes(b"x" + model.read_bytes()[1:])
    world.add(decisions(trained_scorer(), 4))
    assert world.use.score() == {"models": 2, "rows": 4, "unusable": 0, "behind": 0, "refused": 1}


def test_a_store_that_is_away_is_raised_and_what_was_scored_stays(world: World) -> None:
    world.add(decisions(trained_scorer(), 4))
    world.scores.fault = Transient("away")
    with pytest.raises(Transient):
        world.use.score()
    world.scores.fault = None
    assert world.use.score()["rows"] == 4
