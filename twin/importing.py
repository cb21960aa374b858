"""The commands `tollgate import` and `tollgate labels import`: history and labels from files, see docs/import.md."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shared.domain.instants import US_PER_DAY, format_instant
from twin.feed_connections import REFUSED, FeedConnection, fail, feed_connection, note, say, told
from twin.history import FIELDS, OPTIONAL, Layout, UnreadableFile, columns_of
from twin.rejects import Rejects, rejects_to

if TYPE_CHECKING:
    from shared.adapters.postgres_ledger import WiredLedger
    from shared.services.label_feed import LabelRow
    from shared.services.labelling import LabelOutcome
    from twin.history_import import History, HistoryImport, Tally

BATCH_ROWS: Final = 20_000
"""Rows of a unit of work. Each entity is locked, read and written once a unit, so the cost of a row falls with its size
(docs/import.md has figures); but live decisions wait for the entities of a unit, so beside them it should be small."""

CACHE_BYTES: Final = 256 << 20
"""Memory for states of entities while history is taken in."""

SESSION: Final = {"statement_timeout": "120s", "lock_timeout": "30s"}
"""Longer than those of the apps: nobody waits for an answer, and live decisions may hold what a batch needs."""

NO_DECIMALS: Final = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF")
)
THREE_DECIMALS: Final = frozenset(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"))
"""Currencies whose minor unit is not a hundredth (ISO 4217, list one)."""

ID_FIELDS: Final = ("transaction_id", "customer_id", "terminal_id")

labels = typer.Typer(help="Labels from files.", no_args_is_help=True)
_err = Console(stderr=True, highlight=False)

type RejectsOption = Annotated[
    Path | None, typer.Option("--rejects", help="CSV file for refused rows: row, field, rule.")
]
type DatabaseOption = Annotated[
    str | None, typer.Option("--database", help="Connection string; needs SURROGATE_KEYS. The twin's by default.")
]
type BatchOption = Annotated[int, typer.Option("--batch", min=1, max=50_000, help="Rows of a unit of work.")]


def import_history(
    file: Annotated[Path, typer.Argument(help="A .csv or .parquet file, a transaction per row.")],
    *,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help=f"FIELD=COLUMN; fields: {', '.join((*FIELDS, *OPTIONAL))}.")
    ] = None,
    amount_unit: Annotated[
        str | None, typer.Option("--amount-unit", help="`major` (12.50) or `minor` (1250).", metavar="major|minor")
    ] = None,
    currency: Annotated[
        str, typer.Option("--currency", envvar="CURRENCY", help="The deployment's currency, ISO 4217.")
    ] = "EUR",
    labels_after: Annotated[
        float,
        typer.Option("--labels-after", min=0, max=3650, help="Days from a transaction until its verdict was known."),
    ] = 0,
    prefix: Annotated[list[str] | None, typer.Option("--prefix", help="FIELD=TEXT, put before ids.")] = None,
    rejects: RejectsOption = None,
    check: Annotated[bool, typer.Option("--check", help="Read and check the file, write nothing.")] = False,
    make_partitions: Annotated[
        bool, typer.Option("--partitions/--no-partitions", help="Make the partitions of its span first.")
    ] = True,
    batch: BatchOption = BATCH_ROWS,
    database: DatabaseOption = None,
) -> None:
    """Take history in, transactions and verdicts (0 all taken, 1 rows were refused, 2 not done). Idempotent."""
    from twin.history_import import read_history, work_of  # noqa: PLC0415 - numpy and pyarrow are paid by who imports

    now_us = time.time_ns() // 1000
    with told(), rejects_to(rejects) as refused:
        layout = _layout(file, mapping or [], amount_unit, currency, prefix or [])
        layout = replace(layout, label_after_us=round(labels_after * US_PER_DAY))
        with _bar("reading", None) as done:
            history = read_history(file, layout, now_us, refused, done)
        _show_file(history, refused)
        if not check:
            began = time.monotonic()
            where = feed_connection(database)
            if make_partitions:
                _make_partitions(where, history)
            with _ledger(where) as ledger, _bar("importing", work_of(history, now_us)) as done:
                tally = _history_import(ledger, where, refused, batch, done).run(history, now_us)
            _show_tally(tally, len(history), time.monotonic() - began)
    raise typer.Exit(REFUSED if refused.count else 0)


@labels.command(name="import")
def import_labels(
    file: Annotated[Path, typer.Argument(help="A .csv, .parquet or .jsonl file, a label per row.")],
    *,
    rejects: RejectsOption = None,
    batch: BatchOption = BATCH_ROWS,
    database: DatabaseOption = None,
) -> None:
    """Record labels in the order of known-at (0 all taken, 1 rows were refused, 2 not done). Idempotent."""
    from shared.domain.labels import Label  # noqa: PLC0415
    from twin.label_files import read_labels  # noqa: PLC0415

    now_us = time.time_ns() // 1000
    with told(), rejects_to(rejects) as refused:
        usable: list[tuple[int, Label]] = []
        for number, row in enumerate(read_labels(file, now_us), start=1):
            if isinstance(row, Label):
                usable.append((number, row))
            else:
                refused.add(number, row)
        if not usable and not refused.count:
            raise UnreadableFile(f"{file.name} has no label")
        usable.sort(key=lambda pair: pair[1].known_at_us)
        where = feed_connection(database)
        counts: Counter[LabelOutcome] = Counter()
        with _ledger(where) as ledger, _bar("labels", len(usable)) as done:
            record = _history_import(ledger, where, refused, batch, done).record
            for start in range(0, len(usable), batch):
                some = usable[start : start + batch]
                rows: list[LabelRow] = [label for _, label in some]
                counts.update(verdict.outcome for verdict in record(rows, [number for number, _ in some]))
                done(len(some))
    say(f"labels: {_counts(counts)}; {refused.count:,} rows refused")
    raise typer.Exit(REFUSED if refused.count else 0)


def _layout(file: Path, mapping: list[str], amount_unit: str | None, currency: str, prefix: list[str]) -> Layout:
    """The layout that the options and the file's own columns make.

    Fields that no `--map` names are looked for under their own name; without any `--map` known layouts are recognised.

    Raises:
        UnreadableFile: The file or an option cannot be used.
    """
    names = columns_of(file)
    if mapping:
        given = dict(_pair("--map", text) for text in mapping)
        own = {name: name for name in (*FIELDS, *OPTIONAL) if name in names}
        layout = Layout(own | given, currency, minor_digits=_decimals(currency))
    else:
        layout = Layout.detected(names, currency)
        if layout.minor_digits:
            layout = replace(layout, minor_digits=_decimals(currency))
    if amount_unit not in {None, "major", "minor"}:
        raise UnreadableFile(f"--amount-unit {amount_unit}: wanted major or minor")
    if amount_unit is not None:
        layout = replace(layout, minor_digits=_decimals(currency) if amount_unit == "major" else 0)
    prefixes = dict(_pair("--prefix", text) for text in prefix)
    for name in prefixes:
        if name not in ID_FIELDS:
            raise UnreadableFile(f"--prefix {name}: only ids have prefixes: {', '.join(ID_FIELDS)}")
    return replace(layout, prefixes={**layout.prefixes, **prefixes})


def _pair(option: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and (value or option == "--prefix")):
        raise UnreadableFile(f"{option} {text}: wanted FIELD=VALUE")
    return name, value


def _decimals(currency: str) -> int:
    return 0 if currency in NO_DECIMALS else 3 if currency in THREE_DECIMALS else 2


def _make_partitions(where: FeedConnection, history: History) -> None:
    from shared.adapters.postgres_partitions import PostgresPartitions  # noqa: PLC0415
    from shared.domain.errors import BrokenInvariant  # noqa: PLC0415

    first, last = int(history.event_time_us[0]), int(history.event_time_us[-1])
    try:
        made = PostgresPartitions(where.owner, "tollgate-import").make(first, last + 1)
    except BrokenInvariant as error:
        days = f"--from {format_instant(first)[:10]} --to {format_instant(last)[:10]}"
        fail(f"{error}; have its owner run `tollgate db partitions {days}`, then import with --no-partitions")
    if made:
        note(f"made {made} partitions")


@contextmanager
def _ledger(where: FeedConnection) -> Iterator[WiredLedger]:
    from shared.adapters.postgres_ledger_pipelined import PipelinedLedger  # noqa: PLC0415

    ledger = PipelinedLedger(where.rows, "import", settings=SESSION, cache_bytes=CACHE_BYTES)
    try:
        yield ledger
    finally:
        ledger.close()


def _history_import(
    ledger: WiredLedger, where: FeedConnection, refused: Rejects, batch: int, done: Callable[[int], None]
) -> HistoryImport:
    from shared.adapters.system_clock import SystemClock  # noqa: PLC0415
    from shared.services.importing import Importing  # noqa: PLC0415
    from shared.services.labelling import Labelling  # noqa: PLC0415
    from twin.history_import import HistoryImport  # noqa: PLC0415

    clock = SystemClock()
    importing = Importing(ledger, where.keys, clock)
    labelling = Labelling(ledger, where.keys, clock)
    return HistoryImport(importing, labelling, refused, batch_rows=batch, told=done)


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on the standard error; what it yields is told how many more are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=_err) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


def _show_file(history: History, refused: Rejects) -> None:
    first, last = (format_instant(int(moment)) for moment in history.event_time_us[[0, -1]])
    order = "" if history.was_sorted else "; not in order of event time, sorted"
    note(f"{len(history):,} transactions from {first} to {last}, {refused.count:,} rows refused{order}")


def _show_tally(tally: Tally, rows: int, seconds: float) -> None:
    say(f"transactions: {_counts(tally.transactions)}")
    if tally.labels:
        say(f"labels: {_counts(tally.labels)}")
    if tally.unknown_yet:
        say(f"labels left out, because they become known only later: {tally.unknown_yet:,}")
    say(f"{seconds:.1f} s, {rows / max(seconds, 1e-9):,.0f} transactions a second")


def _counts[Outcome: str](counts: Counter[Outcome]) -> str:
    return ", ".join(f"{number:,} {outcome}" for outcome, number in sorted(counts.items())) or "none"
