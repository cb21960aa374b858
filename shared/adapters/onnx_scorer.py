"""The scorer: ONNX Runtime for the output, look-up tables for the reasons; imports nothing beyond it and numpy.

One thread, and always the same settings: with more threads ONNX Runtime adds trees up in another order and gives other
bits (record 0002). What equal bits are promised for is recorded as the fingerprint.
"""

from __future__ import annotations

import platform
import sys
from typing import Any, Final

import numpy as np
import onnxruntime  # type: ignore[import-untyped]  # the library has no types
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime  # type: ignore[import-untyped]  # as above

from shared.domain.bundle import Bundle
from shared.domain.canonical import Digest, digest_of
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import FeatureView
from shared.domain.policy_choice import Advice
from shared.domain.score import CalibrationTable, Scored

_OUTPUT: Final = "probabilities"
_THREADS: Final = 1
_SEVERITY_ERROR: Final = 3
_SETTINGS: Final = f"intra_op={_THREADS} inter_op={_THREADS} spinning=0 execution=sequential optimization=all"


_ERRORS: Final[tuple[type[Exception], ...]] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(runtime).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)
"""All that the runtime raises; its errors share no class of their own."""


def runtime_fingerprint() -> Digest:
    """Digest of everything besides the bundle that a score's bits may depend on."""
    parts = (
        platform.machine(),
        " ".join(platform.libc_ver()),
        f"python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}",
        f"numpy {np.__version__}",
        f"onnxruntime {onnxruntime.__version__}",
        _SETTINGS,
    )
    return digest_of("\n".join(parts).encode())


class OnnxGraph:
    """A model's graph in a session; safe to use from several threads."""

    def __init__(self, model: bytes, n_features: int) -> None:
        """Load it.

        Raises:
            BrokenInvariant: It cannot be loaded, or is not of the form that a bundle's graph has.
        """
        self._session = _session(model)
        self._input = _checked_input(self._session, n_features)

    def raw(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output of (n, n_features) float32 vectors: (n,) float32, the probability of fraud before calibration.

        Raises:
            BrokenInvariant: The runtime refuses the vectors.
        """
        if not len(vectors):
            return np.empty(0, dtype=np.float32)
        try:
            (probabilities,) = self._session.run([_OUTPUT], {self._input: vectors})
        except _ERRORS as error:
            raise BrokenInvariant(f"the model cannot be run: {type(error).__name__}") from error
        return np.ascontiguousarray(probabilities[:, 1])


class OnnxScorer:
    """A bundle, ready to score; safe to use from several threads."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the graph and run the bundle's probes through it.

        Cost: 3 to 6 ms at 100 trees of depth 4.

        Raises:
            BrokenInvariant: The graph cannot be loaded, has another form, or gives other outputs than training saw.
        """
        self._manifest = bundle.manifest
        self._advice = Advice.of(bundle.manifest)
        self._digest = bundle.digest
        self._view = bundle.view
        self._tables = bundle.tables
        self._fingerprint = runtime_fingerprint()
        self._graph = OnnxGraph(bundle.model, len(bundle.view.features))
        bundle.probes.check(self.score(bundle.probes.vectors))

    @property
    def name(self) -> str:
        """The model's name."""
        return self._manifest.name

    @property
    def version(self) -> int:
        """Its version."""
        return self._manifest.version

    @property
    def bundle_digest(self) -> str:
        """The bundle's digest, 64 hexadecimal digits."""
        return self._digest

    @property
    def view(self) -> FeatureView:
        """The feature view it was trained on."""
        return self._view

    @property
    def calibration(self) -> CalibrationTable:
        """From its output to a probability."""
        return self._manifest.calibration

    @property
    def advice(self) -> Advice:
        """What the bundle says of policies."""
        return self._advice

    @property
    def base(self) -> float:
        """What contributions are added to, in log-odds."""
        return self._tables.base

    @property
    def fingerprint(self) -> Digest:
        """Digest of the runtime that equal bits are promised for."""
        return self._fingerprint

    def score(self, vectors: NDArray[np.float32]) -> Scored:
        """Outputs and exact contributions of (n, n_features) float32 vectors.

        Raises:
            BrokenInvariant: Another number of features or another type, or the runtime fails.
        """
        contributions = self._tables.contributions(vectors)
        return Scored(self._graph.raw(vectors), contributions)


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    options.inter_op_num_threads = _THREADS
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _SEVERITY_ERROR
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _ERRORS as error:
        raise BrokenInvariant(f"the model is no ONNX graph that can be loaded: {type(error).__name__}") from error


def _checked_input(session: Any, n_features: int) -> str:
    """The name of the graph's input, once its form and the output's are what a bundle of format 1 has."""
    inputs, outputs = session.get_inputs(), {output.name: output for output in session.get_outputs()}
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or list(inputs[0].shape)[1:] != [n_features]:
        raise BrokenInvariant(f"the graph does not take one float32 tensor of {n_features} columns")
    output = outputs.get(_OUTPUT)
    if output is None or output.type != "tensor(float)" or list(output.shape)[1:] != [2]:
        raise BrokenInvariant(f"the graph has no output {_OUTPUT} of two columns")
    return str(inputs[0].name)
