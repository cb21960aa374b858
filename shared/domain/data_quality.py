"""What a window of the feed held, what a rule says of it, and what a broken feed is.

A feed that is broken looks like drift to a statistic: no amounts, one amount, amounts in another unit. So it is told
apart by what no change of people's habits does (volume near nothing, most events unusable, half of all amounts equal),
and while it is broken nobody concludes anything about drift from it.

Rules come in two kinds. A share (of events that are late, say) fails when it is above its limit for certain: the lower
end of Wilson's interval is (Wilson, "Probable inference, the law of succession, and statistical inference", 1927). A
level (events an hour, median amount) is held against its norm: the median of the same hour of the week in the last
weeks. Medians, so that a broken hour of last week does not become the norm of this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Final

from shared.domain.errors import BrokenInvariant
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.pipeline import Evidence, Plain

WINDOW_US: Final = US_PER_HOUR
"""Width of a window, which begins on the hour, UTC."""

WEEK_US: Final = 7 * US_PER_DAY

NORM_WEEKS: Final = 8
"""How many weeks a norm looks back: enough for a median, short enough to follow growth."""

LEAST_WEEKS: Final = 3
"""Fewer windows of the same hour of the week are no norm: the median of two is moved by either."""

SEASONED_WINDOWS: Final = 28 * 24
"""Windows after which a deployment has met most of its customers and terminals."""

CERTAIN: Final = 3.0
"""Standard errors of Wilson's interval; one-sided .1 %, at 24 windows a day and a dozen rules far from daily alarms."""

FAR: Final = 4.0
"""Deviations from its norm at which a count counts as far away."""

NORMAL_MAD: Final = 1.4826
"""Standard deviations in a median absolute deviation of the normal distribution."""

NOT_ENOUGH_HISTORY: Final = "not enough history"
TOO_FEW: Final = "too few events to tell"
ANNOUNCED: Final = "announced"


class LetterKind(StrEnum):
    """What is wrong with an event that could not be used."""

    MISSING = "missing"
    CATEGORY = "category"
    CONFLICT = "conflict"
    LATENESS = "lateness"
    INVALID = "invalid"
    FAILED = "failed"


class Share(StrEnum):
    """Shares that rules limit."""

    UNUSABLE = "unusable"
    MISSING = "missing"
    INVALID = "invalid"
    CATEGORY = "category"
    CONFLICT = "conflict"
    TOO_OLD = "too old"
    FAILED = "failed"
    LARGE_AMOUNT = "large amount"
    EQUAL_AMOUNT = "equal amount"
    COPY = "copy"
    LATE = "late"
    AHEAD = "ahead"
    NEW_CUSTOMER = "new customer"
    NEW_TERMINAL = "new terminal"
    OLD_LABEL = "old label"


class Level(StrEnum):
    """Levels that have a norm."""

    TRANSACTIONS = "transactions"
    AMOUNT = "amount"
    LABELS = "labels"


LARGE_AMOUNT_MINOR: Final = 1_000_000
"""From here on an amount is large, minor units: 10,000 in a currency with two decimals."""

LATE_US: Final = US_PER_HOUR
"""From here on a transaction is late: what its features said of the last hour was another hour's."""

OLD_LABEL_US: Final = 7 * US_PER_DAY
"""From here on a label is old when it comes: it was known for a week and decisions could not use it."""

_LEVEL_NAMES: Final[Mapping[Level, str]] = {
    Level.TRANSACTIONS: "transactions",
    Level.AMOUNT: "median amount",
    Level.LABELS: "labels",
}


