"""The app settings that the twin gives to each function app: what infrastructure sets in the cloud."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from twin.services.settings import APPS, SettingsError, TwinSettings, login_of

_COMMON = {"FUNCTIONS_WORKER_RUNTIME": "python", "LOG_LEVEL": "INFO", "PROBES_CONTAINER": "probes"}
_HUB = {"TRANSACTIONS_HUB": "transactions"}
_COSTS = {
    "REVIEW_COST_MINOR": "500",
    "DECLINE_MARGIN_BP": "200",
    "GOODWILL_COST_MINOR": "2000",
    "POLICY_DECLINES": "true",
    "REVIEWS_PER_DAY": "0",
}
_DECIDING = {
    "CURRENCY": "EUR",
    "EVENT_MAX_AGE_DAYS": "7",
    "FRAUD_THRESHOLD": "0.8",
    "REVIEW_THRESHOLD": "0.3",
    "POLICY": "fixed-v1",
    "THRESHOLDS_FROM": "settings",
    **_COSTS,
    "REVIEW_SHADOW_PRICE_MINOR": "0",
    "MODELS_CONTAINER": "models",
    "CHAMPION_POLL_S": "2",
    "METERS_FLUSH_S": "10",
    "STATE_CACHE_MIB": "32",
}
_NOTIFY = {
    "NOTIFY_SMTP_HOST": "",
    "NOTIFY_SMTP_PORT": "587",
    "NOTIFY_SMTP_TLS": "starttls",
    "NOTIFY_SMTP_USER": "",
    "NOTIFY_SMTP_PASSWORD": "",
    "NOTIFY_MAIL_FROM": "",
    "NOTIFY_MAIL_TO": "",
    "NOTIFY_SLACK_URL": "",
    "NOTIFY_WEBHOOK_URL": "",
    "NOTIFY_WEBHOOK_SECRET": "",
    "NOTIFY_PER_HOUR": "20",
    "NOTIFY_GIVE_UP_DAYS": "3",
    "NOTIFY_LINK_BASE": "",
}
_OWN: Mapping[str, Mapping[str, str]] = {
    "score": {
        "FUNCTIONS_WORKER_PROCESS_COUNT": "2",
        "SCORE_DEADLINE_MS": "5000",
        "QUEUE_LIMIT": "2000",
        "BATCH_LIMIT": "1000",
        "BODY_LIMIT_BYTES": "1048576",
        "CORS_ORIGINS": "",
        **_DECIDING,
    },
    "ingest": {
        "FUNCTIONS_WORKER_PROCESS_COUNT": "2",
        "TRANSACTIONS_GROUP": "ingest",
        "LABELS_HUB": "labels",
        "LABELS_GROUP": "ingest",
        "DECISIONS_HUB": "decisions",
        "PUBLISH_SCHEDULE": "*/5 * * * * *",
        "DEAD_LETTERS_CONTAINER": "dead-letters",
        **_DECIDING,
        **_HUB,
    },
    "drift": {
        "FUNCTIONS_WORKER_PROCESS_COUNT": "1",
        "PROBE_SCHEDULE": "0 */5 * * * *",
        "MODELS_CONTAINER": "models",
        "DRIFT_SCHEDULE": "0 7 * * * *",
        "DRIFT_PSI_FLOOR": "0.05",
        "DRIFT_PSI_MEDIUM": "0.3",
        "DRIFT_PSI_HIGH": "0.5",
        "TARGET_DRIFT_THRESHOLD": "0.5",
        "CONCEPT_DRIFT_THRESHOLD": "0.05",
        "RETENTION_RUNS_DAYS": "90",
        "RETENTION_FIGURES_DAYS": "400",
        "RETENTION_LETTERS_DAYS": "400",
        "RETENTION_SHADOW_DAYS": "120",
        **_NOTIFY,
        **_HUB,
    },
    "retrain": {
        "FUNCTIONS_WORKER_PROCESS_COUNT": "1",
        "MODELS_CONTAINER": "models",
        "MLFLOW_TRACKING_URI": "",
        "REPORTS_CONTAINER": "reports",
        "DAILY_TRAINING_SCHEDULE": "0 0 2 * * *",
        "TRIGGER_POLL_SCHEDULE": "0 * * * * *",
        "MODEL_NAME": "card-fraud",
        "FEATURE_VIEW": "",
        "COOLDOWN_H": "48",
        "MIN_NEW_TRANSACTIONS": "10000",
        "TRAIN_DAYS": "75",
        "VALIDATION_DAYS": "7",
        "CALIBRATION_DAYS": "14",
        "TEST_DAYS": "14",
        "MATURITY_DAYS": "30",
        "SEARCH_TRIALS": "4",
        "SEARCH_S": "120",
        "TRAINING_LIMIT_S": "6600",
        "MIN_RECALL": "0.8",
        "MIN_PRECISION": "0.75",
        "TRIAL_H": "24",
        "TRIAL_ROWS": "1000",
        **_COSTS,
    },
}
OWN = "settings.json"
"""In a twin's state folder: settings of its own."""

