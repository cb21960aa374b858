"""Bad challengers that look right, and the check that refuses each; beside them a good one that is promoted."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.adapters.onnx_scorer import OnnxGraph
from shared.adapters.xgboost_trainer import XgboostTrainer
from shared.domain.bundle_manifest import BOOSTER, FILES, MANIFEST, MODEL, Manifest, Metric, write_manifest
from shared.domain.calibration_fit import log_odds
from shared.domain.cost_policy import CostPolicy
from shared.domain.feature_columns import LabelColumns, transform_many
from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_DAY
from shared.domain.promotion import Acceptance, CheckName, GateRules, Verdict, read_verdict, write_verdict
from shared.domain.score import CalibrationTable
from shared.domain.training_model import Rows
from shared.domain.training_split import CALIBRATION, TEST, TRAIN, VALIDATION
from shared.domain.tree_model import read_booster
from shared.domain.tree_tables import compile_tables
from tests.promotion.forgery import (
    PARAMETERS,
    RULES,
    Forgery,
    Past,
    champion,
    clean,
    judged,
    outcomes,
    past,
    places,
    plan,
    repacked,
    told,
    trained,
    vectors,
    with_silence,
)


def refused(verdict: Verdict, *names: CheckName) -> None:
    """The verdict does not pass, and among others because of these checks; it survives being written."""
    missed = {check.name: check.why for check in verdict.refusals}
    assert not verdict.passed
    assert not verdict.promotable
    assert set(names) <= set(missed), missed
    assert all(check.why for check in verdict.checks)
    assert read_verdict(write_verdict(verdict)) == verdict


@cache
def good() -> Verdict:
    return judged(clean().files)


def test_a_clean_and_better_challenger_is_promoted() -> None:
    assert [check.why for check in good().refusals] == []
    assert good().passed
    assert good().promotable
    assert [check.name for check in good().checks] == list(CheckName)
    window = good().window
    assert window is not None
    assert window.n_frauds == clean().bundle.manifest.spans[TEST].n_frauds
    assert good() == judged(clean().files)


def test_a_forger_who_changes_nothing_makes_the_clean_challenger() -> None:
    assert Forgery().files() == clean().files


def test_the_champion_is_not_better_than_itself() -> None:
    refused(judged(clean().files, facing=clean().files), CheckName.GAIN)


def test_the_worse_of_two_honest_models_is_refused() -> None:
    refused(judged(champion(), facing=clean().files), CheckName.GAIN, CheckName.FRESHNESS)


# Learnt from what it should not have.


@pytest.mark.parametrize(("honest_digest", "caught"), [(False, CheckName.DATA), (True, CheckName.REPRODUCTION)])
def test_shuffled_labels(honest_digest: bool, caught: CheckName) -> None:
    shuffled = outcomes().copy()
    for name in (TRAIN, VALIDATION, CALIBRATION):
        shuffled[places()[name]] = np.random.default_rng(3).permutation(shuffled[places()[name]])
    forged = Forgery(is_fraud=shuffled, honest_digest=honest_digest)
    refused(judged(forged.files()), caught, CheckName.GAIN)


@pytest.mark.parametrize(("honest_digest", "caught"), [(False, CheckName.DATA), (True, CheckName.REPRODUCTION)])
def test_the_target_among_the_features(honest_digest: bool, caught: CheckName) -> None:
    leaked = vectors().copy()
    leaked[:, CARD_V1.names.index("terminal_last_label")] = outcomes()
    files = Forgery(vectors=leaked, honest_digest=honest_digest).files()
    refused(judged(files), caught, CheckName.GAIN)
    if honest_digest:  # what it claims is as good as it was on the leaked features
        refused(judged(files), CheckName.METRICS)


def test_labels_that_were_known_before_their_transaction() -> None:
    """The history itself leaks: a feed that dates its labels back."""
    known = past()
    labels = replace(known.labels, known_at_us=known.labels.known_at_us - 60 * US_PER_DAY)
    leaking = replace(known, labels=labels)
    verdict = judged(trained(leaking).files, leaking, alone=True)
    refused(verdict, CheckName.LABEL_TIMES)


@pytest.mark.parametrize(("honest_digest", "caught"), [(False, CheckName.DATA), (True, CheckName.REPRODUCTION)])
def test_the_future_in_the_windows(honest_digest: bool, caught: CheckName) -> None:
    """Features that count each label from its transaction on, as a join without regard to time makes them."""
    known = past()
    early = known.transactions.event_time_us[known.labels.row] - CARD_V1.label_delay_us
    ahead = transform_many(CARD_V1, known.transactions, replace(known.labels, known_at_us=early))
    refused(judged(Forgery(vectors=ahead, honest_digest=honest_digest).files()), caught)


def test_trained_on_the_test_window_and_says_so() -> None:
    def stretched(manifest: Manifest) -> Manifest:
        train = replace(manifest.spans[TRAIN], end_us=manifest.spans[TEST].end_us)
        return replace(manifest, spans={**manifest.spans, TRAIN: train})

    refused(judged(Forgery(change=stretched).files()), CheckName.SEPARATION, CheckName.DATA)


def test_trained_on_the_test_window_and_does_not_say_so() -> None:
    learnt = np.concatenate([places()[TRAIN], places()[TEST]])
    verdict = judged(Forgery(learnt=learnt).files())
    refused(verdict, CheckName.REPRODUCTION)
    others = {check.name for check in verdict.refusals} - {CheckName.REPRODUCTION}
    assert others <= {CheckName.SLOPE}  # all it states is true; only growing the trees again shows it


@pytest.mark.parametrize(("owns_up", "caught"), [(True, CheckName.SEPARATION), (False, CheckName.DATA)])
def test_the_immature_counted_as_genuine(owns_up: bool, caught: CheckName) -> None:
    known = told()
    hasty = replace(known, labels=with_silence(known.transactions, known.labels, known.as_of_us, 0))
    files = trained(hasty, cut=plan(maturity_us=0)).files
    if not owns_up:
        files = repacked(files, lambda manifest: replace(manifest, label=clean().bundle.manifest.label))
    refused(judged(files), caught, CheckName.DATA)


def test_outcomes_of_nothing_that_was_declined() -> None:
    """The champion's declines were blocked, so nobody ever learnt what they were."""
    probability = clean().bundle.manifest.calibration.probability_many(_raw(clean().files))
    blocked = probability >= clean().bundle.manifest.thresholds.decline
    selective = _without(blocked)
    verdict = judged(trained(selective).files, selective)
    refused(verdict, CheckName.SELECTION)