@dataclass(frozen=True, slots=True)
class FeedFacts:
    """What a window held, by when it was recorded.

    Attributes:
        start_us: Its start, microseconds since 1970 UTC.
        end_us: Its end, not included.
        transactions: Decided ones; imported history is none of them.
        median_amount_minor: Of these, minor units; None without any.
        most_frequent_amount: How many of them have the amount that is the most frequent one.
        large_amounts: How many are of `LARGE_AMOUNT_MINOR` or more.
        copies: How many repeat customer, terminal, amount and event time of another one under another id.
        late: How many came `LATE_US` or more after their event time.
        ahead: How many came before their event time.
        new_customers: How many are the first event of their customer.
        new_terminals: How many are the first event of their terminal.
        letters: Events that could not be used, by what is wrong with them.
        labels: Labels of people and feeds; neither silence nor imported history.
        old_labels: How many of these came `OLD_LABEL_US` or more after they were known.
    """

    start_us: int
    end_us: int
    transactions: int = 0
    median_amount_minor: float | None = None
    most_frequent_amount: int = 0
    large_amounts: int = 0
    copies: int = 0
    late: int = 0
    ahead: int = 0
    new_customers: int = 0
    new_terminals: int = 0
    letters: Mapping[LetterKind, int] = field(default_factory=dict)
    labels: int = 0
    old_labels: int = 0

    @property
    def unusable(self) -> int:
        """Events that could not be used."""
        return sum(self.letters.values())

    @property
    def arrivals(self) -> int:
        """Events that came."""
        return self.transactions + self.labels + self.unusable

    def share(self, which: Share) -> tuple[int, int]:
        """How many events a share counts, and of how many."""
        letters = {
            Share.MISSING: LetterKind.MISSING,
            Share.INVALID: LetterKind.INVALID,
            Share.CATEGORY: LetterKind.CATEGORY,
            Share.CONFLICT: LetterKind.CONFLICT,
            Share.TOO_OLD: LetterKind.LATENESS,
            Share.FAILED: LetterKind.FAILED,
        }
        if which in letters:
            return self.letters.get(letters[which], 0), self.arrivals
        if which is Share.UNUSABLE:
            return self.unusable, self.arrivals
        if which is Share.OLD_LABEL:
            return self.old_labels, self.labels
        counts = {
            Share.LARGE_AMOUNT: self.large_amounts,
            Share.EQUAL_AMOUNT: self.most_frequent_amount,
            Share.COPY: self.copies,
            Share.LATE: self.late,
            Share.AHEAD: self.ahead,
            Share.NEW_CUSTOMER: self.new_customers,
            Share.NEW_TERMINAL: self.new_terminals,
        }
        return counts[which], self.transactions

    def level(self, which: Level) -> float | None:
        """A level; None if the window cannot tell."""
        if which is Level.AMOUNT:
            return self.median_amount_minor
        return float(self.transactions if which is Level.TRANSACTIONS else self.labels)


@dataclass(frozen=True, slots=True)
class ShareRule:
    """A share of events must not be above a limit.

    Attributes:
        name: Of the rule; part of what is stored, so it is never given to another one.
        share: Which share.
        limit: The greatest share that is in order, 0 to 1.
        why: What it means when it fails, in one sentence.
        least: Of so many events at least; fewer say nothing.
        breaks: Whether a feed that fails it is broken.
        seasoned: Whether it waits for `SEASONED_WINDOWS`.
        source: What it is about.
    """

    name: str
    share: Share
    limit: float
    why: str
    least: int = 50
    breaks: bool = False
    seasoned: bool = False
    source: str = "transactions"


@dataclass(frozen=True, slots=True)
class LevelRule:
    """A level must stay near its norm.

    Attributes:
        name: Of the rule; as for a share's.
        level: Which level.
        why: What it means when it fails, in one sentence.
        low: The least part of the norm that is in order; 0 for none.
        high: The greatest multiple of the norm that is in order.
        broken_below: At this part of the norm or less the feed is broken; below 0 never.
        broken_above: At this multiple of the norm or more the feed is broken.
        hours: Windows that are added up, this one the last.
        subject: What an announced change would be of; empty if it is no excuse.
        least: The least norm (of counts) or count of transactions (of medians) that says anything.
        source: What it is about.
    """

    name: str
    level: Level
    why: str
    low: float = 0.0
    high: float = math.inf
    broken_below: float = -1.0
    broken_above: float = math.inf
    hours: int = 1
    subject: str = ""
    least: int = 20
    source: str = "transactions"


type Rule = ShareRule | LevelRule


