"""Which services a twin consists of, in which order, for each mode."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from shared.adapters.postgres import connect, parse_postgres
from twin.services.app_settings import overrides, own_settings, surrogate_keys, with_keys
from twin.services.apps import Code, core_tools_app, hosted_app, key_headers, source_of
from twin.services.azurite import azurite_service
from twin.services.broker import broker_service
from twin.services.mlflow import mlflow_service, tracking_uri
from twin.services.modes import Mode
from twin.services.orchestra import TwinError
from twin.services.postgres import postgres_service
from twin.services.service import Service
from twin.services.settings import APPS, REPOSITORY, TwinSettings

if TYPE_CHECKING:
    from twin.services.keyless import Keyless

COMPOSE_FILE = REPOSITORY / "docker-compose.azurite.yml"
_COMPOSE_SERVICES = ("azurite", "eventhubs-ready", "postgres")
"""`eventhubs-ready` is healthy once the emulator is, whose own image has nothing to ask it with."""
_COMPOSE_TIMEOUT_S = 300

type Layers = list[list[Service]]
type Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """A twin before it runs.

    Attributes:
        settings: Ports and folder.
        mode: How it runs.
        layers: Services in the order in which they start; those of a layer start together.
        keys: What a keyless twin needs besides; None for one with keys.
    """

    settings: TwinSettings
    mode: Mode
    layers: Layers
    keys: Keyless | None

    def app_settings(self, app: str) -> dict[str, str]:
        """The settings an app is given."""
        return _app_settings(app, self.settings, self.mode, self.keys)

    def headers(self, app: str) -> dict[str, str]:
        """What a request to an app has to carry."""
        return key_headers(app, self.settings) if self.mode.keys else {}

    def database(self) -> psycopg.Connection[Any]:
        """A connection to the product's database, as its user.

        Raises:
            psycopg.OperationalError: It cannot be reached or refuses the login.
        """
        settings = self.keys.database_settings() if self.keys else {"DATABASE": self.settings.database_dsn()}
        return connect(parse_postgres("DATABASE", settings), application_name="tollgate")


def plan(settings: TwinSettings, mode: Mode, code: dict[str, Code] | None = None) -> Plan:
    """Lay out the twin; nothing is started or written.

    Args:
        settings: Ports and folder.
        mode: How it runs.
        code: Where each app's code is; the working tree by default.

    Raises:
        TwinError: The mode needs a program that is not there.
        SettingsError: A developer's own settings file cannot be read.
    """
    where = code or {app: source_of(app) for app in APPS}
    try:
        if mode.identity:
            from twin.services import keyless  # noqa: PLC0415 - only --identity pays for it

            keys = keyless.prepare(settings)
            return Plan(settings, mode, [*keys.backing(), _apps(settings, mode, where, keys)], keys)
        backing = [postgres_service(settings), azurite_service(settings), broker_service(settings)]
        if mode.docker:
            backing = [replace(service, external=True, log=COMPOSE_FILE) for service in backing]
        # Beside the apps: it needs what they need, and they do not wait for it.
        registry = [mlflow_service(settings)] if mode.mlflow else []
        return Plan(settings, mode, [backing, [*registry, *_apps(settings, mode, where, None)]], None)
    except FileNotFoundError as error:
        raise TwinError(str(error)) from error


def _app_settings(app: str, settings: TwinSettings, mode: Mode, keys: Keyless | None) -> dict[str, str]:
    usual = keys.app_settings(app) if keys else with_keys(app, settings, surrogate_keys(settings))
    if mode.mlflow and app == "retrain":
        usual["MLFLOW_TRACKING_URI"] = tracking_uri(settings)
    return usual | own_settings(app, settings)


def _apps(settings: TwinSettings, mode: Mode, where: dict[str, Code], keys: Keyless | None) -> list[Service]:
    services = []
    for app in APPS:
        app_settings = _app_settings(app, settings, mode, keys)
        if mode.func:
            services.append(core_tools_app(app, app_settings, settings))
            continue
        app_settings |= overrides(source_of(app).app_dir)
        services.append(hosted_app(app, where[app], app_settings, settings, enforce_keys=mode.keys))
    return services


def unpacked_packages(settings: TwinSettings, say: Say) -> dict[str, Code]:
    """Build every app's package and unpack it under the state folder, once per content.

    Raises:
        TwinError: A package is refused.
    """
    return {app: _unpacked(app, settings, say) for app in APPS}


def last_packages(settings: TwinSettings) -> dict[str, Code]:
    """The packages that were unpacked last, without building anything; an app without one is left out."""
    found = {}
    for app in APPS:
        current = settings.root / "packages" / f"{app}.current"
        if current.exists():
            found[app] = _code(settings.root / "packages" / current.read_text(encoding="utf-8").strip())
    return found


def _unpacked(app: str, settings: TwinSettings, say: Say) -> Code:
    from twin.packaging import PackageError, build, unpack  # noqa: PLC0415 - only --packages pays for it

    folder = settings.root / "packages"
    try:
        package = build(app, REPOSITORY / "build" / "packages", progress=say)
        # The name holds the digest, so that an app with another package is started anew.
        name = f"{app}-{package.manifest.sha256[:16]}"
        unpack(package.path, folder / name, expected_sha256=package.manifest.sha256)
    except PackageError as error:
        raise TwinError(f"the package of {app} is refused: {error}") from error
    (folder / f"{app}.current").write_text(name, encoding="utf-8")
    return _code(folder / name)


def _code(folder: Path) -> Code:
    return Code(folder, folder / ".python_packages" / "lib" / "site-packages")


def compose(*arguments: str) -> None:
    """Run `docker compose` on the compose file, for the services that the twin would otherwise run itself.

    Raises:
        TwinError: Docker is missing, or the command fails.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise TwinError("docker is not on the PATH; install Docker, or leave --docker out")
    command = [docker, "compose", "-f", str(COMPOSE_FILE), *arguments]
    try:
        ended = subprocess.run(command, check=False, timeout=_COMPOSE_TIMEOUT_S, cwd=REPOSITORY)
    except subprocess.TimeoutExpired as error:
        raise TwinError(f"docker compose {arguments[0]} did not end within {_COMPOSE_TIMEOUT_S} s") from error
    if ended.returncode != 0:
        raise TwinError(f"docker compose {arguments[0]} failed with exit code {ended.returncode}")


def compose_up() -> None:
    """Start the containers and wait until they are healthy."""
    compose("up", "--detach", "--wait", *_COMPOSE_SERVICES)


def compose_down(*, wipe: bool = False) -> None:
    """Stop the containers; with `wipe` their data goes too."""
    compose("down", *(["--volumes"] if wipe else []))
