"""Training with XGBoost, its export to ONNX, and XGBoost's own answers as the oracle of parity.

XGBoost's defaults since version 2 lose a tenth of the average precision on rare frauds: it estimates the base score
from their share and considers 256 cuts per feature. Both are set here. What leaves is the sliced booster: a booster
that stopped early still holds the trees after the best one, and the converter would export them all.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.errors import BrokenInvariant
from shared.domain.training_model import FittedModel, Rows, TrainingParameters

OPSET: Final = 15
"""At most, of the exported graph; its tree operator is that of ai.onnx.ml 1, which every runtime has."""

_TREE_OPSET: Final = 1
_BASE_SCORE: Final = 0.5
_LIBRARIES: Final = ("numpy", "onnx", "onnxmltools", "xgboost")


class XgboostTrainer:
    """Fits, exports and answers; deterministic on one thread."""

    def __init__(self, threads: int = 1) -> None:
        """Import the libraries; with more than one thread sums are taken in another order and digests differ."""
        self._xgboost: Any = importlib.import_module("xgboost")
        self._threads = threads

    def fit(
        self,
        train: Rows,
        stop: Rows | None,
        parameters: TrainingParameters,
        progress: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> FittedModel:
        """Grow trees on some rows and stop by others.

        Args:
            train: Rows to learn from.
            stop: Rows whose log loss decides how many trees are kept; None keeps all.
            parameters: How.
            progress: Told the trees grown so far, and how many there may be.

        Raises:
            BrokenInvariant: XGBoost refuses the rows (an infinite value, for one), or the export has another form.
        """
        try:
            booster = self._grown(train, stop, parameters, progress)
        except self._xgboost.core.XGBoostError as error:
            raise BrokenInvariant(f"XGBoost refuses the rows: {str(error).splitlines()[0]}") from error
        n_trees = booster.num_boosted_rounds()
        return FittedModel(
            booster=bytes(booster.save_raw("json")),
            model=_exported(booster, train.vectors.shape[1], n_trees),
            n_trees=n_trees,
            libraries={"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
        )

    def _grown(
        self, train: Rows, stop: Rows | None, parameters: TrainingParameters, progress: Callable[[int, int], None]
    ) -> Any:
        """The booster, with the trees that are kept and nothing else."""
        xgboost = self._xgboost
        settings = {
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "base_score": _BASE_SCORE,
            "tree_method": "hist",
            "max_bin": parameters.max_bins,
            "max_depth": parameters.depth,
            "learning_rate": parameters.learning_rate,
            "min_child_weight": parameters.min_child_weight,
            "reg_lambda": parameters.l2,
            "scale_pos_weight": parameters.class_weight,
            "seed": parameters.seed,
            "nthread": self._threads,
            "validate_parameters": True,
        }
        matrix = xgboost.QuantileDMatrix(
            train.vectors, train.is_fraud.astype(np.float32), max_bin=parameters.max_bins, nthread=self._threads
        )
        evaluated = []
        if stop is not None:
            labels = stop.is_fraud.astype(np.float32)
            # What is grown for one loss must be stopped by the same one; XGBoost weighs only the rows it learns from.
            weights = np.where(stop.is_fraud, np.float32(parameters.class_weight), np.float32(1.0))
            judged = xgboost.DMatrix(stop.vectors, labels, weight=weights, nthread=self._threads)
            evaluated = [(judged, "stop")]

        class Told(xgboost.callback.TrainingCallback):  # type: ignore[name-defined,misc]  # the library has no types
            def after_iteration(self, _model: Any, epoch: int, _evals_log: Any) -> bool:
                progress(epoch + 1, parameters.n_trees)
                return False

        booster = xgboost.train(
            settings,
            matrix,
            num_boost_round=parameters.n_trees,
            evals=evaluated,
            early_stopping_rounds=parameters.patience if evaluated else None,
            verbose_eval=False,
            callbacks=[Told()],
        )
        kept = booster.best_iteration + 1 if evaluated else booster.num_boosted_rounds()
        sliced = booster[:kept]
        # The converter takes numbered features only; attributes would carry the stopping into the bytes.
        sliced.feature_names = None
        sliced.feature_types = None
        sliced.set_attr(**dict.fromkeys(sliced.attributes()))
        return sliced

    def margins(self, booster: bytes, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """XGBoost's own outputs in log-odds: (n,) float32; rows may hold NaN and infinities."""
        found: NDArray[np.float32] = self._loaded(booster).inplace_predict(vectors, predict_type="margin")
        return found

    def contributions(self, booster: bytes, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """XGBoost's own exact contributions: (n, n_features + 1) float32, the last column is the base."""
        matrix = self._xgboost.DMatrix(vectors, nthread=self._threads)
        found: NDArray[np.float32] = self._loaded(booster).predict(matrix, pred_contribs=True)
        return found

    def _loaded(self, booster: bytes) -> Any:
        try:
            loaded = self._xgboost.Booster(model_file=bytearray(booster))
        except self._xgboost.core.XGBoostError as error:
            raise BrokenInvariant("the booster cannot be loaded") from error
        loaded.set_param({"nthread": self._threads})
        return loaded


def _exported(booster: Any, n_features: int, n_trees: int) -> bytes:
    """The ONNX graph of a booster: input `vectors`, float32; outputs `label` and `probabilities`.

    Raises:
        BrokenInvariant: It is not one operator with that many trees, or of another opset.
    """
    converter: Any = importlib.import_module("onnxmltools.convert")
    types: Any = importlib.import_module("onnxmltools.convert.common.data_types")
    graph = converter.convert_xgboost(
        booster,
        name="tollgate",  # without a name the converter invents one, and no two exports are equal
        initial_types=[("vectors", types.FloatTensorType([None, n_features]))],
        target_opset=OPSET,
    )
    nodes = list(graph.graph.node)
    trees = {tree for field in nodes[0].attribute if field.name == "nodes_treeids" for tree in field.ints}
    opsets = {entry.domain: entry.version for entry in graph.opset_import}
    if [node.op_type for node in nodes] != ["TreeEnsembleClassifier"] or len(trees) != n_trees:
        raise BrokenInvariant(f"the export is no ensemble of {n_trees} trees")
    if opsets.get("", OPSET) > OPSET or opsets.get("ai.onnx.ml") != _TREE_OPSET:
        raise BrokenInvariant(f"the export is of the opsets {opsets}")
    exported: bytes = graph.SerializeToString(deterministic=True)
    return exported


def _version(name: str) -> str:
    return str(importlib.import_module(name).__version__)
