"""The `tollgate` command."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from twin import (
    changes,
    database,
    dead_letters,
    importing,
    models,
    performance,
    policy,
    traffic,
    training,
    verifying,
    views,
)
from twin.services import plan as planning
from twin.services import state_folder
from twin.services.modes import Mode
from twin.services.orchestra import Step, TwinError, bring_up, only_one, states, take_down
from twin.services.processes import Records, tail
from twin.services.service import Service
from twin.services.settings import APPS, SettingsError, TwinSettings

if TYPE_CHECKING:
    from twin.services.checks import Result

app = typer.Typer(
    name="tollgate",
    help="Tollgate on one machine: the twin, its services, and the packages that are deployed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(database.app, name="db")
app.add_typer(changes.app, name="changes")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(importing.labels, name="labels")
app.command(name="import")(importing.import_history)
app.add_typer(verifying.verify, name="verify")
app.command(name="train")(training.run)
app.add_typer(models.app, name="models")
app.add_typer(views.app, name="views")
app.add_typer(policy.app, name="policy")
app.command()(models.promote)
app.command()(verifying.replay)
app.command()(verifying.seal)
app.command()(verifying.forget)
app.command()(traffic.traffic)


@app.command()
def demo(
    *,
    drift: Annotated[bool, typer.Option("--drift", help="Quiet days, a drift, and who is told.")] = False,
    learning: Annotated[bool, typer.Option("--learning", help="Retrained, refused, promoted, rolled back.")] = False,
) -> None:
    """Play the whole gate on a fresh twin of its own (KEEP=1 leaves it up, DATA=FILE plays a file, SCALE its size)."""
    from twin.demo import main as play  # noqa: PLC0415 - commands import what they use

    if drift and learning:
        _fail("one of --drift and --learning at a time")
    raise typer.Exit(play(drift=drift, learning=learning))


app.command()(performance.performance)
_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)

_UP_TIMEOUT_S = 90


@app.command()
def up(
    *,
    fresh: Annotated[bool, typer.Option("--fresh", help="Wipe all state first.")] = False,
    packages: Annotated[bool, typer.Option("--packages", help="Run the apps from deployment packages.")] = False,
    identity: Annotated[bool, typer.Option("--identity", help="No keys: managed identity, tokens and TLS.")] = False,
    func: Annotated[bool, typer.Option("--func", help="Run the apps under real Core Tools.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="Enforce the apps' access keys, as in the cloud.")] = False,
    docker: Annotated[bool, typer.Option("--docker", help="Use the official emulators of the compose file.")] = False,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Run an MLflow server, and record trainings in it.")] = False,
) -> None:
    """Start the twin, or what is missing of it; returns when all of it is healthy."""
    began = time.monotonic()
    mode = Mode(packages=packages, identity=identity, func=func, docker=docker, keys=keys, mlflow=mlflow)
    if mode.problem():
        _fail(mode.problem())
    settings = _settings()
    with _interrupted_politely(), only_one(settings.root):
        if fresh:
            _stop(settings)
            if docker:
                planning.compose_down(wipe=True)
            state_folder.wipe(settings.root)
        mode.save(settings.root)
        code = planning.unpacked_packages(settings, _say) if packages else None
        twin = planning.plan(settings, mode, code)
        if docker:
            planning.compose_up()
        bring_up(twin.layers, Records(settings.root / "run"), _show, timeout_s=_UP_TIMEOUT_S)
    _out.print(f"\nThe twin is up ({time.monotonic() - began:.1f} s). State: {_short(settings.root)}")
    for service in (service for layer in twin.layers for service in layer):
        for label, url in service.urls.items():
            _out.print(f"  {label:<12} {url}", soft_wrap=True)
    if keys:
        _out.print(f"  access keys  {_short(settings.root)}/apps/<app>/keys.json", soft_wrap=True, markup=False)
    _out.print("Next: tollgate check, tollgate status, tollgate logs -f, tollgate down")


@app.command()
def down(*, wipe: Annotated[bool, typer.Option("--wipe", help="Remove all state as well.")] = False) -> None:
    """Stop the twin; its state stays."""
    settings = _settings()
    with only_one(settings.root):
        stopped = _stop(settings)
        if Mode.load(settings.root).docker:
            planning.compose_down(wipe=wipe)
        if wipe:
            state_folder.wipe(settings.root)
    _out.print("The twin is down." if stopped else "Nothing was running.")


@app.command()
def status() -> None:
    """Show every service; the exit code is 0 only if all are healthy."""
    twin = _last_plan(_settings())
    found = states(twin.layers, Records(twin.settings.root / "run"))
    table = Table(title=f"twin {twin.mode.switches()}".strip(), title_justify="left")
    for heading in ("service", "state", "pid", "up for", "ports", "problem"):
        table.add_column(heading, overflow="fold")
    for state in found:
        running = state.running
        table.add_row(
            state.service.name,
            "healthy" if not state.problem else "unhealthy" if running or state.service.external else "down",
            str(running.pid) if running else "",
            _duration(time.time() - running.started_at) if running else "",
            " ".join(str(port) for port in state.service.ports.values()),
            state.problem,
        )
    _out.print(table)
    raise typer.Exit(0 if not any(state.problem for state in found) else 1)


@app.command()
def logs(
    service: Annotated[str | None, typer.Argument(help="A service; all of them by default.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing what is added.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 20,
) -> None:
    """Print what the services wrote."""
    folder = _settings().root / "logs"
    files = sorted(folder.glob("*.log"))
    chosen = [path for path in files if service is None or path.stem == service]
    if not chosen:
        _fail(f"no log of {service or 'any service'}; there are: {', '.join(path.stem for path in files) or 'none'}")
    for path in chosen:
        _print_lines(path.stem, tail(path, lines) if lines else "", prefix=len(chosen) > 1)
    if follow:
        _follow(chosen)


@app.command()
def check(
    *, static: Annotated[bool, typer.Option("--static", help="Only what needs no running twin.")] = False
) -> None:
    """Validate every service by using it; the exit code is 0 only if all checks hold."""
    from twin.services.checks import Result  # noqa: PLC0415 - the SDKs take half a second to import
    from twin.services.static_checks import example_problems, problems  # noqa: PLC0415

    failed = 0
    for app_name in APPS:
        found = problems(app_name)
        failed += bool(found)
        _show_result(Result(f"static {app_name}", not found, "; ".join(found) or "deployable as it stands", 0.0))
    found = example_problems()
    failed += bool(found)
    _show_result(Result("static settings", not found, "; ".join(found) or "the example equals the settings", 0.0))
    if not static:
        failed += _check_services(_settings())
    _out.print("All checks hold." if not failed else f"{failed} checks failed.")
    raise typer.Exit(1 if failed else 0)


@app.command()
def package(
    apps: Annotated[list[str] | None, typer.Argument(help="Apps to package; all by default.")] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the packages.")] = Path("build/packages"),
) -> None:
    """Build deployment packages: one deterministic zip per app, with a manifest beside it."""
    from twin.packaging import PackageError, build, size_report  # noqa: PLC0415 - other commands need none of it

    for name in apps or list(APPS):
        if name not in APPS:
            _fail(f"{name} is not an app; the apps are {', '.join(APPS)}")
        try:
            made = build(name, output, progress=_say)
        except PackageError as error:
            _fail(f"the package of {name} is refused: {error}")
        _out.print(size_report(made.manifest), soft_wrap=True)


def main() -> None:
    """Run the command; what the user can mend is one line on standard error, exit code 1."""
    try:
        app(standalone_mode=True)
    except (TwinError, SettingsError) as error:
        _err.print(f"tollgate: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)


@contextmanager
def _interrupted_politely() -> Iterator[None]:
    """Say what Ctrl-C leaves behind: services have sessions of their own, so it does not reach them."""
    try:
        yield
    except KeyboardInterrupt:
        _err.print("\ntollgate: interrupted; what was started keeps running (tollgate up, status, down)")
        raise typer.Exit(128 + signal.SIGINT) from None


def _settings() -> TwinSettings:
    return TwinSettings.read(os.environ)


def _last_plan(settings: TwinSettings) -> planning.Plan:
    mode = Mode.load(settings.root)
    code = planning.last_packages(settings) if mode.packages else {}
    return planning.plan(settings, mode, code if len(code) == len(APPS) else None)


def _stop(settings: TwinSettings) -> list[str]:
    """Stop what runs, even if what it was started with is no longer there: records name every process."""
    try:
        layers = _last_plan(settings).layers
    except (TwinError, SettingsError):
        layers = []
    return take_down(layers, Records(settings.root / "run"), _show)


def _check_services(settings: TwinSettings) -> int:
    from twin.services import mlflow  # noqa: PLC0415 - the SDKs take half a second to import
    from twin.services.checks import run, service_results, use_results  # noqa: PLC0415

    twin = _last_plan(settings)
    if twin.keys:
        os.environ.update(twin.keys.environment())  # the SDKs look for identity and roots there
    failed = 0
    for result in service_results(states(twin.layers, Records(settings.root / "run"))):
        failed += not result.holds
        _show_result(result)
    for result in use_results(settings, twin.app_settings("ingest"), twin.headers("score"), twin.database):
        failed += not result.holds
        _show_result(result)
    if twin.mode.mlflow:
        result = run("mlflow round trip", lambda: mlflow.use(settings))
        failed += not result.holds
        _show_result(result)
    return failed


def _show(service: Service, step: Step) -> None:
    _out.print(f"  {service.name:<10} {step}", markup=False)


def _say(text: str) -> None:
    _out.print(f"  {text}", markup=False, soft_wrap=True)


def _show_result(result: Result) -> None:
    took = f" ({result.seconds * 1000:.0f} ms)" if result.seconds else ""
    mark = "[green]ok  [/green]" if result.holds else "[red]FAIL[/red]"
    _out.print(f"{mark} {result.name:<20} ", end="")
    _out.print(f"{result.detail}{took}", markup=False, soft_wrap=True)


def _print_lines(name: str, text: str, *, prefix: bool) -> None:
    for line in text.splitlines():
        _out.print(f"{name:<9} {line}" if prefix else line, markup=False, soft_wrap=True)


def _follow(files: list[Path]) -> None:
    ends = {path: path.stat().st_size for path in files}
    while True:
        for path in files:
            size = path.stat().st_size if path.exists() else 0
            start = ends[path] if size >= ends[path] else 0
            if size > start:
                with path.open("rb") as file:
                    file.seek(start)
                    whole, _, _ = file.read().rpartition(b"\n")
                ends[path] = start + len(whole) + 1 if whole else start
                _print_lines(path.stem, whole.decode("utf-8", "replace"), prefix=len(files) > 1)
        time.sleep(0.2)


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(max(0, seconds)), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{left} s"


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _fail(message: str) -> NoReturn:
    _err.print(f"tollgate: {message}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    main()
