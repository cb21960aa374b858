"""A small simulated world, a champion, a better challenger, and the means to make bad ones that look right.

Everything here is real: the simulator's payments and labels, XGBoost, ONNX. A forger may learn from what he should not
have and claim what is not so; what he writes is a bundle that opens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.adapters.onnx_scorer import OnnxGraph
from shared.adapters.xgboost_trainer import XgboostTrainer
from shared.domain.bundle import Probes, open_bundle, pack_bundle
from shared.domain.bundle_manifest import Manifest, TreeSize
from shared.domain.cost_policy import Capacity, Costs
from shared.domain.evaluation import Outcomes
from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import MATURITY_US, PRECEDENCE, LabelSource
from shared.domain.promotion import GateRules, Verdict
from shared.domain.promotion_evidence import places_of
from shared.domain.score import CalibrationTable
from shared.domain.training_model import FittedModel, Rows, TrainingParameters, data_digest
from shared.domain.training_split import TEST, TRAIN, VALIDATION, TrainingPlan, targets_as_of
from shared.domain.tree_model import read_booster
from shared.domain.tree_tables import TreeTables, compile_tables
from shared.services.promotion import judge
from shared.services.training import Trained, fitted_capacity, measure, rows_within, train
from simulator.config import FraudConfig, LabelConfig, WorldConfig
from simulator.history import history_of
from simulator.world import World

CUSTOMERS: Final = 500
DAYS: Final = 140
FRAUD_RATE: Final = 0.06
"""Ten times the usual, so that a small world has enough frauds for every statistic."""

PARAMETERS: Final = TrainingParameters(n_trees=25, learning_rate=0.3, max_bins=256)
CAPACITY: Final = Capacity(5, Costs(declines=False))
"""Fewer reviews a day than would pay in this world."""

RULES: Final = GateRules(min_recall=0.5, min_precision=0.7, resamples=80)
"""Floors that this world allows for; all else but the number of resamples is the default."""

type Vectors = NDArray[np.float32]
type Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """A world's history as the gate gets it.

    Attributes:
        transactions: All of them.
        labels: What became known, silence included.
        as_of_us: The end of it.
    """

    transactions: TransactionColumns
    labels: LabelColumns
    as_of_us: int


def with_silence(transactions: TransactionColumns, labels: LabelColumns, as_of_us: int, after_us: int) -> LabelColumns:
    """Labels, and for each transaction without one the label that silence makes once it is mature."""
    time_us = transactions.event_time_us
    silent = np.ones(len(time_us), dtype=np.bool_)
    silent[labels.row] = False
    rows = np.flatnonzero(silent & (time_us + after_us <= as_of_us))
    return LabelColumns(
        np.concatenate([labels.row, rows]),
        np.concatenate([labels.is_fraud, np.zeros(len(rows), dtype=np.bool_)]),
        np.concatenate([labels.known_at_us, time_us[rows] + after_us]),
        np.concatenate([labels.source, np.full(len(rows), PRECEDENCE.index(LabelSource.MATURITY))]),
        np.concatenate([labels.confidence, np.full(len(rows), 50)]),
    )


@cache
def told() -> Past:
    """The world with the labels that somebody told, without those of silence."""
    config = WorldConfig(customers=CUSTOMERS, fraud=FraudConfig(rate=FRAUD_RATE), labels=LabelConfig(silent=0.0))
    world = World.create(config, np.random.default_rng(7))
    drawn = history_of(world, 0, DAYS)
    newest_us = int(drawn.transactions.event_time_us.max())
    return Past(drawn.transactions, drawn.labels, (newest_us // US_PER_DAY + 1) * US_PER_DAY)


@cache
def past() -> Past:
    """The world with all its labels."""
    known = told()
    labels = with_silence(known.transactions, known.labels, known.as_of_us, MATURITY_US)
    return replace(known, labels=labels)


def plan(**changes: Any) -> TrainingPlan:
    """The plan of a training at the end of the history."""
    return replace(TrainingPlan(past().as_of_us, train_days=54, calibration_days=28, test_days=14), **changes)


def trained(
    known: Past | None = None,
    *,
    version: int = 2,
    cut: TrainingPlan | None = None,
    parameters: TrainingParameters = PARAMETERS,
) -> Trained:
    """An honest training."""
    known = known or past()
    return train(
        CARD_V1,
        known.transactions,
        known.labels,
        cut or plan(),
        trainer=XgboostTrainer(),
        load_graph=OnnxGraph,
        name="simulated",
        version=version,
        parameters=parameters,
        capacity=CAPACITY,
    )


@cache
def clean() -> Trained:
    """An honest challenger, better than the champion."""
    return trained()


@cache
def champion() -> dict[str, bytes]:
    """An older model of five small trees."""
    older = plan(as_of_us=past().as_of_us - 10 * US_PER_DAY, train_days=20, calibration_days=14, test_days=10)
    return trained(cut=older, parameters=replace(PARAMETERS, n_trees=5, depth=2), version=1).files


@cache
def vectors() -> Vectors:
    """Honest features of all transactions."""
    return transform_many(CARD_V1, past().transactions, past().labels)


@cache
def outcomes() -> Flags:
    """(n,) what is known of each transaction at the end; False where nothing is."""
    return targets_as_of(len(past().transactions.event_time_us), past().labels, past().as_of_us).is_fraud


@cache
def places() -> dict[str, NDArray[np.intp]]:
    """The rows of the honest challenger's spans."""
    known = targets_as_of(len(past().transactions.event_time_us), past().labels, past().as_of_us).known
    spans = clean().bundle.manifest.spans
    return {name: places_of(past().transactions, known, span.start_us, span.end_us) for name, span in spans.items()}


