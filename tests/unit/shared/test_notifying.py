"""Sending what waits, with channels that take, refuse, fail, hang and break."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import BrokenInvariant, Overloaded, Transient
from shared.domain.instants import US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND
from shared.domain.pipeline import Notice, Severity
from shared.ports.notifying import PAGE, Channel, Claim, ClaimedNotice, ClaimRules, NoticeStatus
from shared.services.notifying import LONGEST_REQUEST_US, Links, Notifying
from shared.services.notifying_limits import FIRST_WAIT_US, LONGEST_WAIT_US, admit, wait_us
from shared.services.notifying_text import MAX_LINES, evidence_lines
from tests.fakes.notices import FakeNotices
from tests.fakes.probes import FakeClock


@dataclass
class FakeChannel:
    """Takes notices, or raises what it is given: in order, then the last one for ever."""

    name: str = "mail"
    faults: list[Exception | None] = field(default_factory=lambda: [None])
    taken: list[Notice] = field(default_factory=list)
    hold: Event | None = None
    reached: Event = field(default_factory=Event)

    def send(self, notice: Notice) -> None:
        self.reached.set()
        if self.hold is not None:
            assert self.hold.wait(60)
        fault = self.faults.pop(0) if len(self.faults) > 1 else self.faults[0]
        if fault is not None:
            raise fault
        self.taken.append(notice)

    @property
    def keys(self) -> list[str]:
        return [notice.dedup_key for notice in self.taken]


CLOCK_US = FakeClock().now_us()


def notice(key: str, link: str = "") -> Notice:
    return Notice(key, Severity.ERROR, f"title of {key}", {"psi": 0.3}, link, CLOCK_US)


def world(
    *channels: Channel, keys: str = "abc", links: Links | None = None
) -> tuple[Notifying, FakeNotices, FakeClock]:
    store, clock = FakeNotices(), FakeClock()
    for key in keys:
        store.put(notice(key))
    return Notifying(store, channels, clock, lambda: 0.0, links=links or Links(), grace_s=0.3), store, clock


def statuses(store: FakeNotices, channel: str) -> list[NoticeStatus]:
    return [row.status for row in store.rows if row.channel == channel]


def test_each_notice_goes_once_to_each_channel() -> None:
    mail, slack = FakeChannel(), FakeChannel("slack")
    notifying, store, clock = world(mail, slack, links=Links("https://drift.example/"))
    done = notifying.send_waiting()
    assert mail.keys == slack.keys == ["a", "b", "c"]
    assert {item.link for item in mail.taken} == {"https://drift.example/api/reports"}
    assert (done["mail"].sent, done["slack"].sent) == (3, 3)
    clock.time_us += US_PER_HOUR
    notifying.send_waiting()
    assert len(mail.taken) == 3
    assert statuses(store, "mail") == [NoticeStatus.SENT] * 3


def test_a_channel_that_fails_keeps_none_from_the_others_and_comes_again_later() -> None:
    mail, slack = FakeChannel(faults=[Transient("down"), None]), FakeChannel("slack")
    notifying, store, clock = world(mail, slack)
    done = notifying.send_waiting()
    assert slack.keys == ["a", "b", "c"]
    assert (mail.keys, done["mail"].put_off) == ([], 3)  # one was tried, the others were not
    assert [row.attempts for row in store.rows if row.channel == "mail"] == [1, 0, 0]
    notifying.send_waiting()
    assert mail.keys == ["b", "c"]
    clock.time_us += US_PER_MINUTE
    notifying.send_waiting()
    assert mail.keys == ["b", "c", "a"]


def test_a_channel_is_left_alone_for_as_long_as_it_asks() -> None:
    mail = FakeChannel(faults=[Overloaded("later", 600), None])
    notifying, _, clock = world(mail)
    notifying.send_waiting()
    clock.time_us += 600 * US_PER_SECOND - 1
    assert notifying.send_waiting()["mail"].put_off == 0
    assert mail.keys == []
    clock.time_us += 1
    notifying.send_waiting()
    assert mail.keys == ["a", "b", "c"]


def test_nobody_may_ask_for_too_long() -> None:
    mail = FakeChannel(faults=[Overloaded("next year", 10**9), None])
    notifying, _, clock = world(mail)
    notifying.send_waiting()
    clock.time_us += LONGEST_REQUEST_US
    notifying.send_waiting()
    assert mail.keys == ["a", "b", "c"]


def test_what_is_refused_for_good_fails_and_the_next_one_goes(caplog: pytest.LogCaptureFixture) -> None:
    mail = FakeChannel(faults=[BrokenInvariant("refused with 404"), None])
    notifying, store, _ = world(mail)
    assert notifying.send_waiting()["mail"].failed == 1
    assert mail.keys == ["b", "c"]
    assert statuses(store, "mail")[0] is NoticeStatus.FAILED
    assert "refused with 404" in caplog.text


def test_a_fault_of_ours_is_noted_with_its_traceback_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    mail = FakeChannel(faults=[ZeroDivisionError("oops"), None])
    notifying, store, _ = world(mail)
    notifying.send_waiting()
    assert mail.keys == ["b", "c"]
    assert statuses(store, "mail")[0] is NoticeStatus.FAILED
    assert "ZeroDivisionError: oops" in caplog.text


def test_a_channel_that_hangs_delays_no_other_and_keeps_its_lease() -> None:
    held = Event()
    mail = FakeChannel(hold=held)
    slack = FakeChannel("slack", hold=mail.reached)
    store, clock = FakeNotices(), FakeClock()
    store.put(notice("a"))

    def monotonic_s() -> float:
        """The round and its grace are over once the other channel is done, and not before."""
        return 99.0 if statuses(store, "slack") == [NoticeStatus.SENT] else 0.0

    notifying = Notifying(store, (mail, slack), clock, lambda: 0.0, round_s=60.0, grace_s=0.5, monotonic_s=monotonic_s)
    done = notifying.send_waiting()
    assert (slack.keys, mail.keys) == (["a"], []), "it came back while one still hung"
    assert (done["mail"].sent, done["slack"].sent) == (0, 1)
    assert statuses(store, "mail") == [NoticeStatus.WAITING]
    held.set()
    clock.time_us += ClaimRules().lease_us
    notifying.send_waiting()
    assert statuses(store, "mail") == [NoticeStatus.SENT]


def test_what_the_round_has_no_time_for_waits_untried() -> None:
    mail = FakeChannel()
    store = FakeNotices()
    store.put(notice("a"))
    Notifying(store, (mail,), FakeClock(), lambda: 0.0, round_s=-1.0).send_waiting()
    (row,) = (row for row in store.rows if row.channel == "mail")
    assert (row.status, row.attempts, mail.keys) == (NoticeStatus.WAITING, 0, [])


@dataclass
class Forgetful(FakeNotices):
    """Cannot be reached when the first notice is to be noted as sent: it died between sending and noting."""

    failures: int = 1

    def settle(self, claimed: ClaimedNotice, status: NoticeStatus, now_us: int, error: str = "") -> bool:
        self.failures -= 1
        if self.failures >= 0:
            raise Transient("the database is away")
        return super().settle(claimed, status, now_us, error)


def test_what_was_sent_and_not_noted_is_sent_again_and_the_rest_is_not() -> None:
    mail, store, clock = FakeChannel(), Forgetful(), FakeClock()
    for key in "abc":
        store.put(notice(key))
    notifying = Notifying(store, (mail,), clock, lambda: 0.0)
    with pytest.raises(Transient):
        notifying.send_waiting()
    assert mail.keys == ["a", "b", "c"]
    clock.time_us += ClaimRules().lease_us
    notifying.send_waiting()
    assert mail.keys == ["a", "b", "c", "a"]


@dataclass
class Vanishing(FakeNotices):
    """Cannot be reached when the second channel's notices are to be claimed, once."""

    claims: int = 0

    def claim(self, channel: str, now_us: int, rules: ClaimRules) -> Claim:
        self.claims += 1
        if self.claims == 2:
            raise Transient("the database is away")
        return super().claim(channel, now_us, rules)


