"""The use case that turns silence into labels: an approved transaction that nobody reported is genuine once mature.

Declined and reviewed transactions get none: what was declined has no outcome of its own, and a review ends with an
analyst's label. Nor does imported history, whose labels come with it.

Decisions are gone through in the order in which they were recorded, `MATURITY_US` and the tolerance for clocks behind
now, so that one that came late is looked at late and none is passed over. Where a run stopped is kept with its entry in
the pipeline log. That only saves work: a run that is killed, repeated, or done twice at once finds what has a label by
then, and the label that silence makes is the same whoever makes it, so it is recorded once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import batched
from typing import Final

from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE
from shared.domain.labels import MATURITY_US, silent_label
from shared.domain.pipeline import Evidence, RunStatus
from shared.domain.transaction import FUTURE_TOLERANCE_US
from shared.ports.clock import Clock
from shared.ports.maturing import Silent, SilentTransactions
from shared.ports.pipelines import PipelineLog
from shared.services.label_feed import take_rows
from shared.services.labelling import Labelling, LabelOutcome

PIPELINE: Final = "maturing"

EVERY_US: Final = US_PER_HOUR
"""How often the timer fires."""

BATCH: Final = 200
"""Labels of one unit of work: it locks up to 400 entities, and deciding waits for those it shares."""

PAGE: Final = 5_000
"""Transactions that are read at once."""

BUDGET_S: Final = 120.0
"""After how long a run begins nothing any more. The host ends it after 5 minutes: that leaves 3 for one look that began
in time and may take 90 s (`postgres_maturing.SESSION`), or a unit of work, which may take 45 s, and for noting it."""

_FIRST_SPAN_US: Final = US_PER_MINUTE
_LONGEST_SPAN_US: Final = 7 * US_PER_DAY
_UNTIL: Final = "recorded_until_us"


class Maturing:
    """Records labels for silence; one per thread, because its ledger is."""

    def __init__(
        self,
        silent: SilentTransactions,
        labelling: Labelling,
        log: PipelineLog,
        clock: Clock,
        *,
        maturity_us: int = MATURITY_US,
        budget_s: float = BUDGET_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Do nothing yet.

        Args:
            silent: Where transactions without a label are found.
            labelling: Records labels.
            log: Tells where the last run stopped.
            clock: Our clock.
            maturity_us: After how long silence counts, microseconds.
            budget_s: After how long a run stops, seconds.
            monotonic_s: Measures it.
        """
        self._silent = silent
        self._labelling = labelling
        self._log = log
        self._clock = clock
        self._maturity_us = maturity_us
        self._budget_s = budget_s
        self._monotonic_s = monotonic_s

    def mature(self) -> Evidence:
        """Label what has become mature since the last run, until nothing is left or the time is up.

        Returns:
            `rows` that got a label, `refused` ones, `recorded_until_us` and `behind_s`: where it stopped, and how far
            before the point it could have reached.

        Raises:
            Transient: The database cannot be reached now; what was recorded stays, and the next run goes on.
        """
        stop_s = self._monotonic_s() + self._budget_s
        end_us = self._clock.now_us() - self._maturity_us - FUTURE_TOLERANCE_US
        at_us = self._start_us(end_us)
        span_us = _FIRST_SPAN_US
        rows = refused = 0
        while at_us < end_us and self._monotonic_s() < stop_s:
            until_us = min(at_us + span_us, end_us)
            found = self._silent.recorded(at_us, until_us, PAGE)
            if len(found) == PAGE and until_us - at_us > 1:  # there may be more of them than a page holds
                span_us = max(1, (until_us - at_us) // 2)
                continue
            recorded, damaged, whole = self._record(found, stop_s)
            rows += recorded
            refused += damaged
            if not whole:
                break
            # A moment with a whole page of decisions is asked again: those that are labelled now are not found.
            if len(found) < PAGE or recorded == 0:
                at_us = until_us
            if len(found) < PAGE // 4:
                span_us = min(2 * span_us, _LONGEST_SPAN_US)
        return {
            "rows": rows,
            "refused": refused,
            _UNTIL: at_us,
            "behind_s": max(0, end_us - at_us) // 1_000_000,
        }

    def _start_us(self, end_us: int) -> int:
        """Where the last run stopped; before the first one, where decisions begin."""
        for run in self._log.recent(PIPELINE, 1, RunStatus.DONE):
            until_us = run.details.get(_UNTIL)
            if isinstance(until_us, int):
                return until_us
        first_us = self._silent.first_us()
        return end_us if first_us is None else first_us

    def _record(self, found: Sequence[Silent], stop_s: float) -> tuple[int, int, bool]:
        """Label transactions until the time is up: how many, how many could not be, and whether those were all."""
        rows = refused = 0
        for part in batched(found, BATCH, strict=False):
            if self._monotonic_s() >= stop_s:
                return rows, refused, False
            labels = [silent_label(item.transaction_id, item.event_time_us, self._maturity_us) for item in part]
            outcomes = [verdict.outcome for verdict in take_rows(self._labelling, labels)]
            rows += outcomes.count(LabelOutcome.RECORDED)
            refused += outcomes.count(LabelOutcome.REFUSED)
        return rows, refused, True
