"""The watch for concept and target drift over one world with a new pattern of fraud, on labels that matured.

Gift cards begin on a day. Everything is judged hour by hour, as the service does, as if each hour's labels had matured
with it: quiet are the 22 days before, and delay counts from the first midnight of the pattern. Outcomes are those of
the truth, or of what labels say 30 days later, some of which are wrong and some of which never come.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_streams import HOURS_PER_DAY, Stream
from benchmarks.drift_watching import fitted, scored
from shared.domain.drift_incidents import (
    USUAL_DAYS,
    WEEK_DAYS,
    Frauds,
    Missed,
    missed_incidents,
    spread,
)
from shared.domain.drift_performance import (
    Codes,
    Decline,
    Estimate,
    Figure,
    Flags,
    Floats,
    PerformancePolicy,
    declines,
    may_have_fallen,
    ratio,
)
from shared.domain.feature_columns import LabelColumns
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import MATURITY_US
from shared.domain.pipeline import Cause
from simulator.changes import NewPattern, Span, day_number
from simulator.config import WorldConfig
from simulator.history import history_of
from simulator.world import World

TRAINED: Final = (30, 76)
TESTED: Final = (76, 104)
PROMOTED: Final = 76
JUDGED: Final = 112
CHANGED: Final = 134
FOLLOWED: Final = 4
"""Days: training; the test that the bundle's figures come from, which are also its first usual days; from where alarms
are counted; on which the pattern begins; and for how long it is followed."""

QUIET_DAYS: Final = CHANGED - JUDGED


class Matured:
    """Decisions whose outcome is known, by the hour."""

    def __init__(self, stream: Stream, score: Floats, is_fraud: Flags) -> None:
        """Find the model's threshold and its own figures on the days of its test."""
        self._score, self._is_fraud = score, is_fraud
        self._customer, self._terminal = (
            np.unique(ids, return_inverse=True)[1] for ids in (stream.columns.customer, stream.columns.terminal)
        )
        hours = (CHANGED + FOLLOWED) * HOURS_PER_DAY
        self._edges = np.searchsorted(stream.hour, np.arange(hours + 1))
        tested = TESTED[0] * HOURS_PER_DAY, TESTED[1] * HOURS_PER_DAY
        inside = slice(self._edges[tested[0]], self._edges[tested[1]])
        self._threshold = best_threshold(score[inside], is_fraud[inside])
        self.own = self.figures(*tested)

    def frauds(self, first: int, last: int) -> Frauds:
        """Those of the hours from one up to another."""
        inside = slice(self._edges[first], self._edges[last])
        rows = np.flatnonzero(self._is_fraud[inside]) + inside.start
        return Frauds(
            inside.stop - inside.start,
            self._customer[rows],
            self._terminal[rows],
            self._score[rows] < self._threshold,
        )

    def figures(self, first: int, last: int) -> dict[Figure, Estimate]:
        """Recall and fraud rate of the hours from one up to another."""
        inside = slice(self._edges[first], self._edges[last])
        fraud = self._is_fraud[inside].astype(np.float64)
        frauds = self.frauds(first, last)
        found = (~frauds.is_missed).astype(np.float64)
        return {
            Figure.RECALL: ratio(found, np.ones(len(found)), frauds.customer, frauds.terminal),
            Figure.FRAUD_RATE: ratio(fraud, np.ones(len(fraud)), self._customer[inside], self._terminal[inside]),
        }

    def recall(self, first: int, last: int) -> float:
        """Share of the frauds that were found."""
        return 1.0 - float(self.frauds(first, last).is_missed.mean())


class Judge:
    """What the watch says at the end of each hour."""

    def __init__(self, matured: Matured, policy: PerformancePolicy) -> None:
        self._matured, self._policy = matured, policy
        self._days = [
            matured.frauds(day * HOURS_PER_DAY, (day + 1) * HOURS_PER_DAY)
            for day in range(PROMOTED, CHANGED + FOLLOWED)
        ]
        # The days before the promotion are not known to the watch.
        self._missed = [
            missed_incidents(self._days[max(0, place - WEEK_DAYS + 1) : place], one)
            for place, one in enumerate(self._days)
        ]

    def found(self, end: int) -> set[tuple[Cause, Figure]]:
        """What is drift on the day and the week that end with an hour."""
        day, week = end - HOURS_PER_DAY, end - WEEK_DAYS * HOURS_PER_DAY
        matured, policy, own = self._matured, self._policy, self._matured.own
        now = matured.figures(day, end)
        found: list[Decline | None] = [*declines(policy, own, now), *declines(policy, own, matured.figures(week, end))]
        if may_have_fallen(policy, own, now):
            widely = missed_incidents([matured.frauds(week, day)], matured.frauds(day, end))
            found.append(spread(policy, self._usual(end), widely))
        return {(one.cause, one.figure) for one in found if one is not None}

    def _usual(self, end: int) -> list[Missed]:
        last = end // HOURS_PER_DAY - WEEK_DAYS - PROMOTED
        return self._missed[max(0, last - USUAL_DAYS) : last]


