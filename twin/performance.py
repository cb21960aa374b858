"""The command `tollgate performance`: what decisions were worth, as trends."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from shared.domain.errors import InvalidInput
from shared.domain.instants import US_PER_DAY, format_instant, parse_instant
from shared.domain.performance import ALL, Measured, Metric
from twin.feed_connections import DATABASE, say, told

if TYPE_CHECKING:
    from shared.ports.performance import KeptFigure, PerformanceLog

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_EPOCH: Final = "1970-01-01"

_COLUMNS: Final = (
    Metric.AUC,
    Metric.AVERAGE_PRECISION,
    Metric.CARD_PRECISION,
    Metric.RECALL_ALERT,
    Metric.PRECISION_ALERT,
    Metric.RECALL_DECLINE,
    Metric.PRECISION_DECLINE,
    Metric.CALIBRATION_RATIO,
    Metric.MISSED,
    Metric.CAUGHT,
)
"""What the table shows; `--metric` shows one with its interval, `--json` all."""

_MONEY: Final = frozenset({Metric.MISSED, Metric.CAUGHT, Metric.DECLINED_GENUINE, Metric.REVIEW_COST})


def performance(
    *,
    segment: Annotated[str, typer.Option("--segment", help="Such as all, amount:0 to 10, customer:new.")] = ALL,
    metric: Annotated[Metric | None, typer.Option("--metric", help="One metric, with its interval.")] = None,
    since: Annotated[str, typer.Option("--since", help="Windows that ended on this day (UTC) or later.")] = _EPOCH,
    model: Annotated[str | None, typer.Option("--model", help="Digest of one model.")] = None,
    database: Annotated[str | None, typer.Option("--database", help="Connection string.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object per line and figure.")] = False,
) -> None:
    """Show what decisions were worth on matured labels, oldest window first; exit code 2 if it cannot be done."""
    with told():
        if _DAY.fullmatch(since) is None:
            raise InvalidInput("--since", "must be a day such as 2026-11-01")
        since_us = parse_instant("--since", f"{since}T00:00:00Z")
        with _kept(database) as log:
            figures = [one for one in log.trend(segment, since_us, model) if metric in {None, one.measured.metric}]
    if as_json:
        for one in figures:
            say(json.dumps(_document(one)))
        return
    if not figures:
        say("nothing was measured yet: a window is, when its labels have been mature for a day")
        return
    Console(highlight=False).print(_table(figures, [metric] if metric else list(_COLUMNS)))


def _table(figures: Sequence[KeptFigure], metrics: Sequence[Metric]) -> Table:
    """A row for each window and model."""
    table = Table(box=None, pad_edge=False)
    for name in ("until", "model", "labelled", "frauds", *metrics):
        table.add_column(name, justify="left" if name in {"until", "model"} else "right")
    if len(metrics) == 1:
        table.add_column("95 %", justify="right")
    rows: dict[tuple[int, str], dict[Metric, KeptFigure]] = {}
    for one in figures:
        rows.setdefault((one.end_us, one.bundle_digest), {})[one.measured.metric] = one
    for (end_us, digest), found in rows.items():
        any_of = next(iter(found.values())).measured
        values = [_shown(metric, found[metric].measured.value) if metric in found else "" for metric in metrics]
        if len(metrics) == 1:
            only = found[metrics[0]].measured
            values.append(only.note or _interval(only))
        table.add_row(_day(end_us), digest[:8], f"{any_of.n_rows:,}", f"{any_of.n_frauds:,}", *values)
    return table


def _shown(metric: Metric, value: float | None) -> str:
    """A value for people: amounts in hundreds of minor units; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value / 100:,.0f}" if metric in _MONEY else f"{value:.3f}"


def _interval(one: Measured) -> str:
    return "" if one.low is None else f"{_shown(one.metric, one.low)} to {_shown(one.metric, one.high)}"


def _document(one: KeptFigure) -> dict[str, object]:
    return {
        "model": one.bundle_digest,
        "from": _day(one.start_us),
        "until": _day(one.end_us),
        **one.measured._asdict(),
    }


def _day(time_us: int) -> str:
    return format_instant(time_us // US_PER_DAY * US_PER_DAY)[:10]


@contextmanager
def _kept(dsn: str | None) -> Iterator[PerformanceLog]:
    """The figures of a connection string, of what `DATABASE` says, or of the twin."""
    from shared.adapters.postgres import parse_postgres  # noqa: PLC0415 - commands import what they use
    from shared.adapters.postgres_performance import PostgresPerformanceLog  # noqa: PLC0415
    from shared.adapters.postgres_session import PostgresSession  # noqa: PLC0415
    from twin.services.settings import TwinSettings  # noqa: PLC0415

    environment = dict(os.environ)
    if dsn is not None:
        environment = {DATABASE: dsn}
    elif not any(key == DATABASE or key.startswith(f"{DATABASE}__") for key in environment):
        environment = {DATABASE: TwinSettings.read(os.environ).database_dsn()}
    with closing(PostgresSession(parse_postgres(DATABASE, environment), "performance")) as session:
        yield PostgresPerformanceLog(session)