@dataclass(frozen=True, slots=True)
class RuleCheck:
    """What a rule says of a window.

    Attributes:
        source: What the rule is about.
        rule: Its name.
        passed: Whether it holds; a window that cannot tell passes.
        observed: The share, or the level of this one window; None if there is none.
        start_us: Start of the window, microseconds since 1970 UTC.
        end_us: Its end, not included.
        breaks: Whether the feed counts as broken; never if it passed.
        words: One sentence: what was found, or why nothing can be told.
        details: Limit, norm and counts.
    """

    source: str
    rule: str
    passed: bool
    observed: float | None
    start_us: int
    end_us: int
    breaks: bool
    words: str
    details: Evidence = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a check that contradicts itself.

        Raises:
            BrokenInvariant: It passed and breaks, or its window is none.
        """
        if (self.passed and self.breaks) or self.start_us >= self.end_us:
            raise BrokenInvariant(f"a check of {self.rule} contradicts itself")


def letter_kind(field_name: str, rule: str) -> LetterKind:
    """What is wrong with an event, by the field and the rule that its dead letter names.

    >>> letter_kind("amount_minor", "is missing").value
    'missing'
    >>> letter_kind("event_time", "must not lie more than 7 days in the past").value
    'lateness'
    """
    if rule == "is missing":
        return LetterKind.MISSING
    if rule.startswith("could not be processed"):
        return LetterKind.FAILED
    if field_name in {"currency", "type", "verdict", "source"}:
        return LetterKind.CATEGORY
    if field_name == "event_time" and rule.endswith("in the past"):
        return LetterKind.LATENESS
    if field_name == "transaction_id" and rule.startswith("was "):  # used before, or imported as history
        return LetterKind.CONFLICT
    return LetterKind.INVALID


def windows(start_us: int, end_us: int) -> list[tuple[int, int]]:
    """The windows that overlap a span, oldest first.

    >>> [start // WINDOW_US for start, _ in windows(WINDOW_US - 1, 2 * WINDOW_US + 1)]
    [0, 1, 2]
    """
    first = start_us // WINDOW_US
    last = -(-end_us // WINDOW_US)
    return [(number * WINDOW_US, (number + 1) * WINDOW_US) for number in range(first, last)]


def wilson_low(count: int, of: int, z: float = CERTAIN) -> float:
    """The lower end of Wilson's interval for a share; 0 of nothing.

    >>> wilson_low(0, 100)
    0.0
    >>> 0.3 < wilson_low(50, 100) < 0.5
    True
    """
    if of == 0 or count == 0:
        return 0.0
    share = count / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of)


def check(rule: Rule, facts: FeedFacts, history: Mapping[int, float], n_windows: int) -> RuleCheck:
    """What a rule says of a window.

    Args:
        rule: The rule.
        facts: What the window held.
        history: For a level: what the rule observed in earlier windows, by their start.
        n_windows: Windows that were ever checked, as far back as anybody looks.
    """
    if isinstance(rule, ShareRule):
        return _check_share(rule, facts, n_windows)
    return _check_level(rule, facts, history)


def check_all(
    rules: Sequence[Rule], facts: FeedFacts, history: Mapping[str, Mapping[int, float]], n_windows: int
) -> list[RuleCheck]:
    """What every rule says of a window; `history` is by the name of the rule."""
    return [check(rule, facts, history.get(rule.name, {}), n_windows) for rule in rules]


def _check_share(rule: ShareRule, facts: FeedFacts, n_windows: int) -> RuleCheck:
    count, of = facts.share(rule.share)
    observed = count / of if of else None
    details: dict[str, Plain] = {"limit": rule.limit, "count": count, "of": of}
    if of < rule.least:
        return _passed(rule, facts, observed, TOO_FEW, details)
    if rule.seasoned and n_windows < SEASONED_WINDOWS:
        return _passed(rule, facts, observed, NOT_ENOUGH_HISTORY, details)
    if wilson_low(count, of) <= rule.limit:
        return _passed(rule, facts, observed, "", details)
    words = f"{rule.name} is {count / of:.1%} of {of}, above {rule.limit:.1%}: {rule.why}"
    return RuleCheck(rule.source, rule.name, False, observed, facts.start_us, facts.end_us, rule.breaks, words, details)


def _check_level(rule: LevelRule, facts: FeedFacts, history: Mapping[int, float]) -> RuleCheck:
    observed = facts.level(rule.level)
    is_count = rule.level is not Level.AMOUNT
    if observed is None or (not is_count and facts.transactions < rule.least):
        return _passed(rule, facts, observed, TOO_FEW, {})
    series = {**history, facts.start_us: observed}
    now = _summed(series, facts.start_us, rule.hours)
    before = [_summed(series, facts.start_us - week * WEEK_US, rule.hours) for week in range(1, NORM_WEEKS + 1)]
    past = [value for value in before if value is not None]
    if now is None or len(past) < LEAST_WEEKS:
        return _passed(rule, facts, observed, NOT_ENOUGH_HISTORY, {"weeks": len(past)})
    norm = median(past)
    details: dict[str, Plain] = {"norm": norm, "level": now, "hours": rule.hours, "weeks": len(past)}
    if is_count and norm < rule.least:
        return _passed(rule, facts, observed, TOO_FEW, details)
    if norm <= 0:
        return _passed(rule, facts, observed, TOO_FEW, details)
    ratio = now / norm
    # A count scatters by chance at least, and by as much more as it did in the weeks before.
    spread = max(math.sqrt(norm), NORMAL_MAD * median(abs(value - norm) for value in past)) if is_count else 0.0
    is_far = abs(now - norm) > FAR * spread
    if rule.low <= ratio <= rule.high or not is_far:
        return _passed(rule, facts, observed, "", details)
    breaks = ratio <= rule.broken_below or ratio >= rule.broken_above
    span = "hour" if rule.hours == 1 else f"{rule.hours} hours"
    words = f"{_LEVEL_NAMES[rule.level]} of the {span} at {ratio:.2g} times the norm of {norm:.4g}: {rule.why}"
    return RuleCheck(rule.source, rule.name, False, observed, facts.start_us, facts.end_us, breaks, words, details)


def _summed(series: Mapping[int, float], start_us: int, hours: int) -> float | None:
    """The level of the windows that end with one; None unless nearly all of them are known."""
    known = [series[at] for at in range(start_us - (hours - 1) * WINDOW_US, start_us + 1, WINDOW_US) if at in series]
    if len(known) < math.ceil(0.9 * hours):
        return None
    return sum(known) * hours / len(known)


def _passed(
    rule: Rule, facts: FeedFacts, observed: float | None, words: str, details: Mapping[str, Plain]
) -> RuleCheck:
    return RuleCheck(rule.source, rule.name, True, observed, facts.start_us, facts.end_us, False, words, details)
