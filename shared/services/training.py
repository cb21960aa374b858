"""The use case that makes a model: from history to a bundle whose every claim was measured.

Features as each transaction could know them, spans ordered by time and apart by the label delay, trees, the same trees
as a graph and as tables of reasons, proof that all three agree, a calibration table, figures with intervals, reference
histograms, and the files of a bundle. Pure orchestration: the same history and parameters give the same digest. What
publishes the bundle is `shared.services.training_publication`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle import Bundle, Probes, bundle_digest, open_bundle, pack_bundle
from shared.domain.bundle_manifest import (
    MANIFEST,
    FeatureEntry,
    LabelDefinition,
    Manifest,
    Metric,
    Span,
    Thresholds,
    TreeSize,
    model_name,
)
from shared.domain.bundle_reference import SCORE, Reference, histogram_of
from shared.domain.calibration_fit import fit_calibration
from shared.domain.cost_policy import Capacity, FittedCapacity, fit_capacity
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.evaluation import Outcomes, Quality, Ranking, interval, resampled
from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.feature_view import FEATURE_DTYPE, FeatureView
from shared.domain.instants import US_PER_DAY
from shared.domain.registry_rows import MeasuredRows, measured_rows
from shared.domain.score import CalibrationTable
from shared.domain.training_model import FittedModel, Rows, TrainingParameters, data_digest
from shared.domain.training_parity import Parity, adjacent_rows, sigmoid, strange_rows
from shared.domain.training_search import candidate
from shared.domain.training_split import (
    CALIBRATION,
    SPANS,
    TEST,
    TRAIN,
    VALIDATION,
    Split,
    TrainingPlan,
    split_by_time,
    targets_as_of,
)
from shared.domain.tree_budget import TREE_BUDGET, TreeBudget
from shared.domain.tree_model import TreeModel, read_booster
from shared.domain.tree_tables import TreeTables, compile_tables
from shared.ports.models import Graph, Trainer

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 200
"""Resamples of the customers for an interval; its ends are then known to about a tenth of its width."""

PARITY_ROWS: Final = 100_000
CONTRIBUTION_ROWS: Final = 5_000
PROBE_ROWS: Final = 64

DECLINE_PRECISION: Final = 0.75
"""Precision that the recommended decline threshold reaches on the calibration span: the floor of record 0007."""

REVIEW_SHARE: Final = 0.005
"""Share of the calibration span's transactions between the recommended thresholds: 50 a day of 10,000, half of the
cards that the Handbook takes as a day's capacity."""

type Vectors = NDArray[np.float32]
type Progress = Callable[[str, float], None]
"""Told the step's name and how much of it is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Search:
    """How many parameters are tried.

    Attributes:
        trials: At most so many; 1 is no search.
        time_is_up: Asked before each trial but the first. What ran is recorded, and so many trials give the same model
            again on a machine of any speed.
    """

    trials: int = 1
    time_is_up: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What training made.

    Attributes:
        files: Of the bundle, by name.
        digest: Of the bundle.
        bundle: The same, opened.
        parity: How far the model's forms are apart.
        test: Figures on the test span.
        rows: Of the test span, for pictures.
    """

    files: dict[str, bytes]
    digest: str
    bundle: Bundle
    parity: Parity
    test: Quality
    rows: MeasuredRows


