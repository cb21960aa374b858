"""How a trial ends: a challenger that passed the gate has scored in shadow for a while and becomes champion, or leaves.

The gate has judged it on history; the trial shows that it also scores what is decided now. Mature labels of decisions
that both have scored may say that it is worse than the champion; nothing else in the trial can make it lose, because
few labels are mature by then. Only challengers that retraining appointed are touched: who appoints one decides on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.errors import Conflict, InvalidInput
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.pipeline import Evidence, Notice, Severity
from shared.ports.clock import Clock
from shared.ports.pipelines import Notices
from shared.services.retraining_run import AUTHOR
from shared.services.shadowing_evidence import ShadowEvidence
from shared.services.succession import Succession

_log = logging.getLogger(__name__)

LOOK_BACK_US: Final = 60 * US_PER_DAY
"""How long before its appointment decisions are compared that it has scored since; their labels are mature."""

TELL_US: Final = 7 * US_PER_DAY
"""For how long a look makes sure that people were told how the last trial ended."""

type Compare = Callable[[str, str, int, int], ShadowEvidence]
"""What a model would have changed: told its digest, the champion's, and the first event time and the end."""


@dataclass(frozen=True, slots=True)
class TrialRules:
    """When a trial ends.

    Attributes:
        least_us: How long it lasts at least, microseconds.
        min_rows: Decisions that the challenger must have scored.
    """

    least_us: int = 24 * US_PER_HOUR
    min_rows: int = 1_000


class Trial:
    """Ends the trial of a challenger."""

    def __init__(
        self, succession: Succession, compare: Compare, notices: Notices, clock: Clock, rules: TrialRules
    ) -> None:
        """Prepare.

        Args:
            succession: Who plays which role.
            compare: Says what the challenger would have changed.
            notices: What people are told.
            clock: Our clock.
            rules: When a trial ends.
        """
        self._succession = succession
        self._compare = compare
        self._notices = notices
        self._clock = clock
        self._rules = rules

    def settle(self) -> str:
        """End the trial if its time has come, and make sure that people are told how it ended; idempotent.

        Returns:
            What came of it, for the log; empty if nobody is on trial or it goes on.

        Raises:
            TollgateError: As the stores.
        """
        now_us = self._clock.now_us()
        present = self._succession.present()
        tried, champion = present.get(Role.CHALLENGER), present.get(Role.CHAMPION)
        if tried is None or tried.pointer.author != AUTHOR:
            return ""
        if tried.pointer.digest is None:
            self._tell_of(tried.pointer, now_us)
            return ""
        since_us, digest = tried.pointer.changed_at_us, tried.pointer.digest
        if now_us < since_us + self._rules.least_us:
            return ""
        if champion is None or champion.pointer.digest is None:
            return ""
        evidence = self._compare(digest, champion.pointer.digest, since_us - LOOK_BACK_US, now_us)
        if evidence.n_rows < self._rules.min_rows:
            return ""
        worse = evidence.gain_interval is not None and evidence.gain_interval.high < 0.0
        reason = f"scored {evidence.n_rows} decisions in shadow, {evidence.agreement:.2%} the same"
        promoted = False
        if worse:
            outcome = self._retire(f"{reason}; on mature labels it is worse than the champion")
        else:
            try:
                self._succession.promote(digest, author=AUTHOR, reason=reason)
                outcome, promoted = f"promoted: {reason}", True
            except Conflict:  # a role has changed this moment: the next look sees how
                return ""
            except InvalidInput as error:  # the champion is another one than it was judged against
                outcome = self._retire(f"cannot become champion: {error}")
        self._tell(digest, since_us, promoted, {"outcome": outcome, "evidence": evidence.document()}, now_us)
        return outcome

    def _tell_of(self, left: Pointer, now_us: int) -> None:
        """Tell people how the last trial ended, if whoever ended it died before it could; else they know already.

        It can be told only afterwards: whether a challenger becomes champion is known once it is.
        """
        if now_us - left.changed_at_us > TELL_US:
            return
        trials = [
            change.pointer
            for change in self._succession.history(Role.CHALLENGER)
            if change.pointer.number == left.number - 1
        ]
        if not trials or trials[0].digest is None or trials[0].author != AUTHOR:
            return
        trial = trials[0]
        crowned = [
            change.pointer
            for change in self._succession.history(Role.CHAMPION)
            if change.pointer.digest == trial.digest and change.pointer.changed_at_us >= trial.changed_at_us
        ]
        outcome = f"promoted: {crowned[-1].reason}" if crowned else f"retired: {left.reason}"
        self._tell(str(trial.digest), trial.changed_at_us, bool(crowned), {"outcome": outcome}, now_us)

    def _tell(self, digest: str, since_us: int, promoted: bool, evidence: Evidence, now_us: int) -> None:
        """Leave the notice of a trial's end; it is told once, however often this is called."""
        self._notices.put(
            Notice(
                f"retrain/trial/{digest}/{since_us}",
                Severity.INFORMATION if promoted else Severity.WARNING,
                f"Trial of challenger {digest[:12]} has ended",
                evidence,
                "",
                now_us,
            )
        )

    def _retire(self, why: str) -> str:
        self._succession.retire(Role.CHALLENGER, author=AUTHOR, reason=why)
        _log.warning("a challenger was retired")
        return f"retired: {why}"
