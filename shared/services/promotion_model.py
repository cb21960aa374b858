"""Checks of the model itself: its trees, its graph, whether both say the same, and whether it explains itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle import PARITY_TOLERANCE, Bundle
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.promotion import CheckName
from shared.domain.promotion_graph import graph_facts
from shared.domain.score import Scored
from shared.domain.training_model import FittedModel, Rows, TrainingParameters
from shared.domain.training_split import CALIBRATION, TRAIN, VALIDATION
from shared.domain.tree_model import TreeModel, read_booster
from shared.ports.models import Graph, Trainer
from shared.services.promotion_findings import Findings
from shared.services.training import PARITY_ROWS, measure_parity

STOPPING: Final = (VALIDATION, CALIBRATION)
"""Spans that growing stops by, the first that a bundle has; older bundles have no validation span."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenedModel:
    """A bundle whose trees and graph could be read.

    Attributes:
        bundle: The bundle.
        trees: Of its booster.
        graph: Loaded as serving does.
    """

    bundle: Bundle
    trees: TreeModel
    graph: Graph

    def scores(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """(n,) outputs and (n,) calibrated probabilities."""
        raw = self.graph.raw(vectors)
        return raw, self.bundle.manifest.calibration.probability_many(raw)


def open_model(bundle: Bundle, load_graph: Callable[[bytes, int], Graph], findings: Findings) -> OpenedModel | None:
    """Read the trees and the graph, and compare their make; None if one of them cannot be used."""
    required = "gbtree, one tree per round, the trees that the manifest states, none after the best one"
    trees: TreeModel | None = None
    try:
        trees = _checked_trees(bundle)
        findings.add(CheckName.TREES, True, required, f"{len(trees.trees)} trees of depth {trees.depth}")
    except BrokenInvariant as error:
        findings.add(CheckName.TREES, False, required, str(error))
    required = "one tree ensemble of as many trees as the booster, float32 input, opset as serving knows it"
    try:
        stated = bundle.manifest.size.n_trees if trees is None else len(trees.trees)
        graph_facts(bundle.model).check(stated)
        graph = load_graph(bundle.model, len(bundle.view.features))
        bundle.probes.check(
            Scored(graph.raw(bundle.probes.vectors), bundle.tables.contributions(bundle.probes.vectors))
        )
        findings.add(CheckName.GRAPH, True, required, f"{stated} trees; the bundle's probes come out as recorded")
    except BrokenInvariant as error:
        findings.add(CheckName.GRAPH, False, required, str(error))
        return None
    return None if trees is None else OpenedModel(bundle, trees, graph)


def check_forms(model: OpenedModel, trainer: Trainer, holdout: NDArray[np.float32], findings: Findings) -> None:
    """Compare booster, graph and tables on real rows and on rows made for the purpose.

    Args:
        model: The challenger.
        trainer: The training library, as the oracle.
        holdout: (n, n_features) float32, real rows, at least one.
        findings: Where the checks go.
    """
    bundle = model.bundle
    fitted = FittedModel(bundle.booster, bundle.model, len(model.trees.trees), bundle.manifest.libraries)
    required = f"at most {PARITY_TOLERANCE:g}"
    try:
        parity = measure_parity(
            trainer, fitted, model.trees, graph=model.graph, tables=bundle.tables, holdout=holdout[:PARITY_ROWS]
        )
    except BrokenInvariant as error:
        findings.add(CheckName.PARITY, False, required, str(error))
        return
    findings.add(
        CheckName.PARITY,
        parity.output <= PARITY_TOLERANCE,
        required,
        f"greatest difference of graph and booster over {parity.n_rows:,} rows: real ones, next to each split, "
        "missing, infinite; a row alone says what it says among others",
        value=parity.output,
    )
    findings.add(
        CheckName.REASONS,
        parity.sum <= PARITY_TOLERANCE and parity.contribution <= PARITY_TOLERANCE,  # NaN fails too
        required,
        f"contributions differ from the library's by {parity.contribution:.2g}, their sums from the margin by "
        f"{parity.sum:.2g}, in log-odds",
        value=max(parity.sum, parity.contribution),
    )


def check_reproduction(model: OpenedModel, trainer: Trainer, rows: dict[str, Rows], findings: Findings) -> None:
    """Grow the trees again from history, as the manifest says that they were grown; they must be the same trees.

    This is what no statement can get around: trees that saw other rows, outcomes or features are other trees.

    Args:
        model: The challenger.
        trainer: The training library.
        rows: By span, the rows that history gives.
        findings: Where the check goes.
    """
    required = "the same trees, grown again from history with the manifest's parameters"
    stop = next((rows[name] for name in STOPPING if name in rows), None)
    known = {field.name for field in fields(TrainingParameters)}
    stated = {name: value for name, value in model.bundle.manifest.parameters.items() if name in known}
    lacking = sorted(known - stated.keys())
    one_kind = [name for name, part in rows.items() if part.is_fraud.all() or not part.is_fraud.any()]
    if lacking or one_kind:
        why = f"the manifest does not say {', '.join(lacking)}" if lacking else f"{one_kind[0]} holds one kind of rows"
        findings.add(CheckName.REPRODUCTION, False, required, why)
        return
    try:
        parameters = TrainingParameters(**stated)  # type: ignore[arg-type]  # checked by its own rules
        again = read_booster(trainer.fit(rows[TRAIN], stop, parameters, lambda _done, _of: None).booster)
    except (BrokenInvariant, InvalidInput, TypeError) as error:
        findings.add(CheckName.REPRODUCTION, False, required, f"they cannot be grown again: {error}")
        return
    same = again == model.trees
    differing = sum(ours != theirs for ours, theirs in zip(again.trees, model.trees.trees, strict=False))
    why = f"grown again there are {len(again.trees)} trees, in the bundle {len(model.trees.trees)}; {differing} differ"
    findings.add(CheckName.REPRODUCTION, same, required, why)


def _checked_trees(bundle: Bundle) -> TreeModel:
    """The booster's trees, once they are what the manifest states."""
    trees, size = read_booster(bundle.booster), bundle.manifest.size
    if len(trees.trees) != size.n_trees or trees.depth != size.depth:
        raise BrokenInvariant(
            f"the booster has {len(trees.trees)} trees of depth {trees.depth}, the manifest says {size.n_trees} of "
            f"{size.depth}"
        )
    if trees.n_features != len(bundle.view.features):
        raise BrokenInvariant(
            f"the booster reads {trees.n_features} features, the view has {len(bundle.view.features)}"
        )
    attributes = json.loads(bundle.booster)["learner"].get("attributes")
    best = attributes.get("best_iteration") if isinstance(attributes, dict) else None
    if best is not None and str(best) != str(size.n_trees - 1):
        raise BrokenInvariant(f"the booster was not cut: its best tree is {best} of {size.n_trees}")
    return trees