def train(
    view: FeatureView,
    transactions: TransactionColumns,
    labels: LabelColumns,
    plan: TrainingPlan,
    *,
    trainer: Trainer,
    load_graph: Callable[[bytes, int], Graph],
    name: str,
    version: int,
    parameters: TrainingParameters | None = None,
    search: Search = Search(),
    capacity: Capacity | None = None,
    budget: TreeBudget = TREE_BUDGET,
    progress: Progress = lambda _step, _share: None,
) -> Trained:
    """Make a bundle from history.

    Args:
        view: Which features.
        transactions: History of all entities concerned, in any order.
        labels: All labels of it.
        plan: How history is cut, and which labels are known.
        trainer: Grows the trees.
        load_graph: Loads an exported graph of so many features, as serving does.
        name: The model's name.
        version: Greater than that of every earlier model.
        parameters: How trees are grown; of a search, the first trial.
        search: Which others are tried.
        capacity: How many reviews there are people for; the bundle then brings a shadow price for its scores.
        budget: What the bundle may cost.
        progress: Told what is going on.

    Raises:
        InvalidInput: History is too short, has too few frauds, or the gap is shorter than the label delay.
        BrokenInvariant: The forms of the model differ, or it is over budget: nothing may be published.
    """
    if plan.gap_us < view.label_delay_us:
        raise InvalidInput("gap_us", f"must be at least the label delay of {view.name}, {view.label_delay_us}")
    progress("labels", 0.0)
    targets = targets_as_of(len(transactions.event_time_us), labels, plan.as_of_us)
    split = split_by_time(transactions, targets, plan)
    progress("features", 0.0)
    vectors = transform_many(view, transactions, labels)
    rows = {span: Rows(vectors[places], targets.is_fraud[places]) for span, places in split.rows.items()}
    newest = rows_within(transactions, split.spans[TEST]) if capacity else np.empty(0, dtype=np.intp)
    newest_vectors = vectors[newest]
    del vectors  # what the spans need was copied
    outcomes = {span: _outcomes(transactions, split, rows, span) for span in (VALIDATION, TEST)}
    base = parameters or TrainingParameters()
    best = _best_of(trainer, rows, outcomes[VALIDATION], base=base, search=search, progress=progress)
    fitted = best.fitted
    progress("reasons", 0.0)
    model = read_booster(fitted.booster)
    if len(model.trees) != fitted.n_trees or model.n_features != len(view.features):
        raise BrokenInvariant("the booster has other trees or features than were trained")
    tables = compile_tables(model)
    budget.check(len(model.trees), model.depth, tables.n_bytes)
    graph = load_graph(fitted.model, len(view.features))
    progress("parity", 0.0)
    newest_first = [rows[span].vectors[:PARITY_ROWS] for span in reversed(SPANS)]
    holdout = np.concatenate(newest_first)[:PARITY_ROWS]
    parity = measure_parity(trainer, fitted, model, graph=graph, tables=tables, holdout=holdout)
    parity.check()
    progress("calibration", 0.0)
    raw = {span: graph.raw(rows[span].vectors) for span in (CALIBRATION, TEST)}
    calibration = fit_calibration(raw[CALIBRATION], rows[CALIBRATION].is_fraud)
    thresholds = recommended_thresholds(calibration, raw[CALIBRATION], rows[CALIBRATION].is_fraud)
    priced = None
    if capacity:
        scores = calibration.probability_many(graph.raw(newest_vectors))
        priced = fitted_capacity(capacity, scores, transactions.amount_minor[newest], split.spans[TEST])
    progress("figures", 0.0)
    quality, metrics = measure(outcomes[TEST], raw[TEST], calibration, thresholds, best.parameters.seed)
    progress("reference", 0.0)
    manifest = Manifest(
        name=model_name(name),
        version=version,
        view=view.name,
        features=tuple(FeatureEntry(feature, FEATURE_DTYPE) for feature in view.names),
        label=LabelDefinition(view.label_delay_us, plan.maturity_us),
        calibration=calibration,
        thresholds=thresholds,
        metrics=metrics,
        confidence=CONFIDENCE,
        spans=split.spans,
        as_of_us=plan.as_of_us,
        data_digest=data_digest(rows),
        size=TreeSize(len(model.trees), model.depth, tables.n_bytes),
        parameters={**best.parameters.to_fields(), "trials": best.n_trials, "trial": best.trial},
        libraries=fitted.libraries,
        files={},
        capacity=priced,
    )
    files = pack_bundle(
        manifest,
        model=fitted.model,
        booster=fitted.booster,
        tables=tables,
        probes=_probes(model, graph, tables, rows[TEST]),
        reference=_reference(view, transactions, split, rows, raw),
    )
    digest = bundle_digest(files[MANIFEST])
    amounts = transactions.amount_minor[split.rows[TEST]]
    kept = measured_rows(rows[TEST].vectors, raw[TEST], rows[TEST].is_fraud, amounts)
    return Trained(files, digest, open_bundle(files, digest, budget=budget), parity, quality, kept)


@dataclass(frozen=True, slots=True, eq=False)
class _Best:
    """The trial that found most.

    Attributes:
        fitted: Its model.
        parameters: Its parameters.
        trial: Its number, from 0.
        n_trials: Trials that ran.
    """

    fitted: FittedModel
    parameters: TrainingParameters
    trial: int
    n_trials: int


