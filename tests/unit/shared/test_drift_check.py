"""The watch for drift over an hour after the other, with everything around it in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from shared.adapters.file_bundles import FileBundles
from shared.domain.bundle import open_bundle
from shared.domain.bundle_pointer import Role
from shared.domain.bundle_reference import SCORE, Histogram
from shared.domain.drift_counts import DecidedRows, matched
from shared.domain.drift_performance import MaturedRows
from shared.domain.drift_record import ALL, LABEL, PSI, VERDICT, DriftMetric, State
from shared.domain.errors import Transient
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.pipeline import Cause, Priority
from shared.ports.drift import Announcement
from shared.services.drift_check import DriftCheck, DriftMemory, DriftParts, DriftRules
from shared.services.training_publication import give, publish
from tests.fakes.bundles import START_US, golden_files
from tests.fakes.drift import (
    FakeAnnouncements,
    FakeDecidedWindows,
    FakeDriftArchive,
    FakeDriftMetrics,
    FakeFeedHealth,
)
from tests.fakes.notices import FakeNotices
from tests.fakes.pipelines import FakeTriggers
from tests.fakes.probes import FakeClock

BUNDLE = open_bundle(golden_files())
ROWS = 120
"""Decisions an hour."""


def drawn(histogram: Histogram, hours: int, rng: np.random.Generator) -> np.ndarray:
    """Values of so many hours, spread over a reference's bins as the reference was at their hours of the week."""
    values = np.array((np.nan, np.nan, *histogram.edges), dtype=np.float32)[: histogram.n_bins]
    found = []
    for hour in range(hours):
        shares = matched(histogram, [(START_US + hour * US_PER_HOUR, ROWS)])
        found.append(values[rng.choice(len(shares), ROWS, p=shares / shares.sum())])
    return np.concatenate([np.zeros(0, dtype=np.float32), *found])


def decisions(hours: int, *, drift_from: int | None = None) -> DecidedRows:
    """Decisions of so many hours; from one on, all amounts lie in the reference's highest tenth."""
    rng = np.random.default_rng(5)
    count = hours * ROWS
    references = BUNDLE.reference.histograms
    vectors = np.stack([drawn(references[name], hours, rng) for name in BUNDLE.view.names], axis=1)
    hour = np.repeat(np.arange(hours), ROWS)
    if drift_from is not None:
        amount = BUNDLE.view.names.index("amount")
        vectors[hour >= drift_from, amount] = references["amount"].edges[-1]
    return DecidedRows(
        event_time_us=START_US + hour * US_PER_HOUR + rng.integers(0, US_PER_HOUR, count),
        vectors=vectors,
        raw=drawn(references[SCORE], hours, rng),
        score=rng.random(count) / 10,
        outcome=np.zeros(count, dtype=np.int8),
        is_champions=np.ones(count, dtype=np.bool_),
    )


@dataclass
class Scene:
    """A watch over some hours of decisions, which end when the clock says."""

    store: FileBundles
    windows: FakeDecidedWindows
    metrics: FakeDriftMetrics = field(default_factory=FakeDriftMetrics)
    announcements: FakeAnnouncements = field(default_factory=FakeAnnouncements)
    feed: FakeFeedHealth = field(default_factory=FakeFeedHealth)
    archive: FakeDriftArchive = field(default_factory=FakeDriftArchive)
    triggers: FakeTriggers = field(default_factory=FakeTriggers)
    notices: FakeNotices = field(default_factory=FakeNotices)
    clock: FakeClock = field(default_factory=FakeClock)
    memory: DriftMemory = field(default_factory=DriftMemory)

    def run(self, hours: int, rules: DriftRules | None = None) -> dict[str, object]:
        """Fire the timer when so many hours are over."""
        self.clock.time_us = START_US + hours * US_PER_HOUR + 10 * 60_000_000
        parts = DriftParts(
            self.store,
            self.windows,
            self.metrics,
            self.announcements,
            self.feed,
            self.archive,
            self.triggers,
            self.notices,
            self.clock,
        )
        return dict(DriftCheck(parts, rules or DriftRules(), self.memory).run())

    def verdicts(self) -> list[DriftMetric]:
        """The verdicts in order."""
        return sorted(
            (row for (_, _, statistic, *_), row in self.metrics.rows.items() if statistic == VERDICT),
            key=lambda row: row.end_us,
        )

    def states(self) -> list[str]:
        return [str(row.details["state"]) for row in self.verdicts()]


