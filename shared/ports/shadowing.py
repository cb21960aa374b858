"""Scores of models that do not decide, as ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol


class Place(NamedTuple):
    """Where a decision stands in the order in which decisions are gone through.

    Attributes:
        event_time_us: Of its transaction, microseconds since 1970 UTC.
        transaction_id: Breaks ties.
    """

    event_time_us: int
    transaction_id: str


FIRST: Final = Place(-(1 << 63), "")
"""Before every decision."""


@dataclass(frozen=True, slots=True)
class Look:
    """Which decisions a model is to score.

    Attributes:
        bundle_digest: The model.
        view: Name of its feature view; only vectors of this view can be scored.
        since_us: The first event time, microseconds since 1970 UTC.
        recorded_since_us: Those recorded before it are known not to be missing, microseconds since 1970 UTC.
    """

    bundle_digest: str
    view: str
    since_us: int
    recorded_since_us: int


class Unscored(NamedTuple):
    """A decision that a model has not scored yet.

    Attributes:
        place: Its place.
        record: Canonical bytes of the decision, which hold the vector.
    """

    place: Place
    record: bytes


class ShadowScore(NamedTuple):
    """What a model says of a decided transaction.

    Attributes:
        place: Of the decision.
        raw: The model's output before calibration, a binary32 number.
        probability: Calibrated.
    """

    place: Place
    raw: float
    probability: float


class Pair(NamedTuple):
    """A decision beside what another model says of it.

    Attributes:
        place: Of the decision.
        record: Canonical bytes of the decision.
        probability: The other model's calibrated score.
        is_fraud: What is known of the transaction; None if nothing was known by the time that was asked for.
    """

    place: Place
    record: bytes
    probability: float
    is_fraud: bool | None


@dataclass(frozen=True, slots=True)
class PairSelection:
    """Which pairs are asked for.

    Attributes:
        bundle_digest: The model that does not decide.
        champion: The model that decided.
        start_us: The first event time, microseconds since 1970 UTC.
        end_us: Their end, not included.
        as_of_us: Labels known by then count, microseconds since 1970 UTC.
    """

    bundle_digest: str
    champion: str
    start_us: int
    end_us: int
    as_of_us: int


class ShadowScores(Protocol):
    """Decisions and the scores of models that did not make them.

    Every method raises Transient if the store cannot be reached now.
    """

    def missing(self, look: Look, after: Place, limit: int) -> Sequence[Unscored]:
        """The next decisions that a model has not scored, by their place."""
        ...

    def put(self, bundle_digest: str, scores: Sequence[ShadowScore], recorded_at_us: int) -> int:
        """Keep scores; returns how many are new. Idempotent: the first score of a model for a decision stays."""
        ...

    def pairs(self, selection: PairSelection, after: Place, limit: int) -> Sequence[Pair]:
        """The next decisions of a champion that the other model has scored, by their place."""
        ...
