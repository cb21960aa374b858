"""The commands `tollgate views`: which feature views may decide, and letting one that looks further back do so.

Which database: `--database`, what `DATABASE` in the environment says, or the twin's, as its owner. A login needs the
rights of `tollgate_backfill`; to list, those of `tollgate_reader` will do. Exit codes, the same for all: 0 done, or it
was so already; 1 refused: there is no such view, its definition was changed, or somebody else is filling; 2 it could
not be done, or not to its end: running it again goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from shared.domain.errors import Conflict
from shared.domain.feature_view import VIEWS, Entity
from shared.domain.instants import US_PER_DAY, format_instant
from shared.domain.kept_view import KeptView, ViewStatus, definition_digest, why_refused
from twin.feed_connections import REFUSED, database_of, note, say, told
from twin.models import SHORT

if TYPE_CHECKING:
    from shared.adapters.postgres import PostgresConnection
    from shared.domain.feature_view import FeatureView

app = typer.Typer(
    help="Feature views: which may decide, and how far back state reaches for them.", no_args_is_help=True
)

EVERY_S: Final = 1.0
"""Seconds between two lines of progress."""

type DatabaseOption = Annotated[
    str | None, typer.Option("--database", help="Connection string; what DATABASE says or the twin by default.")
]


@app.command(name="list")
def list_views(*, database: DatabaseOption = None) -> None:
    """List the views of this release and those that are kept, and whether a model of them may decide."""
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_views import PostgresViewBook  # noqa: PLC0415

    with told(), closing(PostgresSession(database_of(database), "views")) as session:
        kept = PostgresViewBook(session).kept()
    by_name = {view.name: view for view in kept}
    table = Table()
    for heading in ("view", "definition", "features", "customers", "terminals", "status", "may decide"):
        table.add_column(heading, overflow="fold")
    for name in sorted({*VIEWS, *by_name}):
        view, known = VIEWS.get(name), by_name.get(name)
        horizons = _horizons(view, known)
        definition = definition_digest(view) if view is not None else known.definition if known is not None else ""
        why = "this release cannot compute it" if view is None else why_refused(view, kept)
        table.add_row(
            name,
            definition[:SHORT],
            "" if view is None else str(len(view.features)),
            *[f"{horizon_us / US_PER_DAY:g} days" for horizon_us in horizons],
            _status(known),
            f"no: {why}" if why else "yes",
        )
    Console(highlight=False, markup=False).print(table)


@app.command()
def backfill(
    name: Annotated[str, typer.Argument(help="Name of a feature view of this release.")],
    *,
    database: DatabaseOption = None,
) -> None:
    """Let entity state reach back as far as a view looks, while others decide; goes on where an earlier run ended."""
    view = VIEWS.get(name)
    if view is None:
        note(f"tollgate: {name} is no feature view of this release; there are {', '.join(VIEWS)}")
        raise typer.Exit(REFUSED)
    with told(), _refused():
        found = _backfilled(database_of(database), view)
    done = f"{found.entities:,} entities, {found.transactions:,} transactions put into their states"
    say(f"{name} is {found.status} since {format_instant(found.completed_at_us or found.updated_at_us)}; {done}")


def _backfilled(where: PostgresConnection, view: FeatureView) -> KeptView:
    from shared.adapters.postgres_filling import PostgresStateFilling  # noqa: PLC0415 - paid by those who connect
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415
    from shared.adapters.postgres_views import PostgresViewBook  # noqa: PLC0415
    from shared.adapters.system_clock import SystemClock  # noqa: PLC0415
    from shared.services.backfilling import Backfilling  # noqa: PLC0415

    said_s = 0.0

    def tell(at: KeptView, total: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= EVERY_S or at.entities >= total:
            said_s = time.monotonic()
            note(f"{at.entities:,} of {total:,} entities, {at.transactions:,} transactions put into their states")

    with (
        closing(PostgresSession(where, "views")) as session,
        closing(PostgresStateFilling(where, "views")) as filling,
    ):
        return Backfilling(PostgresViewBook(session), filling, SystemClock()).run(view, tell)


def _horizons(view: FeatureView | None, known: KeptView | None) -> tuple[int, int]:
    """How far back a view needs state of customers and of terminals, microseconds."""
    if known is not None:
        return known.customer_horizon_us, known.terminal_horizon_us
    return (0, 0) if view is None else (view.horizon_us(Entity.CUSTOMER), view.horizon_us(Entity.TERMINAL))


def _status(known: KeptView | None) -> str:
    if known is None:
        return ""
    moment = known.completed_at_us if known.status is ViewStatus.COMPLETE else known.updated_at_us
    return f"{known.status} {format_instant(moment or 0)[:19]}Z"


@contextmanager
def _refused() -> Iterator[None]:
    """Tell a refusal from what could not be done."""
    try:
        yield
    except Conflict as error:
        note(f"tollgate: {error}")
        raise typer.Exit(REFUSED) from None
