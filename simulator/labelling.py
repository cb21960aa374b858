"""Who finds out about the transactions of a day, when, and what they say; not always the truth.

Four ways lead to a label: an analyst's review within days, mostly of what looks suspicious; the cardholder's report;
a chargeback, weeks late, out of a feed that comes once a day; and contradictions: a cardholder who disputes what he
bought, a merchant who wins a chargeback back, a report taken back. What has no label was not found out; silence itself
is not drawn here (`labels.matured_label`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE
from shared.domain.labels import PRECEDENCE, LabelSource
from simulator.batch import CARDHOLDER_LINE, CHARGEBACK_FEED, N_ANALYSTS, LabelBatch, TransactionBatch
from simulator.config import LabelConfig
from simulator.population import Population
from simulator.purchases import Prices

HORIZON_DAYS: Final = 190
"""No label of a transaction becomes known so many days after the start of its day."""

_ANALYST: Final = PRECEDENCE.index(LabelSource.ANALYST)
_CUSTOMER: Final = PRECEDENCE.index(LabelSource.CUSTOMER)
_CHARGEBACK: Final = PRECEDENCE.index(LabelSource.CHARGEBACK)

_ANALYST_CAP_DAYS: Final = 7.0
_CUSTOMER_CAP_DAYS: Final = 45.0
_CHARGEBACK_FLOOR_DAYS: Final = 3.0
_CHARGEBACK_CAP_DAYS: Final = 120.0
_DISPUTE_DAYS: Final = (20.0, 0.5)
_DISPUTE_CAP_DAYS: Final = 60.0
_FEED_HOUR: Final = 5
"""The chargeback feed comes at 05:00 UTC and holds what the bank decided before the last midnight."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """What a sender may say about, as columns of one length.

    Attributes:
        key: (n,) uint64.
        time_us: (n,) int64 event times.
        fraud: (n,) bool, the truth.
        odd: (n,) float64, how unusual the amount is for cardholder and terminal, in standard deviations.
        busy: (n,) int64, transactions of the cardholder on that day.
        night: (n,) bool, before 06:00 UTC.
    """

    key: NDArray[np.uint64]
    time_us: NDArray[np.int64]
    fraud: NDArray[np.bool_]
    odd: NDArray[np.float64]
    busy: NDArray[np.int64]
    night: NDArray[np.bool_]

    @classmethod
    def of(cls, batch: TransactionBatch, population: Population, prices: Prices) -> _Rows:
        """The transactions of a day; of those with one id, the first."""
        rows = np.sort(np.unique(batch.key, return_index=True)[1])
        customer, terminal = batch.customer[rows], batch.terminal[rows]
        typical = prices.typical_log(population, customer, terminal)
        spread = prices.spread[population.terminal_category[terminal]]
        _, place, count = np.unique(customer, return_inverse=True, return_counts=True)
        time_us = batch.event_time_us[rows]
        return cls(
            key=batch.key[rows],
            time_us=time_us,
            fraud=batch.is_fraud[rows],
            odd=(np.log(batch.amount_minor[rows]) - typical) / spread,
            busy=count[place],
            night=time_us % US_PER_DAY < 6 * US_PER_HOUR,
        )


def labels_of(
    config: LabelConfig, batch: TransactionBatch, population: Population, prices: Prices, rng: np.random.Generator
) -> LabelBatch:
    """Draw all labels that the transactions of a day will ever have, the maturity label left out.

    Args:
        config: How often and how fast.
        batch: The day.
        population: For what is usual.
        prices: For what is usual.
        rng: The day's.
    """
    rows = _Rows.of(batch, population, prices)
    n_rows = len(rows.key)
    noticed = rows.fraud & (rng.random(n_rows) >= config.silent)
    genuine = ~rows.fraud
    reviewed = rng.random(n_rows) < _review_probability(config, rows, noticed)
    reported = noticed & (rng.random(n_rows) < config.customer_fraud)
    charged_back = noticed & (rng.random(n_rows) < config.chargeback_fraud)
    disputed = genuine & (rng.random(n_rows) < config.friendly_fraud)
    mistaken = genuine & ~disputed & (rng.random(n_rows) < config.customer_mistake)
    parts = [
        _reviews(config, rows, np.flatnonzero(reviewed), rng),
        *_reports(config, rows, np.flatnonzero(reported), np.flatnonzero(mistaken), rng),
        *_chargebacks(config, rows, np.flatnonzero(charged_back), rng),
        *_disputes(config, rows, np.flatnonzero(disputed), rng),
    ]
    return LabelBatch.joined(parts)


def _review_probability(config: LabelConfig, rows: _Rows, noticed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How likely an analyst looks at each: what stands out is looked at more often, fraud or not."""
    genuine = config.review_genuine * (1 + 25 * (rows.odd > 2.5) + 12 * (rows.busy >= 6) + 4 * rows.night)
    fraud = config.review_fraud * (1 + 0.8 * (rows.odd > 2.0) + 0.6 * (rows.busy >= 4) + 0.3 * rows.night)
    return np.where(noticed, np.minimum(fraud, 0.95), np.where(rows.fraud, 0.0, np.minimum(genuine, 0.5)))


