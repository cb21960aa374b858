"""`tollgate train`: a model bundle from a file of transactions, into a folder or into Blob storage.

The file is Parquet with a transaction per row and its verdict; the columns of the Handbook's files and of the API are
recognised, others are named with `--map FIELD=COLUMN`. It is read as columns, because training wants them so; ids that
are plain numbers get the same prefixes as in `tollgate import`.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.connections import ConnectionSettingError, blob_service, parse_storage
from shared.adapters.file_bundles import FileBundles
from shared.adapters.system_clock import SystemClock
from shared.bootstrap.succession import succession_of
from shared.domain.bundle_manifest import model_name
from shared.domain.bundle_pointer import Role
from shared.domain.cost_policy import MAX_REVIEWS_PER_DAY, Capacity
from shared.domain.errors import InvalidInput, TollgateError
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.feature_view import VIEWS
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import PRECEDENCE, LabelSource
from shared.domain.training_model import TrainingParameters
from shared.domain.training_split import TrainingPlan
from shared.domain.tree_budget import TRAINING_DEPTH, TRAINING_TREES
from shared.ports.models import BundleStore
from shared.services.succession import Succession
from shared.services.training import Trained, train
from shared.services.training_publication import next_version, publish, publish_first
from shared.settings import SettingsError as AppSettingsError
from twin.history import Layout, UnreadableFile, columns_of
from twin.policy import policy_settings
from twin.recorded_history import read_recorded
from twin.services.settings import SettingsError, TwinSettings, login_of

MODELS_CONTAINER: Final = "models"
DATABASE: Final = "DATABASE"

_NEEDED: Final = ("transaction_id", "customer_id", "terminal_id", "amount", "event_time", "fraud")
_CENT_TOLERANCE: Final = 1e-6
"""How far from a whole minor unit a binary float may lie: 57.16 * 5 is 285.79999999999995, and means 285.80."""

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """A file as columns.

    Attributes:
        transactions: Rows that are transactions.
        labels: Their verdicts.
        left_out: Rule to the number of rows that break it.
    """

    transactions: TransactionColumns
    labels: LabelColumns
    left_out: Mapping[str, int]


def run(
    data: Annotated[
        Path | None, typer.Option("--data", help="Parquet file: a transaction and its verdict per row.")
    ] = None,
    *,
    from_db: Annotated[
        bool, typer.Option("--from-db", help="What the database has recorded: DATABASE's, else the twin's.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to keep the bundle in.")] = None,
    publish_to_blob: Annotated[
        bool, typer.Option("--publish", help="Keep it in Blob storage, container `models`; the twin's by default.")
    ] = False,
    connection: Annotated[
        str | None, typer.Option("--connection", help="Name of the environment's storage connection to publish to.")
    ] = None,
    role: Annotated[Role, typer.Option("--role", help="The part that it plays from now on.")] = Role.CHAMPION,
    name: Annotated[str, typer.Option("--name", help="The model's name.")] = "card-fraud",
    view: Annotated[str, typer.Option("--view", help=f"Feature view: {', '.join(VIEWS)}.")] = "card-v1",
    mapping: Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN, for each field.")] = None,
    minor_digits: Annotated[int, typer.Option(min=0, max=4, help="Decimals of amounts, with --map.")] = 2,
    label_days: Annotated[float, typer.Option(min=0, help="Days from a transaction until its verdict is known.")] = 0,
    maturity_days: Annotated[float, typer.Option(min=0, help="Days after which a verdict is final.")] = 7,
    train_days: Annotated[int, typer.Option(min=1, help="Days to learn from, at most.")] = 75,
    validation_days: Annotated[int, typer.Option(min=1, help="Days to stop growing by.")] = 7,
    calibration_days: Annotated[int, typer.Option(min=1, help="Days to calibrate on.")] = 14,
    test_days: Annotated[int, typer.Option(min=1, help="Days to test on.")] = 14,
    reviews_per_day: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_REVIEWS_PER_DAY, help="Fit the price of so many; REVIEWS_PER_DAY by default."),
    ] = None,
    trees: Annotated[int, typer.Option(min=1, help="Trees, at most.")] = TRAINING_TREES,
    depth: Annotated[int, typer.Option(min=1, help="Depth of a tree, at most.")] = TRAINING_DEPTH,
) -> None:
    """Train a model on a file of transactions or on what was recorded; the bundle explains every score exactly."""
    if (out is None) == (not publish_to_blob):
        _fail("say where the bundle goes: --out FOLDER or --publish")
    if connection is not None and not publish_to_blob:
        _fail("--connection goes with --publish")
    if view not in VIEWS:
        _fail(f"{view} is no feature view; there are {', '.join(VIEWS)}")
    if (data is None) != from_db:
        _fail("say what to learn from: --data FILE or --from-db")
    source = "the database" if data is None else data.name
    began = time.monotonic()
    try:
        model_name(name)
        parameters = TrainingParameters(n_trees=trees, depth=depth)
        asked = {} if reviews_per_day is None else {"REVIEWS_PER_DAY": str(reviews_per_day)}
        capacity = policy_settings(asked).capacity
        with _store(out, connection) as store, _throne(out, store, connection) as throne:
            version = next_version(store, name)
            with _progress() as steps:
                steps("reading", 0.0)
                plan = TrainingPlan(
                    as_of_us=SystemClock().now_us(),
                    train_days=train_days,
                    validation_days=validation_days,
                    calibration_days=calibration_days,
                    test_days=test_days,
                    maturity_us=round(maturity_days * US_PER_DAY),
                )
                if data is None:
                    recorded = read_recorded(VIEWS[view], plan)
                    history = History(recorded.transactions, recorded.labels, {})
                else:
                    history = read_history(data, _layout(data, mapping, minor_digits, label_days))
                    plan = replace(plan, as_of_us=int(history.labels.known_at_us.max()))
                made = _trained(
                    history,
                    plan,
                    view=view,
                    name=name,
                    version=version,
                    parameters=parameters,
                    capacity=capacity,
                    steps=steps,
                )
                steps("publishing", 0.0)
                reason = f"{name} {version} trained on {source}"
                word = {"author": "tollgate train", "reason": reason}
                refused = ""
                try:
                    if out is not None:
                        publish(store, made.files, role, clock=SystemClock(), **word)
                    elif throne is None:
                        publish_first(store, made.files, role, clock=SystemClock(), **word)
                    else:
                        throne.install(made.files, role, **word)
                except InvalidInput as error:  # kept, but the part is another's
                    refused = str(error)
    except (TollgateError, UnreadableFile, SettingsError, AppSettingsError, ConnectionSettingError) as error:
        _fail(str(error))
    _show(history, made, time.monotonic() - began)
    if refused:
        _fail(refused)
    _out.print(f"{name} {version} is {role}: {made.digest}", soft_wrap=True)


def _trained(
    history: History,
    plan: TrainingPlan,
    *,
    view: str,
    name: str,
    version: int,
    parameters: TrainingParameters,
    capacity: Capacity | None,
    steps: Any,
) -> Trained:
    from shared.adapters.onnx_scorer import OnnxGraph  # noqa: PLC0415 - with the next, a second that --help does not pay
    from shared.adapters.xgboost_trainer import XgboostTrainer  # noqa: PLC0415

    return train(
        VIEWS[view],
        history.transactions,
        history.labels,
        plan,
        trainer=XgboostTrainer(),
        load_graph=OnnxGraph,
        name=name,
        version=version,
        parameters=parameters,
        capacity=capacity,
        progress=steps,
    )


def read_history(path: Path, layout: Layout) -> History:
    """A Parquet file as columns.

    Args:
        path: The file.
        layout: Its columns; the field `fraud` must be among them.

    Raises:
        UnreadableFile: It cannot be read, lacks a column or a usable row.
    """
    lacking = [name for name in _NEEDED if name not in layout.columns]
    if lacking:
        raise UnreadableFile(f"no column is named for {lacking[0]}; training needs {', '.join(_NEEDED)}")
    if path.suffix.lower() != ".parquet":
        raise UnreadableFile(f"{path.name} is not .parquet")
    pa: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        table = parquet.read_table(path, columns=[layout.columns[name] for name in _NEEDED])
        columns = {name: table.column(layout.columns[name]) for name in _NEEDED}
        time_us = columns["event_time"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
        amount = np.asarray(columns["amount"].cast(pa.float64()).to_numpy())
        verdict = columns["fraud"].cast(pa.int64()).to_numpy()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UnreadableFile(f"{path.name} cannot be read: {error}") from error
    nulls = [name for name, column in columns.items() if column.null_count]
    if nulls:
        raise UnreadableFile(f"{path.name} lacks values in the column {layout.columns[nulls[0]]}")
    minor = amount * 10.0**layout.minor_digits
    whole = np.rint(minor)
    broken = {
        "amount must be greater than nought": ~(whole > 0),
        f"amount must not have more than {layout.minor_digits} decimals": ~(np.abs(minor - whole) <= _CENT_TOLERANCE),
        "fraud must be 0 or 1": (verdict != 0) & (verdict != 1),
    }
    keep = np.flatnonzero(~np.any(list(broken.values()), axis=0))
    if not len(keep):
        raise UnreadableFile(f"{path.name} has no row that can be used")
    time_us = time_us[keep].astype(np.int64)
    ids = {
        name: _ids(columns[name].to_numpy(zero_copy_only=False)[keep], layout.prefixes.get(name, ""))
        for name in ("transaction_id", "customer_id", "terminal_id")
    }
    if len(np.unique(ids["transaction_id"])) != len(keep):
        raise UnreadableFile(f"{path.name} has a transaction id twice")
    n_rows = len(keep)
    source = np.full(n_rows, PRECEDENCE.index(LabelSource.IMPORT), dtype=np.int8)
    return History(
        TransactionColumns(
            ids["transaction_id"], time_us, whole[keep].astype(np.int64), ids["customer_id"], ids["terminal_id"]
        ),
        LabelColumns(
            np.arange(n_rows), verdict[keep] == 1, time_us + layout.label_after_us, source, np.full(n_rows, 100)
        ),
        {rule: int(rows.sum()) for rule, rows in broken.items() if rows.any()},
    )


def _ids(values: NDArray[Any], prefix: str) -> NDArray[Any]:
    """Ids as text that sorts as ids do."""
    if values.dtype.kind in "iu":
        return np.char.add(prefix, values.astype(np.str_))
    return np.char.add(prefix, np.array([str(value) for value in values], dtype=np.str_))


def _layout(path: Path, mapping: list[str] | None, minor_digits: int, label_days: float) -> Layout:
    label_after_us = round(label_days * US_PER_DAY)
    if not mapping:
        found = Layout.detected(columns_of(path))
        return Layout(found.columns, found.currency, found.minor_digits, label_after_us, found.prefixes)
    pairs = [entry.partition("=") for entry in mapping]
    if not all(sign and field and column for field, sign, column in pairs):
        raise UnreadableFile("--map takes FIELD=COLUMN")
    return Layout({field: column for field, _, column in pairs}, "EUR", minor_digits, label_after_us)


@contextmanager
def _store(out: Path | None, connection: str | None) -> Iterator[BundleStore]:
    """The store that the options name."""
    if out is not None:
        yield FileBundles(out)
        return
    name = connection or "twin"
    settings = os.environ if connection else {"twin": TwinSettings.read(os.environ).storage_connection()}
    with blob_service(parse_storage(name, settings), retry_total=2) as service:
        container = service.get_container_client(os.environ.get("MODELS_CONTAINER", MODELS_CONTAINER))
        yield BlobBundles(container)


@contextmanager
def _throne(out: Path | None, store: BundleStore, connection: str | None) -> Iterator[Succession | None]:
    """What gives the bundle its part, in the twin's database or that of `DATABASE`; None where there is none (yet)."""
    is_named = any(key == DATABASE or key.startswith(f"{DATABASE}__") for key in os.environ)
    if out is not None or (connection is not None and not is_named):
        yield None
        return
    from shared.adapters.postgres import parse_postgres  # noqa: PLC0415 - only those who publish need the driver

    dsn = None if connection else TwinSettings.read(os.environ).database_dsn(login_of("retrain"))
    where = parse_postgres(DATABASE, os.environ if dsn is None else {DATABASE: dsn})
    with succession_of(where, store, SystemClock(), "train") as throne:
        yield throne


