"""One suite for notices in memory and in Postgres; what only a database can do is tested on it alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psycopg
import pytest

from shared.adapters.postgres_notices import PostgresNotices
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.instants import US_PER_DAY, US_PER_HOUR, US_PER_MINUTE
from shared.domain.pipeline import Notice, Severity
from shared.ports.notifying import Claim, ClaimedNotice, ClaimRules, NoticeStatus
from tests.conftest import MigratedDatabase
from tests.fakes.notices import FakeNotices

NOW_US = 1_700_000_000_000_000
RULES = ClaimRules(per_hour=4, urgent_share=0.5)


def notice(key: str, severity: Severity = Severity.WARNING, created_at_us: int = NOW_US) -> Notice:
    return Notice(
        key, severity, f"title of {key}", {"psi": 0.31, "rows": [1, 2]}, "https://example.test/x", created_at_us
    )


@pytest.fixture
def emptied(migrated_database: MigratedDatabase) -> MigratedDatabase:
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.notifications")
    return migrated_database


@pytest.fixture
def session(emptied: MigratedDatabase) -> Iterator[PostgresSession]:
    opened = PostgresSession(emptied.role_connection(Role.DRIFT), "test")
    yield opened
    opened.close()


@pytest.fixture(params=["fake", "postgres"])
def store(request: pytest.FixtureRequest) -> FakeNotices | PostgresNotices:
    if request.param == "fake":
        return FakeNotices()
    return PostgresNotices(request.getfixturevalue("session"))


type Store = FakeNotices | PostgresNotices


def keys(claim: Claim) -> list[str]:
    return [item.notice.dedup_key for item in claim.taken]


def one(store: Store, now_us: int = NOW_US) -> ClaimedNotice:
    (claimed,) = store.claim("mail", now_us, RULES).taken
    return claimed


def test_a_key_is_told_once(store: Store) -> None:
    assert store.put(notice("a"))
    assert not store.put(notice("a", Severity.CRITICAL))
    assert store.spread(["mail"], NOW_US) == 1
    assert not store.put(notice("a"))
    assert store.spread(["mail"], NOW_US) == 0
    assert keys(store.claim("mail", NOW_US, RULES)) == ["a"]


def test_what_is_claimed_is_what_was_put(store: Store) -> None:
    store.put(notice("a"))
    store.spread(["mail", "slack"], NOW_US)
    for channel in ("mail", "slack"):
        (claimed,) = store.claim(channel, NOW_US, RULES).taken
        assert (claimed.attempt, claimed.notice) == (1, notice("a"))
    assert store.claim("webhook", NOW_US, RULES) == Claim()


def test_without_channels_a_notice_is_on_the_page_only(store: Store) -> None:
    store.put(notice("a"))
    assert store.spread([], NOW_US) == 1
    assert store.spread(["mail"], NOW_US) == 0  # a channel that is turned on later is not flooded with the past
    assert store.claim("mail", NOW_US, RULES) == Claim()


def test_the_worst_goes_first_and_then_the_oldest(store: Store) -> None:
    for key, severity, age in (("w2", 2, 1), ("w1", 2, 2), ("c", 0, 0), ("e", 1, 0)):
        store.put(notice(key, Severity(severity), NOW_US - age))
    store.spread(["mail"], NOW_US)
    assert keys(store.claim("mail", NOW_US, RULES)) == ["c", "e"]  # warnings may use half of the four


def test_a_claim_holds_until_its_lease_ends(store: Store) -> None:
    store.put(notice("a"))
    store.spread(["mail"], NOW_US)
    first = one(store)
    assert store.claim("mail", NOW_US + RULES.lease_us - 1, RULES) == Claim()
    second = one(store, NOW_US + RULES.lease_us)
    assert (first.attempt, second.attempt) == (1, 2)
    assert not store.settle(first, NoticeStatus.SENT, NOW_US)
    assert not store.put_off(first, NOW_US, "late")
    assert store.settle(second, NoticeStatus.SENT, NOW_US)
    assert not store.settle(second, NoticeStatus.FAILED, NOW_US)
    assert store.claim("mail", NOW_US + US_PER_DAY, RULES) == Claim()


def test_what_was_put_off_comes_again_when_it_is_due(store: Store) -> None:
    store.put(notice("a"))
    store.spread(["mail"], NOW_US)
    assert store.put_off(one(store), NOW_US + US_PER_MINUTE, "refused")
    assert store.claim("mail", NOW_US + US_PER_MINUTE - 1, RULES) == Claim()
    assert one(store, NOW_US + US_PER_MINUTE).attempt == 2


def test_what_was_released_counts_as_untried(store: Store) -> None:
    store.put(notice("a"))
    store.spread(["mail"], NOW_US)
    assert store.release(one(store), NOW_US + 5, "the channel rests")
    assert store.claim("mail", NOW_US + 4, RULES) == Claim()
    assert one(store, NOW_US + 5).attempt == 1


def test_what_waits_for_too_long_is_given_up(store: Store) -> None:
    store.put(notice("old", created_at_us=NOW_US - RULES.give_up_us - 1))
    store.put(notice("young", created_at_us=NOW_US - RULES.give_up_us))
    store.spread(["mail"], NOW_US)
    claim = store.claim("mail", NOW_US, RULES)
    assert claim.given_up == ("title of old",)
    assert keys(claim) == ["young"]
    assert store.claim("mail", NOW_US, RULES).given_up == ()


def test_beyond_the_limit_notices_are_withheld_and_one_says_so(store: Store) -> None:
    for number in range(6):
        store.put(notice(f"e{number}", Severity.ERROR, NOW_US + number))
    store.spread(["mail"], NOW_US + 9)
    claim = store.claim("mail", NOW_US + 9, RULES)
    assert keys(claim) == ["e0", "e1", "e2", "e3"]
    assert claim.withheld == 2
    for item in claim.taken:
        assert store.settle(item, NoticeStatus.SENT, NOW_US + 9)
    (summary,) = store.claim("mail", NOW_US + 9, RULES).taken
    assert summary.notice.dedup_key == "withheld/mail/2023-11-14T22"
    assert store.settle(summary, NoticeStatus.SENT, NOW_US + 9)
    store.put(notice("more", Severity.ERROR))
    store.spread(["mail"], NOW_US + 10)
    assert store.claim("mail", NOW_US + 10, RULES) == Claim((), 1)
    assert store.claim("mail", NOW_US + 11, RULES) == Claim()  # said once in the hour
    store.put(notice("later", Severity.ERROR))
    store.spread(["mail"], NOW_US + 12)
    assert keys(store.claim("mail", NOW_US + 9 + US_PER_HOUR, RULES)) == ["later"]


def test_what_is_under_way_counts_and_what_was_put_off_does_not(store: Store) -> None:
    for number in range(4):
        store.put(notice(f"e{number}", Severity.ERROR))
    store.spread(["mail"], NOW_US)
    under_way = store.claim("mail", NOW_US, RULES).taken
    store.put(notice("next", Severity.ERROR))
    store.spread(["mail"], NOW_US)
    store.put_off(under_way[0], NOW_US + US_PER_HOUR, "refused")
    assert keys(store.claim("mail", NOW_US, RULES)) == ["next"]
    store.put(notice("last", Severity.ERROR))
    store.spread(["mail"], NOW_US)
    assert store.claim("mail", NOW_US, RULES).withheld == 1


def test_of_many_dispatchers_each_notice_goes_to_one(emptied: MigratedDatabase) -> None:
    sessions = [PostgresSession(emptied.role_connection(Role.DRIFT), "test") for _ in range(4)]
    for number in range(12):
        PostgresNotices(sessions[0]).put(notice(f"n{number}", Severity.CRITICAL))
    start = Barrier(len(sessions))

    def dispatch(session: PostgresSession) -> list[str]:
        store = PostgresNotices(session)
        start.wait()
        store.spread(["mail"], NOW_US)
        return [
            item.notice.dedup_key
            for _ in range(12)
            for item in store.claim("mail", NOW_US, ClaimRules(per_hour=9, most=2)).taken
            if not item.notice.dedup_key.startswith("withheld/")
        ]

    with ThreadPoolExecutor(len(sessions)) as pool:
        found = [key for part in pool.map(dispatch, sessions) for key in part]
    for session in sessions:
        session.close()
    assert len(found) == len(set(found)) == 9  # the limit holds for all of them together


def test_the_apps_that_tell_may_put_and_no_more(emptied: MigratedDatabase) -> None:
    opened = PostgresSession(emptied.role_connection(Role.RETRAIN), "test")
    assert PostgresNotices(opened).put(notice("a"))
    opened.close()
    with (
        psycopg.connect(emptied.role_dsn(Role.RETRAIN)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("UPDATE tollgate.notifications SET status = 'sent'")
