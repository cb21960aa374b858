"""Training end to end on drawn histories: reproducible, without leakage, and refusing what may not be published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.adapters.file_bundles import FileBundles
from shared.adapters.onnx_scorer import OnnxGraph, OnnxScorer
from shared.adapters.xgboost_trainer import XgboostTrainer
from shared.domain.bundle_manifest import BOOSTER, MANIFEST, MODEL, TABLES, canonical_json
from shared.domain.bundle_pointer import Role
from shared.domain.bundle_reference import SCORE
from shared.domain.cost_policy import Capacity, Costs
from shared.domain.decision import STRICTNESS, Outcome
from shared.domain.errors import BrokenInvariant, Conflict, InvalidInput
from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.feature_view import CARD_V1
from shared.domain.score import CalibrationTable
from shared.domain.training_model import FittedModel, TrainingParameters
from shared.domain.training_search import candidate
from shared.domain.training_split import TEST, TRAIN, split_by_time, targets_as_of
from shared.domain.tree_budget import TreeBudget
from shared.services.training import Search, Trained, recommended_thresholds, train
from shared.services.training_publication import give, next_version, publish
from tests.fakes.bundles import history, plan_of
from tests.fakes.probes import FakeClock

SMALL = TrainingParameters(n_trees=20, learning_rate=0.3, max_bins=256)


class WrongGraph:
    """A graph that is off by a little, or whose rows depend on the rows beside them."""

    def __init__(
        self, model: bytes, n_features: int, wrong: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> None:
        self._graph = OnnxGraph(model, n_features)
        self._wrong = wrong

    def raw(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._wrong(self._graph.raw(vectors))


def trained(transactions: TransactionColumns, labels: LabelColumns, **changes: Any) -> Trained:
    options: dict[str, Any] = {
        "trainer": XgboostTrainer(),
        "load_graph": OnnxGraph,
        "name": "drawn",
        "version": 1,
        "parameters": SMALL,
    }
    return train(CARD_V1, transactions, labels, plan_of(transactions), **(options | changes))


@cache
def made() -> Trained:
    return trained(*history())


def test_what_was_learnt_is_found() -> None:
    result = made()
    assert result.test.auc > 0.7
    assert result.test.average_precision > 0.35
    metrics = {metric.name: metric for metric in result.bundle.manifest.metrics}
    assert set(metrics) == {"auc", "average_precision", "card_precision", "precision", "recall", "calibration_ratio"}
    assert all(metric.low <= metric.value <= metric.high for metric in metrics.values())
    assert 0.6 < metrics["calibration_ratio"].value < 1.6
    assert result.parity.n_rows > 8_000
    assert max(result.parity.output, result.parity.contribution, result.parity.sum) <= 1e-5


def test_without_a_capacity_no_price_is_fitted() -> None:
    assert made().bundle.manifest.capacity is None


def reviews(result: Trained, transactions: TransactionColumns, labels: LabelColumns, price: int) -> int:
    """How many of all transactions of the test span are reviewed at a price."""
    manifest = result.bundle.manifest
    assert manifest.capacity is not None
    span, time_us = manifest.spans[TEST], transactions.event_time_us
    rows = np.flatnonzero((time_us >= span.start_us) & (time_us < span.end_us))
    scorer = OnnxScorer(result.bundle)
    scores = scorer.calibration.probability_many(scorer.score(transform_many(CARD_V1, transactions, labels)[rows]).raw)
    policy = replace(manifest.capacity.policy, shadow_price_minor=price)
    return int((policy.outcomes(scores, transactions.amount_minor[rows]) == STRICTNESS.index(Outcome.REVIEW)).sum())


@pytest.mark.parametrize("costs", [Costs(), Costs(review_minor=900, declines=False)])
@pytest.mark.parametrize("share_labelled", [1.0, 0.5])
def test_a_capacity_holds_on_days_that_the_model_was_not_fitted_on(costs: Costs, share_labelled: float) -> None:
    """Also where not all of their verdicts are known: who reviews a transaction does not know its verdict either."""
    transactions, labels = history()
    tested = made().bundle.manifest.spans[TEST]
    time_us = transactions.event_time_us[labels.row]
    drawn = np.random.default_rng(5).random(len(time_us)) < share_labelled
    kept = np.flatnonzero((time_us < tested.start_us) | (time_us >= tested.end_us) | drawn)
    names = ("row", "is_fraud", "known_at_us", "source", "confidence")
    labels = LabelColumns(*(getattr(labels, name)[kept] for name in names))
    result = trained(transactions, labels, capacity=Capacity(2, costs))
    fitted = result.bundle.manifest.capacity
    assert fitted is not None
    assert fitted.capacity == Capacity(2, costs)
    assert fitted.policy.costs == costs
    price = fitted.policy.shadow_price_minor
    assert price > 0
    assert reviews(result, transactions, labels, price) <= 2 * 7 < reviews(result, transactions, labels, price - 1)


def test_the_bundle_serves() -> None:
    scorer = OnnxScorer(made().bundle)
    transactions, labels = history()
    vectors = transform_many(CARD_V1, transactions, labels)[-500:]
    assert scorer.score(vectors).raw.shape == (500,)
    reference = made().bundle.reference
    assert reference.histograms["is_night"].by_hour is not None
    assert reference.histograms[SCORE].counts.sum() == sum(
        made().bundle.manifest.spans[span].n_rows for span in ("calibration", "test")
    )


def test_the_same_history_gives_the_same_digest_in_any_order_of_rows() -> None:
    transactions, labels = history()
    steps: list[str] = []
    assert trained(transactions, labels, progress=lambda step, _: steps.append(step)).digest == made().digest
    assert list(dict.fromkeys(steps)) == [
        "labels",
        "features",
        "trees",
        "reasons",
        "parity",
        "calibration",
        "figures",
        "reference",
    ]
    order = np.random.default_rng(1).permutation(len(labels.row))
    columns = (transactions.transaction_id, transactions.event_time_us, transactions.amount_minor)
    turned = TransactionColumns(*(column[order] for column in (*columns, transactions.customer, transactions.terminal)))
    turned_labels = replace(labels, row=np.argsort(order)[labels.row])
    assert trained(turned, turned_labels).digest == made().digest


def test_a_search_is_the_same_for_the_same_number_of_trials_and_says_how_many_ran() -> None:
    transactions, labels = history()
    asked: list[bool] = []

    def after_two() -> bool:
        asked.append(True)
        return len(asked) >= 2

    whole = trained(transactions, labels, search=Search(2))
    stopped = trained(transactions, labels, search=Search(9, after_two))
    assert stopped.digest == whole.digest
    parameters = whole.bundle.manifest.parameters
    assert parameters["trials"] == 2
    assert made().bundle.manifest.parameters["trials"] == 1
    assert trained(transactions, labels, search=Search(3, lambda: True)).digest == made().digest


def test_a_search_takes_the_trial_that_finds_most_on_the_validation_span() -> None:
    transactions, labels = history()
    few = replace(SMALL, n_trees=3, learning_rate=0.01)
    found = {trials: trained(transactions, labels, parameters=few, search=Search(trials)) for trials in (1, 4)}
    trial = found[4].bundle.manifest.parameters["trial"]
    assert trial in {1, 2, 3}, "the first one learns hardly anything"
    assert isinstance(trial, int)
    expected = candidate(few, trial).to_fields()
    assert {name: found[4].bundle.manifest.parameters[name] for name in expected} == expected
    assert found[4].test.average_precision > found[1].test.average_precision


def test_frauds_may_count_for_more_and_scores_stay_probabilities() -> None:
    weighted = trained(*history(), parameters=replace(SMALL, class_weight=10.0))
    assert weighted.files[BOOSTER] != made().files[BOOSTER]
    ratio = next(metric for metric in weighted.bundle.manifest.metrics if metric.name == "calibration_ratio")
    assert 0.6 < ratio.value < 1.6


def test_another_version_or_history_gives_another_digest() -> None:
    transactions, labels = history()
    digests = {
        made().digest,
        trained(transactions, labels, version=2).digest,
        trained(*history(seed=8)).digest,
    }
    assert len(digests) == 3


def test_labels_dealt_out_anew_teach_nothing() -> None:
    result = trained(*history(shuffled=True), parameters=replace(SMALL, n_trees=100))
    low, high = next((metric.low, metric.high) for metric in result.bundle.manifest.metrics if metric.name == "auc")
    assert low < 0.5 < high
    assert abs(result.test.auc - 0.5) < 0.06


def test_labels_not_yet_knowable_change_no_feature_bit() -> None:
    transactions, labels = history()
    vectors = transform_many(CARD_V1, transactions, labels)
    rng = np.random.default_rng(2)
    for place in (0.3, 0.5, 0.8):
        now_us = int(np.quantile(transactions.event_time_us, place))
        unknowable = labels.known_at_us + CARD_V1.label_delay_us > now_us
        flipped = replace(labels, is_fraud=np.where(unknowable, rng.random(len(unknowable)) < 0.5, labels.is_fraud))
        again = transform_many(CARD_V1, transactions, flipped)
        before = transactions.event_time_us <= now_us
        assert vectors[before].tobytes() == again[before].tobytes()
        assert vectors[~before].tobytes() != again[~before].tobytes()


def test_labels_known_after_the_plans_time_change_no_byte_of_the_bundle() -> None:
    transactions, labels = history()
    plan = plan_of(transactions)
    rows = np.arange(0, len(labels.row), 7)
    later = plan.as_of_us + 1
    late = LabelColumns(
        np.concatenate([labels.row, rows]),
        np.concatenate([labels.is_fraud, ~labels.is_fraud[rows]]),
        np.concatenate([labels.known_at_us, np.full(len(rows), later)]),
        np.concatenate([labels.source, np.full(len(rows), 4, dtype=np.int8)]),
        np.concatenate([labels.confidence, np.full(len(rows), 100, dtype=np.int8)]),
    )
    assert trained(transactions, late).digest == made().digest


def test_outcomes_of_the_test_span_change_no_byte_of_the_model() -> None:
    transactions, labels = history()
    plan = plan_of(transactions)
    split = split_by_time(transactions, targets_as_of(len(labels.row), labels, plan.as_of_us), plan)
    verdict = labels.is_fraud.copy()
    rows = split.rows[TEST]
    verdict[rows] = np.random.default_rng(3).permutation(verdict[rows])
    result = trained(transactions, replace(labels, is_fraud=verdict))
    for name in (MODEL, BOOSTER, TABLES):
        assert result.files[name] == made().files[name]
    assert result.bundle.manifest.calibration == made().bundle.manifest.calibration
    assert result.bundle.manifest.thresholds == made().bundle.manifest.thresholds
    assert result.digest != made().digest
    assert split.spans[TRAIN].end_us < split.spans[TEST].start_us


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda raw: raw + np.float32(1e-4), "the graph's outputs differ"),
        (
            lambda raw: np.where(np.arange(len(raw)) == 3, np.float32(np.nan), raw),
            "beside it|the graph's outputs differ",
        ),
        (lambda raw: np.cumsum(raw, dtype=np.float32), "depends on the rows beside it"),
    ],
)
def test_a_graph_that_says_something_else_is_not_published(
    wrong: Callable[[NDArray[np.float32]], NDArray[np.float32]], reason: str
) -> None:
    def load(model: bytes, n_features: int) -> WrongGraph:
        return WrongGraph(model, n_features, wrong)

    with pytest.raises(BrokenInvariant, match=reason):
        trained(*history(), load_graph=load)


class WrongOracle(XgboostTrainer):
    """The training library, but its contributions are another model's."""

    def contributions(self, booster: bytes, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().contributions(booster, vectors) + np.float32(1e-4)


def test_reasons_that_are_not_the_librarys_are_not_published() -> None:
    with pytest.raises(BrokenInvariant, match="the tables' contributions differ"):
        trained(*history(), trainer=WrongOracle())


class ForgetfulTrainer(XgboostTrainer):
    """Says that it made another number of trees than it exports."""

    def fit(self, *arguments: Any, **options: Any) -> FittedModel:
        made = super().fit(*arguments, **options)
        return replace(made, n_trees=made.n_trees - 1)


def test_an_export_with_other_trees_is_not_published() -> None:
    with pytest.raises(BrokenInvariant, match="other trees or features than were trained"):
        trained(*history(), trainer=ForgetfulTrainer())


def test_a_model_over_budget_is_not_published() -> None:
    with pytest.raises(BrokenInvariant, match=r"over budget: [0-9]+ trees, at most 10"):
        trained(*history(), budget=TreeBudget(max_trees=10, max_depth=4, max_table_bytes=1 << 30))


def test_a_history_that_is_too_short_is_named() -> None:
    with pytest.raises(InvalidInput, match="history must hold at least 10 frauds"):
        trained(*history(days=20))


def test_a_gap_shorter_than_the_label_delay_is_refused() -> None:
    transactions, labels = history()
    plan = replace(plan_of(transactions), gap_us=CARD_V1.label_delay_us - 1)
    with pytest.raises(InvalidInput, match="gap_us must be at least the label delay of card-v1"):
        train(
            CARD_V1,
            transactions,
            labels,
            plan,
            trainer=XgboostTrainer(),
            load_graph=OnnxGraph,
            name="drawn",
            version=1,
        )


def test_thresholds_are_taken_from_the_calibration_span() -> None:
    raw = np.linspace(0.001, 1.0, 1_000).astype(np.float32)
    table = CalibrationTable(tuple(raw[1:].astype(np.float64).tolist()), tuple(np.linspace(0.001, 1.0, 1_000).tolist()))
    is_fraud = np.arange(1_000) >= 985
    found = recommended_thresholds(table, raw, is_fraud)
    scores = table.probability_many(raw)
    declined = scores >= found.decline
    assert declined.sum() == 20  # fifteen frauds among twenty are three quarters
    assert is_fraud[declined].mean() == 0.75
    assert ((scores >= found.review) & ~declined).sum() == 5
    never = recommended_thresholds(table, raw, np.arange(1_000) == 0)
    assert never.review <= never.decline == scores.max()


def test_publishing_keeps_the_bundle_and_gives_it_the_part(tmp_path: Path) -> None:
    store = FileBundles(tmp_path)
    clock = FakeClock()
    assert next_version(store, "drawn") == 1
    pointed = publish(store, made().files, Role.CHAMPION, clock=clock, author="a", reason="first")
    assert pointed.digest == made().digest
    assert next_version(store, "drawn") == 2
    assert next_version(store, "another") == 1
    again = publish(store, made().files, Role.CHAMPION, clock=clock, author="a", reason="again")
    assert again == pointed
    assert [state.reason for state in store.history(Role.CHAMPION)] == ["first"]
    nobody = give(store, None, Role.CHAMPION, clock=clock, author="a", reason="rolled back")
    assert nobody.digest is None
    assert give(store, None, Role.CHAMPION, clock=clock, author="a", reason="once more") == nobody
    assert [state.number for state in store.history(Role.CHAMPION)] == [1, 2]


def test_manifests_that_cannot_be_read_do_not_stop_the_counting(tmp_path: Path) -> None:
    store = FileBundles(tmp_path)
    digest = store.put(made().files)
    (tmp_path / "bundles" / digest / MANIFEST).write_bytes(
        canonical_json({"kind": "tollgate.bundle", "format_version": 9})
    )
    assert next_version(store, "drawn") == 1


def test_whoever_is_slower_is_told(tmp_path: Path) -> None:
    class Slow(FileBundles):
        def put(self, files: Any) -> str:
            digest = super().put(files)
            self.hurried = True
            return digest

        def pointer(self, role: Role) -> Any:
            found = super().pointer(role)
            if getattr(self, "hurried", False):
                self.hurried = False
                give(FileBundles(tmp_path), None, role, clock=FakeClock(), author="b", reason="faster")
            return found

    with pytest.raises(Conflict, match="has changed"):
        publish(Slow(tmp_path), made().files, Role.CHAMPION, clock=FakeClock(), author="a", reason="slower")
    assert FileBundles(tmp_path).digests() == [made().digest]
    assert FileBundles(tmp_path).pointer(Role.CHAMPION).digest is None
