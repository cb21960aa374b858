"""How a trial ends: not too early, not without decisions, with the champion's place or without it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared.adapters.file_bundles import FileBundles
from shared.domain.bundle_manifest import canonical_json
from shared.domain.bundle_pointer import Role
from shared.domain.errors import Conflict, Transient
from shared.domain.evaluation import Interval
from shared.domain.instants import US_PER_HOUR
from shared.domain.pipeline import Severity
from shared.domain.promotion import Check, CheckName, GateRules, Verdict, write_verdict
from shared.services.retraining_run import AUTHOR
from shared.services.retraining_trial import LOOK_BACK_US, TELL_US, Trial, TrialRules
from shared.services.shadowing_evidence import ShadowEvidence
from shared.services.succession import Succession
from tests.fakes.bundles import golden_files
from tests.fakes.notices import FakeNotices
from tests.fakes.probes import FakeClock
from tests.fakes.succession import FakePromotions
from tests.fakes.views import FakeViewBook

RULES = TrialRules(24 * US_PER_HOUR, 1_000)


def other_files() -> dict[str, bytes]:
    """The recorded bundle as if it had another version."""
    files = golden_files()

    manifest = json.loads(files["manifest.json"])
    return {**files, "manifest.json": canonical_json({**manifest, "version": 2})}


@dataclass
class World:
    """A champion, and a challenger that passed the gate."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    promotions: FakePromotions = field(default_factory=FakePromotions)
    notices: FakeNotices = field(default_factory=FakeNotices)
    rows: int = 5_000
    gain: Interval | None = None
    asked: list[tuple[str, str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bundles = FileBundles(self.folder)
        self.succession = Succession(self.bundles, self.promotions, self.clock, views=FakeViewBook())
        self.champion = self.bundles.put(golden_files())
        self.challenger = self.bundles.put(other_files())
        self.succession.accept(self.champion, author="a person", reason="the first one")

    def appoint(self, author: str = AUTHOR, champion: str | None = None) -> None:
        checks = (Check(CheckName.GAIN, 0.1, None, "more than 0", True, "it is better"),)
        verdict = Verdict(self.challenger, champion or self.champion, "golden 2", 5, GateRules(), None, checks)
        kept = self.succession.judged(write_verdict(verdict), "retrain/5/one", self.clock.time_us)
        self.succession.appoint(
            Role.CHALLENGER, self.challenger, author=author, reason="passed", verdict_digest=kept.digest
        )

    def compare(self, digest: str, champion: str, start_us: int, end_us: int) -> ShadowEvidence:
        self.asked.append((digest, champion, start_us, end_us))
        return ShadowEvidence(digest, champion, start_us, end_us, self.rows, {}, gain_interval=self.gain)

    def settle(self) -> str:
        return Trial(self.succession, self.compare, self.notices, self.clock, RULES).settle()

    def present(self, role: Role) -> str | None:
        return self.bundles.pointer(role).digest


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_nobody_on_trial_is_nothing_to_do(world: World) -> None:
    assert world.settle() == ""
    world.clock.time_us += RULES.least_us
    world.appoint(author="a person")
    world.clock.time_us += RULES.least_us
    assert world.settle() == "", "who appointed it decides"


def test_it_ends_after_its_time_with_enough_decisions(world: World) -> None:
    world.appoint()
    since_us = world.clock.time_us
    world.clock.time_us += RULES.least_us - 1
    assert world.settle() == ""
    world.clock.time_us += 1
    world.rows = RULES.min_rows - 1
    assert world.settle() == ""
    assert world.present(Role.CHAMPION) == world.champion
    world.rows += 1
    assert world.settle() == "promoted: scored 1000 decisions in shadow, 100.00% the same"
    assert (world.present(Role.CHAMPION), world.present(Role.CHALLENGER)) == (world.challenger, None)
    assert world.asked[-1] == (world.challenger, world.champion, since_us - LOOK_BACK_US, world.clock.time_us)
    assert [notice.severity for notice in world.notices.told] == [Severity.INFORMATION]
    assert world.settle() == ""


def test_labels_that_say_that_it_is_worse_end_it(world: World) -> None:
    world.appoint()
    world.clock.time_us += RULES.least_us
    world.gain = Interval(-0.2, -0.01)
    assert world.settle().endswith("on mature labels it is worse than the champion")
    assert (world.present(Role.CHAMPION), world.present(Role.CHALLENGER)) == (world.champion, None)
    assert [notice.severity for notice in world.notices.told] == [Severity.WARNING]


def test_labels_that_say_nothing_do_not(world: World) -> None:
    world.appoint()
    world.clock.time_us += RULES.least_us
    world.gain = Interval(-0.2, 0.01)
    assert world.settle().startswith("promoted")


def test_who_was_judged_against_another_champion_leaves(world: World) -> None:
    world.appoint(champion="c" * 64)
    world.clock.time_us += RULES.least_us
    assert "judge again" in world.settle()
    assert (world.present(Role.CHAMPION), world.present(Role.CHALLENGER)) == (world.champion, None)


def test_a_role_that_changes_at_this_moment_is_looked_at_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.appoint()
    world.clock.time_us += RULES.least_us

    def beaten(*_: object, **__: object) -> None:
        raise Conflict("role", "somebody was faster")

    with monkeypatch.context() as patched:
        patched.setattr(world.succession, "promote", beaten)
        assert world.settle() == ""
    assert world.present(Role.CHALLENGER) == world.challenger
    assert world.settle().startswith("promoted")


@pytest.mark.parametrize("gain", [None, Interval(-0.2, -0.01)])
def test_who_dies_between_the_change_and_the_notice_leaves_it_to_the_next_look(
    world: World, gain: Interval | None
) -> None:
    world.appoint()
    world.clock.time_us += RULES.least_us
    world.gain = gain
    world.notices.fault = Transient("away")
    with pytest.raises(Transient):
        world.settle()
    assert world.present(Role.CHALLENGER) is None, "the change was made"
    assert world.notices.told == []
    world.clock.time_us += 60_000_000
    assert world.settle() == ""
    (told,) = world.notices.told
    assert told.title == f"Trial of challenger {world.challenger[:12]} has ended"
    assert told.severity is (Severity.INFORMATION if gain is None else Severity.WARNING)
    assert str(told.evidence["outcome"]).startswith("promoted: scored" if gain is None else "retired: scored")
    world.settle()
    assert len(world.notices.told) == 1


def test_a_trial_that_was_told_of_is_told_of_once_and_one_of_long_ago_not_at_all(world: World) -> None:
    world.appoint()
    world.clock.time_us += RULES.least_us
    assert world.settle()
    assert world.settle() == ""
    assert len(world.notices.told) == 1
    world.notices.rows.clear()  # as notices that are not kept any more
    world.clock.time_us += TELL_US + 1
    assert world.settle() == ""
    assert world.notices.told == []


def test_a_person_who_ends_a_trial_knows_it(world: World) -> None:
    world.appoint()
    world.succession.retire(Role.CHALLENGER, author="a person", reason="enough")
    assert world.settle() == ""
    world.appoint(author="a person")
    world.succession.retire(Role.CHALLENGER, author=AUTHOR, reason="enough")
    assert world.settle() == ""
    assert world.notices.told == []
