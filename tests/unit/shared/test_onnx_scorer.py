"""The scorer on real bundles: recorded bits, any batch, any thread, refusals, and what it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from shared.adapters.onnx_scorer import OnnxGraph, OnnxScorer, runtime_fingerprint
from shared.adapters.xgboost_trainer import OPSET, XgboostTrainer
from shared.domain.bundle import Bundle, open_bundle
from shared.domain.bundle_manifest import FORMAT_VERSION
from shared.domain.errors import BrokenInvariant
from shared.domain.training_model import FittedModel, Rows, TrainingParameters
from shared.domain.training_parity import sigmoid
from shared.domain.tree_model import read_booster
from shared.domain.tree_tables import compile_tables
from tests.fakes.bundles import GOLDEN, golden_files, trained_scorer

ROOT = Path(__file__).resolve().parents[3]
FORMATS = [f"format-{version}" for version in range(1, FORMAT_VERSION + 1)]


def drawn(n_rows: int, seed: int = 0, missing: float = 0.08) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n_rows, 25)).astype(np.float32)
    vectors[rng.random(vectors.shape) < missing] = np.nan
    return vectors


@pytest.fixture(scope="module")
def deep() -> tuple[FittedModel, NDArray[np.float32]]:
    """A model of 100 trees of depth 5 with interactions, and rows it was not fitted on."""
    vectors = drawn(6_000)
    signal = np.nan_to_num(vectors[:, 0] * vectors[:, 1]) + np.nan_to_num(vectors[:, 2])
    rows = Rows(vectors, signal > 1.5)
    parameters = TrainingParameters(n_trees=100, depth=5, learning_rate=0.1, max_bins=256, min_child_weight=1.0)
    return XgboostTrainer().fit(rows, None, parameters), drawn(4_000, seed=1)


def test_every_format_ever_written_has_a_recorded_bundle() -> None:
    assert sorted(path.name for path in GOLDEN.glob("format-*")) == FORMATS


@pytest.mark.parametrize("folder", FORMATS)
def test_a_recorded_bundle_says_what_it_said(folder: str) -> None:
    expected = json.loads((GOLDEN / folder / "expected.json").read_text(encoding="ascii"))
    scorer = OnnxScorer(open_bundle(golden_files(folder), expected["digest"]))
    vectors = np.array([[float.fromhex(value) for value in row] for row in expected["vectors"]], dtype=np.float32)
    scored = scorer.score(vectors)
    # Contributions are sums of table entries in a fixed order: equal bits everywhere. The output goes through the
    # runtime's logistic function, whose last bit belongs to the fingerprint.
    found = [[float(value).hex() for value in row] for row in scored.contributions]
    assert found == expected["contributions"]
    raw = np.array([float.fromhex(value) for value in expected["raw"]])
    np.testing.assert_allclose(scored.raw, raw, rtol=0, atol=1e-6)
    assert np.isnan(vectors).any()
    assert np.isfinite(vectors[~np.isnan(vectors)]).any()


def test_one_row_is_the_same_row_in_any_batch_in_every_bit(deep: tuple[FittedModel, NDArray[np.float32]]) -> None:
    model, vectors = deep
    graph = OnnxGraph(model.model, 25)
    tables = compile_tables(read_booster(model.booster))
    alone = [graph.raw(vectors[row : row + 1]).tobytes() for row in range(400)]
    reasons = [tables.contributions(vectors[row : row + 1]).tobytes() for row in range(400)]
    for size in (2, 3, 8, 17, 64, 65, 129, 400):
        for start in range(0, 400 - size + 1, size):
            rows = slice(start, start + size)
            raw, contributions = graph.raw(vectors[rows]), tables.contributions(vectors[rows])
            assert [value.tobytes() for value in raw] == alone[rows]
            assert [row.tobytes() for row in contributions] == reasons[rows]
    assert graph.raw(vectors)[:400].tobytes() == b"".join(alone)


def test_reasons_equal_the_training_librarys_over_thousands_of_rows(
    deep: tuple[FittedModel, NDArray[np.float32]],
) -> None:
    model, vectors = deep
    trainer = XgboostTrainer()
    tables = compile_tables(read_booster(model.booster))
    oracle = trainer.contributions(model.booster, vectors)
    found = tables.contributions(vectors)
    assert np.isnan(vectors).sum() > 1_000
    assert np.abs(found - oracle[:, :-1]).max() <= 1e-5
    assert abs(tables.base - float(oracle[0, -1])) <= 1e-5
    margins = trainer.margins(model.booster, vectors)
    assert np.abs(found.sum(axis=1) + tables.base - margins).max() <= 1e-5
    assert np.abs(sigmoid(margins) - OnnxGraph(model.model, 25).raw(vectors)).max() <= 1e-6


def test_early_stopping_exports_only_the_trees_that_are_kept() -> None:
    vectors = drawn(3_000)
    signal = np.nan_to_num(vectors[:, 2]) + np.random.default_rng(5).normal(size=3_000) > 1.5
    seen: list[tuple[int, int]] = []
    model = XgboostTrainer().fit(
        Rows(vectors[:2_000], signal[:2_000]),
        Rows(vectors[2_000:], signal[2_000:]),
        TrainingParameters(learning_rate=0.5, patience=5, max_bins=256),
        lambda done, of: seen.append((done, of)),
    )
    assert model.n_trees == len(read_booster(model.booster).trees) < 50
    assert seen == [(done, 100) for done in range(1, len(seen) + 1)]
    assert len(seen) > model.n_trees
    margins = XgboostTrainer().margins(model.booster, vectors)
    assert np.abs(sigmoid(margins) - OnnxGraph(model.model, 25).raw(vectors)).max() <= 1e-6


def test_rows_that_the_library_refuses_are_named() -> None:
    vectors = drawn(100)
    vectors[3, 3] = np.inf
    with pytest.raises(BrokenInvariant, match="XGBoost refuses the rows"):
        XgboostTrainer().fit(Rows(vectors, np.arange(100) < 50), None, TrainingParameters(n_trees=2, max_bins=16))


def test_the_export_is_one_operator_of_known_opsets(deep: tuple[FittedModel, NDArray[np.float32]]) -> None:
    graph = onnx.load_from_string(deep[0].model)
    assert [node.op_type for node in graph.graph.node] == ["TreeEnsembleClassifier"]
    assert {entry.domain: entry.version for entry in graph.opset_import}["ai.onnx.ml"] == 1
    assert all(entry.version <= OPSET for entry in graph.opset_import)


def test_several_threads_get_the_same_bits() -> None:
    scorer = trained_scorer()
    vectors = drawn(200, seed=3)
    want = scorer.score(vectors)
    with ThreadPoolExecutor(4) as pool:
        for scored in pool.map(lambda _: scorer.score(vectors), range(40)):
            assert scored.raw.tobytes() == want.raw.tobytes()
            assert scored.contributions.tobytes() == want.contributions.tobytes()


def test_a_scorer_says_what_its_bundle_is() -> None:
    bundle = open_bundle(golden_files())
    scorer = OnnxScorer(bundle)
    assert (scorer.name, scorer.version, scorer.bundle_digest) == ("golden", 1, bundle.digest)
    assert (scorer.view, scorer.calibration) == (bundle.view, bundle.manifest.calibration)
    assert scorer.base == bundle.tables.base
    assert scorer.fingerprint == runtime_fingerprint() == runtime_fingerprint()
    assert len(scorer.fingerprint) == 32
    scored = scorer.score(bundle.probes.vectors)
    logits = np.log(scored.raw.astype(float)) - np.log1p(-scored.raw.astype(float))
    np.testing.assert_allclose(scored.contributions.sum(axis=1) + scorer.base, logits, atol=1e-5)


def test_no_rows_have_no_scores() -> None:
    scored = trained_scorer().score(np.empty((0, 25), np.float32))
    assert scored.raw.shape == (0,)
    assert scored.contributions.shape == (0, 25)


@pytest.mark.parametrize("wrong", [np.zeros((1, 24), np.float32), np.zeros((1, 25))])
def test_vectors_of_another_form_are_refused(wrong: Any) -> None:
    with pytest.raises(BrokenInvariant, match="vectors of"):
        trained_scorer().score(wrong)
    with pytest.raises(BrokenInvariant, match="cannot be run"):
        OnnxGraph(open_bundle(golden_files()).model, 25).raw(wrong)


def bundle_with(**changes: Any) -> Bundle:
    return replace(open_bundle(golden_files()), **changes)


def test_a_graph_that_is_none_or_another_models_is_refused(deep: tuple[FittedModel, NDArray[np.float32]]) -> None:
    model, _ = deep
    with pytest.raises(BrokenInvariant, match="no ONNX graph that can be loaded"):
        OnnxScorer(bundle_with(model=b"pickle"))
    with pytest.raises(BrokenInvariant, match="outputs differ from the recorded ones"):
        OnnxScorer(bundle_with(model=model.model))
    with pytest.raises(BrokenInvariant, match="contributions differ from the recorded ones"):
        OnnxScorer(bundle_with(tables=compile_tables(read_booster(model.booster))))


def test_a_graph_with_another_number_of_inputs_is_refused() -> None:
    vectors = drawn(500)[:, :15]
    rows = Rows(np.ascontiguousarray(vectors), np.nan_to_num(vectors[:, 0]) > 0.5)
    model = XgboostTrainer().fit(rows, None, TrainingParameters(n_trees=2, max_bins=16))
    with pytest.raises(BrokenInvariant, match="one float32 tensor of 25 columns"):
        OnnxScorer(bundle_with(model=model.model))


def test_a_graph_without_the_output_is_refused() -> None:
    graph = onnx.load_from_string(open_bundle(golden_files()).model)
    del graph.graph.output[1]
    with pytest.raises(BrokenInvariant, match="no output probabilities of two columns"):
        OnnxGraph(graph.SerializeToString(), 25)


def test_a_booster_that_is_none_is_refused() -> None:
    with pytest.raises(BrokenInvariant, match="cannot be loaded"):
        XgboostTrainer().margins(b"{}", drawn(1))


def test_scoring_imports_neither_training_nor_graph_tools() -> None:
    code = (
        "import json, sys\n"
        "from shared.adapters.onnx_scorer import OnnxScorer\n"
        "from shared.adapters.bundle_scorers import BundleScorers\n"
        "from tests.fakes.bundles import trained_scorer\n"
        "trained_scorer()\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(json.loads(done.stdout))
    assert {"numpy", "onnxruntime"} <= loaded
    assert not loaded & {"onnx", "onnxmltools", "xgboost", "scipy", "pandas", "sklearn", "pyarrow", "mlflow", "shap"}
