"""The words of the gate: by which rules a challenger is judged, what was checked, and the verdict as a document.

A verdict is canonical JSON, so it has a digest by which a promotion names it. What it says follows from its checks:
`passed` is no field that could be set, and no check at all is no pass. A person may accept a first champion that misses
the floors; that is written into the verdict under the person's name, and the verdict still has not passed.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final

from shared.domain.bundle_manifest import canonical_json
from shared.domain.cost_policy import REVIEW_COST_MINOR
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.evaluation import Interval
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import MATURITY_US

KIND: Final = "tollgate.verdict"
FORMAT_VERSION: Final = 1

MAX_REASON: Final = 1000
"""Characters of an acceptance's reason."""


class CheckName(StrEnum):
    """What is checked, in the order in which it is shown; docs/promotion.md says how and why."""

    OPENS = "opens"
    TREES = "trees"
    GRAPH = "graph"
    PARITY = "parity"
    REASONS = "reasons"
    SEPARATION = "separation"
    FRESHNESS = "freshness"
    LABEL_TIMES = "label times"
    COVERAGE = "label coverage"
    SELECTION = "selective labels"
    DATA = "training data"
    REPRODUCTION = "reproduction"
    METRICS = "claimed metrics"
    EVIDENCE = "judged window"
    TOO_GOOD = "too good"
    SINGLE_FEATURE = "single feature"
    SLOPE = "calibration slope"
    SKILL = "brier skill"
    RECALL = "recall floor"
    PRECISION = "precision floor"
    GAIN = "gain"
    LOSS = "expected loss"
    SEGMENTS = "segments"


FLOORS: Final = frozenset({CheckName.RECALL, CheckName.PRECISION})
"""What a person may accept the lack of, for a first champion."""


