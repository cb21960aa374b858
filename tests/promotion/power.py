"""How often the gate calls a better challenger better, and an equal one: `python -m tests.promotion.power`.

A window is drawn, with a model of scores in place of trained models, so that the true difference is known: evidence of
fraud is normal, stronger for most frauds and absent for the rest, and a model sees it through noise, half of which all
models share (they read the same features). Less noise is a better model; how much less gives .03 of average precision
is found on a window a hundred times as large. Probabilities are the exact posterior, so both models are calibrated.
What decides is the product's own comparison with the default rules: gain, expected loss and segments together.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.instants import US_PER_DAY
from shared.domain.promotion import GateRules
from shared.domain.promotion_comparison import Judged, PrecisionRanking, Scores, compare, segments_of

GAIN: Final = 0.03
FRAUD_SHARE: Final = 0.008
SEPARATION: Final = 4.5
"""Standard deviations between frauds that leave evidence and genuine transactions."""

VISIBLE: Final = 0.8
"""Share of the frauds that leave evidence."""

SHARED: Final = 0.5
"""Share of the noise's variance that models have in common."""

CHAMPION_NOISE: Final = 0.8
SEED: Final = 20261121

type Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is drawn.

    Attributes:
        customers: Cardholders; a card with fraud has several.
        per_customer: Transactions of each.
        days: Over how many days.
    """

    customers: int
    per_customer: int
    days: int

    @property
    def rows(self) -> int:
        """Transactions."""
        return self.customers * self.per_customer


FULL: Final = Size(customers=5_000, per_customer=28, days=14)
"""Two weeks at 10,000 transactions a day, as the Handbook's data have them."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A window without scores.

    Attributes:
        judged: Its transactions.
        evidence: (n,) what there is to see.
        shared: (n,) standard normal noise that all models have.
    """

    judged: Judged
    evidence: Floats
    shared: Floats


def drawn(size: Size, rng: np.random.Generator) -> Drawn:
    """Draw a window: frauds come on few cards, several on each."""
    customer = np.repeat(np.arange(size.customers), size.per_customer)
    # A twentieth of the cards have all the frauds, so the frauds of a card belong together.
    hit = rng.random(size.customers) < 0.05
    fraud = hit[customer] & (rng.random(size.rows) < FRAUD_SHARE / 0.05)
    visible = fraud & (rng.random(size.customers) < VISIBLE)[customer]
    amount = np.rint(np.exp(rng.normal(8.3, 0.8, size.rows))).astype(np.int64) + 1
    judged = Judged(rng.integers(0, size.days * US_PER_DAY, size.rows), customer, amount, fraud)
    return Drawn(judged, rng.normal(size=size.rows) + SEPARATION * visible, rng.normal(size=size.rows))


def scores(window: Drawn, noise: float, rng: np.random.Generator) -> Scores:
    """What a model of so much noise says."""
    own = rng.normal(size=len(window.evidence))
    seen = window.evidence + noise * (math.sqrt(SHARED) * window.shared + math.sqrt(1.0 - SHARED) * own)
    spread = 1.0 + noise**2
    likelihood = VISIBLE * np.exp((SEPARATION * seen - SEPARATION**2 / 2) / spread) + 1.0 - VISIBLE
    odds = FRAUD_SHARE / (1.0 - FRAUD_SHARE) * likelihood
    return Scores(seen, odds / (1.0 + odds))


def average_precision(window: Drawn, model: Scores) -> float:
    """Of a model on a window."""
    customer = window.judged.customer.astype(np.intp)
    ranking = PrecisionRanking(model.raw, customer, window.judged.is_fraud)
    return ranking.average_precision(np.ones(int(customer.max()) + 1))


@cache
def better_noise() -> float:
    """The noise of a model whose true average precision is `GAIN` above the champion's, by bisection."""
    large = replace(FULL, customers=100_000)
    window = drawn(large, np.random.default_rng(SEED))

    def precision(noise: float) -> float:
        return average_precision(window, scores(window, noise, np.random.default_rng(SEED + 1)))

    wanted = precision(CHAMPION_NOISE) + GAIN
    low, high = 0.0, CHAMPION_NOISE
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if precision(middle) > wanted else (low, middle)
    return (low + high) / 2


def promoted(noise: float, trial: int, size: Size, rules: GateRules) -> tuple[bool, float]:
    """Whether the comparison lets a challenger of so much noise pass on a drawn window, and the gain it saw."""
    rng = np.random.default_rng([SEED, trial])
    window = drawn(size, rng)
    champion, challenger = scores(window, CHAMPION_NOISE, rng), scores(window, noise, rng)
    since = np.where(np.arange(size.rows) % 7 == 0, 0, -365 * US_PER_DAY)
    segments = segments_of(window.judged, since, np.roll(since, 3))
    comparison = compare(window.judged, challenger, champion, segments, rules)
    return all(check.passed for check in comparison.checks(rules)), comparison.gain


def counted(noise: float, trials: range, size: Size, rules: GateRules) -> tuple[int, Floats]:
    """How many challengers pass, and the gains that were seen."""
    found = [promoted(noise, trial, size, rules) for trial in trials]
    return sum(passed for passed, _ in found), np.array([gain for _, gain in found])


def main() -> None:
    """Run the experiment and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--resamples", type=int, default=GateRules().resamples)
    chosen = parser.parse_args()
    rules = GateRules(resamples=chosen.resamples)
    started = time.monotonic()
    noise = better_noise()
    for name, amount in (("better", noise), ("equal", CHAMPION_NOISE)):
        passed, gains = counted(amount, range(chosen.trials), FULL, rules)
        took_s = time.monotonic() - started
        print(f"{name}: {passed} of {chosen.trials} pass", flush=True)
        print(f"  gain {gains.mean():+.4f}, spread {gains.std():.4f}; {FULL.rows:,} rows; {took_s:.0f} s", flush=True)


if __name__ == "__main__":
    main()