def _best_of(
    trainer: Trainer,
    rows: dict[str, Rows],
    validation: Outcomes,
    *,
    base: TrainingParameters,
    search: Search,
    progress: Progress,
) -> _Best:
    """Grow trees with several parameters; the best average precision on validation wins, of equals the first."""
    best: _Best | None = None
    highest = 0.0
    n_trials = 0
    while n_trials == 0 or (n_trials < search.trials and not search.time_is_up()):
        progress("trees", 0.0)
        parameters = candidate(base, n_trials)
        fitted = trainer.fit(
            rows[TRAIN], rows[VALIDATION], parameters, lambda done, of: progress("trees", min(1.0, done / of))
        )
        margins = trainer.margins(fitted.booster, rows[VALIDATION].vectors)
        found = Ranking(validation, margins).quality().average_precision
        if best is None or found > highest:
            best, highest = _Best(fitted, parameters, n_trials, 0), found
        n_trials += 1
    if best is None:  # the first trial always runs
        raise BrokenInvariant("a search without a trial")
    return replace(best, n_trials=n_trials)


def _outcomes(transactions: TransactionColumns, split: Split, rows: dict[str, Rows], span: str) -> Outcomes:
    places = split.rows[span]
    return Outcomes(transactions.event_time_us[places], transactions.customer[places], rows[span].is_fraud)


def rows_within(transactions: TransactionColumns, span: Span) -> NDArray[np.intp]:
    """All rows of a span, labelled or not."""
    time_us = transactions.event_time_us
    return np.flatnonzero((time_us >= span.start_us) & (time_us < span.end_us))


def fitted_capacity(
    capacity: Capacity, probability: NDArray[np.float64], amount_minor: NDArray[np.int64], span: Span
) -> FittedCapacity:
    """The shadow price for a capacity, from the test span.

    The model was neither fitted nor calibrated on it, so its scores are those of days to come; and a capacity is about
    how many transactions there are, so those without a label count too.

    Args:
        capacity: What is asked for.
        probability: (n,) calibrated scores of all transactions of the span.
        amount_minor: (n,) minor units.
        span: Its times.
    """
    days = (span.end_us - span.start_us) / US_PER_DAY
    policy = fit_capacity(
        capacity.costs, probability, amount_minor, days=days, reviews_per_day=capacity.reviews_per_day
    )
    return FittedCapacity(capacity, policy)


def measure_parity(
    trainer: Trainer, fitted: FittedModel, model: TreeModel, *, graph: Graph, tables: TreeTables, holdout: Vectors
) -> Parity:
    """How far the graph and the tables are from the booster.

    Args:
        trainer: Answers for the booster.
        fitted: The model.
        model: Its trees.
        graph: Its graph, as serving loads it.
        tables: Its tables.
        holdout: (n, n_features) float32, real rows.

    Raises:
        BrokenInvariant: A row's output depends on the rows beside it.
    """
    made = np.concatenate([adjacent_rows(model, holdout), strange_rows(holdout)])
    vectors = np.concatenate([holdout, made])
    margins = trainer.margins(fitted.booster, vectors)
    raw = graph.raw(vectors)
    alone = np.concatenate([graph.raw(vectors[place : place + 1]) for place in range(min(len(vectors), PROBE_ROWS))])
    if alone.tobytes() != raw[: len(alone)].tobytes():
        raise BrokenInvariant("no parity: a row's output depends on the rows beside it")
    finite = made[~np.isinf(made).any(axis=1)]
    explained = np.concatenate([holdout[:CONTRIBUTION_ROWS], finite[:CONTRIBUTION_ROWS]])
    oracle = trainer.contributions(fitted.booster, explained).astype(np.float64)
    ours = tables.contributions(explained)
    sums = tables.contributions(vectors).sum(axis=1) + tables.base
    return Parity(
        output=float(np.max(np.abs(sigmoid(margins) - raw))),
        contribution=max(float(np.max(np.abs(ours - oracle[:, :-1]))), abs(float(oracle[0, -1]) - tables.base)),
        sum=float(np.max(np.abs(sums - margins))),
        n_rows=len(vectors),
    )


