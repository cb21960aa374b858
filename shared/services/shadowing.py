"""The use case of models that are tried: they score what was decided, later and from the stored vectors.

The scoring apps know nothing of it, so it costs a request nothing. A model scores the decisions of its own feature view
from the end of what it learnt on, those before its appointment too, as far back as scores are kept. What is missing is
what has no score yet, not what lies behind a mark in time: a decision that was committed late, or for an event long
ago, is found when it is there. A mark only saves work: most firings look no further back than `OVERLAP_US` before the
last complete look, and one in an hour looks at everything. A look that is more than one firing can do is gone on with
by the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from shared.domain.bundle import Bundle, open_bundle
from shared.domain.bundle_manifest import Manifest
from shared.domain.bundle_pointer import Role
from shared.domain.decision_record import read_decision
from shared.domain.errors import BrokenInvariant, NotFound
from shared.domain.feature_view import FEATURE_DTYPE
from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE
from shared.domain.pipeline import Evidence
from shared.domain.retention import SHADOW_REACH_DAYS
from shared.ports.clock import Clock
from shared.ports.models import BundleStore, Scorer
from shared.ports.shadowing import FIRST, Look, Place, ShadowScore, ShadowScores, Unscored

_log = logging.getLogger(__name__)

PIPELINE: Final = "shadow"

TRIED: Final = (Role.CHALLENGER, Role.SHADOW)

MOST_ROWS: Final = 20_000
"""Of one firing and model; a firing a minute keeps up with 330 decisions a second."""

PAGE: Final = MOST_ROWS
"""Decisions that are read, scored and written at once: some 30 MB. A page costs a scan, so there are few of them."""

BUDGET_S: Final = 40.0
"""After how long a firing stops where it is; the next one is due after 60 s."""

OVERLAP_US: Final = 10 * US_PER_MINUTE
"""A decision carries the time at which its unit of work was written, and units end within 45 s of it (the time limits
of `postgres_session`); the rest is for clocks out of step."""

FULL_EVERY_US: Final = US_PER_HOUR

REACH_US: Final = SHADOW_REACH_DAYS * US_PER_DAY
"""Older events are not scored: their scores have expired, or will within the week."""


@dataclass(slots=True)
class _Tried:
    """A model that is tried, and how far it has come.

    Attributes:
        scorer: The model.
        since_us: The first event time that it has learnt nothing of.
        seen_until_us: When the last complete look began; 0 before the first.
        full_at_us: When the last complete look at everything began.
        look: One that has not come to its end, which the next firing goes on with; None if there is none.
        began_us: When it began.
        after: How far it has come.
    """

    scorer: Scorer
    since_us: int
    seen_until_us: int = 0
    full_at_us: int = 0
    look: Look | None = None
    began_us: int = 0
    after: Place = FIRST


class Shadowing:
    """Lets challenger and shadow score what was decided; for one thread."""

    def __init__(
        self,
        store: BundleStore,
        load: Callable[[Bundle], Scorer],
        scores: ShadowScores,
        clock: Clock,
        *,
        most_rows: int = MOST_ROWS,
        budget_s: float = BUDGET_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Fetch nothing yet.

        Args:
            store: Where bundles and pointers are.
            load: Makes a scorer of a checked bundle, as the scoring apps do.
            scores: Where decisions are read and scores kept.
            clock: Our clock.
            most_rows: Of one firing and model.
            budget_s: After how long a firing stops, seconds.
            monotonic_s: Measures it.
        """
        self._store = store
        self._load = load
        self._scores = scores
        self._clock = clock
        self._most_rows = most_rows
        self._budget_s = budget_s
        self._monotonic_s = monotonic_s
        self._tried: dict[str, _Tried] = {}

    def score(self) -> Evidence:
        """Score what is missing, until nothing is, or the firing has done its share.

        Returns:
            `models` that were tried, `rows` that were scored, `unusable` ones that cannot be, `behind`: models that
            have more to score, and `refused`: models that cannot be used.

        Raises:
            Transient: The database or the store cannot be reached now; what was written stays.
        """
        stop_s = self._monotonic_s() + self._budget_s
        digests = {digest for role in TRIED if (digest := self._store.pointer(role).digest) is not None}
        self._tried = {digest: tried for digest, tried in self._tried.items() if digest in digests}
        rows = unusable = behind = refused = 0
        for digest in sorted(digests):
            tried = self._model(digest)
            if tried is None:
                refused += 1
                continue
            scored, left_out, complete = self._catch_up(tried, stop_s)
            rows += scored
            unusable += left_out
            behind += not complete
        return {
            "models": len(digests),
            "rows": rows,
            "unusable": unusable,
            "behind": behind,
            "refused": refused,
        }

    def _model(self, digest: str) -> _Tried | None:
        """A model that is tried; None if its bundle cannot be used, which is logged and keeps no other model up."""
        tried = self._tried.get(digest)
        if tried is None:
            try:
                bundle = open_bundle(self._store.get(digest), digest)
                tried = _Tried(self._load(bundle), learnt_until_us(bundle.manifest))
            except (BrokenInvariant, NotFound):
                _log.exception("a model cannot be tried", extra={"bundle_digest": digest})
                return None
            self._tried[digest] = tried
        return tried

    def _catch_up(self, tried: _Tried, stop_s: float) -> tuple[int, int, bool]:
        """Score what a model is missing: rows scored, rows left out, and whether nothing is missing now."""
        scorer, look = tried.scorer, tried.look or self._begin(tried)
        scored = left_out = 0
        while scored < self._most_rows and self._monotonic_s() < stop_s:
            page = self._scores.missing(look, tried.after, PAGE)
            found = shadow_scores(scorer, page)
            if found:
                self._scores.put(scorer.bundle_digest, found, self._clock.now_us())
            scored += len(found)
            left_out += len(page) - len(found)
            if len(page) < PAGE:
                tried.look, tried.seen_until_us = None, tried.began_us
                if look.recorded_since_us == 0:
                    tried.full_at_us = tried.began_us
                return scored, left_out, True
            tried.after = page[-1].place
        return scored, left_out, False

    def _begin(self, tried: _Tried) -> Look:
        """Begin a look: at everything if the last such one is long ago, else at what was recorded lately."""
        now_us = self._clock.now_us()
        is_full = now_us - tried.full_at_us >= FULL_EVERY_US
        recorded_since_us = 0 if is_full else max(0, tried.seen_until_us - OVERLAP_US)
        since_us = max(tried.since_us, now_us - REACH_US)
        look = Look(tried.scorer.bundle_digest, tried.scorer.view.name, since_us, recorded_since_us)
        tried.look, tried.began_us, tried.after = look, now_us, FIRST
        return look


