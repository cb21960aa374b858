"""The commands `tollgate replay`, `verify`, `seal` and `forget`.

Exit codes, the same for all: 0 it holds or was done; 1 something does not hold; 2 it could not be checked or done: an
unknown id, a bundle that is not kept, another runtime, a database or a container that cannot be reached, an option that
means nothing.

Where: `--database` and `--storage`; else what `DATABASE` and `DATA_STORAGE` (or their `__<part>`) in the environment
say, as for an app; else the twin. Bundles come from the container `models`, or from a folder with `--bundles`. Findings
go to the standard output, progress to the standard error; no terminal is needed.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer
from rich.console import Console

from twin.feed_connections import database_of
from twin.services.settings import SettingsError, TwinSettings

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

    from shared.domain.archive import Selection, StoredDecision
    from shared.ports.archive import Archive, Seals
    from shared.ports.models import BundleStore
    from shared.services.replaying import Replay, Replaying
    from shared.services.verification_findings import Findings

DIFFERENT: Final = 1
UNCHECKED: Final = 2

STORAGE: Final = "DATA_STORAGE"
MODELS_CONTAINER: Final = "models"

_APPLICATION: Final = "tollgate-verify"
_PROGRESS_S: Final = 5.0
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)

verify = typer.Typer(help="Verify decisions, skew and the log; for people and for CI.", no_args_is_help=True)

type DatabaseOption = Annotated[
    str | None, typer.Option("--database", help="Connection string; the twin's database by default.")
]
type StorageOption = Annotated[
    str | None, typer.Option("--storage", help="Connection string of Blob storage; the twin's by default.")
]
type BundlesOption = Annotated[
    Path | None, typer.Option("--bundles", help="Folder of bundles; the container `models` by default.")
]
type SinceOption = Annotated[
    str | None, typer.Option("--since", help="A day (2026-11-01) or an instant (2026-11-01T12:00:00Z), UTC.")
]
type UntilOption = Annotated[str | None, typer.Option("--until", help="Likewise; what lies before it is looked at.")]
type SampleOption = Annotated[
    float, typer.Option("--sample", help="Share of customers and of terminals, greater than 0, at most 1.")
]
type SeedOption = Annotated[str, typer.Option("--seed", help="Another seed samples others.")]
type ShowOption = Annotated[int, typer.Option("--show", min=0, help="How many findings are printed by name.")]


def replay(
    transaction_id: Annotated[str, typer.Argument(help="Whose decision.")],
    *,
    bundles: BundlesOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
) -> None:
    """Show a decision, what it knew, and whether it comes out again bit for bit (0 equal, 1 different, 2 unchecked)."""
    from shared.domain.identifiers import TransactionId  # noqa: PLC0415 - commands import what they use
    from shared.services.replaying import ReplayVerdict  # noqa: PLC0415

    with _told():
        replaying = _replaying(bundles, storage)
        stored, found = replaying.replay(_archive(database), TransactionId(transaction_id))
    _show_decision(stored, found)
    codes = {ReplayVerdict.EQUAL: 0, ReplayVerdict.DIFFERENT: DIFFERENT, ReplayVerdict.UNCHECKED: UNCHECKED}
    raise typer.Exit(codes[found.verdict])


@verify.command()
def decisions(
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    sample: SampleOption = 1.0,
    seed: SeedOption = "",
    show: ShowOption = 20,
    bundles: BundlesOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
) -> None:
    """Recompute every vector from raw rows, replay every answer, check versions and columns. Times are event times."""
    from shared.domain.feature_view import Entity  # noqa: PLC0415
    from shared.services.verification_decisions import verify_decisions  # noqa: PLC0415
    from shared.services.verification_findings import Subject  # noqa: PLC0415

    with _told():
        report = verify_decisions(
            _archive(database), _replaying(bundles, storage), _selection(since, until, sample, seed), progress=_Ticker()
        )
    for entity in Entity:
        _say(
            f"{entity}s: {report.transactions[entity]:,} transactions and {report.labels[entity]:,} labels read,"
            f" {report.recomputed[entity]:,} vectors recomputed"
        )
    _say(f"{report.replayed:,} decisions replayed, {report.values:,} feature values compared")
    _say(f"{report.late:,} vectors of late transactions, of which {report.late_different:,} differ, as they may")
    _say(f"{report.imported:,} transactions were imported and have no decision")
    unchecked = report.findings.counts[Subject.UNCHECKED]
    _conclude(report.findings, show, "every decision follows from what it knew", unchecked)


@verify.command()
def skew(
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    sample: SampleOption = 1.0,
    seed: SeedOption = "",
    limit: Annotated[
        float, typer.Option("--limit", min=0.0, max=1.0, help="Share of feature values that may differ.")
    ] = 1.0,
    database: DatabaseOption = None,
) -> None:
    """Compare served vectors with what training would compute; fails above --limit, or where nothing explains it."""
    from shared.domain.feature_view import Entity  # noqa: PLC0415
    from shared.services.verification_skew import verify_skew  # noqa: PLC0415

    with _told():
        report = verify_skew(_archive(database), _selection(since, until, sample, seed), progress=_Ticker())
    _say(f"{report.rows:,} decisions compared, {report.share:.4%} of {report.values.total():,} feature values differ")
    for entity in Entity:
        _say(f"  {report.rows_different[entity]:,} decisions differ in a feature of the {entity}")
    for (feature, reason), count in sorted(report.different.items()):
        _say(f"  {feature:<28} {count:>9,}  {count / report.values[feature]:>9.4%}  {reason.value}")
    if report.unreadable:
        _say(f"  {report.unreadable:,} decisions could not be compared; see `tollgate verify decisions`")
    if report.unexplained:
        _say(f"{report.unexplained:,} values are not explained by what was known when; see `tollgate verify decisions`")
        raise typer.Exit(DIFFERENT)
    if report.share > limit:
        _say(f"that is above the limit of {limit:.4%}")
        raise typer.Exit(DIFFERENT)


@verify.command()
def log(
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    show: ShowOption = 20,
    database: DatabaseOption = None,
    storage: StorageOption = None,
) -> None:
    """Verify every chain of the log, its decisions and its seals. Times are recorded times."""
    from shared.domain.instants import format_instant  # noqa: PLC0415
    from shared.services.verification_log import verify_log  # noqa: PLC0415

    with _told():
        report = verify_log(
            _archive(database),
            _seals(storage),
            since_us=_time_us("--since", since),
            until_us=_time_us("--until", until),
            progress=_Ticker(),
        )
    _say(f"{report.writers:,} chains, {report.blocks:,} blocks, {report.decisions:,} decisions, {report.seals:,} seals")
    if report.anchored:
        _say(f"{report.anchored:,} chains begin at a block that is trusted: what came before was not looked at")
    if report.sealed_at_us is None:
        _say("no seal: nothing shows whether the end of a chain was cut off")
    else:
        _say(f"proven up to the seal of {format_instant(report.sealed_at_us)}")
    if report.chained_from_us is not None:
        first = format_instant(report.chained_from_us)
        _say(f"{report.chained:,} blocks are only chained, not sealed: the earliest of {first}")
    _conclude(report.findings, show, "the log is whole", 0)


def seal(
    *,
    everything: Annotated[
        bool, typer.Option("--everything", help="Look at all writers, not only at those that wrote lately.")
    ] = False,
    database: DatabaseOption = None,
    storage: StorageOption = None,
) -> None:
    """Seal the log now, as the drift app does every minute."""
    from shared.adapters.postgres_seals import PostgresSealedLedger  # noqa: PLC0415
    from shared.adapters.system_clock import SystemClock  # noqa: PLC0415
    from shared.services import sealing  # noqa: PLC0415

    with _told():
        ledger = PostgresSealedLedger(database_of(database), _APPLICATION)
        done = sealing.seal(ledger, _seals(storage), SystemClock(), everything=everything)
    for head in done.fallen:
        _say(f"block {head.sequence} of {head.writer} lies before its seal: blocks are gone; see `tollgate verify log`")
    _say("nothing new to seal" if done.seal is None else f"seal {done.seal.number}: {len(done.seal.heads)} heads")
    raise typer.Exit(DIFFERENT if done.fallen else 0)


def forget(
    customer: Annotated[str, typer.Argument(help="Identifier of the customer.")],
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record; must not name the customer.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    database: DatabaseOption = None,
) -> None:
    """Forget a customer for good: identifier, state and salt; the log still verifies (exit code 2: not known)."""
    from shared.adapters.postgres_erasure import PostgresErasure  # noqa: PLC0415
    from shared.adapters.system_clock import SystemClock  # noqa: PLC0415
    from shared.domain.identifiers import CustomerId  # noqa: PLC0415
    from shared.services import forgetting  # noqa: PLC0415

    if not yes:
        if not sys.stdin.isatty():
            _fail("--yes is needed where nobody can be asked")
        typer.confirm("Forget this customer? It cannot be taken back", abort=True)
    with _told():
        erasure = PostgresErasure(database_of(database), "tollgate-forget")
        erased = forgetting.forget(erasure, SystemClock(), CustomerId(customer), reason)
    _say(
        f"forgotten: {erased.transactions:,} transactions lost their customer, {erased.labels:,} labels their author,"
        f" {erased.dead_letters:,} dead letters their body; the log goes on naming {erased.surrogate}"
    )


class _Ticker:
    """Says on the standard error how far it is, now and then."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def __call__(self, what: str, done: int) -> None:
        """Take note."""
        now_s = time.monotonic()
        if now_s - self._last_s >= _PROGRESS_S:
            self._last_s = now_s
            _err.print(f"  {what}: {done:,}", markup=False)


