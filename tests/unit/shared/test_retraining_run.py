"""One training from recorded history to its consequence, with real trees and a real gate on drawn histories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from shared.adapters.file_bundles import FileBundles
from shared.adapters.onnx_scorer import OnnxGraph
from shared.adapters.xgboost_trainer import XgboostTrainer
from shared.domain.bundle import bundle_digest, open_bundle
from shared.domain.bundle_manifest import MANIFEST
from shared.domain.bundle_pointer import Role
from shared.domain.errors import BrokenInvariant, Conflict, InvalidInput, Transient
from shared.domain.feature_columns import LabelColumns
from shared.domain.feature_view import CARD_V1, HANDBOOK_V1, FeatureView
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.pipeline import Severity
from shared.domain.promotion import Check, CheckName, GateRules, Verdict, read_verdict
from shared.domain.registry import RegistryRecord, RunRecord
from shared.domain.training_model import TrainingParameters
from shared.domain.training_split import TEST
from shared.ports.succession import ModelStatus
from shared.services.retraining import RetrainingOutcome
from shared.services.retraining_lease import LeaseLost, held
from shared.services.retraining_run import ModelRules, ModelStores, TrainingRun
from shared.services.succession import Succession
from tests.fakes.bundles import history, plan_of
from tests.fakes.notices import FakeNotices
from tests.fakes.pipelines import FakeLeases, FakePipelineLog
from tests.fakes.probes import FakeClock
from tests.fakes.registry import FakeMeasuredRows
from tests.fakes.succession import FakePromotions
from tests.fakes.training_data import FakeTrainingData
from tests.fakes.verdict_pages import FakeVerdictPages
from tests.fakes.views import FakeViewBook

RUN = "retrain/5/one"
LENIENT = GateRules(
    min_recall=0.0,
    min_precision=0.0,
    slope_low=0.01,
    slope_high=100.0,
    max_auc=1.0,
    max_average_precision=1.0,
    max_feature_auc=1.0,
    maturity_us=7 * US_PER_DAY,
    min_labelled_suspicious=0.0,
    resamples=100,
)
STRICT = replace(LENIENT, min_recall=1.0, min_precision=1.0)


@dataclass
class Records:
    """Everything that was left for the registry."""

    kept: list[RegistryRecord] = field(default_factory=list)

    def enqueue(self, record: RegistryRecord) -> bool:
        self.kept.append(record)
        return True


@dataclass
class World:
    """What a training takes from and leaves things in, all in memory but the bundles."""

    folder: Path
    log: FakePipelineLog = field(default_factory=FakePipelineLog)
    leases: FakeLeases = field(default_factory=FakeLeases)
    notices: FakeNotices = field(default_factory=FakeNotices)
    pages: FakeVerdictPages = field(default_factory=FakeVerdictPages)
    records: Records = field(default_factory=Records)
    rows: FakeMeasuredRows = field(default_factory=FakeMeasuredRows)
    promotions: FakePromotions = field(default_factory=FakePromotions)
    data: FakeTrainingData = field(default_factory=lambda: FakeTrainingData(*history()))
    clock: FakeClock = field(default_factory=FakeClock)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.bundles = FileBundles(self.folder)
        self.clock.time_us = plan_of(self.data.transactions).as_of_us
        self.succession = Succession(
            self.bundles, self.promotions, self.clock, views=FakeViewBook(), records=self.records
        )

    def run(
        self,
        gate: GateRules = LENIENT,
        *,
        view: FeatureView | None = None,
        trial_us: int = US_PER_DAY,
        limit_s: float = 1e9,
        lease_s: int = 86_400,
    ) -> RetrainingOutcome:
        parameters = TrainingParameters(n_trees=12, learning_rate=0.3, max_bins=256)
        rules = ModelRules(
            "drawn",
            view,
            plan_of(self.data.transactions),
            parameters=parameters,
            trials=1,
            gate=gate,
            trial_us=trial_us,
            limit_s=limit_s,
        )
        stores = ModelStores(
            self.data,
            self.bundles,
            self.succession,
            self.log,
            self.notices,
            self.pages,
            self.records,
            self.rows,
        )
        lease = held(self.leases, "retrain", RUN, self.clock, lease_s * 1_000_000, monotonic_s=self.tick)
        assert lease is not None
        run = TrainingRun(
            stores,
            rules,
            self.clock,
            load_trainer=XgboostTrainer,
            load_graph=OnnxGraph,
            monotonic_s=self.tick,
        )
        return run(RUN, self.clock.time_us, lease)

    def tick(self) -> float:
        self.seconds += 1.0
        return self.seconds


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_refused_challenger_is_kept_told_and_never_given_a_part(world: World) -> None:
    outcome = world.run(STRICT)
    assert outcome.summary.startswith("refused: recall floor")
    (digest,) = world.bundles.digests()
    assert all(world.bundles.pointer(role).digest is None for role in Role)
    assert world.promotions.known[digest].status is ModelStatus.REFUSED
    (kept,) = world.promotions.verdicts.values()
    assert (kept.passed, kept.run_id, kept.challenger) == (False, RUN, digest)
    verdict = read_verdict(kept.document.encode())
    (notice,) = world.notices.told
    assert notice.severity in {Severity.WARNING, Severity.ERROR}
    assert notice.dedup_key == f"retrain/verdict/{kept.digest}"
    told = notice.evidence["refused by"]
    assert isinstance(told, dict)
    assert list(told) == [check.name.value for check in verdict.refusals]
    floor = next(check for check in verdict.refusals if check.name is CheckName.RECALL)
    assert told["recall floor"] == {"value": floor.value, "required": floor.required, "why": floor.why}
    assert list(world.pages.kept) == [f"verdicts/{kept.digest}.html"] == [notice.evidence["page"]]
    assert notice.link == f"/api/reports/verdicts/{kept.digest}.html"
    (page,) = world.pages.kept.values()
    assert "recall floor" in page
    assert outcome.details["passed"] is False
    assert outcome.details["refused_by"] == [check.name.value for check in verdict.refusals]


def test_what_was_done_is_told_with_rows_and_seconds(world: World) -> None:
    outcome = world.run(STRICT)
    (digest,) = world.bundles.digests()
    (record,) = [one for one in world.records.kept if isinstance(one, RunRecord)]
    assert (record.run_id, record.bundle_digest, record.outcome) == (RUN, digest, outcome.summary)
    assert world.rows.get(digest) is not None
    manifest_spans = record.spans
    assert outcome.trained_until_us == manifest_spans[TEST].end_us
    assert outcome.details["rows"] == {name: span.n_rows for name, span in manifest_spans.items()}
    seconds = outcome.details["seconds"]
    assert isinstance(seconds, dict)
    steps = ["reading", "labels", "features", "trees", "parity", "figures", "keeping", "handing over"]
    assert [step for step in seconds if step in steps] == steps
    assert any(step.startswith("gate: ") for step in seconds)
    noted = {task for run_id, task, metric in world.log.metrics if (run_id, metric) == (RUN, "seconds")}
    assert noted == set(seconds)
    ((start_us, end_us),) = world.data.asked
    times = world.data.transactions.event_time_us
    plan = plan_of(world.data.transactions)
    assert end_us == int(times[times <= world.clock.time_us - plan.maturity_us].max()) + 1, "no more is read"
    assert start_us < end_us - plan.length_us - 30 * US_PER_DAY, "features look back"


def test_a_first_model_that_passes_becomes_champion(world: World) -> None:
    outcome = world.run()
    (digest,) = world.bundles.digests()
    assert outcome.summary == "promoted drawn 1", outcome.details
    assert world.bundles.pointer(Role.CHAMPION).digest == digest
    assert world.notices.told[0].severity is Severity.INFORMATION


def test_the_next_one_is_judged_against_the_champion(world: World) -> None:
    assert world.run().summary == "promoted drawn 1"
    first = world.bundles.pointer(Role.CHAMPION).digest
    world.clock.time_us += 1
    again = world.run(replace(LENIENT, alpha=0.49, loss_margin=1.0))
    # The same history gives no better model: what is tested here is that it is judged against the champion.
    assert again.summary.startswith("refused: ")
    assert again.details["champion"] == first
    assert again.details["version"] == 2
    assert world.bundles.pointer(Role.CHALLENGER).digest is None


@pytest.fixture
def easy_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that lets everything through: the same history gives no better model."""

    def passed(files: object, facing: Mapping[str, bytes] | None, *_: object, **said: Any) -> Verdict:
        champion = None if facing is None else bundle_digest(facing[MANIFEST])
        checks = (Check(CheckName.GAIN, 0.1, None, "more than 0", True, "it is better"),)
        return Verdict(said["expected_digest"], champion, "drawn", said["as_of_us"], LENIENT, None, checks)

    monkeypatch.setattr("shared.services.retraining_run.judge", passed)


