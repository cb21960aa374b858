"""The commands `tollgate models`: who plays which role, and who shall.

Which deployment: what `DATABASE` and `DATA_STORAGE` in the environment say (and `MODELS_CONTAINER`), as for the retrain
app; else the twin. Exit codes, the same for all: 0 done, or it was so already; 1 refused by gate or rule, because there
is no such bundle or somebody was faster; 2 it could not be done: a setting, the database, the storage.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from shared.domain.bundle_pointer import Role
from shared.domain.errors import Conflict, InvalidInput
from shared.domain.instants import format_instant
from twin.feed_connections import DATABASE, REFUSED, note, say, told
from twin.services.app_settings import with_keys
from twin.services.modes import Mode
from twin.services.settings import TwinSettings

if TYPE_CHECKING:
    from shared.adapters.blob_bundles import BlobBundles
    from shared.domain.bundle_manifest import Manifest
    from shared.ports.succession import Change
    from shared.services.succession import Succession

app = typer.Typer(help="Models: who decides, who is tried, and who shall.", no_args_is_help=True)

STORAGE: Final = "DATA_STORAGE"
CONTAINER: Final = "MODELS_CONTAINER"
REGISTRY: Final = "MLFLOW_TRACKING_URI"
SHORT: Final = 12
"""Digits of a digest that are shown; `show` prints all of them."""


DigestArgument = Annotated[str, typer.Argument(help="Digest of a bundle; its first 6 or more digits will do.")]
AuthorOption = Annotated[str | None, typer.Option("--author", help="Who answers for it; your login by default.")]
JsonOption = Annotated[bool, typer.Option("--json", help="A JSON object per line.")]


@app.command(name="list")
def list_models(*, as_json: JsonOption = False) -> None:
    """List the known models, the newest first, and who plays which role."""
    with told(), throne_of() as (throne, _):
        models, present = throne.models(), throne.present()
    by_digest = {present[role].pointer.digest: present[role] for role in reversed(Role) if role in present}
    rows = [
        {
            "digest": model.digest,
            "name": model.name,
            "version": model.version,
            "view": model.view,
            "status": model.status.value,
            "average_precision": model.metrics.get("average_precision", (None,))[0],
            "trained_until": format_instant(model.trained_until_us),
            "registered_at": format_instant(model.registered_at_us),
            "since": format_instant(by_digest[model.digest].pointer.changed_at_us)
            if model.digest in by_digest
            else None,
            "by": by_digest[model.digest].pointer.author if model.digest in by_digest else None,
        }
        for model in models
    ]
    if as_json:
        for row in rows:
            say(json.dumps(row))
        return
    table = _table("digest", "model", "view", "status", "AP on its test span", "trained until", "since", "by")
    for row in rows:
        precision = row["average_precision"]
        table.add_row(
            str(row["digest"])[:SHORT],
            f"{row['name']} {row['version']}",
            str(row["view"]),
            str(row["status"]),
            "" if precision is None else f"{precision:.3f}",
            _day(row["trained_until"]),
            _moment(row["since"]),
            str(row["by"] or ""),
        )
    _console().print(table if rows else "no model is known yet: tollgate train --publish")


@app.command()
def show(digest: DigestArgument) -> None:
    """Show a bundle: what it says of itself, how it stands, and what the gate said of it."""
    with told(), _refused(), throne_of() as (throne, store):
        found = throne.find(digest)
        manifest = _manifest(store, found)
        known = {model.digest: model for model in throne.models()}.get(found)
        verdict = throne.verdict(found)
        changes = [change for change in throne.history() if change.pointer.digest == found]
    table = _table("", "")
    for name, value in {"digest": found, "status": known.status if known else "unknown", **_facts(manifest)}.items():
        table.add_row(name, str(value))
    table.add_row(
        "verdict",
        "none" if verdict is None else f"{'passed' if verdict.passed else 'not passed'}, {verdict.digest[:SHORT]}",
    )
    for change in changes:
        table.add_row(change.action, _sentence(change))
    _console().print(table)


@app.command()
def diff(
    first: DigestArgument, second: Annotated[str, typer.Argument(help="Digest of the other bundle, likewise.")]
) -> None:
    """Show in what two bundles differ, by their manifests."""
    with told(), _refused(), throne_of() as (throne, store):
        digests = [throne.find(first), throne.find(second)]
        left, right = (_facts(_manifest(store, digest)) for digest in digests)
    table = _table("", *(digest[:SHORT] for digest in digests))
    names = [name for name in {**left, **right} if left.get(name) != right.get(name)]
    for name in names:
        table.add_row(name, str(left.get(name, "")), str(right.get(name, "")))
    _console().print(table if names else "they do not differ in what they say of themselves")


@app.command()
def promote(
    digest: DigestArgument,
    *,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; recorded.")] = None,
    accept: Annotated[
        str | None, typer.Option("--accept", help="Why a first champion is good enough although it misses floors.")
    ] = None,
    author: AuthorOption = None,
) -> None:
    """Make a bundle champion that the gate has let through; a first one may be accepted with a reason."""
    with told(), _refused():
        if (reason is None) == (accept is None):
            raise InvalidInput("", "must be --reason, or --accept for a first champion that misses floors")
        with throne_of() as (throne, _):
            found = throne.find(digest)
            if accept is not None:
                change = throne.accept(found, author=_author(author), reason=accept)
            else:
                change = throne.promote(found, author=_author(author), reason=str(reason))
    say(_sentence(change))


@app.command()
def rollback(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded.")],
    to: Annotated[str | None, typer.Option("--to", help="An earlier champion; the one before by default.")] = None,
    author: AuthorOption = None,
) -> None:
    """Let an earlier champion decide again."""
    with told(), _refused(), throne_of() as (throne, _):
        target = None if to is None else throne.find(to)
        change = throne.rollback(author=_author(author), reason=reason, to=target)
    say(_sentence(change))


@app.command()
def history(
    *,
    role: Annotated[Role | None, typer.Option("--role", help="Of one role only.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show every change of a role: who, when, why."""
    with told(), throne_of() as (throne, _):
        changes = throne.history(role)
    if as_json:
        for change in changes:
            say(json.dumps(_document(change)))
        return
    table = _table("when", "role", "number", "action", "digest", "by", "why", "verdict")
    for change in changes:
        pointer = change.pointer
        table.add_row(
            _moment(format_instant(pointer.changed_at_us)),
            pointer.role,
            str(pointer.number),
            change.action,
            "nobody" if pointer.digest is None else pointer.digest[:SHORT],
            pointer.author,
            pointer.reason,
            (change.verdict_digest or "")[:SHORT],
        )
    _console().print(table if changes else "no role was ever given")