@dataclass(frozen=True, slots=True)
class GateRules:
    """By what a challenger is judged; part of the verdict.

    Attributes:
        min_recall: Least share of the window's frauds declined at the bundle's own threshold (record 0007).
        min_precision: Least share of frauds among what it declines there (record 0007).
        alpha: Chance of calling an equal challenger better, one-sided.
        loss_margin: How far, as a share of the champion's expected loss, the upper end of a challenger's may lie above
            it. Amounts are heavy-tailed, so a window of 1,200 frauds knows the difference to about .05 either way.
        segment_alpha: Chance that any segment of an equal challenger is called worse, over all segments together.
        segment_frauds: Frauds, and genuine transactions, from which on a segment is judged by itself.
        slope_low: Least slope of outcomes over log-odds of the score (Cox, "Two further applications of a model for
            binary regression", 1958; 1 is calibrated).
        slope_high: Greatest.
        max_auc: An AUC above is taken for a leak: nobody can know that much beforehand.
        max_average_precision: The same for average precision.
        max_feature_auc: The same for a single feature by itself.
        resamples: Of the customers, for intervals and comparisons.
        window_days: At most so many days are judged, the newest mature ones.
        min_window_days: At least so many: a challenger that learns until yesterday leaves too little to be judged on.
        min_frauds: Frauds that the judged window must hold.
        maturity_us: How old a transaction must be for its outcome to count, microseconds (record 0005).
        min_labelled: Least share of mature transactions with a label, in every span.
        min_labelled_suspicious: The same among those that the models would decline.
        review_cost_minor: What a review costs, minor units; for the expected loss.
        seed: Of the resamples.
    """

    min_recall: float = 0.80
    min_precision: float = 0.75
    alpha: float = 0.025
    loss_margin: float = 0.10
    segment_alpha: float = 0.05
    segment_frauds: int = 30
    slope_low: float = 0.9
    slope_high: float = 1.1
    max_auc: float = 0.995
    max_average_precision: float = 0.98
    max_feature_auc: float = 0.98
    resamples: int = 1000
    window_days: int = 28
    min_window_days: int = 7
    min_frauds: int = 50
    maturity_us: int = MATURITY_US
    min_labelled: float = 0.90
    min_labelled_suspicious: float = 0.50
    review_cost_minor: int = REVIEW_COST_MINOR
    seed: int = 20260101

    def __post_init__(self) -> None:
        """Refuse rules by which nothing could be judged.

        Raises:
            InvalidInput: Names the rule.
        """
        for name in ("alpha", "segment_alpha"):
            if not 0.0 < getattr(self, name) < 0.5:
                raise InvalidInput(name, "must be greater than 0 and less than .5")
        shares = (
            "min_recall",
            "min_precision",
            "loss_margin",
            "max_auc",
            "max_average_precision",
            "max_feature_auc",
            "min_labelled",
            "min_labelled_suspicious",
        )
        for name in shares:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidInput(name, "must be 0 to 1")
        if not 0.0 < self.slope_low <= 1.0 <= self.slope_high < math.inf:
            raise InvalidInput("slope_low", "must be greater than 0 and at most 1, and slope_high at least 1")
        for name in ("segment_frauds", "min_window_days", "min_frauds"):
            if getattr(self, name) < 1:
                raise InvalidInput(name, "must be at least 1")
        if self.window_days < self.min_window_days:
            raise InvalidInput("window_days", f"must be at least min_window_days, {self.min_window_days}")
        if self.resamples < 2 / min(self.alpha, self.segment_alpha):
            raise InvalidInput("resamples", "must be at least 2 / alpha, or the ends of the intervals are not known")
        if self.maturity_us < 0 or self.review_cost_minor < 0:
            raise InvalidInput("maturity_us", "must not be negative, nor may review_cost_minor")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: What.
        value: The figure; None where there is none, or it is not finite.
        interval: Its ends; None without.
        required: What it had to be, such as `at least 0.8`.
        passed: Whether it was.
        why: What was found, as a sentence.
    """

    name: CheckName
    value: float | None
    interval: Interval | None
    required: str
    passed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Window:
    """The transactions that were judged on.

    Attributes:
        start_us: Microseconds since 1970 UTC.
        end_us: The first microsecond after it.
        n_rows: Transactions with a mature label.
        n_frauds: Of these, frauds.
        n_customers: Of these transactions.
    """

    start_us: int
    end_us: int
    n_rows: int
    n_frauds: int
    n_customers: int

    @property
    def days(self) -> float:
        """Its length."""
        return (self.end_us - self.start_us) / US_PER_DAY


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """What a threshold would achieve on the judged window.

    Attributes:
        threshold: Calibrated probability.
        precision: Share of frauds among what reaches it.
        recall: Share of the frauds that reach it.
        alerts_per_day: Transactions that reach it.
    """

    threshold: float
    precision: float
    recall: float
    alerts_per_day: float


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the labels known in time allow for.

    Attributes:
        label_delay_us: How long after it was known a label counts, microseconds.
        with_evidence: Share of the window's frauds at a customer or terminal of which a fraud was known in time.
        found_without: Share of the other frauds that this model finds at the precision floor.
        recall: Recall if all frauds with evidence were found, and of the others as many as this model finds.
    """

    label_delay_us: int
    with_evidence: float
    found_without: float
    recall: float


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A person's word for a first champion that misses the floors.

    Attributes:
        author: Who.
        reason: Why.
        accepted_at_us: Microseconds since 1970 UTC.
    """

    author: str
    reason: str
    accepted_at_us: int

    def __post_init__(self) -> None:
        """Refuse an acceptance that nobody answers for.

        Raises:
            InvalidInput: Names the field.
        """
        if not self.author.strip():
            raise InvalidInput("author", "must not be empty")
        if not 0 < len(self.reason.strip()) <= MAX_REASON:
            raise InvalidInput("reason", f"must have 1 to {MAX_REASON} characters")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of a challenger.

    Attributes:
        challenger: Its digest.
        champion: The digest of the one it was compared with; None if there was none.
        model: Name and version of the challenger, such as `card-fraud 7`; empty if it cannot be read.
        as_of_us: What was known by then was used, microseconds since 1970 UTC.
        rules: By which it was judged.
        window: On what; None if it did not come to that.
        checks: All that was checked, in the order of `CheckName`.
        frontier: What thresholds would achieve, by rising recall; empty if it did not come to that.
        ceilings: What labels allow for; the first is the case, the others are as if labels had been faster.
        advice: What would move it, as sentences.
        floors_unreachable: Whether no threshold reaches the floors on the window: somebody should be told.
        acceptance: A person's word; None without.
    """

    challenger: str
    champion: str | None
    model: str
    as_of_us: int
    rules: GateRules
    window: Window | None
    checks: tuple[Check, ...]
    frontier: tuple[FrontierPoint, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    advice: tuple[str, ...] = ()
    floors_unreachable: bool = False
    acceptance: Acceptance | None = None

    @property
    def passed(self) -> bool:
        """Whether every check passed; never so without checks."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def refusals(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def acceptable(self) -> bool:
        """Whether a person may accept it: nobody would be replaced, and only floors are missed."""
        missed = {check.name for check in self.refusals}
        return self.champion is None and bool(missed) and missed <= FLOORS

    @property
    def promotable(self) -> bool:
        """Whether it may become champion: it passed, or was accepted."""
        return self.passed or (self.acceptable and self.acceptance is not None)

    def accepted(self, acceptance: Acceptance) -> Verdict:
        """The verdict with a person's word in it; another document with another digest, and still not passed.

        Raises:
            InvalidInput: It passed, there is a champion, or more than floors are missed.
        """
        if not self.acceptable:
            missed = ", ".join(check.name for check in self.refusals if check.name not in FLOORS)
            why = "nothing to accept" if self.passed else "a champion" if self.champion else f"refused by {missed}"
            raise InvalidInput("accept", f"is only for a first champion that misses floors; here is {why}")
        return replace(self, acceptance=acceptance)


def in_days(duration_us: int) -> str:
    """A duration as people say it, to a tenth of a day.

    >>> in_days(86_400_000_000), in_days(130_000_000_000)
    ('1 day', '1.5 days')
    """
    days = round(duration_us / US_PER_DAY, 1)
    return f"{days:g} day" if days == 1 else f"{days:g} days"


def write_verdict(verdict: Verdict) -> bytes:
    """The verdict as canonical JSON; its SHA-256 is the verdict's digest.

    Raises:
        BrokenInvariant: A number is not finite.
    """
    document = {"kind": KIND, "format_version": FORMAT_VERSION, "passed": verdict.passed, **asdict(verdict)}
    for check in document["checks"]:
        check["interval"] = None if check["interval"] is None else list(check["interval"])
    return canonical_json(document)


def verdict_digest(document: bytes) -> str:
    """The digest of a verdict's document, 64 hexadecimal digits."""
    return hashlib.sha256(document).hexdigest()


def read_verdict(document: bytes) -> Verdict:
    """The inverse of `write_verdict`.

    Raises:
        BrokenInvariant: It is no verdict, of another format, or says something that its checks do not.
    """
    try:
        root = json.loads(document)
        if (root["kind"], root["format_version"]) != (KIND, FORMAT_VERSION):
            raise BrokenInvariant(f"the document is no {KIND} of format {FORMAT_VERSION}")
        values: dict[str, Any] = {field.name: root[field.name] for field in fields(Verdict)}
        values["rules"] = GateRules(**values["rules"])
        values["window"] = None if values["window"] is None else Window(**values["window"])
        values["checks"] = tuple(_check(entry) for entry in values["checks"])
        values["frontier"] = tuple(FrontierPoint(**entry) for entry in values["frontier"])
        values["ceilings"] = tuple(Ceiling(**entry) for entry in values["ceilings"])
        values["advice"] = tuple(values["advice"])
        values["acceptance"] = None if values["acceptance"] is None else Acceptance(**values["acceptance"])
        verdict = Verdict(**values)
        same = write_verdict(verdict) == document
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidInput) as error:
        raise BrokenInvariant(f"the verdict cannot be read: {type(error).__name__}") from error
    if not same:
        raise BrokenInvariant("the verdict does not read back to its bytes: it was changed")
    return verdict


def _check(entry: dict[str, Any]) -> Check:
    ends = entry["interval"]
    return Check(**{**entry, "name": CheckName(entry["name"]), "interval": None if ends is None else Interval(*ends)})
