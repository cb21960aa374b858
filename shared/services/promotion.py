"""The gate: whether a challenger may replace the champion, judged from its bytes and from history, believing neither.

Nothing that a bundle says of itself is taken for true. Its files are opened and compared with their digests; its spans
are cut again from history, and features, outcomes and digest must be what it was trained on; its trees are grown again
and must be the same; its figures are computed again. Then both models are scored on the champion's own most recent
matured window, of which neither has learnt anything. A check that could not be made has not passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shared.domain.bundle import bundle_digest, open_bundle
from shared.domain.bundle_manifest import MANIFEST
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.promotion import Check, CheckName, GateRules, Verdict
from shared.domain.tree_budget import TREE_BUDGET, TreeBudget
from shared.ports.models import Graph, Trainer

type Progress = Callable[[str, float], None]
"""Told the step's name and how much of it is done, 0 to 1."""


def judge(
    challenger: Mapping[str, bytes],
    champion: Mapping[str, bytes] | None,
    transactions: TransactionColumns,
    labels: LabelColumns,
    *,
    as_of_us: int,
    rules: GateRules,
    trainer: Trainer,
    load_graph: Callable[[bytes, int], Graph],
    expected_digest: str | None = None,
    budget: TreeBudget = TREE_BUDGET,
    progress: Progress = lambda _step, _share: None,
) -> Verdict:
    """Judge a challenger. A bad one is a verdict, never an exception.

    Args:
        challenger: Its files by name, as they are stored.
        champion: The files of the one in service; None if there is none yet.
        transactions: History of all entities concerned, in any order.
        labels: All labels of it.
        as_of_us: What was known by then is used, microseconds since 1970 UTC.
        rules: By which it is judged.
        trainer: The training library: oracle of parity, and what grows the trees again.
        load_graph: Loads an exported graph of so many features, as serving does.
        expected_digest: What the challenger was announced as.
        budget: What a bundle may cost.
        progress: Told what is going on.
    """
    progress("opening", 0.0)
    digest = expected_digest or bundle_digest(challenger.get(MANIFEST, b""))
    facing = None if champion is None else bundle_digest(champion.get(MANIFEST, b""))
    try:
        bundle = open_bundle(challenger, expected_digest, budget=budget)
    except BrokenInvariant as error:
        opened = Check(CheckName.OPENS, None, None, "every digest, the format and the feature view", False, str(error))
        return Verdict(digest, facing, "", as_of_us, rules, None, (opened, *_not_judged(CheckName.OPENS, facing)))
    model = f"{bundle.manifest.name} {bundle.manifest.version}"
    checks = _not_judged(CheckName.OPENS, facing)
    return Verdict(digest, facing, model, as_of_us, rules, None, checks)


COMPARISONS = frozenset({CheckName.GAIN, CheckName.LOSS, CheckName.SEGMENTS, CheckName.FRESHNESS})
"""Checks that need a champion."""


def _not_judged(because: CheckName, champion: str | None) -> tuple[Check, ...]:
    """The checks after one that failed: none of them passes."""
    names = list(CheckName)
    later = names[names.index(because) + 1 :]
    return tuple(
        Check(name, None, None, "to be judged", False, f"not judged, because of: {because}")
        for name in later
        if champion is not None or name not in COMPARISONS
    )
