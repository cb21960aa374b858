"""The host's configuration file: one JSON object per app, read with every problem named at once."""

from __future__ import annotations

import ipaddress
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from twin.host.cors import CorsPolicy, parse_cors
from twin.host.errors import InvalidConfig
from twin.host.logs import LogFormat

DEFAULT_PORT = 7071
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
FIELDS = frozenset(
    {
        "app_dir",
        "site_packages",
        "settings",
        "host",
        "port",
        "watch",
        "watch_also",
        "enforce_keys",
        "keys_file",
        "instance_id",
        "state_dir",
        "log_level",
        "log_format",
        "cors",
    }
)


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What one host process runs and where.

    Attributes:
        app_dir: Folder with function_app.py and host.json.
        site_packages: The app package's own packages; None runs the app with this environment's packages.
        settings: The app's settings; values are strings, as in the cloud.
        host: Loopback address to listen on.
        port: Port to listen on; 0 picks a free one (see the log).
        watch: Restart the app when its files change.
        watch_also: Further folders whose changes restart it, such as that of a library it imports.
        own_settings: Whether `settings` came from the app's local.settings.json.
        enforce_keys: Check access keys and create `keys_file` when missing.
        instance_id: Names this process among several of one app; random when None.
        state_dir: Folder for files of this host.
    """

    app_dir: Path
    site_packages: Path | None
    settings: Mapping[str, str]
    host: str
    port: int
    watch: bool
    watch_also: tuple[Path, ...]
    own_settings: bool
    enforce_keys: bool
    keys_file: Path | None
    instance_id: str | None
    state_dir: Path
    log_level: str
    log_format: LogFormat
    cors: CorsPolicy | None
    source: Path


class _Reader:
    """Reads typed fields and collects what is wrong with them."""

    def __init__(self, document: Mapping[str, Any], where: str) -> None:
        self._document = document
        self._where = where
        self.problems: list[str] = []

    def problem(self, name: str, rule: str) -> None:
        self.problems.append(f"{self._where}{name}: {rule}")

    def text(self, name: str, default: str | None = None) -> str | None:
        value = self._document.get(name, default)
        if value is None or isinstance(value, str):
            return value
        self.problem(name, f"must be a string, not {type(value).__name__}")
        return default

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._document.get(name, default)
        if isinstance(value, bool):
            return value
        self.problem(name, f"must be true or false, not {value!r}")
        return default

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self._document.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.problem(name, f"must be a whole number from {low} to {high}, not {value!r}")
        return default

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self._document.get(name, default)
        if isinstance(value, str) and value in choices:
            return value
        self.problem(name, f"must be one of {', '.join(choices)}, not {value!r}")
        return default

    def folder(self, name: str, *, required: bool) -> Path | None:
        text = self.text(name)
        if text is None:
            if required:
                self.problem(name, "is required")
            return None
        path = Path(text)
        if not path.is_dir():
            self.problem(name, f"is no folder: {text}")
            return None
        return path.resolve()

    def folders(self, name: str) -> tuple[Path, ...]:
        value = self._document.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.problem(name, "must be a list of folders")
            return ()
        for item in value:
            if not Path(item).is_dir():
                self.problem(name, f"is no folder: {item}")
        return tuple(Path(item).resolve() for item in value)

    def strings(self, name: str) -> dict[str, str] | None:
        value = self._document.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.problem(name, "must be an object of strings")
            return None
        wrong = [key for key, item in value.items() if not isinstance(item, str)]
        for key in wrong:
            self.problem(f"{name}.{key}", f"must be a string, not {type(value[key]).__name__}")
        for key in value:
            if not key or "=" in key or "\0" in key:
                self.problem(f"{name}.{key}", "is no valid name for a setting")
        return {key: item for key, item in value.items() if key not in wrong}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file. Raises InvalidConfig naming the file for anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise InvalidConfig([f"{what}: cannot read {path}: {problem.strerror}"]) from problem
    except ValueError as problem:
        raise InvalidConfig([f"{what}: {path} is not JSON: {problem}"]) from problem
    if not isinstance(document, dict):
        raise InvalidConfig([f"{what}: {path} must hold a JSON object"])
    return document


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """What local.settings.json says: the app's settings, and how Core Tools would listen."""

    values: Mapping[str, str]
    port: int | None
    cors: CorsPolicy | None


