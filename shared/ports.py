"""What the use cases need from the outside, as protocols; adapters and fakes pass the same contract tests."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.domain.canonical import Digest
from shared.domain.event import DeadLetter
from shared.domain.feature_view import FeatureView
from shared.domain.probe import ProbeReceipt
from shared.domain.score import CalibrationTable, Scored


class Clock(Protocol):
    """The time of day."""

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""
        ...


class ProbeReceipts(Protocol):
    """Where receipts of probes are kept."""

    def record(self, receipt: ProbeReceipt) -> bool:
        """Keep a receipt; the first one of a probe stays.

        Idempotent. Returns whether this call was the first.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def find(self, probe_id: str) -> ProbeReceipt | None:
        """The receipt of a probe, or None.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def expire(self, before_us: int) -> int:
        """Drop receipts of probes received before a time, in microseconds since 1970 UTC; returns how many.

        Idempotent. Cost: one listing of all receipts and one delete each.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class DeadLetters(Protocol):
    """Where events go that no retry can make usable."""

    def put(self, letter: DeadLetter) -> None:
        """Keep a dead letter. Idempotent: the same event is kept once, however often it is delivered.

        Raises:
            Transient: The store cannot be reached now; the event must not be acknowledged.
        """
        ...


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


class Dependency(Protocol):
    """Something an app cannot serve without."""

    @property
    def name(self) -> str:
        """A short name for people, such as `blob container probes`."""
        ...

    def check(self) -> None:
        """Return if it can be used now; cheap enough to be asked every few seconds.

        Raises:
            TollgateError: It cannot; the message says why.
        """
        ...