@pytest.mark.usefixtures("easy_gate")
def test_a_challenger_is_tried_and_keeps_its_place_until_its_trial_must_have_ended(world: World) -> None:
    assert world.run().summary == "promoted drawn"
    champion = world.bundles.pointer(Role.CHAMPION).digest
    world.clock.time_us += US_PER_HOUR
    assert world.run().summary == "challenger drawn"
    tried = world.bundles.pointer(Role.CHALLENGER).digest
    assert tried not in (None, champion)
    world.clock.time_us += 2 * US_PER_DAY - 1
    assert world.run().summary == f"passed, but {str(tried)[:12]} is on trial"
    assert world.bundles.pointer(Role.CHALLENGER).digest == tried
    world.clock.time_us += 1
    assert world.run().summary == "challenger drawn"
    assert world.bundles.pointer(Role.CHALLENGER).digest not in (None, champion, tried)
    assert world.bundles.pointer(Role.CHAMPION).digest == champion


def test_the_view_is_the_champions_unless_one_is_named(world: World) -> None:
    def trained(view: FeatureView | None = None) -> tuple[object, str]:
        before = set(world.bundles.digests())
        outcome = world.run(view=view)
        world.clock.time_us += US_PER_HOUR
        (digest,) = set(world.bundles.digests()) - before
        files = world.bundles.get(digest)
        return outcome.details["view"], open_bundle(files, digest).view.name

    assert trained(HANDBOOK_V1) == ("handbook-v1", "handbook-v1"), "of the first model somebody decides"
    assert world.bundles.pointer(Role.CHAMPION).digest is not None
    assert trained() == ("handbook-v1", "handbook-v1")
    assert trained(CARD_V1) == ("card-v1", "card-v1")


