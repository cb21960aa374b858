"""Notices in memory; they pass the same contract tests as the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from shared.domain.errors import TollgateError
from shared.domain.instants import US_PER_HOUR
from shared.domain.pipeline import Notice
from shared.ports.notifying import PAGE, WITHHELD_PREFIX, Claim, ClaimedNotice, ClaimRules, NoticeStatus
from shared.services.notifying_limits import admit, withheld_notice


@dataclass
class Row:
    """A notice in one channel."""

    number: int
    channel: str
    notice: Notice
    next_at_us: int
    status: NoticeStatus = NoticeStatus.WAITING
    attempts: int = 0
    error: str = ""
    ended_at_us: int | None = None


@dataclass
class FakeNotices:
    """Rows in a list; `fault` is raised instead of doing anything, once."""

    rows: list[Row] = field(default_factory=list)
    fault: TollgateError | None = None

    def put(self, notice: Notice) -> bool:
        self._fail()
        return self._put(PAGE, notice)

    @property
    def told(self) -> list[Notice]:
        """What was put, in order."""
        return [row.notice for row in self.rows if row.channel == PAGE]

    def spread(self, channels: Sequence[str], now_us: int) -> int:
        self._fail()
        fresh = [row for row in self.rows if row.channel == PAGE and row.status is NoticeStatus.WAITING]
        for row in fresh:
            row.status, row.ended_at_us = NoticeStatus.SENT, now_us
            for channel in channels:
                self._put(channel, row.notice)
        return len(fresh)

    def claim(self, channel: str, now_us: int, rules: ClaimRules) -> Claim:
        self._fail()
        due = sorted(
            (row for row in self._waiting(channel) if row.next_at_us <= now_us),
            key=lambda row: (row.notice.severity, row.notice.created_at_us, row.number),
        )
        old = [row for row in due if row.notice.created_at_us < now_us - rules.give_up_us]
        for row in old:
            row.status, row.ended_at_us, row.error = NoticeStatus.FAILED, now_us, row.error or "it was never tried"
        young = [ClaimedNotice(row.number, row.attempts + 1, row.notice) for row in due if row not in old][: rules.most]
        taken, withheld = admit(young, self._used(channel, now_us), rules)
        for item in taken:
            row = self.rows[item.number]
            row.attempts, row.error, row.next_at_us = item.attempt, "", now_us + rules.lease_us
        for item in withheld:
            row = self.rows[item.number]
            row.status, row.ended_at_us = NoticeStatus.WITHHELD, now_us
        if withheld:
            self._put(channel, withheld_notice(channel, now_us, rules))
        return Claim(taken, len(withheld), tuple(row.notice.title for row in old))

    def settle(self, claimed: ClaimedNotice, status: NoticeStatus, now_us: int, error: str = "") -> bool:
        return self._change(claimed, status=status, ended_at_us=now_us, error=error)

    def put_off(self, claimed: ClaimedNotice, next_at_us: int, error: str) -> bool:
        return self._change(claimed, next_at_us=next_at_us, error=error)

    def release(self, claimed: ClaimedNotice, next_at_us: int, reason: str) -> bool:
        return self._change(claimed, attempts=claimed.attempt - 1, next_at_us=next_at_us, error=reason)

    def _change(self, claimed: ClaimedNotice, **values: object) -> bool:
        self._fail()
        row = self.rows[claimed.number]
        if row.status is not NoticeStatus.WAITING or row.attempts != claimed.attempt:
            return False
        self.rows[claimed.number] = replace(row, **values)  # type: ignore[arg-type]  # the names are those of fields
        return True

    def _put(self, channel: str, notice: Notice) -> bool:
        if any(row.channel == channel and row.notice.dedup_key == notice.dedup_key for row in self.rows):
            return False
        self.rows.append(Row(len(self.rows), channel, notice, notice.created_at_us))
        return True

    def _waiting(self, channel: str) -> list[Row]:
        return [row for row in self.rows if row.channel == channel and row.status is NoticeStatus.WAITING]

    def _used(self, channel: str, now_us: int) -> int:
        counted = [
            row for row in self.rows if row.channel == channel and not row.notice.dedup_key.startswith(WITHHELD_PREFIX)
        ]
        sent = sum(row.status is NoticeStatus.SENT and (row.ended_at_us or 0) > now_us - US_PER_HOUR for row in counted)
        under_way = sum(
            row.status is NoticeStatus.WAITING and row.attempts > 0 and not row.error and row.next_at_us > now_us
            for row in counted
        )
        return sent + under_way

    def _fail(self) -> None:
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