def learnt_until_us(manifest: Manifest) -> int:
    """The first event time of which a model has learnt nothing: the test span's, of which nothing was learnt."""
    test = manifest.spans.get("test")
    return manifest.as_of_us if test is None else test.start_us


def shadow_scores(scorer: Scorer, decisions: Sequence[Unscored]) -> list[ShadowScore]:
    """What a model would have answered, in every bit; decisions without a vector of its view are left out."""
    width = len(scorer.view.features) * np.dtype(FEATURE_DTYPE).itemsize
    places: list[Place] = []
    vectors: list[bytes] = []
    for decision in decisions:
        try:
            record = read_decision(decision.record)
        except BrokenInvariant:
            _log.warning("a decision cannot be read", extra={"transaction_id": decision.place.transaction_id})
            continue
        if record.view == scorer.view.name and len(record.vector) == width:
            places.append(decision.place)
            vectors.append(record.vector)
    if not places:
        return []
    values = np.frombuffer(b"".join(vectors), dtype=FEATURE_DTYPE).reshape(len(places), len(scorer.view.features))
    raw = scorer.score(values.astype(np.float32, copy=False)).raw
    probabilities = scorer.calibration.probability_many(raw)
    return [
        ShadowScore(place, one, probability)
        for place, one, probability in zip(places, raw.tolist(), probabilities.tolist(), strict=True)
    ]
