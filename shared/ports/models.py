"""Models: trained, kept, loaded, as ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_pointer import Pointed, Pointer, Role
from shared.domain.canonical import Digest
from shared.domain.feature_view import FeatureView
from shared.domain.policy_choice import Advice
from shared.domain.score import CalibrationTable, Scored
from shared.domain.training_model import FittedModel, Rows, TrainingParameters


class Scorer(Protocol):
    """A loaded model bundle; safe to use from several threads."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def version(self) -> int:
        """Its version, rising with each training."""
        ...

    @property
    def bundle_digest(self) -> str:
        """The bundle's digest, 64 hexadecimal digits."""
        ...

    @property
    def view(self) -> FeatureView:
        """The feature view it was trained on."""
        ...

    @property
    def calibration(self) -> CalibrationTable:
        """From its output to a probability."""
        ...

    @property
    def advice(self) -> Advice:
        """What the bundle says of policies."""
        ...

    @property
    def base(self) -> float:
        """Its output for nothing known, in log-odds: what the contributions are added to."""
        ...

    @property
    def fingerprint(self) -> Digest:
        """Digest of the runtime (machine, libraries, thread settings) that equal bits are promised for."""
        ...

    def score(self, vectors: NDArray[np.float32]) -> Scored:
        """Score (n, n_features) float32 vectors in the order of the view, NaN where a value is missing.

        A row's output does not depend on the rows beside it, in any bit.

        Raises:
            BrokenInvariant: Another number of features.
        """
        ...


class Graph(Protocol):
    """A model's graph by itself, without reasons and calibration; safe to use from several threads."""

    def raw(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output of (n, n_features) float32 vectors: (n,) float32, a probability before calibration.

        Raises:
            BrokenInvariant: Another number of features.
        """
        ...


class Trainer(Protocol):
    """What grows trees, exports them, and answers itself as the oracle of parity; deterministic."""

    def fit(
        self,
        train: Rows,
        stop: Rows | None,
        parameters: TrainingParameters,
        progress: Callable[[int, int], None],
    ) -> FittedModel:
        """Grow trees on some rows; the log loss of others decides how many are kept.

        Args:
            train: Rows to learn from.
            stop: Rows to stop by; None keeps all trees.
            parameters: How.
            progress: Told the trees grown so far, and how many there may be.
        """
        ...

    def margins(self, booster: bytes, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The training library's own outputs in log-odds: (n,) float32; rows may hold NaN and infinities."""
        ...

    def contributions(self, booster: bytes, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Its own exact contributions: (n, n_features + 1) float32, the last column is the base."""
        ...


class BundleStore(Protocol):
    """Where bundles are kept under their digest, and which of them plays which part."""

    def put(self, files: Mapping[str, bytes]) -> str:
        """Keep a bundle; returns its digest. Nothing is ever overwritten, and the manifest is written last.

        Idempotent, also after an earlier call that did not come to its end.

        Raises:
            BrokenInvariant: The files are no bundle that this release would open, or other files stand at its digest.
            Transient: The store cannot be reached now.
        """
        ...

    def get(self, digest: str) -> dict[str, bytes]:
        """The files of a bundle by name, unchecked: those that are there.

        Raises:
            NotFound: No bundle was put to its end under this digest.
            Transient: The store cannot be reached now.
        """
        ...

    def manifest(self, digest: str) -> bytes:
        """The manifest of a bundle, unchecked.

        Raises:
            NotFound: No bundle was put to its end under this digest.
            Transient: The store cannot be reached now.
        """
        ...

    def digests(self) -> list[str]:
        """The digests of all bundles, sorted; those put to their end.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def pointer(self, role: Role) -> Pointed:
        """Who plays a part now; cheap enough to be asked every few seconds.

        Raises:
            Transient: The store cannot be reached now.
            BrokenInvariant: The pointer cannot be read.
        """
        ...

    def point(self, change: Pointer, tag: str) -> Pointed:
        """Give a part to another bundle.

        Args:
            change: The new state; its number is the next one of its role.
            tag: Of the state that the change was made from.

        Returns:
            The new state.

        Raises:
            Conflict: The role has changed since; nothing was changed by this call.
            NotFound: There is no such bundle.
            InvalidInput: The number is not the next one.
            Transient: It may or may not have been changed; asking for the pointer tells.
        """
        ...

    def history(self, role: Role) -> list[Pointer]:
        """All states of a role, oldest first; complete, also after writers that stopped half-way.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class Scorers(Protocol):
    """Where the model comes from that decides."""

    def current(self) -> Scorer:
        """The champion of this moment; the same object until another one takes over.

        Raises:
            Transient: There is none yet.
        """
        ...


class ArchivedScorers(Protocol):
    """Every model bundle that ever decided."""

    def find(self, bundle_digest: str) -> Scorer | None:
        """The model of a bundle, or None if it is not kept; cheap when asked again.

        Raises:
            Transient: It cannot be fetched now.
            BrokenInvariant: It is kept and cannot be used.
        """
        ...