MARK = "_written_by"
"""Key of a local.settings.json that the twin wrote itself."""

_STORAGE_CONNECTIONS = ("AzureWebJobsStorage", "DATA_STORAGE")
_HUB_CONNECTIONS = ("EVENT_HUBS",)
_DECIDING_APPS = frozenset({"score", "ingest"})

EXAMPLE_SURROGATE_KEYS = "k1:" + base64.b64encode(b"only for a developer's machine..").decode()
"""In `local.settings.example.json`; public, so it protects nothing. A twin draws its own (`surrogate_keys`)."""


def plain_settings(app: str) -> dict[str, str]:
    """The settings of an app that do not say where anything is."""
    settings = {**_COMMON, **_OWN[app]}
    if app == "retrain":
        del settings["PROBES_CONTAINER"]
    return settings


def connection_names(app: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The storage connections and the hub connections of an app."""
    return _STORAGE_CONNECTIONS, _HUB_CONNECTIONS if app in {"ingest", "drift"} else ()


def database_names(app: str) -> tuple[str, ...]:
    """The database connections of an app: every app has a login of its own."""
    return ("DATABASE",) if app in APPS else ()


def surrogate_keys(settings: TwinSettings) -> str:
    """The surrogate keys of this twin: drawn once, kept as long as its state."""
    path = settings.root / "apps" / "surrogate_keys"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        drawn.touch(mode=0o600)
        drawn.write_text("k1:" + base64.b64encode(secrets.token_bytes(32)).decode(), encoding="ascii")
        with suppress(FileExistsError):  # of two commands at once, the first one's keys hold
            path.hardlink_to(drawn)
        drawn.unlink()
    return path.read_text(encoding="ascii")


def secret_settings(app: str, keys: str) -> dict[str, str]:
    """The settings of an app that are secrets: references to a vault in the cloud."""
    return {"SURROGATE_KEYS": keys} if app in _DECIDING_APPS else {}


def with_keys(app: str, settings: TwinSettings, surrogates: str = EXAMPLE_SURROGATE_KEYS) -> dict[str, str]:
    """All settings of an app, connected by keys."""
    storage, hubs = connection_names(app)
    return {
        **plain_settings(app),
        **secret_settings(app, surrogates),
        **dict.fromkeys(database_names(app), settings.database_dsn(login_of(app))),
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
    values["DATABASE"] = TwinSettings().database_dsn(login_of("score"))
    return {"IsEncrypted": False, "Values": dict(sorted(values.items())), "Host": {"LocalHttpPort": 7071}}


def own_settings(app: str, settings: TwinSettings) -> dict[str, str]:
    """What this one twin gives to an app instead of the usual: `apps/settings.json` in its state folder.

    Raises:
        SettingsError: The file is there and cannot be read.
    """
    path = settings.root / "apps" / OWN
    try:
        values = json.loads(path.read_text(encoding="utf-8"))[app]
    except (FileNotFoundError, KeyError):
        return {}
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{path}: is not a file of settings by app ({error})") from error
    return {str(name): str(value) for name, value in values.items()}


def write_own_settings(values: Mapping[str, Mapping[str, str]], settings: TwinSettings) -> None:
    """Give apps settings of their own in this one twin, by app and name, until its state is wiped."""
    path = settings.root / "apps" / OWN
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


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
