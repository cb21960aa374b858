"""The gate's manners: a bad challenger is a verdict and never an exception, and what was not judged has not passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.adapters.onnx_scorer import OnnxGraph
from shared.adapters.xgboost_trainer import XgboostTrainer
from shared.domain.bundle import open_bundle, pack_bundle
from shared.domain.bundle_manifest import Manifest, Span
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import CARD_V1, HANDBOOK_V1, FeatureView
from shared.domain.instants import US_PER_DAY
from shared.domain.promotion import CheckName, GateRules, Verdict, read_verdict, write_verdict
from shared.domain.promotion_page import verdict_page
from shared.domain.training_model import TrainingParameters
from shared.domain.training_split import TEST, TRAIN
from shared.services.promotion import judge
from shared.services.promotion_findings import COMPARISONS
from shared.services.training import train
from tests.fakes.bundles import history, plan_of

RULES = GateRules(min_recall=0.1, min_precision=0.1, resamples=80, maturity_us=7 * US_PER_DAY, min_frauds=20)


@cache
def made(view: FeatureView = CARD_V1, n_trees: int = 10) -> dict[str, bytes]:
    transactions, labels = history()
    return train(
        view,
        transactions,
        labels,
        plan_of(transactions),
        trainer=XgboostTrainer(),
        load_graph=OnnxGraph,
        name="drawn",
        version=1,
        parameters=TrainingParameters(n_trees=n_trees, learning_rate=0.3, max_bins=64, min_child_weight=1.0),
    ).files


def judged(files: dict[str, bytes], champion: dict[str, bytes] | None = None, **options: Any) -> Verdict:
    transactions, labels = history()
    chosen: dict[str, Any] = {"load_graph": OnnxGraph, "trainer": XgboostTrainer(), "rules": RULES} | options
    as_of_us = int(transactions.event_time_us.max())
    verdict = judge(files, champion, transactions, labels, as_of_us=as_of_us, **chosen)
    assert read_verdict(write_verdict(verdict)) == verdict
    assert verdict_page(verdict)
    return verdict


def claiming(change: Callable[[Manifest], Manifest]) -> dict[str, bytes]:
    bundle = open_bundle(made())
    return pack_bundle(
        change(bundle.manifest),
        model=bundle.model,
        booster=bundle.booster,
        tables=bundle.tables,
        probes=bundle.probes,
        reference=bundle.reference,
    )


def test_a_first_champion_is_judged_by_itself() -> None:
    steps: list[str] = []
    verdict = judged(made(), progress=lambda step, _: steps.append(step))
    assert {check.name for check in verdict.refusals} <= {CheckName.SLOPE}
    assert [check.name for check in verdict.checks] == [name for name in CheckName if name not in COMPARISONS]
    assert verdict.champion is None
    assert steps == ["opening", "model", "features", "parity", "figures", "trees again", "scores"]


def test_figures_that_are_not_claimed_are_named_in_one_order_whatever_the_process() -> None:
    verdict = judged(claiming(lambda manifest: replace(manifest, metrics=manifest.metrics[:1])))
    (check,) = (check for check in verdict.checks if check.name is CheckName.METRICS)
    missing = check.why.split("; ")
    assert len(missing) > 4
    assert missing == sorted(missing)


def test_a_champion_of_another_view_is_compared_on_its_own_features() -> None:
    verdict = judged(made(), made(HANDBOOK_V1, 2))
    gain = next(check for check in verdict.checks if check.name is CheckName.GAIN)
    assert gain.value is not None
    assert gain.value > 0
    assert verdict.champion == open_bundle(made(HANDBOOK_V1, 2)).digest


def _parameter(name: str, value: Any) -> Callable[[Manifest], Manifest]:
    return lambda manifest: replace(manifest, parameters={**manifest.parameters, name: value})


def _span(name: str, **changes: int) -> Callable[[Manifest], Manifest]:
    return lambda manifest: replace(manifest, spans={**manifest.spans, name: replace(manifest.spans[name], **changes)})


FAR = 2**62


def _more_spans(manifest: Manifest) -> Manifest:
    return replace(manifest, spans={**manifest.spans, "more": Span(-FAR, FAR, 0, 0)})


def _more_metrics(manifest: Manifest) -> Manifest:
    return replace(manifest, metrics=(*manifest.metrics, replace(manifest.metrics[0], name="luck")))


@pytest.mark.parametrize(
    ("change", "caught"),
    [
        (lambda manifest: replace(manifest, spans={}), CheckName.SEPARATION),
        (lambda manifest: replace(manifest, spans={"test": manifest.spans[TEST]}), CheckName.SEPARATION),
        (_more_spans, CheckName.SEPARATION),
        (_span(TRAIN, start_us=-FAR, end_us=FAR), CheckName.SEPARATION),
        (_span(TEST, start_us=FAR, end_us=-FAR), CheckName.SEPARATION),
        (_span(TRAIN, end_us=0, n_rows=0, n_frauds=0), CheckName.DATA),
        (_span(TRAIN, n_rows=-1), CheckName.DATA),
        (_span(TRAIN, n_frauds=1), CheckName.DATA),
        (lambda manifest: replace(manifest, as_of_us=FAR), CheckName.SEPARATION),
        (lambda manifest: replace(manifest, as_of_us=0), CheckName.SEPARATION),
        (lambda manifest: replace(manifest, metrics=()), CheckName.METRICS),
        (lambda manifest: replace(manifest, metrics=manifest.metrics[1:]), CheckName.METRICS),
        (_more_metrics, CheckName.METRICS),
        (lambda manifest: replace(manifest, parameters={}), CheckName.REPRODUCTION),
        (lambda manifest: replace(manifest, parameters={}), CheckName.METRICS),
        (_parameter("seed", "anything"), CheckName.METRICS),
        (_parameter("n_trees", 10**9), CheckName.REPRODUCTION),
        (_parameter("learning_rate", "fast"), CheckName.REPRODUCTION),
        (_parameter("l2", "much"), CheckName.REPRODUCTION),
        (_parameter("max_bins", -3), CheckName.REPRODUCTION),
        (_parameter("depth", 2), CheckName.REPRODUCTION),
        (lambda manifest: replace(manifest, size=replace(manifest.size, n_trees=9)), CheckName.TREES),
        (lambda manifest: replace(manifest, size=replace(manifest.size, depth=1)), CheckName.TREES),
    ],
)
def test_whatever_a_manifest_claims_the_answer_is_a_verdict(
    change: Callable[[Manifest], Manifest], caught: CheckName
) -> None:
    verdict = judged(claiming(change), made(n_trees=2))
    assert not verdict.passed
    assert caught in {check.name for check in verdict.refusals}


class NoNumber:
    """A graph that has no answer for large amounts."""

    def __init__(self, model: bytes, n_features: int) -> None:
        self._graph = OnnxGraph(model, n_features)

    def raw(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        raw = self._graph.raw(vectors)
        return np.where(vectors[:, 0] > 10_000, np.float32(np.nan), raw)


class NoReasons(XgboostTrainer):
    """A training library that cannot say why."""

    def contributions(self, booster: bytes, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full_like(super().contributions(booster, vectors), np.nan)


def test_reasons_that_cannot_be_compared_have_not_passed() -> None:
    verdict = judged(made(), trainer=NoReasons())
    assert CheckName.REASONS in {check.name for check in verdict.refusals}


def test_a_graph_without_an_answer_is_a_verdict() -> None:
    verdict = judged(made(), load_graph=NoNumber)
    assert CheckName.PARITY in {check.name for check in verdict.refusals}


def test_a_graph_that_cannot_be_loaded_is_a_verdict() -> None:
    def refusing(_model: bytes, _n_features: int) -> OnnxGraph:
        raise BrokenInvariant("the model is no graph")

    verdict = judged(made(), load_graph=refusing)
    missed = {check.name: check.why for check in verdict.refusals}
    assert missed[CheckName.GRAPH] == "the model is no graph"
    assert "not judged: graph" in missed[CheckName.RECALL]
    assert CheckName.DATA not in missed  # what can be said without the graph is said


def test_a_champion_that_cannot_be_opened_is_nobodys_verdict() -> None:
    with pytest.raises(BrokenInvariant):
        judged(made(), {**made(n_trees=2), "model.onnx": b"damaged"})


@pytest.mark.parametrize("rules", [{"min_frauds": 100_000}, {"min_window_days": 8}], ids=str)
def test_too_few_frauds_or_days_decide_nothing(rules: dict[str, int]) -> None:
    verdict = judged(made(), rules=replace(RULES, **rules))
    missed = {check.name for check in verdict.refusals}
    assert CheckName.EVIDENCE in missed
    assert CheckName.RECALL in missed


def test_what_is_too_good_is_refused() -> None:
    verdict = judged(made(), rules=replace(RULES, max_auc=0.6, max_feature_auc=0.5))
    assert {CheckName.TOO_GOOD, CheckName.SINGLE_FEATURE} <= {check.name for check in verdict.refusals}
    modest = judged(made(), rules=replace(RULES, max_average_precision=0.1))
    assert CheckName.TOO_GOOD in {check.name for check in modest.refusals}