def scene(tmp_path: Path, rows: DecidedRows, *, champion_since: int = 0) -> Scene:
    """A watch whose champion was promoted so many hours after the first decision."""
    store = FileBundles(tmp_path)
    clock = FakeClock(START_US + champion_since * US_PER_HOUR)
    publish(store, golden_files(), Role.CHAMPION, clock=clock, author="test", reason="test")
    entities = np.arange(len(rows.raw))
    return Scene(store, FakeDecidedWindows(rows, entities, entities))


def test_quiet_hours_are_measured_kept_and_left_alone(tmp_path: Path) -> None:
    quiet = scene(tmp_path, decisions(6))
    assert quiet.run(6)["hours"] == 6
    assert quiet.states() == [State.QUIET] * 6
    assert quiet.archive.files == {START_US + hour * US_PER_HOUR: ROWS for hour in range(6)}
    assert quiet.archive.open_files == 0
    assert not quiet.notices.told
    assert not quiet.triggers.kept
    hourly = {subject for (_, subject, statistic, start, end) in quiet.metrics.rows if statistic == "ks"}
    assert hourly == {*BUNDLE.view.names, SCORE}
    kept = len(quiet.metrics.rows)
    assert quiet.run(6) == {"hours": 0, "state": "nothing new"}
    assert len(quiet.metrics.rows) == kept


def test_drift_is_told_once_with_its_numbers(tmp_path: Path) -> None:
    drifting = scene(tmp_path, decisions(12, drift_from=6))
    for hour in range(1, 13):
        drifting.run(hour)
    assert drifting.states()[:7] == [State.QUIET] * 7
    assert drifting.states()[7:] == [State.DRIFT] * 5  # broken in two of three hours from the second on
    (trigger,) = (kept.trigger for kept in drifting.triggers.kept.values())
    assert (trigger.cause, trigger.subject, trigger.priority) == (Cause.FEATURE_DRIFT, "amount", Priority.HIGH)
    assert float(str(trigger.evidence["psi"])) > 0.5
    assert trigger.evidence["bundle"] == BUNDLE.digest
    (notice,) = drifting.notices.told
    assert notice.title.startswith("Drift: amount")
    assert notice.evidence["findings"]


def test_hours_made_up_for_at_once_say_what_they_would_have_said_one_by_one(tmp_path: Path) -> None:
    one_by_one = scene(tmp_path / "a", decisions(12, drift_from=6))
    for hour in range(1, 13):
        one_by_one.run(hour)
    at_once = scene(tmp_path / "b", decisions(12, drift_from=6))
    first = at_once.run(12, DriftRules(most_hours=5))
    assert (first["hours"], first["behind"]) == (5, 7)
    at_once.run(12)
    assert at_once.states() == one_by_one.states()

    def numbers(watch: Scene) -> dict[tuple[str, str, str, int, int], DriftMetric]:
        return {key: row for key, row in watch.metrics.rows.items() if key[2] == PSI}

    assert numbers(at_once) == numbers(one_by_one)


def test_a_champion_learns_from_the_hours_before_it_and_tells_nothing_of_them(tmp_path: Path) -> None:
    young = scene(tmp_path, decisions(8, drift_from=2), champion_since=6)
    young.run(8)
    assert young.states() == [State.LEARNING] * 6 + [State.DRIFT] * 2
    assert sorted(young.archive.files) == [START_US + hour * US_PER_HOUR for hour in (6, 7)]
    learnt = [
        row for key, row in young.metrics.rows.items() if key[2] == PSI and row.end_us <= START_US + 6 * US_PER_HOUR
    ]
    assert all(row.details["usual"] for row in learnt)


@pytest.mark.parametrize("subject", ["amount", "*"])
def test_an_announced_change_is_kept_and_no_alarm(tmp_path: Path, subject: str) -> None:
    known = scene(tmp_path, decisions(10, drift_from=4))
    start_us = START_US + 4 * US_PER_HOUR
    known.announcements.announce(Announcement(subject, start_us, start_us + 9 * US_PER_HOUR, "a", "prices rise"), 0)
    known.run(10)
    assert known.states() == [State.QUIET] * 5 + [State.ANNOUNCED] * 5
    assert not known.notices.told
    assert not known.triggers.kept
    assert known.verdicts()[-1].details["announced"] == ["amount"]
    drifted = known.metrics.rows[BUNDLE.digest, "amount", PSI, START_US + 9 * US_PER_HOUR, START_US + 10 * US_PER_HOUR]
    assert drifted.value is not None
    assert drifted.value > 0.5
    assert not drifted.details["usual"]


