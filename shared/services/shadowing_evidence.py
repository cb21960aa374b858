"""The use case that says what a tried model would have changed: beside the champion, on the same decisions.

Agreement and differences are over all decisions of the champion that the model has scored; what both are worth is over
those whose label is known and mature. A declined transaction has no natural outcome, so it counts only where somebody
said what it was; figures lean towards the champion's own choice there, and the report says how many rows stand behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.decision import Outcome, strictest
from shared.domain.decision_record import DecisionRecord, read_decision
from shared.domain.errors import BrokenInvariant
from shared.domain.evaluation import Interval, Outcomes, Quality, Ranking, interval, resampled
from shared.domain.labels import MATURITY_US
from shared.domain.pipeline import Plain
from shared.domain.score import Score
from shared.ports.shadowing import FIRST, Pair, PairSelection, ShadowScores

PAGE: Final = 5_000
MOST_ROWS: Final = 2_000_000
"""Decisions of one report, some 60 bytes each while it is made."""

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 500
SEED: Final = 20260101

_CHAMPION: Final = "champion"
_TRIED: Final = "tried"


class Worth(NamedTuple):
    """What a model's scores and decisions are worth on mature labels.

    Attributes:
        average_precision: Of its scores.
        auc: Of its scores.
        precision: Share of frauds among what it declines; NaN if it declines nothing.
        recall: Share of the frauds that it declines.
    """

    average_precision: float
    auc: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class ShadowEvidence:
    """What a tried model would have changed.

    Attributes:
        bundle_digest: The model.
        champion: The model that decided.
        start_us: First event time, microseconds since 1970 UTC.
        end_us: Their end, not included.
        n_rows: Decisions that both have scored.
        changed: `approve to decline` and the like -> how many decisions would have been others.
        mean_difference: Of the calibrated scores, the tried model's less the champion's; NaN without rows.
        largest_difference: The largest distance of the two scores; NaN without rows.
        n_mature: Decisions with a mature label.
        n_frauds: Of these, frauds.
        champion_worth: What the champion is worth on them; None without frauds and genuine ones.
        worth: What the tried model is worth on them; likewise.
        gain: Average precision of the tried model less the champion's; likewise.
        gain_interval: Its interval from resampling customers, `CONFIDENCE` wide; likewise.
    """

    bundle_digest: str
    champion: str
    start_us: int
    end_us: int
    n_rows: int
    changed: Mapping[str, int] = field(default_factory=dict)
    mean_difference: float = np.nan
    largest_difference: float = np.nan
    n_mature: int = 0
    n_frauds: int = 0
    champion_worth: Worth | None = None
    worth: Worth | None = None
    gain: float | None = None
    gain_interval: Interval | None = None

    @property
    def agreement(self) -> float:
        """Share of decisions that would have been the same; NaN without rows."""
        return 1 - sum(self.changed.values()) / self.n_rows if self.n_rows else np.nan

    def document(self) -> dict[str, Plain]:
        """The evidence as plain values; what is not a number is left null."""
        found = {one.name: _plain(getattr(self, one.name)) for one in fields(self)}
        return {**found, "agreement": _plain(self.agreement)}


def shadow_evidence(
    scores: ShadowScores,
    bundle_digest: str,
    champion: str,
    *,
    start_us: int,
    end_us: int,
    as_of_us: int,
    maturity_us: int = MATURITY_US,
    most_rows: int = MOST_ROWS,
) -> ShadowEvidence:
    """Compare a tried model with the champion on the champion's own decisions.

    Args:
        scores: Where both are kept.
        bundle_digest: The tried model.
        champion: The model that decided.
        start_us: First event time, microseconds since 1970 UTC.
        end_us: Their end, not included.
        as_of_us: Labels known by then count, microseconds since 1970 UTC.
        maturity_us: How old a transaction must be for its label to count, microseconds.
        most_rows: The first so many decisions are compared.

    Raises:
        BrokenInvariant: A stored decision cannot be read.
        Transient: The store cannot be reached now.
    """
    columns = _Columns(as_of_us - maturity_us)
    selection = PairSelection(bundle_digest, champion, start_us, end_us, as_of_us)
    after = FIRST
    while len(columns.champion) < most_rows:
        page = scores.pairs(selection, after, PAGE)
        for pair in page:
            columns.add(pair)
        if len(page) < PAGE:
            break
        after = page[-1].place
    evidence = ShadowEvidence(bundle_digest, champion, start_us, end_us, len(columns.champion))
    if not columns.champion:
        return evidence
    return columns.compared(evidence)


class _Columns:
    """Pairs as they are gathered."""

    def __init__(self, mature_until_us: int) -> None:
        self._mature_until_us = mature_until_us
        self._customers: dict[str, int] = {}
        self.champion: list[float] = []
        self.tried: list[float] = []
        self.changed: Counter[str] = Counter()
        self.mature: list[tuple[int, int, int, bool, bool, bool]] = []

    def add(self, pair: Pair) -> None:
        """Take a pair in."""
        record = read_decision(pair.record)
        mine, other = record.decision.outcome, _would_be(record, pair.probability)
        if mine is not other:
            self.changed[f"{mine} to {other}"] += 1
        if pair.is_fraud is not None and pair.place.event_time_us <= self._mature_until_us:
            row = len(self.champion)
            customer = self._customers.setdefault(record.customer, len(self._customers))
            declined, would_decline = mine is Outcome.DECLINE, other is Outcome.DECLINE
            time_us = pair.place.event_time_us
            self.mature.append((row, time_us, customer, pair.is_fraud, declined, would_decline))
        self.champion.append(record.decision.score.probability)
        self.tried.append(pair.probability)

    def compared(self, evidence: ShadowEvidence) -> ShadowEvidence:
        """The evidence with what the pairs say; there is at least one."""
        champion, tried = np.array(self.champion), np.array(self.tried)
        difference = tried - champion
        mature = np.array(self.mature, dtype=np.int64).reshape(-1, 6)
        is_fraud = mature[:, 3] == 1
        evidence = replace(
            evidence,
            changed=dict(sorted(self.changed.items())),
            mean_difference=float(difference.mean()),
            largest_difference=float(np.abs(difference).max()),
            n_mature=len(mature),
            n_frauds=int(is_fraud.sum()),
        )
        if is_fraud.all() or not is_fraud.any():  # also without any row
            return evidence
        rows = mature[:, 0]
        outcomes = Outcomes(mature[:, 1], mature[:, 2], is_fraud)
        rankings = {_CHAMPION: Ranking(outcomes, champion[rows]), _TRIED: Ranking(outcomes, tried[rows])}
        found = resampled(rankings, RESAMPLES, np.random.default_rng(SEED))
        place = Quality._fields.index("average_precision")
        mine, other = (
            _worth(rankings[_CHAMPION], mature[:, 4] == 1, is_fraud),
            _worth(rankings[_TRIED], mature[:, 5] == 1, is_fraud),
        )
        return replace(
            evidence,
            champion_worth=mine,
            worth=other,
            gain=other.average_precision - mine.average_precision,
            gain_interval=interval(found[_TRIED][:, place] - found[_CHAMPION][:, place], CONFIDENCE),
        )


def _worth(ranking: Ranking, declined: NDArray[np.bool_], is_fraud: NDArray[np.bool_]) -> Worth:
    quality = ranking.quality()
    hits, n_declined = int((declined & is_fraud).sum()), int(declined.sum())
    precision = hits / n_declined if n_declined else np.nan
    return Worth(quality.average_precision, quality.auc, precision, hits / int(is_fraud.sum()))


def _would_be(record: DecisionRecord, probability: float) -> Outcome:
    """What the same policy and the same rules make of another score."""
    decision = record.decision
    outcome = decision.policy.outcome(Score(probability, decision.score.bundle_digest), record.amount_minor)
    return strictest(outcome, decision.rule_hits)


def _plain(value: object) -> Plain:
    """A value as JSON knows it."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(one) for name, one in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if value is None or isinstance(value, int | str):
        return value
    raise BrokenInvariant(f"a {type(value).__name__} is no plain value")
