"""Decisions and the scores of models that did not make them, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.domain.decision_record import read_decision
from shared.domain.errors import BrokenInvariant, TollgateError
from shared.domain.labels import Label
from shared.domain.transaction import ALLOWED_LATENESS_US, FUTURE_TOLERANCE_US
from shared.ports.shadowing import Look, Pair, PairSelection, Place, ShadowScore, Unscored


@dataclass
class FakeShadowScores:
    """Scores by model and place.

    Attributes:
        decisions: Place -> canonical bytes and when they were recorded.
        views: Bundle digest -> feature view, of registered models.
        labels: All labels.
        scores: What was put.
        looks: Every look for what is missing.
        fault: Raised by every call while it is set.
    """

    decisions: dict[Place, tuple[bytes, int]] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)
    scores: dict[tuple[str, Place], ShadowScore] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)
    fault: TollgateError | None = None

    def missing(self, look: Look, after: Place, limit: int) -> Sequence[Unscored]:
        self._fail()
        self.looks.append(look)
        since_us = max(look.since_us, look.recorded_since_us - ALLOWED_LATENESS_US - FUTURE_TOLERANCE_US)
        found = [
            Unscored(place, data)
            for place, (data, recorded_at_us) in sorted(self.decisions.items())
            if place > after
            and place.event_time_us >= since_us
            and recorded_at_us >= look.recorded_since_us
            and (look.bundle_digest, place) not in self.scores
            and self.views.get(_digest(data)) == look.view
        ]
        return found[:limit]

    def put(self, bundle_digest: str, scores: Sequence[ShadowScore], recorded_at_us: int) -> int:
        del recorded_at_us
        self._fail()
        new = {(bundle_digest, score.place): score for score in scores}
        count = len(new.keys() - self.scores.keys())
        self.scores = new | self.scores
        return count

    def pairs(self, selection: PairSelection, after: Place, limit: int) -> Sequence[Pair]:
        self._fail()
        found = []
        for (digest, place), score in sorted(self.scores.items()):
            data, _ = self.decisions[place]
            if (
                digest == selection.bundle_digest
                and place > after
                and selection.start_us <= place.event_time_us < selection.end_us
                and _digest(data) == selection.champion
            ):
                known = [
                    label
                    for label in self.labels
                    if label.transaction_id == place.transaction_id and label.known_at_us <= selection.as_of_us
                ]
                label = max(known, key=lambda one: one.strength, default=None)
                found.append(Pair(place, data, score.probability, None if label is None else label.is_fraud))
        return found[:limit]

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


def _digest(data: bytes) -> str:
    """The bundle that decided; the column beside a damaged record still names it, here nothing does."""
    try:
        return read_decision(data).decision.score.bundle_digest
    except BrokenInvariant:
        return "damaged"