def test_outcomes_of_what_was_reviewed_only() -> None:
    refused(judged(trained(told()).files, told()), CheckName.COVERAGE)


def test_a_backfill_older_than_the_champions_window() -> None:
    older = plan(as_of_us=past().as_of_us - 20 * US_PER_DAY, train_days=34)
    refused(judged(trained(cut=older).files), CheckName.FRESHNESS)


# Says something else in another form, or something else than it is.


def test_miscalibrated() -> None:
    honest = clean().bundle.manifest.calibration
    stretched = 1.0 / (1.0 + np.exp(-1.5 * log_odds(np.array(honest.probabilities))))
    table = CalibrationTable(honest.edges, tuple(stretched.tolist()))
    verdict = judged(Forgery(calibration=table).files())
    refused(verdict, CheckName.SLOPE)
    assert CheckName.METRICS not in {check.name for check in verdict.refusals}


def test_a_graph_of_trees_that_were_cut_off_the_booster() -> None:
    xgboost = importlib.import_module("xgboost")
    whole = XgboostTrainer().fit(_rows(TRAIN), None, PARAMETERS)
    cut = xgboost.Booster(model_file=bytearray(whole.booster))[:12]
    cut.set_attr(**dict.fromkeys(cut.attributes()))
    forged = replace(whole, booster=bytes(cut.save_raw("json")), n_trees=12)
    refused(judged(Forgery(fitted=forged).files()), CheckName.GRAPH)