@contextmanager
def _progress() -> Iterator[Any]:
    """A line per step, with a bar while it can be told how much is done."""
    with Progress(
        SpinnerColumn(), TextColumn("{task.description:<12}"), BarColumn(), TimeElapsedColumn(), console=_err
    ) as bars:
        present: list[Any] = []

        def tell(step: str, share: float) -> None:
            if not present or bars.tasks[present[-1]].description != step:
                if present:
                    bars.update(present[-1], total=1.0, completed=1.0)
                present.append(bars.add_task(step, total=None))
            if share > 0:
                bars.update(present[-1], total=1.0, completed=share)

        yield tell
        if present:
            bars.update(present[-1], total=1.0, completed=1.0)


def _show(history: History, made: Trained, seconds: float) -> None:
    """The figures of the test span."""
    manifest = made.bundle.manifest
    for rule, count in history.left_out.items():
        _out.print(f"left out: {count:,} rows, because {rule}")
    for name, span in manifest.spans.items():
        start, end = (np.datetime64(at, "us").astype("datetime64[D]") for at in (span.start_us, span.end_us))
        _out.print(f"{name:<12} {start} to {end}: {span.n_rows:,} transactions, {span.n_frauds:,} frauds")
    table = Table(title="on the test span", title_justify="left")
    for heading in ("figure", "value", f"{manifest.confidence:.0%} interval"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for metric in manifest.metrics:
        table.add_row(metric.name, f"{metric.value:.3f}", f"{metric.low:.3f} to {metric.high:.3f}")
    _out.print(table)
    size, parity = manifest.size, made.parity
    _out.print(
        f"{size.n_trees} trees of depth {size.depth}, tables of {size.table_bytes / 1e6:.1f} MB; "
        f"thresholds: review {manifest.thresholds.review:.4f}, decline {manifest.thresholds.decline:.4f}"
    )
    if (fitted := manifest.capacity) is not None:
        price, reviews = fitted.policy.shadow_price_minor, fitted.capacity.reviews_per_day
        _out.print(f"{reviews:,} reviews a day: a shadow price of {price:,} minor units")
    _out.print(
        f"parity over {parity.n_rows:,} rows: outputs within {parity.output:.1g}, "
        f"contributions within {parity.contribution:.1g}; {seconds:.1f} s in all"
    )


def _fail(message: str) -> NoReturn:
    _err.print(f"tollgate: {message}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command("train")(run)
