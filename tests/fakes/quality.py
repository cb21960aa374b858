"""What arrived, and what checks said of it, in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.domain.data_quality import FeedFacts, Rule, RuleCheck
from shared.domain.errors import TollgateError


@dataclass
class FakeFeedWindows:
    """Facts by the start of their window; `otherwise` makes those of the others."""

    by_start: dict[int, FeedFacts] = field(default_factory=dict)
    announcements: list[tuple[str, int, int]] = field(default_factory=list)
    otherwise: Callable[[int, int], FeedFacts] = FeedFacts
    fault: TollgateError | None = None

    def facts(self, start_us: int, end_us: int) -> FeedFacts:
        if self.fault is not None:
            raise self.fault
        return self.by_start.get(start_us) or self.otherwise(start_us, end_us)

    def announced(self, subject: str, start_us: int, end_us: int) -> bool:
        return any(
            name in {subject, "*"} and first < end_us and last > start_us for name, first, last in self.announcements
        )


@dataclass
class FakeQualityLog:
    """Results by rule and window."""

    kept: dict[tuple[str, str, int, int], RuleCheck] = field(default_factory=dict)

    def record(self, checks: Sequence[RuleCheck], recorded_at_us: int) -> int:
        del recorded_at_us
        before = len(self.kept)
        for check in checks:
            self.kept.setdefault((check.source, check.rule, check.start_us, check.end_us), check)
        return len(self.kept) - before

    def last_end_us(self, rule: Rule, until_us: int) -> int | None:
        ends = (check.end_us for check in self.kept.values() if check.rule == rule.name and check.end_us <= until_us)
        return max(ends, default=None)

    def observed(self, rules: Sequence[Rule], since_us: int, until_us: int) -> Mapping[str, Mapping[int, float]]:
        found: dict[str, dict[int, float]] = {rule.name: {} for rule in rules}
        for check in self.kept.values():
            if check.rule in found and check.observed is not None and since_us <= check.start_us < until_us:
                found[check.rule][check.start_us] = check.observed
        return found

    def failures(self, start_us: int, end_us: int) -> Sequence[RuleCheck]:
        found = [
            check
            for check in self.kept.values()
            if not check.passed and check.start_us < end_us and check.end_us > start_us
        ]
        return sorted(found, key=lambda check: (check.start_us, check.rule))
