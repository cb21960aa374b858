"""Function apps as services: under the twin's host, or under real Core Tools."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from twin.services.app_settings import MARK
from twin.services.service import Problem, Service, base_environment, http_problem
from twin.services.settings import HOST, REPOSITORY, SettingsError, TwinSettings

_CHAMPION = "champion"
"""What a new twin lacks until a model is published; nothing that starting or waiting could mend."""


@dataclass(frozen=True, slots=True)
class Code:
    """Where an app's code is: a folder with function_app.py, and its packages if they are not the developer's own."""

    app_dir: Path
    site_packages: Path | None = None


def source_of(app: str) -> Code:
    """The app as it is in the working tree."""
    return Code(REPOSITORY / "functions" / app)


def keys_file(app: str, settings: TwinSettings) -> Path:
    """Where an app's access keys are; the host makes them when it first enforces them."""
    return settings.root / "apps" / app / "keys.json"


def key_headers(app: str, settings: TwinSettings) -> dict[str, str]:
    """The header that opens every route of an app whose keys are enforced; empty while there are no keys."""
    try:
        keys = json.loads(keys_file(app, settings).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {"x-functions-key": str(keys["masterKey"])}


def hosted_app(
    app: str, code: Code, app_settings: Mapping[str, str], settings: TwinSettings, *, enforce_keys: bool = False
) -> Service:
    """An app under the twin's host.

    Code from the working tree is watched, so that a change restarts the app; a package cannot change.
    """
    folder = settings.root / "apps" / app
    config_file = folder / "host.json"
    port = settings.port_of(app)
    config = {
        "app_dir": str(code.app_dir),
        "site_packages": str(code.site_packages) if code.site_packages else None,
        # Locks, schedules and checkpoints belong to the app, not to the folder it happens to lie in.
        "settings": {"AzureFunctionsWebHost__hostid": f"tollgate-{app}", **app_settings},
        "host": HOST,
        "port": port,
        "watch": code.site_packages is None,
        "watch_also": [] if code.site_packages else [str(REPOSITORY / "shared")],
        "enforce_keys": enforce_keys,
        "keys_file": str(keys_file(app, settings)),
        "instance_id": app,
        "state_dir": str(folder),
        "log_level": "INFO",
    }
    text = json.dumps(config, indent=2)

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config_file.touch(mode=0o600)
        config_file.write_text(text, encoding="utf-8")

    return Service(
        name=app,
        ports={app: port},
        command=[sys.executable, "-m", "twin.host", "--config", str(config_file)],
        environment=base_environment(),
        probe=lambda: _problem(port, key_headers(app, settings) if enforce_keys else {}),
        log=settings.root / "logs" / f"{app}.log",
        cwd=settings.root,
        prepare=prepare,
        urls={app: f"http://{HOST}:{port}/api"},
        identity_of=text,
        grace_s=40,  # a host may take 30 s to finish what it has begun
    )


def core_tools_app(app: str, app_settings: Mapping[str, str], settings: TwinSettings) -> Service:
    """An app under Azure Functions Core Tools (`func start`), which read their settings from the app's folder.

    Raises:
        FileNotFoundError: `func` is not on the PATH.
    """
    func = shutil.which("func")
    if func is None:
        raise FileNotFoundError("func is not on the PATH; install Azure Functions Core Tools 4, or leave --func out")
    folder = REPOSITORY / "functions" / app
    port = settings.port_of(app)
    document = {MARK: "tollgate up --func", "IsEncrypted": False, "Values": dict(app_settings)}
    text = json.dumps(document, indent=2)
    return Service(
        name=app,
        ports={app: port},
        command=[func, "start", "--port", str(port), "--no-build"],
        # func finds Python through the virtual environment; `shared` lies at the repository's root
        environment=base_environment()
        | {
            "VIRTUAL_ENV": str(Path(sys.prefix)),
            "PATH": f"{Path(sys.prefix) / 'bin'}:{base_environment().get('PATH', '')}",
            "PYTHONPATH": str(REPOSITORY),
        },
        probe=lambda: _ready_problem(port),
        log=settings.root / "logs" / f"{app}.log",
        cwd=folder,
        prepare=lambda: _write_local_settings(folder / "local.settings.json", text),
        urls={app: f"http://{HOST}:{port}/api"},
        identity_of=text,
    )


def _write_local_settings(path: Path, text: str) -> None:
    """Write the settings Core Tools read, but never over a file that the developer wrote.

    Raises:
        SettingsError: There is one.
    """
    if path.exists() and MARK not in path.read_text(encoding="utf-8"):
        raise SettingsError(f"{path} is your own and is not overwritten; move it away, or leave --func out")
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _problem(port: int, headers: Mapping[str, str]) -> Problem:
    status = f"http://{HOST}:{port}/admin/host/status"
    return http_problem(status, accept=_host_runs, headers=headers) or _ready_problem(port)


def _host_runs(status: int, body: str) -> Problem:
    try:
        state = json.loads(body).get("state", "unknown")
    except (ValueError, AttributeError):
        state = "unknown"
    return "" if status == 200 and state == "Running" else f"the host's state is {state} (HTTP {status})"


def _ready_problem(port: int) -> Problem:
    return http_problem(f"http://{HOST}:{port}/api/health/ready", accept=_app_ready, timeout_s=10)


def _app_ready(status: int, body: str) -> Problem:
    if status == 200:
        return ""
    try:
        document = json.loads(body)
        missing = {item["name"] for item in document.get("dependencies", ()) if not item["usable"]}
        detail = document.get("detail", "")
    except (ValueError, AttributeError, KeyError, TypeError):
        missing, detail = set(), ""
    if missing == {_CHAMPION}:
        return ""
    return str(detail) or f"health/ready answered {status}"
