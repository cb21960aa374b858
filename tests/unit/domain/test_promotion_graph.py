"""What a graph is made of, read from bytes: as the onnx library reads it, and an error on other bytes."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.bundle_manifest import MODEL
from shared.domain.errors import BrokenInvariant
from shared.domain.promotion_graph import FLOAT32, graph_facts
from tests.fakes.bundles import golden_files

N_TREES = 8


def graph() -> Any:
    return importlib.import_module("onnx").load_from_string(golden_files()[MODEL])


def test_facts_are_what_the_library_says() -> None:
    facts, model = graph_facts(golden_files()[MODEL]), graph()
    assert facts.operators == tuple(node.op_type for node in model.graph.node)
    assert facts.opsets == {entry.domain: entry.version for entry in model.opset_import}
    assert facts.input_types == (FLOAT32,)
    (trees,) = [field.ints for field in model.graph.node[0].attribute if field.name == "nodes_treeids"]
    assert facts.n_trees == len(set(trees)) == N_TREES
    facts.check(N_TREES)


def test_what_the_bundle_format_does_not_allow_is_named() -> None:
    onnx = importlib.import_module("onnx")
    with pytest.raises(BrokenInvariant, match="8 trees, the booster 7"):
        graph_facts(golden_files()[MODEL]).check(7)
    double = graph()
    double.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    with pytest.raises(BrokenInvariant, match="not one float32"):
        graph_facts(double.SerializeToString()).check(N_TREES)
    newer = graph()
    newer.opset_import[0].version = 3
    with pytest.raises(BrokenInvariant, match="opsets"):
        graph_facts(newer.SerializeToString()).check(N_TREES)
    longer = graph()
    longer.graph.node.append(onnx.helper.make_node("Identity", ["probabilities"], ["again"]))
    with pytest.raises(BrokenInvariant, match="TreeEnsembleClassifier, Identity"):
        graph_facts(longer.SerializeToString()).check(N_TREES)
    with pytest.raises(BrokenInvariant, match="made of nothing"):
        graph_facts(b"").check(N_TREES)


@given(st.binary(max_size=200), st.integers(0, 4_000))
def test_other_bytes_are_refused_and_nothing_worse(data: bytes, place: int) -> None:
    model = golden_files()[MODEL]
    for torn in (data, model[:place], model[:place] + data + model[place:]):
        try:
            facts = graph_facts(torn)
        except BrokenInvariant:
            continue
        assert isinstance(facts.n_trees, int)
