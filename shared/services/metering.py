"""What an app counts about itself: fixed families of counters and histograms in one row of cells.

The families and their label values are fixed, so each process can keep its cells in a file of its own and any of them
can add up all files: a scrape that reaches one worker process tells of all of them.

Names of the first six families are those of the origin documents.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Protocol

from shared.domain.decision import Outcome


class Cells(Protocol):
    """A row of numbers of this process; safe to use from several threads."""

    def own(self) -> Sequence[float]:
        """Each cell's sum in this process."""
        ...

    def add(self, place: int, amount: float) -> None:
        """Add to one cell."""
        ...

    def totals(self) -> Sequence[float]:
        """Each cell's sum over all processes of this app on this machine, those that have ended included."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: In Prometheus's style.
        text: What it counts.
        labels: Label names with all their values.
        buckets: Upper bounds of a histogram's buckets, without the infinite one; empty for a counter.
    """

    name: str
    text: str
    labels: Mapping[str, tuple[str, ...]]
    buckets: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Cells for one combination of labels: a histogram has one per bucket, one beyond the last, and its sum."""
        return len(self.buckets) + 2 if self.buckets else 1

    def combinations(self) -> list[tuple[str, ...]]:
        """All combinations of label values, in a fixed order."""
        return list(product(*self.labels.values()))


ROUTES: Final = ("score", "score_batch", "decision", "models", "docs", "manage")
"""Groups of routes that are counted apart."""

STATUSES: Final = ("200", "202", "204", "400", "404", "409", "413", "415", "422", "500", "503")
"""Statuses the app itself answers with."""

STAGES: Final = ("queue", "claim", "features", "model", "record", "write")
"""`queue`, then the stages of deciding (`services.stages`)."""

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Around the alert's 500 ms and finer where decisions usually are."""

REQUESTS: Final = Family("api_requests_total", "Requests answered.", {"route": ROUTES, "status": STATUSES})
DURATION: Final = Family(
    "api_request_duration_seconds", "From a request's arrival in the app to its answer.", {"route": ROUTES}, _SECONDS
)
ERRORS: Final = Family(
    "api_errors_total",
    "Requests answered with a fault of the sender (client) or of ours (server).",
    {"route": ROUTES, "fault": ("client", "server")},
)
PREDICTIONS: Final = Family(
    "model_predictions_total", "Decisions made durable.", {"decision": tuple(outcome.value for outcome in Outcome)}
)
LATENCY: Final = Family(
    "model_prediction_latency_seconds", "From a transaction's arrival in the app to its durable decision.", {}, _SECONDS
)
CONFIDENCE: Final = Family(
    "model_prediction_confidence",
    "The larger of the calibrated score and one minus it.",
    {},
    (0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0),
)
REPEATS: Final = Family("tollgate_repeats_total", "Transactions that got their stored decision again.", {})
OVERLOADS: Final = Family("tollgate_overloads_total", "Requests refused because too many waited.", {})
UNITS: Final = Family(
    "tollgate_unit_transactions", "Transactions in a unit of work.", {}, (1, 2, 4, 8, 16, 32, 64, 128, 256)
)
STAGE_SECONDS: Final = Family("tollgate_stage_seconds_total", "Time spent in the stages of a unit.", {"stage": STAGES})
EVENTS: Final = Family(
    "tollgate_events_total",
    "Events taken off the stream, by what became of them.",
    {"result": ("decided", "labelled", "probe", "repeated", "dead_lettered")},
)
STREAM_LAG: Final = Family(
    "tollgate_stream_lag_seconds",
    "From the hub's acceptance of an event to its durable effect.",
    {},
    (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0),
)
REPLAYS: Final = Family(
    "tollgate_replays_total",
    "Stored decisions that were decided again, by what came of it.",
    {"verdict": ("equal", "different", "unchecked")},
)

FAMILIES: Final = (
    REQUESTS,
    DURATION,
    ERRORS,
    PREDICTIONS,
    LATENCY,
    CONFIDENCE,
    REPEATS,
    OVERLOADS,
    UNITS,
    STAGE_SECONDS,
    EVENTS,
    STREAM_LAG,
    REPLAYS,
)

