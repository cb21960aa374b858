"""Decisions by event time, drift's numbers and announcements: the same rules in memory and in Postgres, as its role."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

import numpy as np
import psycopg
import pytest

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_drift import (
    SESSION,
    PostgresAnnouncements,
    PostgresDecidedWindows,
    PostgresDriftMetrics,
)
from shared.adapters.postgres_ledger import PostgresLedger
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.decision import Policy
from shared.domain.drift_policy import Clusters
from shared.domain.drift_record import ALL, OUTCOME, PSI, VERDICT, DriftMetric
from shared.domain.errors import Transient
from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.labels import LabelSource
from shared.ports.drift import Announcement, Announcements, DriftMetrics
from shared.services.labelling import Labelling
from shared.services.scoring import Decided, Scoring
from tests.conftest import MigratedDatabase, free_ports
from tests.fakes.drift import FakeAnnouncements, FakeDriftMetrics
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers
from tests.unit.domain.worlds import BASE_US, label, transaction
from tests.unit.shared.test_scoring import KEYS

DIGEST = "d" * 64
DETAILS: Final[dict[str, Any]] = {
    "distance": 0.25,
    "chance": 0.05,
    "natural": 0.01,
    "p_value": 0.5,
    "kolmogorov": 0.1,
    "jensen_shannon": 0.2,
    "level": 0.0,
    "deviations": None,
    "broken": [],
    "usual": True,
}


def row(subject: str, end_hour: int, *, hours: int = 1, **details: Any) -> DriftMetric:
    """A `psi` row of a window that ends so many hours after the base."""
    end_us = BASE_US + end_hour * US_PER_HOUR
    return DriftMetric(subject, PSI, 0.3, end_us - hours * US_PER_HOUR, end_us, 100, 10, {**DETAILS, **details})


@pytest.fixture
def session(migrated_database: MigratedDatabase) -> Iterator[PostgresSession]:
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.drift_metrics")
        connection.execute("DELETE FROM tollgate.announced_changes")
    session = PostgresSession(migrated_database.role_connection(Role.DRIFT), "test", SESSION)
    yield session
    session.close()


@pytest.fixture(params=["fake", "postgres"])
def metrics(request: pytest.FixtureRequest) -> DriftMetrics:
    if request.param == "fake":
        return FakeDriftMetrics()
    return PostgresDriftMetrics(request.getfixturevalue("session"))


def test_a_number_is_kept_once_and_read_back_as_it_was(metrics: DriftMetrics) -> None:
    verdict = DriftMetric(ALL, VERDICT, None, BASE_US, BASE_US + US_PER_HOUR, 5, 6, {"state": "withheld", "n": [1, 2]})
    outcome = DriftMetric(OUTCOME, "alert_rate", 0.5, BASE_US, BASE_US + US_PER_HOUR, 5, 6, {"approved": 3})
    unread = DriftMetric("amount", "ks", 0.5, BASE_US, BASE_US + US_PER_HOUR, 5, 6)
    assert metrics.record(DIGEST, [row("amount", 1), outcome, unread], 9) == 3
    assert metrics.last_end_us(DIGEST) is None
    assert metrics.record(DIGEST, [replace(row("amount", 1), value=0.9), verdict], 10) == 1
    assert metrics.record(DIGEST, [], 10) == 0
    assert metrics.last_end_us(DIGEST) == BASE_US + US_PER_HOUR
    assert metrics.last_end_us("e" * 64) is None
    found = metrics.read(DIGEST, BASE_US, BASE_US + US_PER_HOUR)
    assert sorted(found, key=lambda one: one.subject) == [verdict, row("amount", 1), outcome]
    assert not metrics.read(DIGEST, BASE_US + US_PER_HOUR, BASE_US + US_PER_DAY)
    assert not metrics.read("e" * 64, BASE_US, BASE_US + US_PER_DAY)


def test_a_window_without_a_level_is_usual_all_the_same(metrics: DriftMetrics) -> None:
    metrics.record(DIGEST, [row("amount", 24, level=None), row("amount", 48, level=0.25)], 9)
    found = metrics.usuals(DIGEST, 1, BASE_US + 24 * 4 * US_PER_HOUR, BASE_US)["amount"]
    assert (found.n_windows, found.level) == (2, 0.25)


def test_usual_windows_are_those_of_the_same_length_and_hour_of_the_day_that_were_in_bounds(
    metrics: DriftMetrics,
) -> None:
    usual = [row("amount", 24 * day, level=0.01 * day, distance=0.1 * day) for day in (1, 2, 3)]
    others = [
        row("amount", 24 * 4, level=9.0),  # less than a day before
        row("amount", 24 * 2 + 1, level=9.0),  # another hour of the day
        row("amount", 24 * 1, hours=3, level=9.0),  # another length
        row("score", 24 * 1, level=0.5),
        row("amount", -24, level=9.0),  # too old
        row("night", 24 * 2, level=9.0, usual=False),
    ]
    metrics.record(DIGEST, [*usual, *others], 9)
    found = metrics.usuals(DIGEST, 1, BASE_US + 24 * 4 * US_PER_HOUR, BASE_US)
    assert set(found) == {"amount", "score"}
    assert found["amount"].n_windows == 3
    assert found["amount"].distance == pytest.approx(0.2 - 0.05)
    assert found["amount"].level == pytest.approx(0.02)
    assert found["amount"].spread == pytest.approx(0.01 * math.sqrt(1 + 1 / 3))
    assert found["score"].n_windows == 1


@pytest.fixture(params=["fake", "postgres"])
def announcements(request: pytest.FixtureRequest) -> Iterator[Announcements]:
    if request.param == "fake":
        yield FakeAnnouncements()
        return
    database: MigratedDatabase = request.getfixturevalue("migrated_database")
    with psycopg.connect(database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.announced_changes")
    with closing(PostgresSession(database.connection, "test")) as owner:
        yield PostgresAnnouncements(owner)


def test_announced_changes_are_found_by_every_window_they_touch(announcements: Announcements) -> None:
    season = Announcement("*", 100, 200, "ann", "sale")
    prices = Announcement("amount", 50, 150, "bob", "prices")
    announcements.announce(season, 1)
    announcements.announce(prices, 2)
    assert list(announcements.announced(0, 300)) == [prices, season]
    assert list(announcements.announced(199, 300)) == [season]
    assert list(announcements.announced(0, 51)) == [prices]
    assert not announcements.announced(200, 300)
    assert not announcements.announced(0, 50)


def test_the_role_of_the_app_reads_announcements_and_makes_none(session: PostgresSession) -> None:
    mine = PostgresAnnouncements(session)
    assert not mine.announced(0, 1)
    with pytest.raises(Exception, match="announcing"):
        mine.announce(Announcement("*", 0, 1, "a", "b"), 0)


def test_decisions_are_read_as_they_were_taken(migrated_database: MigratedDatabase, session: PostgresSession) -> None:
    migrated_database.make_partitions(BASE_US, BASE_US + 3 * US_PER_DAY)
    clock = FakeClock(BASE_US + 2 * US_PER_DAY)
    ledger = PostgresLedger(migrated_database.role_connection(Role.INGEST), app="tests")
    scoring = Scoring(ledger, FixedScorers(), policy=Policy(0.05, 0.4), keys=KEYS, clock=clock)
    start_us = BASE_US + US_PER_DAY
    items = [
        transaction(place, US_PER_DAY + place * US_PER_HOUR, customer=f"c{place % 2}", terminal="m")
        for place in range(6)
    ]
    records = [one.record for one in scoring.decide(items) if isinstance(one, Decided)]
    assert len(records) == 6
    digest = records[0].decision.score.bundle_digest
    windows = PostgresDecidedWindows(session)
    assert windows.first_us(start_us - 1) == start_us
    assert windows.first_us(start_us + 6 * US_PER_HOUR) is None

    (part,) = windows.decided(
        digest, CARD_V1.name, len(CARD_V1.names), start_us + US_PER_HOUR, start_us + 4 * US_PER_HOUR
    )
    order = np.argsort(part.event_time_us)
    assert part.event_time_us[order].tolist() == [record.event_time_us for record in records[1:4]]
    assert part.vectors[order].tobytes() == b"".join(record.vector for record in records[1:4])
    assert part.raw[order].tolist() == pytest.approx([record.raw_score for record in records[1:4]], rel=1e-6)
    assert part.score[order].tolist() == [record.decision.score.probability for record in records[1:4]]
    assert part.is_champions.all()
    (other,) = windows.decided("e" * 64, CARD_V1.name, len(CARD_V1.names), start_us, start_us + US_PER_HOUR)
    assert not other.is_champions.any()
    (none,) = windows.decided(digest, "handbook-v1", 15, start_us, start_us + US_PER_HOUR)
    assert none.vectors.shape == (0, 15)

    spans = [(start_us, start_us + 5 * US_PER_HOUR), (start_us - 9, start_us)]
    assert windows.clusters(spans) == [Clusters(5, 3**2 + 2**2, 5**2), Clusters(0, 0, 0)]

    labelling = Labelling(ledger, KEYS, clock)
    clock.time_us = start_us + 2 * US_PER_DAY
    labelling.record(
        [
            replace(label(items[0], fraud=True, known_after_us=10), source=LabelSource.CHARGEBACK),
            label(items[0], fraud=False, known_after_us=20),
            label(items[1], fraud=False, known_after_us=10),
            label(items[2], fraud=True, known_after_us=US_PER_DAY),
        ]
    )
    matured = windows.matured(digest, start_us, start_us + 9 * US_PER_HOUR, as_of_us=start_us + 2 * US_PER_HOUR)
    assert sorted(matured.is_fraud.tolist()) == [False, True]
    assert len(set(matured.customer.tolist())) == 2
    assert len(set(matured.terminal.tolist())) == 1
    assert len(windows.matured("e" * 64, start_us, start_us + US_PER_HOUR, as_of_us=start_us + US_PER_DAY).score) == 0
    ledger.close()


def test_a_database_that_is_away_is_transient() -> None:
    dsn = f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/none"
    away = PostgresDriftMetrics(PostgresSession(parse_postgres("D", {"D": dsn}), "test"))
    with pytest.raises(Transient):
        away.last_end_us(DIGEST)
