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
"""Of the exported graph; the converter's tree operator is that of ai.onnx.ml 1, which every runtime has."""

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
        """
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
            evaluated = [(xgboost.DMatrix(stop.vectors, labels, nthread=self._threads), "stop")]

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
        sliced.feature_names = None
        sliced.feature_types = None
        sliced.set_attr(**dict.fromkeys(sliced.attributes()))
        return FittedModel(
            booster=bytes(sliced.save_raw("json")),
            model=_exported(sliced, train.vectors.shape[1]),
            n_trees=sliced.num_boosted_rounds(),
            libraries={"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
        )

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


def _exported(booster: Any, n_features: int) -> bytes:
    """The ONNX graph of a booster: input `vectors`, float32; outputs `label` and `probabilities`."""
    converter: Any = importlib.import_module("onnxmltools.convert")
    types: Any = importlib.import_module("onnxmltools.convert.common.data_types")
    graph = converter.convert_xgboost(
        booster,
        name="tollgate",  # without a name the converter invents one, and no two exports are equal
        initial_types=[("vectors", types.FloatTensorType([None, n_features]))],
        target_opset=OPSET,
    )
    exported: bytes = graph.SerializeToString(deterministic=True)
    return exported


def _version(name: str) -> str:
    return str(importlib.import_module(name).__version__)