def test_a_booster_that_was_not_cut_at_its_best_tree() -> None:
    document = json.loads(clean().files[BOOSTER])
    document["learner"]["attributes"] = {"best_iteration": "4", "best_score": "0.1"}
    files = repacked(clean().files, lambda manifest: manifest, booster=json.dumps(document).encode())
    refused(judged(files), CheckName.TREES)


def test_a_float64_graph() -> None:
    onnx = importlib.import_module("onnx")
    graph = onnx.load_from_string(clean().files[MODEL])
    graph.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    files = repacked(clean().files, lambda manifest: manifest, model=graph.SerializeToString())
    refused(judged(files), CheckName.GRAPH)


def test_a_graph_with_another_operator_before_its_trees() -> None:
    onnx = importlib.import_module("onnx")
    graph = onnx.load_from_string(clean().files[MODEL])
    graph.graph.node[0].input[0] = "held"
    graph.graph.node.insert(0, onnx.helper.make_node("Identity", ["vectors"], ["held"]))
    graph.opset_import.append(onnx.helper.make_opsetid("", 15))
    files = repacked(clean().files, lambda manifest: manifest, model=graph.SerializeToString())
    refused(judged(files), CheckName.GRAPH)


def test_a_graph_of_other_trees_with_probes_of_its_own() -> None:
    other = XgboostTrainer().fit(_rows(TRAIN), None, replace(PARAMETERS, learning_rate=0.29))
    honest = XgboostTrainer().fit(_rows(TRAIN), None, PARAMETERS)
    refused(judged(Forgery(fitted=replace(honest, model=other.model)).files()), CheckName.PARITY)


def test_reasons_of_another_model() -> None:
    other = XgboostTrainer().fit(_rows(TRAIN), _rows(VALIDATION), replace(PARAMETERS, learning_rate=0.29))
    forged = Forgery(tables=compile_tables(read_booster(other.booster)))
    refused(judged(forged.files()), CheckName.REASONS)


def test_features_named_in_another_order() -> None:
    def turned(manifest: Manifest) -> Manifest:
        return replace(manifest, features=manifest.features[::-1])

    files = {**clean().files, "manifest.json": write_manifest(turned(clean().bundle.manifest))}
    refused(judged(files), CheckName.OPENS)


@pytest.mark.parametrize(("honest_digest", "caught"), [(False, CheckName.DATA), (True, CheckName.REPRODUCTION)])
def test_features_learnt_in_another_order(honest_digest: bool, caught: CheckName) -> None:
    turned = np.ascontiguousarray(vectors()[:, ::-1])
    refused(judged(Forgery(vectors=turned, honest_digest=honest_digest).files()), caught, CheckName.GAIN)


