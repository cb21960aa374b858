"""A scorer without a model file: a fixed linear one, whose contributions are its terms."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_manifest import Thresholds
from shared.domain.canonical import Digest
from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.feature_view import CARD_V1, FeatureView
from shared.domain.policy_choice import Advice
from shared.domain.score import CalibrationTable, Scored


@dataclass(frozen=True)
class LinearScorer:
    """Logit = base + weights * log1p of the values, missing ones left out; computed row by row, so rows do not mix."""

    name: str = "linear"
    version: int = 1
    view: FeatureView = CARD_V1
    base: float = -4.0
    calibration: CalibrationTable = field(
        default_factory=lambda: CalibrationTable((0.02, 0.2, 0.6), (0.001, 0.05, 0.4, 0.9))
    )
    advice: Advice = field(default_factory=lambda: Advice(Thresholds(0.3, 0.8)))

    @property
    def bundle_digest(self) -> str:
        return hashlib.sha256(f"{self.name}/{self.version}".encode()).hexdigest()

    @property
    def fingerprint(self) -> Digest:
        return Digest(hashlib.sha256(b"linear scorer").digest())

    def score(self, vectors: NDArray[np.float32]) -> Scored:
        if vectors.shape[1] != len(self.view.features):
            raise BrokenInvariant(f"{vectors.shape[1]} features, not {len(self.view.features)}")
        weights = 0.02 * (1.0 + np.arange(vectors.shape[1], dtype=np.float64) % 7)
        terms = np.log1p(np.abs(np.nan_to_num(vectors.astype(np.float64), nan=0.0))) * weights
        logits = np.array([self.base + float(sum(row)) for row in terms.tolist()])
        return Scored((1.0 / (1.0 + np.exp(-logits))).astype(np.float32), terms)


@dataclass
class FixedScorers:
    """The source of one scorer; without one it is not there yet."""

    scorer: LinearScorer | None = field(default_factory=LinearScorer)

    def current(self) -> LinearScorer:
        if self.scorer is None:
            raise Transient("no champion yet")
        return self.scorer