def _delay_us(
    days: tuple[float, float], low_days: float, high_days: float, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw lognormal delays between two limits, (count,) int64 microseconds."""
    median, spread = days
    drawn = median * np.exp(spread * rng.standard_normal(count))
    return (np.clip(drawn, low_days, high_days) * US_PER_DAY).astype(np.int64)


def _fed_us(event_time_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """When the daily feed brings what happened at a time: at its hour of the next day."""
    return (event_time_us // US_PER_DAY + 1) * US_PER_DAY + _FEED_HOUR * US_PER_HOUR


@dataclass(frozen=True, slots=True, eq=False)
class _Saying:
    """Labels of one source about some rows: which rows, when it came to them, and when we could know."""

    source: int
    chosen: NDArray[np.int64]
    event_us: NDArray[np.int64]
    known_us: NDArray[np.int64]

    def batch(
        self,
        rows: _Rows,
        verdict: NDArray[np.bool_] | bool,
        confidence: NDArray[np.int64],
        author: NDArray[np.int64] | int,
    ) -> LabelBatch:
        """The labels, in no order."""
        count = len(self.chosen)
        return LabelBatch(
            rows.key[self.chosen],
            np.broadcast_to(np.asarray(verdict, dtype=np.bool_), count).copy(),
            np.full(count, self.source, dtype=np.int8),
            self.event_us,
            self.known_us,
            confidence.astype(np.int8),
            np.broadcast_to(np.asarray(author, dtype=np.int8), count).copy(),
        )


def _reviews(config: LabelConfig, rows: _Rows, chosen: NDArray[np.int64], rng: np.random.Generator) -> LabelBatch:
    """Analysts within days; known a few minutes after they made up their mind."""
    count = len(chosen)
    event_us = rows.time_us[chosen] + _delay_us(config.analyst_days, 0.01, _ANALYST_CAP_DAYS, count, rng)
    known_us = event_us + rng.integers(0, 30 * US_PER_MINUTE, count)
    verdict = rows.fraud[chosen] ^ (rng.random(count) < config.analyst_error)
    confidence = rng.integers(60, 100, count)
    author = rng.integers(0, N_ANALYSTS, count)
    return _Saying(_ANALYST, chosen, event_us, known_us).batch(rows, verdict, confidence, author)


def _reports(
    config: LabelConfig,
    rows: _Rows,
    reported: NDArray[np.int64],
    mistaken: NDArray[np.int64],
    rng: np.random.Generator,
) -> list[LabelBatch]:
    """Cardholders who call; the mistaken ones call again within five days to take it back."""
    chosen = np.concatenate([reported, mistaken])
    count = len(chosen)
    event_us = rows.time_us[chosen] + _delay_us(config.customer_days, 0.01, _CUSTOMER_CAP_DAYS, count, rng)
    known_us = event_us + rng.integers(0, 12 * US_PER_HOUR, count)
    confidence = rng.integers(60, 91, count)
    calls = _Saying(_CUSTOMER, chosen, event_us, known_us).batch(rows, True, confidence, CARDHOLDER_LINE)
    again_us = known_us[len(reported) :] + rng.integers(US_PER_DAY, 5 * US_PER_DAY, len(mistaken))
    confidence = rng.integers(80, 96, len(mistaken))
    taken_back = _Saying(_CUSTOMER, mistaken, again_us, again_us).batch(rows, False, confidence, CARDHOLDER_LINE)
    return [calls, taken_back]


def _chargebacks(
    config: LabelConfig, rows: _Rows, chosen: NDArray[np.int64], rng: np.random.Generator
) -> list[LabelBatch]:
    """The bank's reversals of real fraud; merchants win some of them back."""
    delay_us = _delay_us(config.chargeback_days, _CHARGEBACK_FLOOR_DAYS, _CHARGEBACK_CAP_DAYS, len(chosen), rng)
    return _reversals(rows, chosen, rows.time_us[chosen] + delay_us, config.won_back_fraud, rng)


def _disputes(
    config: LabelConfig, rows: _Rows, chosen: NDArray[np.int64], rng: np.random.Generator
) -> list[LabelBatch]:
    """Friendly fraud: a report against better knowledge, then a reversal, which merchants win back more often."""
    count = len(chosen)
    event_us = rows.time_us[chosen] + _delay_us(_DISPUTE_DAYS, 1.0, _DISPUTE_CAP_DAYS, count, rng)
    known_us = event_us + rng.integers(0, 12 * US_PER_HOUR, count)
    confidence = rng.integers(60, 91, count)
    call = _Saying(_CUSTOMER, chosen, event_us, known_us).batch(rows, True, confidence, CARDHOLDER_LINE)
    reversed_us = known_us + rng.integers(3 * US_PER_DAY, 20 * US_PER_DAY, count)
    return [call, *_reversals(rows, chosen, reversed_us, config.won_back_friendly, rng)]


def _reversals(
    rows: _Rows, chosen: NDArray[np.int64], event_us: NDArray[np.int64], won_back: float, rng: np.random.Generator
) -> list[LabelBatch]:
    """Chargebacks, and those that the merchant wins back ten days to two months later."""
    confidence = rng.integers(95, 101, len(chosen))
    first = _Saying(_CHARGEBACK, chosen, event_us, _fed_us(event_us)).batch(rows, True, confidence, CHARGEBACK_FEED)
    won = rng.random(len(chosen)) < won_back
    again_us = event_us[won] + rng.integers(10 * US_PER_DAY, 60 * US_PER_DAY, int(won.sum()))
    confidence = rng.integers(90, 101, len(again_us))
    second = _Saying(_CHARGEBACK, chosen[won], again_us, _fed_us(again_us))
    return [first, second.batch(rows, False, confidence, CHARGEBACK_FEED)]