def test_another_subjects_announcement_excuses_nothing(tmp_path: Path) -> None:
    other = scene(tmp_path, decisions(8, drift_from=4))
    other.announcements.announce(Announcement("is_night", START_US, START_US + 9 * US_PER_HOUR, "a", "b"), 0)
    other.run(8)
    assert other.states()[-1] == State.DRIFT


def test_a_broken_feed_withholds_the_verdict_and_spoils_no_later_one(tmp_path: Path) -> None:
    rows = decisions(12)
    amount = BUNDLE.view.names.index("amount")
    bad = (rows.event_time_us >= START_US + 4 * US_PER_HOUR) & (rows.event_time_us < START_US + 7 * US_PER_HOUR)
    rows.vectors[bad, amount] = 1.0
    broken = scene(tmp_path, rows)
    broken.feed.spans.append((START_US + 4 * US_PER_HOUR, START_US + 7 * US_PER_HOUR))
    for hour in range(1, 13):  # so that what is withheld is read back each time
        broken.run(hour)
    assert broken.states() == [State.QUIET] * 4 + [State.WITHHELD] * 3 + [State.QUIET] * 5
    withheld = broken.verdicts()[5]
    assert withheld.value is None
    assert withheld.details["withheld"] == "no events"
    hour = START_US + 5 * US_PER_HOUR
    kept = broken.metrics.rows[BUNDLE.digest, "amount", PSI, hour, hour + US_PER_HOUR]
    assert kept.value is not None
    assert kept.value > 0.5
    assert not kept.details["usual"]
    assert not broken.notices.told


def test_an_hour_that_failed_half_way_is_done_again_and_told_once(tmp_path: Path) -> None:
    torn = scene(tmp_path, decisions(8, drift_from=4))
    torn.notices.fault = Transient("away")
    with pytest.raises(Transient):
        torn.run(8)
    assert torn.states() == [State.QUIET] * 5
    torn.notices.fault = None
    torn.run(8)
    assert torn.states() == [State.QUIET] * 5 + [State.DRIFT] * 3
    assert len(torn.notices.told) == 1
    assert len(torn.triggers.kept) == 1
    assert torn.archive.open_files == 0


def test_an_archive_that_cannot_be_reached_delays_no_verdict(tmp_path: Path) -> None:
    away = scene(tmp_path, decisions(2))
    away.archive.fault = Transient("away")
    away.run(2)
    assert away.states() == [State.QUIET] * 2
    assert [row.details["archived"] for row in away.verdicts()] == [False, False]
    assert away.archive.open_files == 0


def test_an_hour_without_decisions_is_quiet(tmp_path: Path) -> None:
    rows = decisions(6)
    rows.event_time_us[rows.event_time_us >= START_US + 3 * US_PER_HOUR] += US_PER_HOUR
    gap = scene(tmp_path, rows)
    gap.run(7)
    assert gap.states() == [State.QUIET] * 7
    assert gap.verdicts()[3].current_rows == 0
    assert START_US + 3 * US_PER_HOUR not in gap.archive.files


def test_without_a_champion_or_a_decision_there_is_nothing_to_do(tmp_path: Path) -> None:
    empty = scene(tmp_path, decisions(1))
    empty.windows.rows = decisions(0)
    assert empty.run(3) == {"hours": 0, "state": "nothing new"}
    give(empty.store, None, Role.CHAMPION, clock=empty.clock, author="test", reason="test")
    assert empty.run(3) == {"hours": 0, "state": "no champion"}


def test_there_is_an_end_to_a_firing_when_time_is_up(tmp_path: Path) -> None:
    slow = scene(tmp_path, decisions(5))
    slow.run(0)
    slow.clock.time_us = START_US + 5 * US_PER_HOUR + 10 * 60_000_000
    parts = DriftParts(
        slow.store,
        slow.windows,
        slow.metrics,
        slow.announcements,
        slow.feed,
        slow.archive,
        slow.triggers,
        slow.notices,
        slow.clock,
    )
    left = iter([True, True, False])
    assert DriftCheck(parts, DriftRules()).run(lambda: next(left))["behind"] == 3


def matured(rows: DecidedRows, found: float) -> MaturedRows:
    """A fraud in ten decisions, of which the model declines a share."""
    rng = np.random.default_rng(6)
    count = len(rows.raw)
    is_fraud = np.arange(count) % 10 == 0
    score = np.where(is_fraud & (rng.random(count) < found), 0.9, 0.01)
    return MaturedRows(score, is_fraud, np.arange(count), np.arange(count))


