"""The app settings that the twin gives to each function app: what infrastructure sets in the cloud."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from twin.services.settings import APPS, SettingsError, TwinSettings

_COMMON = {"FUNCTIONS_WORKER_RUNTIME": "python", "LOG_LEVEL": "INFO", "PROBES_CONTAINER": "probes"}
_HUB = {"TRANSACTIONS_HUB": "transactions"}
_OWN: Mapping[str, Mapping[str, str]] = {
    "score": {"FUNCTIONS_WORKER_PROCESS_COUNT": "2"},
    "ingest": {
        "FUNCTIONS_WORKER_PROCESS_COUNT": "2",
        "TRANSACTIONS_GROUP": "ingest",
        "DEAD_LETTERS_CONTAINER": "dead-letters",
        **_HUB,
    },
    "drift": {"FUNCTIONS_WORKER_PROCESS_COUNT": "1", "PROBE_SCHEDULE": "0 */5 * * * *", **_HUB},
    "retrain": {"FUNCTIONS_WORKER_PROCESS_COUNT": "1"},
}
MARK = "_written_by"
"""Key of a local.settings.json that the twin wrote itself."""

_STORAGE_CONNECTIONS = ("AzureWebJobsStorage", "DATA_STORAGE")
_HUB_CONNECTIONS = ("EVENT_HUBS",)


def plain_settings(app: str) -> dict[str, str]:
    """The settings of an app that do not say where anything is."""
    settings = {**_COMMON, **_OWN[app]}
    if app == "retrain":
        del settings["PROBES_CONTAINER"]
    return settings


def connection_names(app: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The storage connections and the hub connections of an app."""
    return _STORAGE_CONNECTIONS, _HUB_CONNECTIONS if app in {"ingest", "drift"} else ()


def with_keys(app: str, settings: TwinSettings) -> dict[str, str]:
    """All settings of an app, connected by keys."""
    storage, hubs = connection_names(app)
    return {
        **plain_settings(app),
        **dict.fromkeys(storage, settings.storage_connection()),
        **dict.fromkeys(hubs, settings.hub_connection()),
    }


def example() -> dict[str, object]:
    """What `local.settings.example.json` holds: the settings of all apps, on the twin's default ports."""
    values: dict[str, str] = {}
    for app in APPS:
        values |= with_keys(app, TwinSettings())
    values |= dict.fromkeys(_STORAGE_CONNECTIONS, "UseDevelopmentStorage=true")
    values["FUNCTIONS_WORKER_PROCESS_COUNT"] = "2"
    return {"IsEncrypted": False, "Values": dict(sorted(values.items())), "Host": {"LocalHttpPort": 7071}}


def overrides(app_dir: Path) -> dict[str, str]:
    """What a developer set in the app's own `local.settings.json`; it wins over the twin's settings.

    Raises:
        SettingsError: The file is there and cannot be read.
    """
    path = app_dir / "local.settings.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        values = document.get("Values", {})
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise SettingsError(f"{path}: is not a settings file ({error})") from error
    if MARK in document:
        return {}
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise SettingsError(f"{path}: Values must be an object of strings")
    return values
