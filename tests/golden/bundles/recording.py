"""Record the golden bundle of the format that this release writes: `python -m tests.golden.bundles.recording`.

Run once for each new format version, never again for an old one: what is recorded is what later releases must read.
`expected.json` holds, for some vectors, the bits of the output and of every contribution as hexadecimal floats.
"""

from __future__ import annotations

import json
from typing import Final

import numpy as np

from shared.adapters.onnx_scorer import OnnxGraph, OnnxScorer
from shared.adapters.xgboost_trainer import XgboostTrainer
from shared.domain.bundle_manifest import FORMAT_VERSION
from shared.domain.cost_policy import Capacity
from shared.domain.feature_view import CARD_V1
from shared.domain.training_model import TrainingParameters
from shared.services.training import train
from tests.fakes.bundles import GOLDEN, history, plan_of

RECORDED_ROWS: Final = 24
REVIEWS_PER_DAY: Final = 1


def main() -> None:
    """Train the small model and write its files and what it says."""
    folder = GOLDEN / f"format-{FORMAT_VERSION}"
    if folder.exists():
        raise SystemExit(f"{folder.name} was recorded before; a recorded format is never written again")
    transactions, labels = history()
    made = train(
        CARD_V1,
        transactions,
        labels,
        plan_of(transactions),
        trainer=XgboostTrainer(),
        load_graph=OnnxGraph,
        name="golden",
        version=1,
        parameters=TrainingParameters(n_trees=8, learning_rate=0.3, max_bins=256),
        capacity=Capacity(REVIEWS_PER_DAY),
    )
    folder.mkdir(parents=True)
    for name, data in made.files.items():
        (folder / name).write_bytes(data)
    vectors = np.ascontiguousarray(made.bundle.probes.vectors[:: len(made.bundle.probes.raw) // RECORDED_ROWS])
    scored = OnnxScorer(made.bundle).score(vectors)
    expected = {
        "digest": made.digest,
        "vectors": [[float(value).hex() for value in row] for row in vectors],
        "raw": [float(value).hex() for value in scored.raw],
        "contributions": [[float(value).hex() for value in row] for row in scored.contributions],
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
