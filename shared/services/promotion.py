"""The gate: whether a challenger may replace the champion, judged from its bytes and from history, believing neither.

Nothing that a bundle says of itself is taken for true. Its files are opened and compared with their digests; its spans
are cut again from history, and features, outcomes and digest must be what it was trained on; its trees are grown again
and must be the same; its figures are computed again. Then both models are scored on the champion's own most recent
matured window, of which neither has learnt anything. A check that could not be made has not passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle import Bundle, bundle_digest, open_bundle
from shared.domain.bundle_manifest import MANIFEST
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.promotion import FLOORS, CheckName, GateRules, Verdict, Window
from shared.domain.promotion_comparison import Scores
from shared.domain.promotion_evidence import places_of, window_of
from shared.domain.training_model import Rows
from shared.domain.training_split import CALIBRATION, SPANS, TEST, TRAIN, targets_as_of
from shared.domain.tree_budget import TREE_BUDGET, TreeBudget
from shared.ports.models import Graph, Trainer
from shared.services.promotion_findings import Findings
from shared.services.promotion_history import History, check_data, check_labels, check_metrics, check_spans
from shared.services.promotion_model import OpenedModel, check_forms, check_reproduction, open_model
from shared.services.promotion_performance import (
    Performance,
    advice_of,
    check_canaries,
    check_comparison,
    check_probabilities,
    check_selection,
    judged_window,
    performance_of,
)
from shared.services.training import PARITY_ROWS

type Progress = Callable[[str, float], None]
"""Told the step's name and how much of it is done, 0 to 1."""

type LoadGraph = Callable[[bytes, int], Graph]

_NEEDED: Final = frozenset({TRAIN, CALIBRATION, TEST})


