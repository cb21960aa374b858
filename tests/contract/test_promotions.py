"""The account of promotions: the same rules in memory and in Postgres, as the role of the app that keeps it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_promotions import PostgresPromotions
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role as Group
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.errors import BrokenInvariant, Conflict, Transient
from shared.ports.succession import Action, Change, KeptVerdict, KnownModel, ModelStatus, Promotions
from tests.conftest import MigratedDatabase, free_ports
from tests.fakes.succession import FakePromotions

ONE, TWO, THREE = (character * 64 for character in "123")
NONE = dict.fromkeys(Role, 0)
MODEL = KnownModel(
    ONE, "card-fraud", 1, "card-v1", ModelStatus.CANDIDATE, {"recall": (0.5, 0.25, 0.75)}, 1_000, 2_000, 3_000
)
VERDICT = KeptVerdict("a" * 64, ONE, None, True, '{"kind":"a verdict"}', "retrain/1", 5)


def change(role: Role, digest: str | None, number: int, action: Action = Action.PROMOTE) -> Change:
    return Change(Pointer(role, digest, number, 10 + number, "ada", f"change {number}"), action, VERDICT.digest)


@pytest.fixture(params=["fake", "postgres"])
def account(request: pytest.FixtureRequest) -> Iterator[Promotions]:
    if request.param == "fake":
        yield FakePromotions()
        return
    database: MigratedDatabase = request.getfixturevalue("migrated_database")
    with psycopg.connect(database.dsn) as connection:
        for table in ("promotions", "promotion_verdicts", "model_versions"):
            connection.execute(f"DELETE FROM tollgate.{table}")
    session = PostgresSession(database.role_connection(Group.RETRAIN), "test")
    yield PostgresPromotions(session)
    session.close()


def status(account: Promotions) -> dict[str, ModelStatus]:
    return {model.digest: model.status for model in account.models()}


def register(account: Promotions, *digests: str) -> None:
    for version, digest in enumerate(digests, start=1):
        account.register(replace(MODEL, digest=digest, version=version, registered_at_us=version))


def test_changes_read_back_by_role_and_number(account: Promotions) -> None:
    assert not account.heads()
    first, second = change(Role.CHAMPION, ONE, 1), change(Role.CHAMPION, TWO, 2)
    shadow = replace(change(Role.SHADOW, THREE, 1, Action.SHADOW), verdict_digest=None)
    account.append([first, shadow], NONE)
    account.append([second], {**NONE, Role.CHAMPION: 1, Role.SHADOW: 1})
    assert account.heads() == {Role.CHAMPION: second, Role.SHADOW: shadow}
    assert list(account.since(Role.CHAMPION, 0)) == [first, second]
    assert list(account.since(Role.CHAMPION, 1)) == [second]
    assert not account.since(Role.CHALLENGER, 0)


def test_a_change_of_what_has_changed_is_refused_and_names_who_was_faster(account: Promotions) -> None:
    account.append([change(Role.CHAMPION, ONE, 1)], NONE)
    for late in (change(Role.CHAMPION, TWO, 1), change(Role.SHADOW, TWO, 1, Action.SHADOW)):
        with pytest.raises(Conflict, match=f"{ONE[:12]} by ada .change 1."):
            account.append([late], NONE)
    assert list(account.heads()) == [Role.CHAMPION]


def test_an_account_that_was_cut_short_is_noticed(account: Promotions) -> None:
    with pytest.raises(BrokenInvariant, match="shorter"):
        account.append([change(Role.CHAMPION, ONE, 3)], {**NONE, Role.CHAMPION: 2})


def test_the_status_of_models_follows(account: Promotions) -> None:
    register(account, ONE, TWO, THREE)
    account.append([change(Role.CHAMPION, ONE, 1), change(Role.CHALLENGER, TWO, 1, Action.CHALLENGE)], NONE)
    assert status(account) == {ONE: ModelStatus.CHAMPION, TWO: ModelStatus.CHALLENGER, THREE: ModelStatus.CANDIDATE}
    seen = {**NONE, Role.CHAMPION: 1, Role.CHALLENGER: 1}
    account.append([change(Role.CHAMPION, TWO, 2), change(Role.CHALLENGER, None, 2, Action.RETIRE)], seen)
    assert status(account) == {ONE: ModelStatus.RETIRED, TWO: ModelStatus.CHAMPION, THREE: ModelStatus.CANDIDATE}
    account.append([change(Role.SHADOW, TWO, 1, Action.SHADOW)], {**seen, Role.CHAMPION: 2, Role.CHALLENGER: 2})
    assert status(account)[TWO] is ModelStatus.CHAMPION


def test_what_plays_every_part_is_shown_as_champion(account: Promotions) -> None:
    register(account, ONE)
    account.append([change(role, ONE, 1, Action.ADOPT) for role in Role], NONE)
    assert status(account) == {ONE: ModelStatus.CHAMPION}
    account.append([change(Role.CHAMPION, TWO, 2)], dict.fromkeys(Role, 1))
    assert status(account) == {ONE: ModelStatus.CHALLENGER}


def test_models_read_back_and_are_registered_once(account: Promotions) -> None:
    assert account.register(MODEL)
    assert not account.register(replace(MODEL, metrics={}, registered_at_us=9))
    assert list(account.models()) == [MODEL]
    with pytest.raises(Conflict, match=f"1 of card-fraud is the bundle {ONE[:12]} already"):
        account.register(replace(MODEL, digest=TWO))
    account.register(replace(MODEL, digest=TWO, version=2, registered_at_us=4_000))
    assert [model.digest for model in account.models()] == [TWO, ONE]


def test_verdicts_read_back_the_last_one_counts_and_the_status_follows(account: Promotions) -> None:
    register(account, ONE)
    assert account.verdict(ONE) is None
    assert account.keep(replace(VERDICT, passed=False))
    assert not account.keep(VERDICT)
    assert account.verdict(ONE) == replace(VERDICT, passed=False)
    assert status(account) == {ONE: ModelStatus.REFUSED}
    later = replace(VERDICT, digest="b" * 64, champion=TWO, run_id=None, decided_at_us=6)
    account.keep(later)
    assert account.verdict(ONE) == later
    assert status(account) == {ONE: ModelStatus.CANDIDATE}


def test_a_verdict_leaves_the_status_of_who_plays_or_played_a_role(account: Promotions) -> None:
    register(account, ONE, TWO)
    account.append([change(Role.CHAMPION, ONE, 1)], NONE, VERDICT)
    assert account.verdict(ONE) == VERDICT
    account.append([change(Role.CHAMPION, TWO, 2)], {**NONE, Role.CHAMPION: 1})
    for number, digest in enumerate((ONE, TWO)):
        account.keep(replace(VERDICT, digest=str(number) * 64, challenger=digest, passed=False, decided_at_us=7))
    assert status(account) == {ONE: ModelStatus.RETIRED, TWO: ModelStatus.CHAMPION}


def test_of_many_at_once_one_wins_and_all_others_are_told(migrated_database: MigratedDatabase) -> None:
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.promotions")
    won: list[str] = []
    told: list[str] = []
    barrier = threading.Barrier(8)

    def try_it(name: str) -> None:
        session = PostgresSession(migrated_database.role_connection(Group.RETRAIN), "test")
        state = Pointer(Role.CHAMPION, name * 64, 1, 1, f"person {name}", "first")
        barrier.wait()
        try:
            PostgresPromotions(session).append([Change(state, Action.ACCEPT)], NONE)
            won.append(name)
        except Conflict as error:
            told.append(str(error))
        finally:
            session.close()

    threads = [threading.Thread(target=try_it, args=(name,)) for name in "abcdef01"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(told) == 7
    assert all(f"{won[0] * 12} by person {won[0]}" in words for words in told)


def test_nobody_changes_or_deletes_what_was_entered(migrated_database: MigratedDatabase) -> None:
    with psycopg.connect(migrated_database.role_dsn(Group.RETRAIN), autocommit=True) as connection:
        for table, column in (("promotions", "bundle_digest"), ("promotion_verdicts", "champion_digest")):
            for statement in (f"DELETE FROM tollgate.{table}", f"UPDATE tollgate.{table} SET {column} = NULL"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)


def test_a_database_that_is_away_is_transient() -> None:
    dsn = f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/none"
    account = PostgresPromotions(PostgresSession(parse_postgres("D", {"D": dsn}), "test"))
    calls: tuple[Callable[[], object], ...] = (
        account.heads,
        account.models,
        lambda: account.since(Role.CHAMPION, 0),
        lambda: account.verdict(ONE),
        lambda: account.keep(VERDICT),
        lambda: account.register(MODEL),
        lambda: account.append([change(Role.CHAMPION, ONE, 1)], NONE),
    )
    for call in calls:
        with pytest.raises(Transient):
            call()