def _show_decision(stored: StoredDecision, found: Replay) -> None:
    """Print a decision, what it knew and the verdict; of customers and terminals the surrogates."""
    import numpy as np  # noqa: PLC0415

    from shared.domain.feature_view import FEATURE_DTYPE, VIEWS  # noqa: PLC0415
    from shared.domain.instants import format_instant  # noqa: PLC0415
    from shared.domain.reasons import CATALOGUE  # noqa: PLC0415

    record = found.record
    if record is not None:
        decision = record.decision
        lines = {
            "decision": f"{decision.outcome.value} for {record.transaction_id}",
            "event time": format_instant(record.event_time_us),
            "score": f"{decision.score.probability!r}, of the model's {record.raw_score!r}",
            "policy": f"{decision.policy.name}: "
            + ", ".join(f"{name} {value}" for name, value in decision.policy.parameters.items())
            + f"; {decision.rules_version}",
            "model": f"{record.model_name} {record.model_version}, bundle {decision.score.bundle_digest[:16]}",
            "runtime": record.fingerprint.hex()[:16],
            "amount": f"{record.amount_minor} minor units {record.currency}",
            "customer": f"{record.customer}, known up to version {record.customer_version}",
            "terminal": f"{record.terminal}, known up to version {record.terminal_version}",
            "log": f"block {stored.sequence} of {stored.writer}, leaf {stored.leaf}",
        }
        if record.lateness:
            lines["late"] = "too late for the state of " + " and ".join(
                flag.name.lower() for flag in type(record.lateness) if flag in record.lateness and flag.name
            )
        for name, text in lines.items():
            _say(f"{name:<10} {text}")
        texts = dict(CATALOGUE.values())
        for reason in record.reasons:
            _say(f"reason     {reason.code} {reason.contribution:+.4f}  {texts.get(reason.code, '')}")
        view = VIEWS.get(record.view)
        values = np.frombuffer(record.vector[: len(record.vector) // 4 * 4], dtype=FEATURE_DTYPE).tolist()
        if view is not None and len(values) == len(view.features):
            for name, value in zip(view.names, values, strict=True):
                _say(f"  {name:<30} {value:g}")
    _say(f"replay     {found.verdict.value}{': ' + found.obstacle if found.obstacle else ''}")
    for item in found.differences:
        _say(f"  {item.field}: stored {item.stored}, replayed {item.replayed}")


def _conclude(findings: Findings, show: int, verdict: str, unchecked: int) -> NoReturn:
    """Print findings and the verdict, and exit with its code."""
    for finding in findings.kept[:show]:
        _say(f"  {finding}")
    if findings.total > min(show, len(findings.kept)):
        counts = ", ".join(f"{count:,} {subject.value}" for subject, count in sorted(findings.counts.items()))
        _say(f"  in all {findings.total:,}: {counts}")
    if findings.total > unchecked:
        _say(f"{findings.total - unchecked:,} things do not hold")
        raise typer.Exit(DIFFERENT)
    if unchecked:
        _say(f"{unchecked:,} decisions could not be checked; all else holds")
        raise typer.Exit(UNCHECKED)
    _say(verdict)
    raise typer.Exit(0)


def _selection(since: str | None, until: str | None, sample: float, seed: str) -> Selection:
    from shared.domain.archive import Selection  # noqa: PLC0415

    return Selection(_time_us("--since", since), _time_us("--until", until), sample, seed)


def _time_us(option: str, text: str | None) -> int | None:
    """Read a day or an instant as microseconds since 1970 UTC."""
    from shared.domain.errors import InvalidInput  # noqa: PLC0415
    from shared.domain.instants import parse_instant  # noqa: PLC0415

    if text is None:
        return None
    try:
        return parse_instant(option, f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)
    except InvalidInput as error:
        _fail(f"{error}, or a day such as 2026-11-01")


def _archive(database: str | None) -> Archive:
    from shared.adapters.postgres_archive import PostgresArchive  # noqa: PLC0415

    return PostgresArchive(database_of(database), _APPLICATION)


def _replaying(bundles: Path | None, storage: str | None) -> Replaying:
    from shared.adapters.bundle_archive import BundleArchive  # noqa: PLC0415
    from shared.adapters.onnx_scorer import OnnxScorer  # noqa: PLC0415
    from shared.services.replaying import Replaying  # noqa: PLC0415

    return Replaying(BundleArchive(_store(bundles, storage), OnnxScorer))


def _store(bundles: Path | None, storage: str | None) -> BundleStore:
    from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415
    from shared.adapters.file_bundles import FileBundles  # noqa: PLC0415

    return FileBundles(bundles) if bundles is not None else BlobBundles(_container(storage, MODELS_CONTAINER))


def _seals(storage: str | None) -> Seals:
    from shared.adapters.blob_seals import SEALS_CONTAINER, BlobSeals  # noqa: PLC0415

    return BlobSeals(_container(storage, SEALS_CONTAINER))


def _container(storage: str | None, name: str) -> ContainerClient:
    from shared.adapters.connections import blob_service, parse_storage  # noqa: PLC0415

    if storage is not None:
        setting = {STORAGE: storage}
    elif any(key == STORAGE or key.startswith(f"{STORAGE}__") for key in os.environ):
        setting = dict(os.environ)
    else:
        setting = {STORAGE: TwinSettings.read(os.environ).storage_connection()}
    return blob_service(parse_storage(STORAGE, setting), retry_total=2).get_container_client(name)


@contextmanager
def _told() -> Iterator[None]:
    """Turn what cannot be done into one line and the exit code 2."""
    from shared.adapters.connections import ConnectionSettingError  # noqa: PLC0415
    from shared.domain.errors import TollgateError  # noqa: PLC0415

    try:
        yield
    except (TollgateError, ConnectionSettingError, SettingsError) as error:
        _fail(str(error))


def _say(text: str) -> None:
    _out.print(text, markup=False, soft_wrap=True)


def _fail(message: str) -> NoReturn:
    _err.print(f"tollgate: {message}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(UNCHECKED)
