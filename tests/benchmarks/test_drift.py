"""The short form of the drift benchmark: one small world, quiet hours and a drift of all amounts."""

from benchmarks.drift_streams import HOURS_PER_DAY, REFERENCE, Watch, reference_of, simulated
from benchmarks.drift_watching import fitted, scored
from shared.domain.drift_policy import Watched
from shared.domain.feature_view import CARD_V1

LEARNT_DAYS = 9
QUIET_HOURS = 12
DRIFT_HOURS = 6


def test_a_quiet_night_is_quiet_and_amounts_times_one_and_a_half_are_found_within_three_hours() -> None:
    first = REFERENCE[1] * HOURS_PER_DAY
    judged = first + LEARNT_DAYS * HOURS_PER_DAY
    start = judged + QUIET_HOURS
    stream = simulated(3, days=REFERENCE[1] + LEARNT_DAYS + 2, customers=4_000)
    booster = fitted(stream, (30, 40))
    raw = scored(booster, stream)
    watch = Watch(Watched(reference_of(stream, raw), CARD_V1))
    for _ in watch.run(stream, raw, range(first, judged), learning=True):
        pass
    assert not [found for _, found in watch.run(stream, raw, range(judged, start)) if found]
    drifted = stream.with_amounts(1.5, start)
    run = watch.run(drifted, scored(booster, drifted), range(start, start + DRIFT_HOURS))
    found = {hour - start + 1: [one.subject for one in findings] for hour, findings in run if findings}
    assert min(found) <= 3
    assert any("amount" in subject for subject in found[min(found)])