@pytest.mark.usefixtures("easy_gate")
def test_a_challenger_of_another_view_waits_for_a_person(world: World) -> None:
    world.run(view=HANDBOOK_V1)
    champion = world.bundles.pointer(Role.CHAMPION).digest
    world.clock.time_us += US_PER_HOUR
    outcome = world.run(view=CARD_V1)
    why = "passed, but card-v1 is not the champion's view: a person must promote"
    assert outcome.summary == f"{why} {str(outcome.details['bundle'])[:12]}"
    assert world.bundles.pointer(Role.CHALLENGER).digest is None, "it leaves room for one that can be tried"
    assert world.bundles.pointer(Role.CHAMPION).digest == champion
    world.clock.time_us += US_PER_HOUR
    assert world.run(view=CARD_V1, trial_us=0).summary.startswith("promoted drawn"), "without trials nothing is missing"


def test_without_a_champion_the_view_is_the_products_own(world: World) -> None:
    assert world.run(STRICT).details["view"] == "card-v1"


def test_a_champion_that_cannot_be_opened_is_named_before_anything_is_read(world: World) -> None:
    world.run()
    champion = world.bundles.pointer(Role.CHAMPION).digest
    assert champion is not None
    world.data.asked.clear()
    (world.folder / "bundles" / champion / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(BrokenInvariant, match=r"model\.onnx"):
        world.run()
    assert not world.data.asked


@pytest.mark.usefixtures("easy_gate")
def test_a_challenger_that_was_judged_against_another_champion_keeps_no_place(world: World) -> None:
    world.run()
    world.clock.time_us += US_PER_HOUR
    world.run()
    tried = world.bundles.pointer(Role.CHALLENGER).digest
    world.clock.time_us += US_PER_HOUR
    assert world.run(trial_us=0).summary == "promoted drawn", "without trials it takes the place at once"
    world.clock.time_us += US_PER_HOUR
    assert world.run().summary == "challenger drawn"
    assert world.bundles.pointer(Role.CHALLENGER).digest not in (None, tried)


def test_history_without_mature_labels_is_named(world: World) -> None:
    world.data.labels = LabelColumns.none()
    with pytest.raises(InvalidInput, match="mature transactions with a label"):
        world.run()


def test_a_run_that_takes_too_long_or_loses_its_lease_stops_before_it_leaves_anything(world: World) -> None:
    with pytest.raises(Transient, match="took more than 3 s and was given up at"):
        world.run(limit_s=3.0)
    assert not world.bundles.digests()
    with pytest.raises(LeaseLost):
        world.run(lease_s=10)  # each look at the clock takes a second
    assert not world.bundles.digests()
    assert not world.promotions.verdicts


def test_a_person_who_was_faster_is_no_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise Conflict("role", "has changed: somebody was faster")

    monkeypatch.setattr(world.succession, "promote", refused)
    outcome = world.run()
    assert outcome.summary == "passed, but not handed over: role has changed: somebody was faster"