def judge(
    challenger: Mapping[str, bytes],
    champion: Mapping[str, bytes] | None,
    transactions: TransactionColumns,
    labels: LabelColumns,
    *,
    as_of_us: int,
    rules: GateRules,
    trainer: Trainer,
    load_graph: LoadGraph,
    expected_digest: str | None = None,
    budget: TreeBudget = TREE_BUDGET,
    progress: Progress = lambda _step, _share: None,
) -> Verdict:
    """Judge a challenger. A bad one is a verdict, never an exception.

    Deterministic: the same bytes, history, rules and libraries give the same document.

    Args:
        challenger: Its files by name, as they are stored.
        champion: The files of the one in service; None if there is none yet.
        transactions: History of all entities concerned, in any order, as far back as both models' features reach.
        labels: All labels of it.
        as_of_us: What was known by then is used, microseconds since 1970 UTC.
        rules: By which it is judged.
        trainer: The training library: oracle of parity, and what grows the trees again.
        load_graph: Loads an exported graph of so many features, as serving does.
        expected_digest: What the challenger was announced as.
        budget: What a bundle may cost.
        progress: Told what is going on.

    Raises:
        BrokenInvariant: The champion cannot be opened, or the columns do not fit together; the challenger is not to
            blame.
    """
    progress("opening", 0.0)
    findings = Findings()
    theirs = None if champion is None else _champion(champion, load_graph, budget)
    history = History(transactions, labels, as_of_us, rules)
    bundle = _opened(challenger, expected_digest, budget, findings)
    judged = None
    if bundle is not None:
        judged = _Judgement(history, findings, trainer, load_graph, progress).of(bundle, theirs)
    verdict = Verdict(
        challenger=expected_digest or bundle_digest(challenger.get(MANIFEST, b"")),
        champion=None if theirs is None else theirs.bundle.digest,
        model="" if bundle is None else f"{bundle.manifest.name} {bundle.manifest.version}",
        as_of_us=as_of_us,
        rules=rules,
        window=None,
        checks=findings.finished(compared=theirs is not None),
    )
    if judged is None:
        return verdict
    window, performance = judged
    return replace(
        verdict,
        window=window,
        frontier=performance.frontier,
        ceilings=performance.ceilings,
        advice=() if findings.passed(*FLOORS) else advice_of(performance, rules),
        floors_unreachable=performance.threshold is None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Judgement:
    """One judgement on its way."""

    history: History
    findings: Findings
    trainer: Trainer
    load_graph: LoadGraph
    progress: Progress

    def of(self, bundle: Bundle, champion: OpenedModel | None) -> tuple[Window, Performance] | None:
        """Judge a challenger that could be opened: the model, what it learnt from, what it achieves."""
        history, findings = self.history, self.findings
        transactions = history.transactions
        self.progress("model", 0.0)
        model = open_model(bundle, self.load_graph, findings)
        if not bundle.manifest.spans.keys() >= _NEEDED:
            findings.add(
                CheckName.SEPARATION,
                False,
                "train, calibration and test are stated",
                f"the manifest names the spans {', '.join(sorted(bundle.manifest.spans)) or 'none'} only",
            )
            return None
        manifests = (bundle.manifest,) if champion is None else (bundle.manifest, champion.bundle.manifest)
        targets = targets_as_of(len(transactions.event_time_us), history.labels, history.as_of_us)
        newest_us = int(transactions.event_time_us[targets.known].max(initial=0))
        ends = window_of(manifests, newest_us, history.as_of_us, history.rules)
        check_spans(history, bundle.manifest, None if champion is None else champion.bundle.manifest, ends, findings)
        check_labels(history, bundle.manifest, ends, findings)
        self.progress("features", 0.0)
        vectors = {bundle.view.name: transform_many(bundle.view, transactions, history.labels)}
        if champion is not None and champion.bundle.view.name not in vectors:
            view = champion.bundle.view
            vectors[view.name] = transform_many(view, transactions, history.labels)
        rows = check_data(history, bundle, vectors[bundle.view.name], findings)
        if model is None:
            return None
        self._learnt(model, rows, vectors[bundle.view.name])
        places = places_of(transactions, targets.known, *ends)
        opened = judged_window(history, places, targets.is_fraud, ends, findings)
        if opened is None:
            return None
        window, judged = opened
        self.progress("scores", 0.0)
        inside = np.flatnonzero((transactions.event_time_us >= ends[0]) & (transactions.event_time_us < ends[1]))
        try:
            _, everything = model.scores(vectors[bundle.view.name][inside])
            mine = Scores(*model.scores(vectors[bundle.view.name][places]))
        except BrokenInvariant as error:
            findings.add(CheckName.PARITY, False, "a number for every row of the window", str(error))
            return None
        suspicious = everything >= bundle.manifest.thresholds.decline
        if champion is not None:
            _, everything = champion.scores(vectors[champion.bundle.view.name][inside])
            suspicious |= everything >= champion.bundle.manifest.thresholds.decline
        check_selection(history.rules, targets.known[inside], suspicious, findings)
        features = {name: vectors[bundle.view.name][places, at] for at, name in enumerate(bundle.view.names)}
        check_canaries(judged, mine.raw, features, history.rules, findings)
        threshold = bundle.manifest.thresholds.decline
        check_probabilities(judged, mine.probability, threshold, history.rules, findings)
        if champion is not None:
            self.progress("comparison", 0.0)
            other = Scores(*champion.scores(vectors[champion.bundle.view.name][places]))
            check_comparison(history, places, judged, (mine, other), findings)
        return window, performance_of(
            history, window, places[judged.is_fraud], judged, mine.probability, delay_us=bundle.view.label_delay_us
        )

    def _learnt(self, model: OpenedModel, rows: dict[str, Rows], vectors: NDArray[np.float32]) -> None:
        """Parity on the newest rows, figures and trees again, where the rows are those it was trained on."""
        holdout = np.concatenate([rows[name].vectors[:PARITY_ROWS] for name in reversed(SPANS) if name in rows])
        if len(holdout):
            self.progress("parity", 0.0)
            check_forms(model, self.trainer, holdout, self.findings)
        if self.findings.passed(CheckName.DATA):
            self.progress("figures", 0.0)
            check_metrics(self.history, model, rows, vectors, self.findings)
            self.progress("trees again", 0.0)
            check_reproduction(model, self.trainer, rows, self.findings)


def _champion(files: Mapping[str, bytes], load_graph: LoadGraph, budget: TreeBudget) -> OpenedModel:
    """The champion, opened.

    Raises:
        BrokenInvariant: It cannot be: whoever serves has the same trouble.
    """
    findings = Findings()
    model = open_model(open_bundle(files, budget=budget), load_graph, findings)
    if model is None:
        raise BrokenInvariant("the champion cannot be compared with: its trees or its graph cannot be used")
    return model


def _opened(
    files: Mapping[str, bytes], expected_digest: str | None, budget: TreeBudget, findings: Findings
) -> Bundle | None:
    """The challenger's bundle, or None with the reason noted."""
    required = "all files, every digest, a format and a feature view that this release knows, within the budget"
    try:
        bundle = open_bundle(files, expected_digest, budget=budget)
    except BrokenInvariant as error:
        findings.add(CheckName.OPENS, False, required, str(error))
        return None
    n_bytes, version = sum(len(data) for data in files.values()), bundle.manifest.format_version
    findings.add(
        CheckName.OPENS, True, required, f"{len(files)} files, {n_bytes:,} bytes, format {version}, {bundle.view.name}"
    )
    return bundle