def recommended_thresholds(
    calibration: CalibrationTable, raw: NDArray[np.float32], is_fraud: NDArray[np.bool_]
) -> Thresholds:
    """Operating points from the calibration span.

    Decline: the least score from which on precision is `DECLINE_PRECISION`; where no score reaches that, the greatest
    score seen. Review: as far below as `REVIEW_SHARE` of the transactions reach.
    """
    scores = calibration.probability_many(raw)
    levels, inverse = np.unique(scores, return_inverse=True)
    rows = np.cumsum(np.bincount(inverse)[::-1])[::-1]
    frauds = np.cumsum(np.bincount(inverse, weights=is_fraud)[::-1])[::-1]
    precise = np.flatnonzero(frauds >= DECLINE_PRECISION * rows)
    decline = int(precise[0]) if len(precise) else len(levels) - 1
    few = np.flatnonzero(rows - rows[decline] <= REVIEW_SHARE * len(raw))
    return Thresholds(float(levels[few[0]]), float(levels[decline]))


def measure(
    outcomes: Outcomes, raw: NDArray[np.float32], calibration: CalibrationTable, thresholds: Thresholds, seed: int
) -> tuple[Quality, tuple[Metric, ...]]:
    """Figures on the test span.

    AUC, average precision and card precision are of the raw output, with intervals over resampled customers. Precision
    and recall are at the recommended decline threshold, and `calibration_ratio` is the frauds that the calibrated
    scores add up to for each fraud there was; these three carry intervals over the same resamples of customers.
    """
    ranking = Ranking(outcomes, raw)
    quality = ranking.quality()
    resamples = resampled({"model": ranking}, RESAMPLES, np.random.default_rng(seed))["model"]
    metrics = [
        Metric(field, getattr(quality, field), *interval(resamples[:, place], CONFIDENCE))
        for place, field in enumerate(Quality._fields)
    ]
    scores = calibration.probability_many(raw)
    declined = scores >= thresholds.decline
    fraud = outcomes.is_fraud
    code = np.unique(outcomes.customer, return_inverse=True)[1]
    totals = np.stack(
        [np.bincount(code, weights=column) for column in (declined & fraud, declined, fraud, scores)], axis=1
    )
    rng = np.random.default_rng(seed)
    draws = np.stack([totals[rng.integers(0, len(totals), len(totals))].sum(axis=0) for _ in range(RESAMPLES)])
    sums = totals.sum(axis=0)
    for field, over, under in (("precision", 0, 1), ("recall", 0, 2), ("calibration_ratio", 3, 2)):
        shares = np.divide(draws[:, over], draws[:, under], out=np.full(len(draws), np.nan), where=draws[:, under] > 0)
        value = float(sums[over] / sums[under]) if sums[under] else 0.0
        low, high = interval(shares, CONFIDENCE)
        metrics.append(Metric(field, value, *((low, high) if np.isfinite(low) else (value, value))))
    return quality, tuple(metrics)


def _probes(model: TreeModel, graph: Graph, tables: TreeTables, test: Rows) -> Probes:
    """Rows to check a loaded bundle by: frauds and genuine ones, next to thresholds, and strange ones."""
    quarter = PROBE_ROWS // 4
    frauds = test.vectors[test.is_fraud][:quarter]
    genuine = test.vectors[~test.is_fraud][:quarter]
    adjacent = adjacent_rows(model, test.vectors)
    step = max(1, len(adjacent) // quarter)
    strange = strange_rows(test.vectors)
    vectors = np.concatenate([frauds, genuine, adjacent[::step][:quarter], strange[:: max(1, len(strange) // quarter)]])
    return Probes(vectors, graph.raw(vectors), tables.contributions(vectors))


def _reference(
    view: FeatureView,
    transactions: TransactionColumns,
    split: Split,
    rows: dict[str, Rows],
    raw: dict[str, NDArray[np.float32]],
) -> Reference:
    """Histograms over the calibration and test spans: the newest rows, and none that the model was fitted on."""
    spans = (CALIBRATION, TEST)
    time_us = np.concatenate([transactions.event_time_us[split.rows[span]] for span in spans])
    vectors = np.concatenate([rows[span].vectors for span in spans])
    histograms = {name: histogram_of(vectors[:, place], time_us) for place, name in enumerate(view.names)}
    histograms[SCORE] = histogram_of(np.concatenate([raw[span] for span in spans]), time_us)
    return Reference(split.spans[CALIBRATION].start_us, split.spans[TEST].end_us, histograms)
