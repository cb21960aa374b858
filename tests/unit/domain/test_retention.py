"""How long rows are kept: never less than they are read."""

from __future__ import annotations

import pytest

from shared.domain.data_quality import NORM_WEEKS, WEEK_US, WINDOW_US
from shared.domain.drift_policy import MEMORY_US
from shared.domain.errors import InvalidInput
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import MATURITY_US
from shared.domain.retention import (
    LEAST_FIGURES_DAYS,
    LEAST_RUNS_DAYS,
    LEAST_SHADOW_DAYS,
    SHADOW_REACH_DAYS,
    TAKEN_DAYS,
    Expiring,
    Keeping,
)
from shared.services import performance_check, quality_check
from shared.services.retraining_trial import LOOK_BACK_US, TELL_US


def test_what_is_read_is_kept() -> None:
    figures_us = LEAST_FIGURES_DAYS * US_PER_DAY
    assert figures_us > MEMORY_US
    assert figures_us > NORM_WEEKS * WEEK_US + US_PER_DAY + quality_check.MAX_CATCH_UP * WINDOW_US
    measured_us = MATURITY_US + performance_check.SETTLING_US
    measured_us += (performance_check.WINDOW_DAYS + performance_check.MAX_CATCH_UP) * US_PER_DAY
    assert measured_us < SHADOW_REACH_DAYS * US_PER_DAY
    assert SHADOW_REACH_DAYS * US_PER_DAY > LOOK_BACK_US
    assert LEAST_SHADOW_DAYS > SHADOW_REACH_DAYS
    assert LEAST_RUNS_DAYS * US_PER_DAY > TELL_US, "else a notice that is gone would be told again"


def test_the_defaults_are_above_the_least_and_every_kind_has_a_time() -> None:
    keeping = Keeping()
    assert {what: keeping.days(what) for what in Expiring} == {
        Expiring.NOTICES: 90,
        Expiring.RUNS: 90,
        Expiring.COUNTS: 90,
        Expiring.ANNOUNCEMENTS: 400,
        Expiring.QUALITY: 400,
        Expiring.PERFORMANCE: 400,
        Expiring.DRIFT: 400,
        Expiring.TAKEN_LETTERS: 30,
        Expiring.LETTERS: 400,
        Expiring.SHADOW_SCORES: 120,
    }
    assert keeping.until_us(Expiring.DRIFT, 500 * US_PER_DAY) == 100 * US_PER_DAY


@pytest.mark.parametrize(
    ("field", "least"),
    [
        ("runs_days", LEAST_RUNS_DAYS),
        ("figures_days", LEAST_FIGURES_DAYS),
        ("letters_days", TAKEN_DAYS),
        ("shadow_days", LEAST_SHADOW_DAYS),
    ],
)
def test_less_than_is_needed_is_refused(field: str, least: int) -> None:
    Keeping(**{field: least})
    with pytest.raises(InvalidInput) as refusal:
        Keeping(**{field: least - 1})
    assert refusal.value.field == field
