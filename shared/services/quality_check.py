"""The use case that checks what arrived, hour by hour, and tells a broken feed from a world that changed.

A window is checked once it is over and what was under way has been committed. Windows that a timer missed are made up
for, oldest first, so that norms have no gaps. People are told before the window is marked as checked: a run that dies
in between tells again, and a notice of the same key is told once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from shared.domain.data_quality import (
    ANNOUNCED,
    NORM_WEEKS,
    WEEK_US,
    WINDOW_US,
    LevelRule,
    Rule,
    RuleCheck,
    check_all,
    windows,
)
from shared.domain.instants import US_PER_DAY, US_PER_MINUTE, format_instant
from shared.domain.pipeline import MAX_TITLE, Evidence, Notice, Severity
from shared.domain.quality_rules import RULES, VOLUME
from shared.ports.clock import Clock
from shared.ports.pipelines import Notices
from shared.ports.quality import FeedWindows, QualityLog

PIPELINE: Final = "data quality"

EVERY_US: Final = WINDOW_US
"""How often the timer fires."""

SETTLING_US: Final = 2 * US_PER_MINUTE
"""After the end of a window it is checked: statements end within 15 s, and servers' clocks are seconds apart."""

MAX_CATCH_UP: Final = 7 * 24
"""Windows of one run; after a longer pause norms have a gap, which is what the pause was."""

_HISTORY_US: Final = NORM_WEEKS * WEEK_US + US_PER_DAY


class QualityCheck:
    """Checks windows; one per thread, because its stores are. It is a `FeedHealth`."""

    def __init__(
        self, feed: FeedWindows, log: QualityLog, notices: Notices, clock: Clock, rules: tuple[Rule, ...] = RULES
    ) -> None:
        """Do nothing yet.

        Args:
            feed: What arrived.
            log: Where results are kept, and norms come from.
            notices: Where failures are told.
            clock: Our clock.
            rules: What is checked; `VOLUME` among them, by which a window is known to be checked.
        """
        self._feed = feed
        self._log = log
        self._notices = notices
        self._clock = clock
        self._rules = rules
        self._levels = [rule for rule in rules if isinstance(rule, LevelRule)]

    def check_due(self) -> Evidence:
        """Check all windows that are over and were not checked yet.

        Idempotent, also when several do it at once.

        Returns:
            `windows` that were checked, `failed` checks, and `rows`: events that arrived in these windows.

        Raises:
            Transient: The database cannot be reached now; the next run makes up for it.
        """
        now_us = self._clock.now_us()
        end_us = (now_us - SETTLING_US) // WINDOW_US * WINDOW_US
        last_us = self._log.last_end_us(VOLUME, end_us)
        start_us = end_us - WINDOW_US if last_us is None else max(last_us, end_us - MAX_CATCH_UP * WINDOW_US)
        due = windows(start_us, end_us)
        failed = rows = 0
        for window_start_us, window_end_us in due:
            checks, arrivals = self._check(window_start_us, window_end_us)
            failed += sum(not check.passed for check in checks)
            rows += arrivals
        return {"windows": len(due), "failed": failed, "rows": rows}

    def broken(self, start_us: int, end_us: int) -> str:
        """Why the feed of a window is broken; windows that are due are checked first."""
        self.check_due()
        broken = [check for check in self._log.failures(start_us, end_us) if check.breaks]
        return "; ".join(dict.fromkeys(f"{format_instant(check.start_us)}: {check.words}" for check in broken))

    def _check(self, start_us: int, end_us: int) -> tuple[list[RuleCheck], int]:
        facts = self._feed.facts(start_us, end_us)
        history = self._log.observed(self._levels, start_us - _HISTORY_US, start_us)
        n_windows = len(history.get(VOLUME.name, {}))
        checks = [
            self._excused(rule, check)
            for rule, check in zip(self._rules, check_all(self._rules, facts, history, n_windows), strict=True)
        ]
        for check in checks:
            if not check.passed:
                self._notices.put(notice_of(check, self._clock.now_us()))
        self._log.record(checks, self._clock.now_us())
        return checks, facts.arrivals

    def _excused(self, rule: Rule, check: RuleCheck) -> RuleCheck:
        """A level that an announced change explains is no failure, unless the feed stands still all the same."""
        subject = rule.subject if isinstance(rule, LevelRule) else ""
        if check.passed or check.breaks or not subject:
            return check
        if not self._feed.announced(subject, check.start_us, check.end_us):
            return check
        return replace(check, passed=True, words=f"{ANNOUNCED}; {check.words}")


def notice_of(check: RuleCheck, now_us: int) -> Notice:
    """What people are told of a failure: once for each rule and day of the window, UTC."""
    day = format_instant(check.start_us)[:10]
    return Notice(
        dedup_key=f"quality/{check.rule}/{day}",
        severity=Severity.ERROR if check.breaks else Severity.WARNING,
        title=f"{check.source}: {check.words}"[:MAX_TITLE],
        evidence={
            "rule": check.rule,
            "observed": check.observed,
            "window": format_instant(check.start_us),
            **check.details,
        },
        link="",
        created_at_us=now_us,
    )