@contextmanager
def throne_of() -> Iterator[tuple[Succession, BlobBundles]]:
    """What changes roles, and the bundles."""
    from shared.adapters.blob_bundles import BlobBundles  # noqa: PLC0415 - commands import what they use
    from shared.adapters.connections import blob_service, parse_storage  # noqa: PLC0415
    from shared.adapters.postgres import parse_postgres  # noqa: PLC0415
    from shared.adapters.system_clock import SystemClock  # noqa: PLC0415
    from shared.bootstrap.succession import succession_of  # noqa: PLC0415

    environment = model_environment()
    where = parse_postgres(DATABASE, environment)
    with blob_service(parse_storage(STORAGE, environment), retry_total=2) as service:
        store = BlobBundles(service.get_container_client(environment.get(CONTAINER, "models")))
        with succession_of(where, store, SystemClock(), "tollgate", environment.get(REGISTRY, "")) as throne:
            yield throne, store


def model_environment() -> Mapping[str, str]:
    """The settings of the retrain app: the environment's if it names a database, else the twin's.

    Raises:
        SettingsError: The twin's own settings cannot be used.
    """
    if any(key == DATABASE or key.startswith(f"{DATABASE}__") for key in os.environ):
        return os.environ
    from twin.services.mlflow import tracking_uri  # noqa: PLC0415 - commands import what they use

    settings = TwinSettings.read(os.environ)
    environment = with_keys("retrain", settings)
    if Mode.load(settings.root).mlflow:
        environment[REGISTRY] = tracking_uri(settings)
    return environment


@contextmanager
def _refused() -> Iterator[None]:
    """Tell a refusal from what could not be done."""
    try:
        yield
    except (InvalidInput, Conflict) as error:
        note(f"tollgate: {error}")
        raise typer.Exit(REFUSED) from None


def _author(given: str | None) -> str:
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except OSError:  # a container's user without a name
        raise InvalidInput("--author", "must be given: this login has no name") from None


def _manifest(store: BlobBundles, digest: str) -> Manifest:
    from shared.domain.bundle_manifest import read_manifest  # noqa: PLC0415

    return read_manifest(store.manifest(digest))


def _facts(manifest: Manifest) -> dict[str, object]:
    """What a manifest says, as lines."""
    facts: dict[str, object] = {
        "model": f"{manifest.name} {manifest.version}",
        "view": f"{manifest.view}, {len(manifest.features)} features",
        "thresholds": f"review {manifest.thresholds.review:.4f}, decline {manifest.thresholds.decline:.4f}",
        "trees": f"{manifest.size.n_trees} of depth {manifest.size.depth}",
        "labels known by": format_instant(manifest.as_of_us),
    }
    for name, span in manifest.spans.items():
        ends = f"{_day(format_instant(span.start_us))} to {_day(format_instant(span.end_us))}"
        facts[f"span {name}"] = f"{ends}: {span.n_rows:,} transactions, {span.n_frauds:,} frauds"
    for metric in manifest.metrics:
        facts[metric.name] = f"{metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f})"
    if (fitted := manifest.capacity) is not None:
        facts |= {f"fitted {name}": value for name, value in fitted.policy.parameters.items()}
        facts["fitted for reviews a day"] = fitted.capacity.reviews_per_day
    facts |= {f"parameter {name}": value for name, value in sorted(manifest.parameters.items())}
    return {**facts, "data": manifest.data_digest[:SHORT]}


def _document(change: Change) -> dict[str, Any]:
    pointer = change.pointer
    return {
        "role": pointer.role.value,
        "number": pointer.number,
        "action": change.action.value,
        "digest": pointer.digest,
        "changed_at": format_instant(pointer.changed_at_us),
        "author": pointer.author,
        "reason": pointer.reason,
        "verdict_digest": change.verdict_digest,
    }


def _sentence(change: Change) -> str:
    pointer = change.pointer
    who = "nobody" if pointer.digest is None else pointer.digest[:SHORT]
    when = _moment(format_instant(pointer.changed_at_us))
    return f"{who} is {pointer.role} since {when} (state {pointer.number}), by {pointer.author}: {pointer.reason}"


def _table(*headings: str) -> Table:
    table = Table(show_header=any(headings))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _day(instant: object) -> str:
    return str(instant)[:10]


def _moment(instant: object) -> str:
    return "" if instant is None else str(instant)[:19].replace("T", " ") + "Z"


def _console() -> Console:
    """The terminal as wide as it is now; reasons are people's words, so nothing in them is markup."""
    return Console(highlight=False, markup=False)
