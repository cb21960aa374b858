"""The rules that hold for what arrives: the one place for thresholds, in their units.

Change a number here, and `docs/data-quality.md` with it. A rule's name is stored with its results: a rule that comes to
mean something else gets another name. Windows are hours by our clock; "norm" is the median of the same hour of the week
in the last eight weeks.
"""

from __future__ import annotations

from typing import Final

from shared.domain.data_quality import Level, LevelRule, Rule, Share, ShareRule

VOLUME: Final = LevelRule(
    "volume",
    Level.TRANSACTIONS,
    low=0.4,
    high=3.0,
    broken_below=0.1,
    subject="volume",
    why="a sender, the hub or the ingest app stands still, or somebody sends what is not asked for",
)
DAILY_VOLUME: Final = LevelRule(
    "daily volume",
    Level.TRANSACTIONS,
    low=0.5,
    high=2.5,
    broken_below=0.1,
    hours=24,
    subject="volume",
    why="what is too little to tell in an hour is missing over a day",
)
AMOUNT_UNIT: Final = LevelRule(
    "amount unit",
    Level.AMOUNT,
    low=0.2,
    high=5.0,
    broken_below=0.2,
    broken_above=5.0,
    least=50,
    why="amounts come in another unit; drift moves a median by less",
)
LABEL_FLOW: Final = LevelRule(
    "label flow",
    Level.LABELS,
    low=0.25,
    hours=24,
    why="analysts' or chargebacks' labels do not arrive",
    source="labels",
)

RULES: Final[tuple[Rule, ...]] = (
    VOLUME,
    DAILY_VOLUME,
    AMOUNT_UNIT,
    ShareRule(
        "unusable", Share.UNUSABLE, limit=0.25, breaks=True, why="most likely a release of the sender broke its events"
    ),
    ShareRule("missing", Share.MISSING, limit=0.01, why="events lack a field that they need"),
    ShareRule("invalid", Share.INVALID, limit=0.02, why="values break a rule, see the dead letters"),
    ShareRule("category", Share.CATEGORY, limit=0.01, why="a currency, type or source that is not known here"),
    ShareRule("conflict", Share.CONFLICT, limit=0.01, why="ids are used again for other transactions"),
    ShareRule("too old", Share.TOO_OLD, limit=0.01, why="events come later than they may"),
    ShareRule("failed", Share.FAILED, limit=0.001, why="events are in order and could not be processed"),
    ShareRule("large amount", Share.LARGE_AMOUNT, limit=0.02, why="amounts of 10,000 and more are common"),
    ShareRule("equal amount", Share.EQUAL_AMOUNT, limit=0.4, breaks=True, why="the sender fills in one amount for all"),
    ShareRule("copy", Share.COPY, limit=0.02, why="the same payment comes under several ids"),
    ShareRule("late", Share.LATE, limit=0.10, why="transactions come an hour or more after they happened"),
    ShareRule("ahead", Share.AHEAD, limit=0.05, why="the sender's clock is ahead of ours"),
    ShareRule(
        "new customer", Share.NEW_CUSTOMER, limit=0.3, seasoned=True, why="customers' ids are made in another way"
    ),
    ShareRule(
        "new terminal", Share.NEW_TERMINAL, limit=0.3, seasoned=True, why="terminals' ids are made in another way"
    ),
    ShareRule("old label", Share.OLD_LABEL, limit=0.5, source="labels", why="labels come a week after they were known"),
)
"""Every rule, in the order in which they are told."""