def judged_before(late: Scene, end_us: int) -> None:
    """Say that there is a verdict of the hour that ends so, so that a firing judges what comes after it alone."""
    done = DriftMetric(ALL, VERDICT, 0.0, end_us - US_PER_HOUR, end_us, 0, 0, {"state": State.QUIET.value})
    late.metrics.record(BUNDLE.digest, [done], end_us)


@pytest.mark.parametrize(("found", "told"), [(0.4, False), (0.15, True)])
def test_recall_that_fell_is_concept_drift_and_cannot_wait(tmp_path: Path, found: float, told: bool) -> None:
    hours = 7 * 24 + 30
    rows = decisions(30)
    late = scene(tmp_path, rows)
    late.windows.labels = matured(rows, found)
    judged_before(late, START_US + (hours - 1) * US_PER_HOUR)
    late.run(hours)
    concept = [kept.trigger for kept in late.triggers.kept.values() if kept.trigger.cause is Cause.CONCEPT_DRIFT]
    assert bool(concept) == told
    if told:
        assert concept[0].priority is Priority.IMMEDIATE
        assert concept[0].evidence["figure"] == "recall"
        assert any(notice.title.startswith("Concept drift: recall") for notice in late.notices.told)
    recall = [row for key, row in late.metrics.rows.items() if key[1:3] == (LABEL, "recall")]
    assert len(recall) == 2
    assert all(row.value == pytest.approx(found, abs=0.06) for row in recall)


class Labelled(FakeDecidedWindows):
    """Every window has 1,000 decisions with known labels, of which 60 are frauds and 42 of those were missed: at the
    same 14 terminals, which makes a seventh of an incident of each, and on the day that ends with one moment at as many
    new ones as there are frauds. Nobody's card occurs twice."""

    wide_until_us = 0
    asked: list[tuple[int, int]]

    def matured(self, bundle_digest: str, start_us: int, end_us: int, as_of_us: int) -> MaturedRows:
        self.asked.append((start_us, end_us))
        rows = np.arange(1_000)
        customer = start_us // US_PER_HOUR * 1_000 + rows
        missed = rows < 42
        where = rows % 14 if end_us != self.wide_until_us else customer
        score = np.where((rows >= 42) & (rows < 60), 0.9, 0.01)
        return MaturedRows(score, rows < 60, customer, np.where(missed, where, customer))


@pytest.mark.parametrize(
    ("days", "announced", "told"), [(31, False, True), (31, True, False), (25, False, False)], ids=str
)
def test_fraud_missed_in_more_incidents_than_on_usual_days_cannot_wait(
    tmp_path: Path, days: int, announced: bool, told: bool
) -> None:
    late = scene(tmp_path, decisions(1))
    late.windows = windows = Labelled(late.windows.rows, late.windows.customer, late.windows.terminal)
    end_us = START_US + days * US_PER_DAY
    windows.asked, windows.wide_until_us = [], end_us - BUNDLE.manifest.label.maturity_us
    if announced:
        late.announcements.announce(Announcement(LABEL, windows.wide_until_us - 1, end_us, "test", "test"), 0)
    judged_before(late, end_us - US_PER_HOUR)
    late.run(days * 24)
    concept = [kept.trigger for kept in late.triggers.kept.values() if kept.trigger.cause is Cause.CONCEPT_DRIFT]
    assert bool(concept) == told
    if told:
        assert concept[0].priority is Priority.IMMEDIATE
        assert concept[0].evidence["figure"] == "missed_incidents"
        assert concept[0].evidence["now"] == pytest.approx(42)
        assert concept[0].evidence["before"] == pytest.approx(2, rel=0.05)  # 14 terminals, seven days each
        usual = [(first, last) for first, last in windows.asked if last <= windows.wide_until_us - 7 * US_PER_DAY]
        assert all(first >= START_US - 6 * US_PER_DAY and last - first == US_PER_DAY for first, last in usual)
        assert len(set(usual)) == len(usual) >= 14 + 6
        windows.asked.clear()
        windows.wide_until_us += US_PER_HOUR
        late.run(days * 24 + 1)
        assert windows.asked, "the next firing looks again"
        assert not set(usual) & set(windows.asked), "and remembers the days that it has read"
    widely = [row for key, row in late.metrics.rows.items() if key[1:3] == (LABEL, "missed_incidents")]
    assert {row.end_us - row.start_us for row in widely} == {US_PER_DAY, 7 * US_PER_DAY}
    assert all(row.value == pytest.approx(42) for row in widely if row.end_us - row.start_us == US_PER_DAY)
