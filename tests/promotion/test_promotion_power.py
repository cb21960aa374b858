"""The short form of `tests.promotion.power`: smaller windows and a greater gain, through the same comparison."""

from __future__ import annotations

import numpy as np
import pytest

from shared.domain.promotion import GateRules
from tests.promotion.power import CHAMPION_NOISE, FRAUD_SHARE, Size, average_precision, counted, drawn, scores

SMALL = Size(customers=2_000, per_customer=10, days=14)
RULES = GateRules(resamples=80)


def test_most_better_challengers_pass_and_hardly_any_equal_one() -> None:
    better, gains = counted(0.2, range(8), SMALL, RULES)
    equal, differences = counted(CHAMPION_NOISE, range(8), SMALL, RULES)
    assert gains.mean() > 0.05
    assert abs(differences.mean()) < 0.02
    assert better >= 7
    assert equal <= 1


def test_the_drawn_scores_are_what_they_are_said_to_be() -> None:
    window = drawn(Size(customers=20_000, per_customer=10, days=14), np.random.default_rng(1))
    assert window.judged.is_fraud.mean() == pytest.approx(FRAUD_SHARE, rel=0.1)
    model = scores(window, CHAMPION_NOISE, np.random.default_rng(2))
    assert model.probability.sum() == pytest.approx(window.judged.is_fraud.sum(), rel=0.1)
    less = scores(window, 0.4, np.random.default_rng(2))
    assert average_precision(window, less) > average_precision(window, model) + 0.05
