"""The model that the benchmarks of deciding score with."""

from __future__ import annotations

from shared.adapters.onnx_scorer import OnnxGraph
from shared.adapters.xgboost_trainer import XgboostTrainer
from shared.domain.feature_view import CARD_V1
from shared.domain.training_model import TrainingParameters
from shared.services.training import train
from tests.fakes.bundles import history, plan_of


def trained() -> dict[str, bytes]:
    """A bundle of 100 trees of depth 4 over 25 features, the budget of the default training.

    Trees correct so little each that none of them is left out.
    """
    transactions, labels = history()
    made = train(
        CARD_V1,
        transactions,
        labels,
        plan_of(transactions),
        trainer=XgboostTrainer(),
        load_graph=OnnxGraph,
        name="bench",
        version=1,
        parameters=TrainingParameters(n_trees=100, depth=4, learning_rate=0.03, patience=100),
    )
    assert made.bundle.manifest.size.n_trees == 100
    return made.files
