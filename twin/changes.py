"""The commands `tollgate changes`: say beforehand that something will change, so that drift in it is no alarm."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer

from shared.adapters.system_clock import SystemClock
from shared.domain.bundle_reference import SCORE
from shared.domain.drift_record import LABEL, OUTCOME
from shared.domain.errors import InvalidInput
from shared.domain.feature_view import VIEWS
from shared.domain.instants import format_instant, parse_instant
from shared.ports.drift import Announcement, Announcements
from twin.feed_connections import feed_connection, say, told

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

app = typer.Typer(help="Changes that are known beforehand: drift in them is no alarm.", no_args_is_help=True)

SUBJECTS: Final[AbstractSet[str]] = frozenset(
    {"*", SCORE, OUTCOME, LABEL, "volume", *(name for view in VIEWS.values() for name in view.names)}
)
"""What can change: a feature of any view, the score, outcomes, labels, the volume of the feed, or everything."""

_LAST_US: Final = 253_402_300_799_999_999

type DatabaseOption = Annotated[
    str | None, typer.Option("--database", help="Connection string; what DATABASE says or the twin by default.")
]


@app.command()
def announce(
    subject: Annotated[str, typer.Argument(help="A feature, score, outcome, label, volume, or * for all.")],
    *,
    start: Annotated[str, typer.Option("--from", help="From this event time on, such as 2026-12-01T00:00:00Z.")],
    end: Annotated[str, typer.Option("--until", help="Until this event time, not included.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for people.")],
    author: Annotated[str | None, typer.Option("--author", help="Who says so; you by default.")] = None,
    database: DatabaseOption = None,
) -> None:
    """Announce a change; exit code 2 if it cannot be done."""
    with told():
        if subject not in SUBJECTS:
            raise InvalidInput("subject", f"must be one of {', '.join(sorted(SUBJECTS))}")
        span = parse_instant("from", start), parse_instant("until", end)
        if span[0] >= span[1]:
            raise InvalidInput("from", "must lie before until")
        if not reason.strip():
            raise InvalidInput("reason", "must not be empty")
        change = Announcement(subject, *span, author or getpass.getuser(), reason)
        with _announcements(database) as kept:
            number = kept.announce(change, SystemClock().now_us())
    say(f"{number}: {_line(change)}")


@app.command(name="list")
def list_changes(
    *,
    since: Annotated[str | None, typer.Option("--since", help="Those that last until after this event time.")] = None,
    database: DatabaseOption = None,
) -> None:
    """List announced changes by their start; by default those that are not over."""
    with told():
        since_us = SystemClock().now_us() if since is None else parse_instant("since", since)
        with _announcements(database) as kept:
            found = kept.announced(since_us, _LAST_US)
    for change in found:
        say(_line(change))
    say(f"{len(found)} announced changes")


def _line(change: Announcement) -> str:
    span = f"{format_instant(change.start_us)} to {format_instant(change.end_us)}"
    return f"{change.subject:<28} {span}  {change.author}: {change.reason}"


@contextmanager
def _announcements(dsn: str | None) -> Iterator[Announcements]:
    """The table, as its owner: the apps may only read it."""
    from shared.adapters.postgres_drift import PostgresAnnouncements  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415

    session = PostgresSession(feed_connection(dsn).owner, "tollgate-changes")
    try:
        yield PostgresAnnouncements(session)
    finally:
        session.close()