def test_nothing_is_sent_unless_everything_could_be_claimed() -> None:
    mail, slack, store, clock = FakeChannel(), FakeChannel("slack"), Vanishing(), FakeClock()
    store.put(notice("a"))
    notifying = Notifying(store, (mail, slack), clock, lambda: 0.0)
    with pytest.raises(Transient):
        notifying.send_waiting()
    clock.time_us += ClaimRules().lease_us
    notifying.send_waiting()
    assert (mail.keys, slack.keys) == (["a"], ["a"])


def test_a_dead_channel_is_tried_ever_less_often_and_then_given_up(caplog: pytest.LogCaptureFixture) -> None:
    mail = FakeChannel(faults=[Transient("down")])
    notifying, store, clock = world(mail, keys="a")
    for _ in range(3 * 24 * 60 + 60):  # and until the last attempt that was planned
        notifying.send_waiting()
        clock.time_us += US_PER_MINUTE
    (row,) = (row for row in store.rows if row.channel == "mail")
    assert row.status is NoticeStatus.FAILED
    assert row.error == "down"
    assert 72 < row.attempts < 160  # about twice an hour for three days, with chance at its least
    assert "given up in mail: title of a" in caplog.text
    assert statuses(store, PAGE) == [NoticeStatus.SENT]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waiting_is_bounded_on_both_sides(attempt: int, chance: float) -> None:
    assert FIRST_WAIT_US // 2 <= wait_us(attempt, chance) <= LONGEST_WAIT_US
    assert wait_us(attempt, chance) <= wait_us(attempt + 1, chance)


@given(st.lists(st.sampled_from(Severity)), st.integers(0, 30), st.integers(0, 20), st.floats(0, 1))
def test_no_more_is_admitted_than_the_limit_and_the_worst_first(
    severities: list[Severity], used: int, per_hour: int, share: float
) -> None:
    rules = ClaimRules(per_hour=per_hour, urgent_share=share)
    due = [
        ClaimedNotice(number, 1, Notice(f"k{number}", severity, "t", {}, "", 0))
        for number, severity in enumerate(sorted(severities))
    ]
    taken, withheld = admit(due, used, rules)
    assert sorted(item.number for item in (*taken, *withheld)) == list(range(len(due)))
    assert len(taken) <= max(0, per_hour - used)
    assert max((item.notice.severity for item in taken), default=0) <= min(
        (item.notice.severity for item in withheld), default=9
    )


def test_evidence_is_bounded() -> None:
    lines = evidence_lines({f"n{number}": number for number in range(MAX_LINES + 5)})
    assert len(lines) == MAX_LINES
    assert lines[-1] == "and 6 more"
    assert evidence_lines({"a": [[1]], "b": {}, "c": None, "d": [], "e": True}) == [
        *("a: [[1]]", "b: {}", "c: null", "d: ", "e: true"),
    ]