def read_local_settings(app_dir: Path) -> LocalSettings:
    """`local.settings.json` of an app folder; an absent file is an empty one.

    Raises:
        InvalidConfig: naming each field that breaks a rule; encrypted files are refused.
    """
    path = app_dir / "local.settings.json"
    if not path.exists():
        return LocalSettings({}, None, None)
    document = read_json(path, "local.settings.json")
    reader = _Reader(document, "local.settings.json ")
    if document.get("IsEncrypted"):
        reader.problem("IsEncrypted", "encrypted settings are not supported; run `func settings decrypt`")
    values = reader.strings("Values") or {}
    for name in values:
        if ":" in name:
            reader.problem(f"Values.{name}", "must not contain a colon; write two underscores")
    host = document.get("Host")
    port, cors = None, None
    if host is not None and not isinstance(host, dict):
        reader.problem("Host", "must be an object")
    elif host is not None:
        inner = _Reader(host, "local.settings.json Host.")
        port = inner.integer("LocalHttpPort", DEFAULT_PORT, 1, 65535) if "LocalHttpPort" in host else None
        origins = inner.text("CORS")
        credentials = inner.flag("CORSCredentials", default=False)
        cors = None if not origins else parse_cors(origins, credentials=credentials)
        reader.problems.extend(inner.problems)
    if reader.problems:
        raise InvalidConfig(reader.problems)
    return LocalSettings(values, port, cors)


def load_config(path: Path) -> HostConfig:
    """The configuration in `path`.

    Without "settings" the app folder's local.settings.json is honoured: its Values, Host.LocalHttpPort and Host.CORS.

    Raises:
        InvalidConfig: naming every field and rule that is broken.
    """
    document = read_json(path, "config")
    reader = _Reader(document, "")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        reader.problem("config", f"{path} holds secrets and must not be readable by others (chmod 600)")
    for name in sorted(set(document) - FIELDS):
        reader.problem(name, "is not a field of this file")
    app_dir = reader.folder("app_dir", required=True)
    if app_dir is not None:
        reader.problems.extend(
            f"app_dir: {app_dir} has no {name}"
            for name in ("host.json", "function_app.py")
            if not (app_dir / name).is_file()
        )
    settings = reader.strings("settings")
    local = LocalSettings({}, None, None)
    if settings is None and app_dir is not None and not reader.problems:
        local = read_local_settings(app_dir)
    host = reader.text("host", "127.0.0.1") or "127.0.0.1"
    if not _is_loopback(host):
        reader.problem("host", f"must be a loopback address, not {host!r}")
    site_packages = reader.folder("site_packages", required=False)
    port = reader.integer("port", local.port if local.port is not None else DEFAULT_PORT, 0, 65535)
    state_dir = reader.text("state_dir")
    if state_dir is None:
        reader.problem("state_dir", "is required")
    keys_file, enforce_keys = reader.text("keys_file"), reader.flag("enforce_keys", default=False)
    if enforce_keys and keys_file is None:
        reader.problem("keys_file", "is required when enforce_keys is true")
    log_format: Literal["text", "json"] = (
        "json" if reader.choice("log_format", "text", ("text", "json")) == "json" else "text"
    )
    origins = reader.text("cors")
    config = HostConfig(
        app_dir=app_dir or Path(),
        site_packages=site_packages,
        settings=local.values if settings is None else settings,
        host=host,
        port=port,
        watch=reader.flag("watch", default=False),
        watch_also=reader.folders("watch_also"),
        own_settings=settings is None,
        enforce_keys=enforce_keys,
        keys_file=None if keys_file is None else Path(keys_file).absolute(),
        instance_id=reader.text("instance_id"),
        state_dir=Path(state_dir or ".").absolute(),
        log_level=reader.choice("log_level", "INFO", LEVELS),
        log_format=log_format,
        cors=local.cors if origins is None else parse_cors(origins, credentials=False),
        source=path.absolute(),
    )
    if reader.problems:
        raise InvalidConfig(reader.problems)
    return config