@pytest.mark.parametrize(
    "settings", [{"booster": "dart", "rate_drop": 0.3}, {"num_parallel_tree": 2, "subsample": 0.5}], ids=str
)
def test_trees_of_another_kind(settings: dict[str, Any]) -> None:
    xgboost = importlib.import_module("xgboost")
    rows = _rows(TRAIN)
    matrix = xgboost.DMatrix(rows.vectors, rows.is_fraud.astype(np.float32), nthread=1)
    base = {"objective": "binary:logistic", "base_score": 0.5, "max_depth": 4, "nthread": 1, "verbosity": 0}
    booster = xgboost.train(base | settings, matrix, num_boost_round=10)
    files = repacked(clean().files, lambda manifest: manifest, booster=bytes(booster.save_raw("json")))
    refused(judged(files), CheckName.TREES)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_damaged_file(name: str) -> None:
    data = bytearray(clean().files[name])
    data[len(data) // 2] ^= 1
    verdict = judged({**clean().files, name: bytes(data)}, expected_digest=clean().digest)
    refused(verdict, CheckName.OPENS)
    assert len(verdict.refusals) == len(CheckName)  # nothing that was not judged has passed


def test_a_missing_manifest() -> None:
    refused(judged({}), CheckName.OPENS)


def test_figures_that_were_never_measured() -> None:
    def boasting(manifest: Manifest) -> Manifest:
        metrics = (Metric("auc", 0.99, 0.98, 0.995), *(metric for metric in manifest.metrics if metric.name != "auc"))
        return replace(manifest, metrics=metrics)

    refused(judged(repacked(clean().files, boasting)), CheckName.METRICS)


@pytest.mark.parametrize("price", [0, 10_000_000])
def test_a_shadow_price_that_was_fitted_to_nothing(price: int) -> None:
    def priced(manifest: Manifest) -> Manifest:
        honest = manifest.capacity
        assert honest is not None
        assert 0 < honest.policy.shadow_price_minor < 10_000_000
        return replace(manifest, capacity=replace(honest, policy=CostPolicy(honest.capacity.costs, price)))

    verdict = judged(repacked(clean().files, priced))
    refused(verdict, CheckName.METRICS)
    (check,) = (check for check in verdict.refusals if check.name is CheckName.METRICS)
    assert f"the manifest claims {price}" in check.why


def test_figures_with_a_digest_of_other_data() -> None:
    refused(judged(repacked(clean().files, lambda manifest: replace(manifest, data_digest="0" * 64))), CheckName.DATA)


def test_another_bundle_than_was_announced() -> None:
    refused(judged(clean().files, expected_digest="0" * 64), CheckName.OPENS)


def test_better_on_average_but_worse_in_one_segment() -> None:
    """Small frauds were taken for genuine ones in training: a weak champion finds more of them."""
    blind = outcomes().copy()
    small = past().transactions.amount_minor <= 300
    blind[places()[TRAIN][small[places()[TRAIN]]]] = False
    verdict = judged(Forgery(is_fraud=blind).files())
    refused(verdict, CheckName.SEGMENTS)
    checks = {check.name: check for check in verdict.checks}
    assert checks[CheckName.GAIN].passed
    assert "amounts above 0" in checks[CheckName.SEGMENTS].why


# What people can and cannot wave through.


def test_floors_out_of_reach_are_explained_and_nothing_is_promoted() -> None:
    verdict = judged(clean().files, rules=GateRules(resamples=100))
    refused(verdict, CheckName.RECALL)
    assert verdict.floors_unreachable
    assert verdict.frontier
    recalls = [point.recall for point in verdict.frontier]
    assert recalls == sorted(recalls)
    assert verdict.frontier[-1].recall == 1.0
    shares = [ceiling.with_evidence for ceiling in verdict.ceilings]
    assert [ceiling.label_delay_us for ceiling in verdict.ceilings] == [days * US_PER_DAY for days in (7, 3, 1, 0)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]
    assert any("transactions a day" in sentence for sentence in verdict.advice)
    assert any("labels that count after 3 days" in sentence for sentence in verdict.advice)
    assert not verdict.acceptable


def test_a_first_champion_needs_the_floors_or_a_person() -> None:
    assert judged(clean().files, alone=True).passed
    verdict = judged(clean().files, alone=True, rules=GateRules(resamples=100))
    assert {check.name for check in verdict.refusals} == {CheckName.RECALL}
    assert verdict.acceptable
    assert not verdict.promotable
    accepted = verdict.accepted(Acceptance("ada", "the first model, watched for a month", past().as_of_us))
    assert accepted.promotable
    assert not accepted.passed
    assert read_verdict(write_verdict(accepted)) == accepted


def test_floors_that_another_threshold_would_reach() -> None:
    verdict = judged(clean().files, rules=replace(RULES, min_recall=0.6, min_precision=0.6))
    refused(verdict, CheckName.RECALL)
    assert not verdict.floors_unreachable
    assert "reaches both floors" in verdict.advice[0]


def _rows(span: str) -> Rows:
    return Rows(vectors()[places()[span]], outcomes()[places()[span]])


def _raw(files: dict[str, bytes]) -> NDArray[np.float32]:
    return OnnxGraph(files[MODEL], len(CARD_V1.features)).raw(vectors())


def _without(blocked: NDArray[np.bool_]) -> Past:
    """The world, had the labels of some transactions never come."""
    labels = past().labels
    kept = ~blocked[labels.row]
    columns = LabelColumns(
        labels.row[kept], labels.is_fraud[kept], labels.known_at_us[kept], labels.source[kept], labels.confidence[kept]
    )
    return replace(past(), labels=columns)