def judged(
    challenger: Mapping[str, bytes],
    known: Past | None = None,
    *,
    facing: Mapping[str, bytes] | None = None,
    alone: bool = False,
    **options: Any,
) -> Verdict:
    """What the gate says."""
    known = known or past()
    chosen = {"rules": RULES} | options
    return judge(
        challenger,
        None if alone else facing or champion(),
        known.transactions,
        known.labels,
        as_of_us=known.as_of_us,
        trainer=XgboostTrainer(),
        load_graph=OnnxGraph,
        **chosen,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Forgery:
    """What a forger learns from and claims; without any change the honest challenger.

    Attributes:
        vectors: (n, n_features) what he takes for features.
        is_fraud: (n,) what he takes for outcomes.
        learnt: The rows that he learns from; None for the honest ones.
        fitted: Another model than the one that this would give.
        calibration: Another table than the honest challenger's.
        tables: Reasons of another model.
        honest_digest: Whether he claims the digest of honest rows, which he can compute as well as anybody.
        change: What else he writes into the manifest.
    """

    vectors: Vectors = field(default_factory=vectors)
    is_fraud: Flags = field(default_factory=outcomes)
    learnt: NDArray[np.intp] | None = None
    fitted: FittedModel | None = None
    calibration: CalibrationTable | None = None
    tables: TreeTables | None = None
    honest_digest: bool = True
    change: Callable[[Manifest], Manifest] = lambda manifest: manifest

    def files(self) -> dict[str, bytes]:
        """The bundle; probes, figures and price are those of the forged model on the forger's rows: it opens."""
        spans = places()
        rows = {name: Rows(self.vectors[found], self.is_fraud[found]) for name, found in spans.items()}
        learnt = spans[TRAIN] if self.learnt is None else self.learnt
        fitted = self.fitted or XgboostTrainer().fit(
            Rows(self.vectors[learnt], self.is_fraud[learnt]), rows[VALIDATION], PARAMETERS
        )
        model = read_booster(fitted.booster)
        tables = self.tables or compile_tables(model)
        graph = OnnxGraph(fitted.model, len(CARD_V1.features))
        honest = clean().bundle
        calibration = self.calibration or honest.manifest.calibration
        raw = graph.raw(rows[TEST].vectors)
        thresholds = honest.manifest.thresholds
        judged_on = Outcomes(
            past().transactions.event_time_us[spans[TEST]],
            past().transactions.customer[spans[TEST]],
            rows[TEST].is_fraud,
        )
        _, metrics = measure(judged_on, raw, calibration, thresholds, PARAMETERS.seed)
        span = honest.manifest.spans[TEST]
        inside = rows_within(past().transactions, span)
        scores = calibration.probability_many(graph.raw(self.vectors[inside]))
        manifest = replace(
            honest.manifest,
            calibration=calibration,
            metrics=metrics,
            capacity=fitted_capacity(CAPACITY, scores, past().transactions.amount_minor[inside], span),
            data_digest=honest.manifest.data_digest if self.honest_digest else data_digest(rows),
            size=TreeSize(len(model.trees), model.depth, tables.n_bytes),
        )
        some = honest.probes.vectors
        return pack_bundle(
            self.change(manifest),
            model=fitted.model,
            booster=fitted.booster,
            tables=tables,
            probes=Probes(some, graph.raw(some), tables.contributions(some)),
            reference=honest.reference,
        )


def repacked(files: Mapping[str, bytes], change: Callable[[Manifest], Manifest], **contents: bytes) -> dict[str, bytes]:
    """A bundle with another manifest or model, whose digests fit again."""
    bundle = open_bundle(files)
    return pack_bundle(
        change(bundle.manifest),
        model=contents.get("model", bundle.model),
        booster=contents.get("booster", bundle.booster),
        tables=bundle.tables,
        probes=bundle.probes,
        reference=bundle.reference,
    )
