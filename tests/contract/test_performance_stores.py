"""Decisions beside what became known of them, and figures that are kept: in Postgres as the drift app's role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest

from shared.adapters.postgres_ledger_pipelined import PipelinedLedger
from shared.adapters.postgres_performance import PostgresLabelledWindows, PostgresPerformanceLog
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.instants import US_PER_DAY, US_PER_MINUTE
from shared.domain.labels import MATURITY_US, LabelSource, Verdict
from shared.domain.performance import ALL, NO_DECISION, NO_FRAUDS, LabelledRows, Measured, Metric
from shared.ports.performance import KeptFigure, PerformanceLog
from shared.services.labelling import Labelling
from shared.services.performance_check import SETTLING_US, PerformanceCheck
from shared.services.scoring import Scoring
from tests.conftest import MigratedDatabase
from tests.fakes.performance import FakePerformanceLog
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.unit.domain.worlds import BASE_US, label, transaction
from tests.unit.shared.test_scoring import KEYS, POLICY

SHADOW = "c" * 64
END_US = BASE_US + US_PER_DAY


@pytest.fixture
def session(migrated_database: MigratedDatabase) -> Iterator[PostgresSession]:
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.performance_metrics")
    with closing(PostgresSession(migrated_database.role_connection(Role.DRIFT), "test")) as opened:
        yield opened


@pytest.fixture(params=["fake", "postgres"])
def log(request: pytest.FixtureRequest) -> PerformanceLog:
    if request.param == "fake":
        return FakePerformanceLog()
    return PostgresPerformanceLog(request.getfixturevalue("session"))


def figure(digest: str, end_us: int, metric: Metric, value: float | None, segment: str = ALL) -> KeptFigure:
    note = "" if value is not None else NO_FRAUDS
    low, high = (None, None) if value is None else (value / 2, value * 2)
    return KeptFigure(digest, end_us - 7, end_us, Measured(segment, metric, value, low, high, 10, 2, note))


def test_figures_are_kept_once_and_read_as_a_trend(log: PerformanceLog) -> None:
    assert log.last_end_us() is None
    first = [figure("a", 10, Metric.AUC, 0.5), figure("a", 10, Metric.MISSED, None)]
    later = [figure("b", 11, Metric.AUC, 0.75), figure("a", 11, Metric.AUC, 0.25), figure("a", 11, Metric.AUC, 1, "x")]
    assert log.record([*first, *later], 1) == 5
    assert log.record([figure("a", 10, Metric.AUC, 0.125)], 2) == 0
    assert log.last_end_us() == 11
    assert list(log.trend(ALL, 10)) == [*first, later[1], later[0]]
    assert list(log.trend(ALL, 11, "b")) == [later[0]]
    assert list(log.trend("x", 0)) == [later[2]]


@pytest.fixture(scope="module")
def decided(migrated_database: MigratedDatabase) -> MigratedDatabase:
    """Two models decided; labels of all kinds; a third model scored in shadow."""
    migrated_database.make_partitions(BASE_US - 9 * US_PER_DAY, BASE_US + 2 * US_PER_DAY)
    where, clock = migrated_database.role_connection(Role.INGEST), FakeClock(BASE_US + 10 * US_PER_MINUTE)
    items = [transaction(number, number * US_PER_MINUTE, customer=f"c{number % 2}") for number in range(8)]
    with closing(PipelinedLedger(where, "test")) as ledger:
        for version, part in ((1, items[:6]), (2, [*items[6:], transaction(9, US_PER_DAY, customer="after")])):
            scorers = FixedScorers(LinearScorer(version=version))
            Scoring(ledger, scorers, policy=POLICY, keys=KEYS, clock=clock).decide(part)
        silence = replace(
            label(items[0], fraud=False, known_after_us=MATURITY_US), source=LabelSource.MATURITY, author="maturity"
        )
        Labelling(ledger, KEYS, clock).record(
            [
                silence,
                label(items[1], fraud=True, known_after_us=US_PER_DAY),
                label(items[2], fraud=True, known_after_us=2 * US_PER_DAY),
                replace(
                    label(items[2], fraud=False, known_after_us=US_PER_DAY),
                    source=LabelSource.CHARGEBACK,
                    author="bank",
                ),
                label(items[3], fraud=True, known_after_us=0),  # known before it was decided
                replace(label(items[4], fraud=True, known_after_us=US_PER_DAY), verdict=Verdict.GENUINE),
                replace(silence, transaction_id=items[6].transaction_id),
            ]
        )
    with psycopg.connect(migrated_database.role_dsn(Role.RETRAIN)) as connection:
        for number, score in ((1, 0.75), (3, 0.25)):
            connection.execute(
                "INSERT INTO tollgate.shadow_scores VALUES (%s, %s, %s, .5, %s, 0)",
                [SHADOW, items[number].event_time_us, items[number].transaction_id, score],
            )
    return migrated_database


def test_decisions_come_with_the_label_that_holds(decided: MigratedDatabase, session: PostgresSession) -> None:
    windows = PostgresLabelledWindows(session)
    found = windows.decided(BASE_US, END_US)
    first, second = (found[LinearScorer(version=version).bundle_digest] for version in (1, 2))
    assert (len(found), len(first), len(second)) == (2, 6, 2)
    order = first.event_time_us.argsort()
    rows: LabelledRows = first.take(order)
    assert rows.is_labelled.tolist() == [True, True, True, True, True, False]
    assert rows.is_fraud.tolist() == [False, True, False, True, False, False]
    assert rows.known_first.tolist() == [False, False, False, True, False, False]
    assert rows.amount_minor.tolist() == [1000] * 6
    assert rows.events_known.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(rows.customer.tolist())) == 2
    assert second.is_labelled.sum() == 1
    assert {
        digest: sorted(part.score.tolist(), reverse=True) for digest, part in windows.in_shadow(BASE_US, END_US).items()
    } == {SHADOW: [0.75, 0.25]}
    shadow = windows.in_shadow(BASE_US, END_US)[SHADOW]
    assert set(shadow.outcome.tolist()) == {NO_DECISION}
    assert sorted(shadow.known_first.tolist()) == [False, True]
    assert windows.decided(BASE_US - US_PER_DAY, BASE_US) == {}


def test_a_day_of_the_drift_app(decided: MigratedDatabase, session: PostgresSession) -> None:
    log, clock = PostgresPerformanceLog(session), FakeClock(END_US + MATURITY_US + SETTLING_US)
    check = PerformanceCheck(PostgresLabelledWindows(session), log, clock)
    found = check.check_due()
    assert (found["windows"], found["models"], found["rows"]) == (1, 3, 8)
    assert check.check_due()["windows"] == 0
    trend = log.trend(ALL, END_US, LinearScorer(version=1).bundle_digest)
    by_metric = {one.measured.metric: one.measured for one in trend}
    assert by_metric[Metric.LABELLED].value == 4 / 5  # one of six was known first, one has no label
    assert (by_metric[Metric.AUC].n_rows, by_metric[Metric.AUC].n_frauds) == (4, 1)
    assert log.record(list(trend), 7) == 0
