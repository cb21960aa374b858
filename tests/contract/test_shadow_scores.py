"""Scores of models that do not decide: the same rules in memory and in Postgres, as the role of the retrain app."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import psycopg
import pytest

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_ledger_statements import VERDICT_CODES
from shared.adapters.postgres_promotions import PostgresPromotions
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.postgres_shadow import PostgresShadowScores
from shared.adapters.schema.grants import Role as Group
from shared.domain.decision import STRICTNESS
from shared.domain.decision_record import read_decision
from shared.domain.errors import Transient
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import PRECEDENCE, Label, LabelSource
from shared.ports.shadowing import FIRST, Look, PairSelection, Place, ShadowScore, ShadowScores
from shared.ports.succession import KnownModel, ModelStatus
from shared.services.scoring import Decided
from tests.conftest import MigratedDatabase, free_ports
from tests.contract.ledger_stores import scoring
from tests.fakes.ledger import FakeLedger
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.fakes.shadowing import FakeShadowScores
from tests.unit.domain.worlds import BASE_US, label, transaction

TRIED: Final = "d" * 64
CHAMPION: Final = LinearScorer()
OTHER: Final = LinearScorer("other", 2)
EVERYTHING: Final = Look(TRIED, "card-v1", 0, 0)
END_US: Final = BASE_US + 100 * US_PER_DAY


class Bench:
    """A store of scores, and how decisions and labels come to it."""

    def __init__(self, fake: FakeShadowScores, owner: psycopg.Connection[object] | None, scores: ShadowScores) -> None:
        self.fake = fake
        self.owner = owner
        self.scores = scores
        self.decided = 0

    def decide(self, day: int, *, recorded_at_us: int = BASE_US, scorer: LinearScorer = CHAMPION) -> Place:
        """Keep a decision, made by the deciding use case; those of one day have one event time."""
        self.decided += 1
        item = transaction(self.decided, day * US_PER_DAY)
        (verdict,) = scoring(FakeLedger(), FixedScorers(scorer)).decide([item])
        assert isinstance(verdict, Decided)
        place = Place(item.event_time_us, item.transaction_id)
        self.fake.decisions[place] = verdict.data, recorded_at_us
        if self.owner is not None:
            decision = verdict.record.decision
            self.owner.execute(
                "INSERT INTO tollgate.predictions VALUES (%s, %s, %s, %s, %s, %s, 'w', 0, 0, %s)",
                [
                    place.transaction_id,
                    place.event_time_us,
                    verdict.data,
                    STRICTNESS.index(decision.outcome),
                    decision.score.probability,
                    decision.score.bundle_digest,
                    recorded_at_us,
                ],
            )
        return place

    def label(self, said: Label) -> None:
        self.fake.labels.append(said)
        if self.owner is not None:
            self.owner.execute(
                "INSERT INTO tollgate.feedback_labels"
                " VALUES (%s, decode(md5(%s) || md5(%s), 'hex'), %s, %s, %s, %s, %s, %s, 0)",
                [
                    said.transaction_id,
                    repr(said),
                    repr(said),
                    VERDICT_CODES[said.verdict],
                    PRECEDENCE.index(said.source),
                    said.event_time_us,
                    said.known_at_us,
                    said.confidence,
                    said.author,
                ],
            )

    def missing(self, look: Look = EVERYTHING, after: Place = FIRST, limit: int = 100) -> list[Place]:
        return [one.place for one in self.scores.missing(look, after, limit)]

    def pairs(self, as_of_us: int = END_US) -> list[tuple[Place, float, bool | None]]:
        selection = PairSelection(TRIED, CHAMPION.bundle_digest, 0, END_US, as_of_us)
        return [(one.place, one.probability, one.is_fraud) for one in self.scores.pairs(selection, FIRST, 100)]


@pytest.fixture(params=["fake", "postgres"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    views = {scorer.bundle_digest: "card-v1" for scorer in (CHAMPION, OTHER)}
    if request.param == "fake":
        fake = FakeShadowScores(views=views)
        yield Bench(fake, None, fake)
        return
    database: MigratedDatabase = request.getfixturevalue("migrated_database")
    database.make_partitions(BASE_US, END_US)
    session = PostgresSession(database.role_connection(Group.RETRAIN), "test")
    with psycopg.connect(database.dsn, autocommit=True) as owner:
        for table in ("predictions", "feedback_labels", "shadow_scores", "model_versions"):
            owner.execute(f"DELETE FROM tollgate.{table}")
        for version, (digest, view) in enumerate(views.items(), start=1):
            model = KnownModel(digest, "linear", version, view, ModelStatus.CANDIDATE, {}, 1, 2, 3)
            PostgresPromotions(session).register(model)
        yield Bench(FakeShadowScores(), owner, PostgresShadowScores(session))
    session.close()


def test_what_is_missing_comes_in_order_of_event_time_and_id(bench: Bench) -> None:
    places = [bench.decide(day) for day in (3, 1, 1, 2)]
    assert bench.missing() == sorted(places)
    assert bench.missing(limit=2) == sorted(places)[:2]
    for number, place in enumerate(sorted(places), start=1):
        assert bench.missing(after=place) == sorted(places)[number:]
    found = bench.scores.missing(EVERYTHING, FIRST, 1)[0]
    assert read_decision(found.record).transaction_id == found.place.transaction_id


def test_what_is_scored_is_missing_no_more_and_stays_as_it_was(bench: Bench) -> None:
    first, second, third = sorted(bench.decide(day) for day in (1, 2, 3))
    assert bench.scores.put(TRIED, [ShadowScore(first, 0.5, 0.25), ShadowScore(third, 0.75, 0.5)], 1) == 2
    assert bench.missing() == [second]
    assert bench.scores.put(TRIED, [ShadowScore(first, 0.1, 0.1), ShadowScore(second, 0.25, 0.125)], 2) == 1
    assert not bench.missing()
    assert bench.pairs() == [(first, 0.25, None), (second, 0.125, None), (third, 0.5, None)]
    assert bench.missing(replace(EVERYTHING, bundle_digest="e" * 64)) == [first, second, third]


def test_a_look_is_bounded_by_event_time_recorded_time_and_view(bench: Bench) -> None:
    early = bench.decide(1, recorded_at_us=BASE_US + 2 * US_PER_DAY)
    late = bench.decide(9, recorded_at_us=BASE_US + 9 * US_PER_DAY)
    slow = bench.decide(8, recorded_at_us=BASE_US + 12 * US_PER_DAY)
    assert bench.missing(replace(EVERYTHING, since_us=late.event_time_us)) == [late]
    assert bench.missing(replace(EVERYTHING, recorded_since_us=BASE_US + 9 * US_PER_DAY)) == [slow, late]
    assert bench.missing(replace(EVERYTHING, recorded_since_us=BASE_US + 10 * US_PER_DAY)) == [slow]
    assert bench.missing() == [early, slow, late]
    assert not bench.missing(replace(EVERYTHING, view="handbook-v1"))


def test_a_decision_that_is_committed_late_is_found_all_the_same(bench: Bench) -> None:
    first = bench.decide(2)
    bench.scores.put(TRIED, [ShadowScore(first, 0.5, 0.5)], 1)
    late = bench.decide(1)
    assert bench.missing() == [late]


def test_pairs_are_of_the_champion_and_within_bounds(bench: Bench) -> None:
    mine, others, outside = bench.decide(1), bench.decide(2, scorer=OTHER), bench.decide(50)
    bench.scores.put(TRIED, [ShadowScore(place, 0.5, 0.5) for place in (mine, others, outside)], 1)
    selection = PairSelection(TRIED, CHAMPION.bundle_digest, 0, outside.event_time_us, END_US)
    (pair,) = bench.scores.pairs(selection, FIRST, 10)
    assert pair.place == mine
    assert read_decision(pair.record).decision.score.bundle_digest == CHAMPION.bundle_digest
    assert not bench.scores.pairs(selection, mine, 10)


def test_of_several_labels_the_strongest_counts_that_was_known(bench: Bench) -> None:
    place = bench.decide(1)
    bench.scores.put(TRIED, [ShadowScore(place, 0.5, 0.5)], 1)
    said = label(transaction(bench.decided, US_PER_DAY), fraud=True, known_after_us=US_PER_DAY)
    assert bench.pairs() == [(place, 0.5, None)]
    bench.label(said)
    bench.label(replace(said, verdict=label(transaction(1, 0), fraud=False).verdict, confidence=50))
    assert bench.pairs() == [(place, 0.5, True)]
    later = label(transaction(bench.decided, US_PER_DAY), fraud=False, known_after_us=5 * US_PER_DAY)
    bench.label(replace(later, source=LabelSource.CHARGEBACK))
    assert bench.pairs() == [(place, 0.5, False)]
    assert bench.pairs(as_of_us=said.known_at_us) == [(place, 0.5, True)]
    assert bench.pairs(as_of_us=said.known_at_us - 1) == [(place, 0.5, None)]


def test_a_database_that_is_away_is_transient() -> None:
    dsn = f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/none"
    scores = PostgresShadowScores(PostgresSession(parse_postgres("D", {"D": dsn}), "test"))
    with pytest.raises(Transient):
        scores.missing(EVERYTHING, FIRST, 1)
    with pytest.raises(Transient):
        scores.put(TRIED, [ShadowScore(FIRST, 0.5, 0.5)], 1)
    with pytest.raises(Transient):
        scores.pairs(PairSelection(TRIED, TRIED, 0, 1, 1), FIRST, 1)