def new_pattern(seed: int, share: float, customers: int) -> dict[str, float | int | None]:
    """What the watch said of one world.

    Args:
        seed: Which world.
        share: Frauds of the new pattern as a share of all others.
        customers: Cardholders of the world.

    Returns:
        For outcomes as they are (`truth_`) and for what labels say of them after 30 days (`labels_`): `delay`, hours
        until concept drift was found, None if it was not in the days followed; `false_hours`, quiet hours with concept
        or target drift, `false_notices`, how often somebody would have been told of them, and `false_hours_by_` each
        figure; `frauds_a_day` before the change; recall before and after it.
    """
    begins = WorldConfig().first_date + timedelta(days=CHANGED)
    config = WorldConfig(customers=customers, changes=(NewPattern(Span(begins), share),))
    known_until = day_number(config.first_date) + CHANGED + FOLLOWED + MATURITY_US // US_PER_DAY
    world = World.create(config, np.random.default_rng(seed))
    history = history_of(world, 0, CHANGED + FOLLOWED, known_until * US_PER_DAY)
    stream = Stream.of(history.transactions, history.labels, history.is_fraud)
    score = scored(fitted(stream, TRAINED), stream).astype(np.float64)
    told = labelled(history.transactions.event_time_us, history.labels)
    outcome: dict[str, float | int | None] = {}
    for name, is_fraud in (("truth", stream.is_fraud), ("labels", told)):
        for figure, value in judged(Matured(stream, score, is_fraud)).items():
            outcome[f"{name}_{figure}"] = value
    return outcome


def judged(matured: Matured) -> dict[str, float | int | None]:
    """What the watch says of quiet days and of the new pattern; the keys as in `new_pattern`."""
    judge = Judge(matured, PerformancePolicy())
    quiet, start, end = (day * HOURS_PER_DAY for day in (JUDGED, CHANGED, CHANGED + FOLLOWED))
    false = {hour: found for hour in range(quiet + 1, start + 1) if (found := judge.found(hour))}
    concept = (
        hour - start
        for hour in range(start + 1, end + 1)
        if any(cause is Cause.CONCEPT_DRIFT for cause, _ in judge.found(hour))
    )
    outcome: dict[str, float | int | None] = {
        "delay": next(concept, None),
        "false_hours": len(false),
        "false_notices": len({(hour // HOURS_PER_DAY, cause) for hour, found in false.items() for cause, _ in found}),
        "frauds_a_day": len(matured.frauds(0, start).customer) / CHANGED,
        "recall_before": matured.recall(quiet, start),
        "recall_after": matured.recall(start, end),
    }
    for figure in (Figure.RECALL, Figure.MISSED_INCIDENTS, Figure.FRAUD_RATE):
        by_it = [hour for hour, found in false.items() if any(one is figure for _, one in found)]
        outcome[f"false_hours_by_{figure.value}"] = len(by_it)
    return outcome


def labelled(event_time_us: NDArray[np.int64], labels: LabelColumns) -> Flags:
    """What the strongest label says that is known when silence would count as genuine."""
    known = np.flatnonzero(labels.known_at_us <= event_time_us[labels.row] + MATURITY_US)
    known = known[np.lexsort((labels.known_at_us[known], labels.source[known]))]
    is_fraud: Flags = np.zeros(len(event_time_us), dtype=np.bool_)
    is_fraud[labels.row[known]] = labels.is_fraud[known]  # the last one counts
    return is_fraud


def best_threshold(score: Floats, is_fraud: Flags) -> float:
    """The score whose decisions have the best harmonic mean of precision and recall."""
    order: Codes = np.argsort(-score)
    found = np.cumsum(is_fraud[order])
    harmonic = 2 * found / (np.arange(1, len(order) + 1) + is_fraud.sum())
    return float(score[order[int(np.argmax(harmonic))]])
