"""The quality of what arrives, as ports: what windows held, what was found, and whether a feed can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from shared.domain.data_quality import FeedFacts, Rule, RuleCheck


class FeedHealth(Protocol):
    """Whether what arrived in a window says anything about the world, or only about a broken feed."""

    def broken(self, start_us: int, end_us: int) -> str:
        """Why the feed of a window is broken, in one sentence; empty if it is not, or if nothing is known.

        Whoever watches for drift asks first: a feed that stands still or sends one amount only is no drift.

        Args:
            start_us: Start of the window, microseconds since 1970 UTC.
            end_us: Its end, not included.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class FeedWindows(Protocol):
    """What arrived when. Every method raises Transient if the store cannot be reached now."""

    def facts(self, start_us: int, end_us: int) -> FeedFacts:
        """What was recorded in a window by our clock, its end not included; imported history is left out."""
        ...

    def announced(self, subject: str, start_us: int, end_us: int) -> bool:
        """Whether a change of the subject, or of everything, was announced for a part of the window."""
        ...


class QualityLog(Protocol):
    """Results of checks. Every method raises Transient if the store cannot be reached now."""

    def record(self, checks: Sequence[RuleCheck], recorded_at_us: int) -> int:
        """Keep results; one that is there for its rule and window stays. Returns how many are new."""
        ...

    def last_end_us(self, rule: Rule, until_us: int) -> int | None:
        """The end of the last window that was checked by a rule and ended by then; None before the first."""
        ...

    def observed(self, rules: Sequence[Rule], since_us: int, until_us: int) -> Mapping[str, Mapping[int, float]]:
        """What rules observed in windows that began in a span, by name and start; only where there was a number."""
        ...

    def failures(self, start_us: int, end_us: int) -> Sequence[RuleCheck]:
        """The failed checks of windows that overlap a span, by window and rule."""
        ...