_PLACES: Final[dict[tuple[str, tuple[str, ...]], int]] = {}
_width = 0
for _family in FAMILIES:
    for _combination in _family.combinations():
        _PLACES[_family.name, _combination] = _width
        _width += _family.width
N_CELLS: Final = _width
"""Cells of all families."""
LAYOUT: Final = hashlib.sha256(
    json.dumps([[f.name, sorted(f.labels), f.combinations(), f.buckets] for f in FAMILIES]).encode()
).hexdigest()[:16]
"""What the cells mean: rows of cells can be added up only if they have it in common."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a scrape.

    Attributes:
        name: The family's name, with Prometheus's suffix where it has one.
        labels: Label names and values.
        value: The total.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Meters:
    """Counts into cells and reads totals out of them."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def count(self, family: Family, *labels: str, by: float = 1.0) -> None:
        """Add to a counter.

        Raises:
            KeyError: The family has no such combination of labels.
        """
        self._cells.add(place_of(family, *labels), by)

    def record(self, family: Family, value: float, *labels: str) -> None:
        """Add a value to a histogram; a value on a bound belongs to its bucket.

        Raises:
            KeyError: The family has no such combination of labels.
        """
        place = place_of(family, *labels)
        self._cells.add(place + bisect_left(family.buckets, value), 1.0)
        self._cells.add(place + len(family.buckets) + 1, value)

    def record_all(self, family: Family, values: Sequence[float], *labels: str) -> None:
        """Add values to a histogram, each cell once.

        Raises:
            KeyError: The family has no such combination of labels.
        """
        if not values:
            return
        place = place_of(family, *labels)
        for bucket, count in Counter([bisect_left(family.buckets, value) for value in values]).items():
            self._cells.add(place + bucket, float(count))
        self._cells.add(place + len(family.buckets) + 1, sum(values))

    def samples(self, family: Family) -> Iterator[Sample]:
        """All totals of one family on this machine."""
        return samples(family, self._cells.totals())


def place_of(family: Family, *labels: str) -> int:
    """Where the cells of a family begin that belong to these labels.

    Raises:
        KeyError: The family has no such combination of labels.
    """
    return _PLACES[family.name, labels]


def samples(family: Family, totals: Sequence[float], **labels: str) -> Iterator[Sample]:
    """All totals of one family, as Prometheus wants them: buckets add up from the lowest.

    Args:
        family: One of `FAMILIES`.
        totals: A row of `N_CELLS` cells.
        labels: Said of every sample besides the family's own labels.
    """
    names, said = tuple(family.labels), tuple(labels.items())
    for combination in family.combinations():
        pairs = (*said, *zip(names, combination, strict=True))
        place = _PLACES[family.name, combination]
        if not family.buckets:
            yield Sample(family.name, pairs, totals[place])
            continue
        count = 0.0
        for bound, cell in zip((*map(str, family.buckets), "+Inf"), range(place, place + family.width), strict=False):
            count += totals[cell]
            yield Sample(f"{family.name}_bucket", (*pairs, ("le", bound)), count)
        yield Sample(f"{family.name}_sum", pairs, totals[place + family.width - 1])
        yield Sample(f"{family.name}_count", pairs, count)


def parts(family: Family, cells: Sequence[float], **labels: str) -> Iterator[Sample]:
    """Each cell of one family by itself, for services that add up: a bucket is told with `bin`, its upper bound.

    Args:
        family: One of `FAMILIES`.
        cells: A row of `N_CELLS` cells.
        labels: Said of every sample besides the family's own labels.
    """
    names, said = tuple(family.labels), tuple(labels.items())
    for combination in family.combinations():
        pairs = (*said, *zip(names, combination, strict=True))
        place = _PLACES[family.name, combination]
        if not family.buckets:
            yield Sample(family.name, pairs, cells[place])
            continue
        bins = cells[place : place + len(family.buckets) + 1]
        for bound, cell in zip((*map(str, family.buckets), "Inf"), bins, strict=True):
            yield Sample(f"{family.name}_bucket", (*pairs, ("bin", bound)), cell)
        yield Sample(f"{family.name}_sum", pairs, cells[place + family.width - 1])
        yield Sample(f"{family.name}_count", pairs, sum(bins))
