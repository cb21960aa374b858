"""What an ONNX graph is made of, read from its bytes without any library: operators, opsets, input, number of trees.

A runtime runs whatever graph it is given; the gate wants to know that this is one ensemble of the trees that were
trained, fed with binary32. Only the few fields that say so are taken from the protocol-buffer encoding; all others are
passed over.

Sources: `onnx/onnx.proto` (field numbers of ModelProto, GraphProto, NodeProto, AttributeProto, ValueInfoProto) and
"Encoding" in the documentation of protocol buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.domain.errors import BrokenInvariant

FLOAT32: Final = 1
"""TensorProto.DataType.FLOAT."""

ENSEMBLE: Final = "TreeEnsembleClassifier"
MAX_OPSET: Final = 15
TREE_DOMAIN: Final = "ai.onnx.ml"
TREE_OPSET: Final = 1
"""Opset of the tree operator that every runtime has (docs/bundles.md)."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_GRAPH, _MODEL_OPSET = 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INPUT = 1, 11
_NODE_OPERATOR, _NODE_ATTRIBUTE = 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INTS = 1, 8
_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_ELEMENT = 2, 1, 1


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What a graph is made of.

    Attributes:
        operators: Its operators, in order.
        opsets: Version by domain; the domain of ONNX itself is empty.
        input_types: The element type of each input, `TensorProto.DataType`; 0 for what is no tensor.
        n_trees: Trees of its first ensemble; 0 without one.
    """

    operators: tuple[str, ...]
    opsets: dict[str, int]
    input_types: tuple[int, ...]
    n_trees: int

    def check(self, n_trees: int) -> None:
        """Refuse a graph that is not one float32 ensemble of so many trees.

        Raises:
            BrokenInvariant: Says what it is instead.
        """
        if self.operators != (ENSEMBLE,):
            raise BrokenInvariant(
                f"the graph is made of {', '.join(self.operators) or 'nothing'}, not of one {ENSEMBLE}"
            )
        if self.input_types != (FLOAT32,):
            raise BrokenInvariant(f"the graph's inputs have the element types {self.input_types}, not one float32")
        if self.opsets.get("", MAX_OPSET) > MAX_OPSET or self.opsets.get(TREE_DOMAIN) != TREE_OPSET:
            raise BrokenInvariant(f"the graph is of the opsets {self.opsets}")
        if self.n_trees != n_trees:
            raise BrokenInvariant(f"the graph has {self.n_trees} trees, the booster {n_trees}")


def graph_facts(model: bytes) -> GraphFacts:
    """Read what a graph is made of.

    Raises:
        BrokenInvariant: The bytes are no graph.
    """
    try:
        return _facts(model)
    except (IndexError, ValueError) as error:
        raise BrokenInvariant("the graph's bytes cannot be read") from error


def _facts(model: bytes) -> GraphFacts:
    operators: list[str] = []
    opsets: dict[str, int] = {}
    inputs: list[int] = []
    trees: set[int] = set()
    for number, value in _fields(model):
        if number == _MODEL_OPSET and isinstance(value, bytes):
            entry = dict(_fields(value))
            domain, version = entry.get(_OPSET_DOMAIN, b""), entry.get(_OPSET_VERSION, 0)
            if isinstance(domain, bytes) and isinstance(version, int):
                opsets[domain.decode()] = version
        elif number == _MODEL_GRAPH and isinstance(value, bytes):
            for inner, part in _fields(value):
                if inner == _GRAPH_NODE and isinstance(part, bytes):
                    operator, found = _node(part)
                    operators.append(operator)
                    trees |= found
                elif inner == _GRAPH_INPUT and isinstance(part, bytes):
                    inputs.append(_element_type(part))
    return GraphFacts(tuple(operators), opsets, tuple(inputs), len(trees))


def _node(data: bytes) -> tuple[str, set[int]]:
    """A node's operator, and the numbers of its trees."""
    operator = ""
    trees: set[int] = set()
    for number, value in _fields(data):
        if number == _NODE_OPERATOR and isinstance(value, bytes):
            operator = value.decode()
        elif number == _NODE_ATTRIBUTE and isinstance(value, bytes):
            fields = list(_fields(value))
            if (_ATTRIBUTE_NAME, b"nodes_treeids") in fields:
                for inner, part in fields:
                    if inner == _ATTRIBUTE_INTS:
                        trees.update([part] if isinstance(part, int) else _varints(part))
    return operator, trees


def _element_type(data: bytes) -> int:
    """The element type of a ValueInfoProto's tensor, 0 if it is none."""
    for wanted in (_VALUE_TYPE, _TYPE_TENSOR):
        inner = dict(_fields(data)).get(wanted)
        if not isinstance(inner, bytes):
            return 0
        data = inner
    found = dict(_fields(data)).get(_TENSOR_ELEMENT)
    return found if isinstance(found, int) else 0


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a message; fixed-width values as their bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == _VARINT:
            number, place = _varint(data, place)
            yield key >> 3, number
            continue
        if kind == _BYTES:
            size, place = _varint(data, place)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + size > len(data):
            raise ValueError("a field is longer than its message")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")


def _varints(data: bytes) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value
