"""Notices in Postgres: one row for each notice on the page, and one for each channel that it leaves by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from psycopg.types.json import Jsonb

from shared.adapters.postgres_errors import translated
from shared.domain.instants import US_PER_HOUR
from shared.domain.pipeline import Notice, Severity
from shared.ports.notifying import PAGE, WITHHELD_PREFIX, Claim, ClaimedNotice, ClaimRules, NoticeStatus
from shared.services.notifying_limits import admit, withheld_notice

if TYPE_CHECKING:
    from shared.adapters.postgres_session import Connection, PostgresSession

LOCK: Final = 0x746F6C6C74656C6C
"""Key of the advisory lock of the one who claims ("tolltell" in ASCII)."""

_FIELDS: Final = "dedup_key, severity, title, evidence, link, created_at_us"

_PUT: Final = f"""
INSERT INTO tollgate.notifications (channel, {_FIELDS}, next_at_us)
VALUES (%(channel)s, %(key)s, %(severity)s, %(title)s, %(evidence)s, %(link)s, %(created)s, %(created)s)
ON CONFLICT (channel, dedup_key) DO NOTHING
"""  # noqa: S608 - made of constants

_SPREAD: Final = f"""
WITH fresh AS (
    SELECT notification_id, {_FIELDS} FROM tollgate.notifications
    WHERE status = 'waiting' AND channel = %(page)s ORDER BY notification_id LIMIT 500 FOR UPDATE SKIP LOCKED
), copied AS (
    INSERT INTO tollgate.notifications (channel, {_FIELDS}, next_at_us)
    SELECT way.channel, {_FIELDS}, created_at_us FROM fresh CROSS JOIN unnest(%(channels)s::text[]) AS way (channel)
    ON CONFLICT (channel, dedup_key) DO NOTHING
)
UPDATE tollgate.notifications n SET status = 'sent', ended_at_us = %(now)s
FROM fresh WHERE n.notification_id = fresh.notification_id
"""  # noqa: S608 - made of constants

_GIVE_UP: Final = """
UPDATE tollgate.notifications
SET status = 'failed', ended_at_us = %(now)s, error = coalesce(error, 'it was never tried')
WHERE status = 'waiting' AND channel = %(channel)s AND next_at_us <= %(now)s AND created_at_us < %(oldest)s
RETURNING title
"""

# A notice that is under way waits without an error until its lease ends; one that was put off has an error.
_USED: Final = """
SELECT count(*) FROM tollgate.notifications
WHERE channel = %(channel)s AND NOT starts_with(dedup_key, %(prefix)s) AND (
    (status = 'sent' AND ended_at_us > %(since)s)
    OR (status = 'waiting' AND attempts > 0 AND error IS NULL AND next_at_us > %(now)s)
)
"""

_DUE: Final = f"""
SELECT notification_id, attempts, {_FIELDS} FROM tollgate.notifications
WHERE status = 'waiting' AND channel = %(channel)s AND next_at_us <= %(now)s
ORDER BY severity, created_at_us, notification_id LIMIT %(most)s FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - made of constants

_TAKE: Final = """
UPDATE tollgate.notifications SET attempts = attempts + 1, error = NULL, next_at_us = %s
WHERE notification_id = ANY(%s)
"""
_WITHHOLD: Final = """
UPDATE tollgate.notifications SET status = 'withheld', ended_at_us = %s WHERE notification_id = ANY(%s)
"""

_HELD: Final = "WHERE notification_id = %(number)s AND attempts = %(attempt)s AND status = 'waiting'"
_SETTLE: Final = f"""
UPDATE tollgate.notifications SET status = %(status)s, error = nullif(%(error)s, ''), ended_at_us = %(at)s {_HELD}
"""  # noqa: S608 - made of constants
_PUT_OFF: Final = f"""
UPDATE tollgate.notifications SET error = %(error)s, next_at_us = %(at)s {_HELD}
"""  # noqa: S608 - made of constants
_RELEASE: Final = f"""
UPDATE tollgate.notifications SET attempts = attempts - 1, error = %(error)s, next_at_us = %(at)s {_HELD}
"""  # noqa: S608 - made of constants


class PostgresNotices:
    """Rows of `tollgate.notifications`; used by one thread at a time."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def put(self, notice: Notice) -> bool:
        """Leave a notice for the page, from where the dispatcher takes it to the channels that are on."""
        with translated("leaving a notice"), self._session.transaction() as connection:
            return _put(connection, PAGE, notice)

    def spread(self, channels: Sequence[str], now_us: int) -> int:
        """Copy new notices of the page to the channels."""
        values = {"page": PAGE, "channels": list(channels), "now": now_us}
        with translated("spreading notices"), self._session.transaction() as connection:
            return connection.execute(_SPREAD, values).rowcount

    def claim(self, channel: str, now_us: int, rules: ClaimRules) -> Claim:
        """Take what is due; one claims at a time, so that the rate limit holds however many instances there are."""
        values = {
            "channel": channel,
            "now": now_us,
            "oldest": now_us - rules.give_up_us,
            "since": now_us - US_PER_HOUR,
            "prefix": WITHHELD_PREFIX,
            "most": rules.most,
        }
        with translated("claiming notices"), self._session.transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            given_up = tuple(row[0] for row in connection.execute(_GIVE_UP, values))
            (used,) = connection.execute(_USED, values).fetchone() or (0,)
            due = [_claimed(row) for row in connection.execute(_DUE, values)]
            taken, withheld = admit(due, used, rules)
            connection.execute(_TAKE, [now_us + rules.lease_us, [item.number for item in taken]])
            if withheld:
                connection.execute(_WITHHOLD, [now_us, [item.number for item in withheld]])
                _put(connection, channel, withheld_notice(channel, now_us, rules))
        return Claim(taken, len(withheld), given_up)

    def settle(self, claimed: ClaimedNotice, status: NoticeStatus, now_us: int, error: str = "") -> bool:
        """Note how it ended."""
        return self._change(_SETTLE, claimed, now_us, status=str(status), error=error)

    def put_off(self, claimed: ClaimedNotice, next_at_us: int, error: str) -> bool:
        """Let it wait until the next attempt."""
        return self._change(_PUT_OFF, claimed, next_at_us, error=error)

    def release(self, claimed: ClaimedNotice, next_at_us: int, reason: str) -> bool:
        """Let it wait as before the claim."""
        return self._change(_RELEASE, claimed, next_at_us, error=reason)

    def _change(self, statement: str, claimed: ClaimedNotice, at_us: int, **values: object) -> bool:
        place = {"number": claimed.number, "attempt": claimed.attempt, "at": at_us}
        with translated("settling a notice"), self._session.transaction() as connection:
            return connection.execute(statement.encode(), {**place, **values}).rowcount == 1


def _put(connection: Connection, channel: str, notice: Notice) -> bool:
    values = {
        "channel": channel,
        "key": notice.dedup_key,
        "severity": int(notice.severity),
        "title": notice.title,
        "evidence": Jsonb(dict(notice.evidence)),
        "link": notice.link,
        "created": notice.created_at_us,
    }
    return connection.execute(_PUT, values).rowcount == 1


def _claimed(row: Sequence[Any]) -> ClaimedNotice:
    number, attempts, key, severity, title, evidence, link, created_at_us = row
    return ClaimedNotice(number, attempts + 1, Notice(key, Severity(severity), title, evidence, link, created_at_us))
