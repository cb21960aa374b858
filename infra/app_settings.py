"""The app settings that the stack gives to each function app.

Which settings an app has is read from its settings class, never listed here, so a setting that is added to an app
reaches the cloud with it. Its value is, in this order: what the stack knows (sizes, addresses), a reference into the
Key Vault for a secret, the value of `local.settings.example.json` (names of hubs and containers, schedules, limits:
the same everywhere), the default of the class. What cannot be decided is an error while the program runs, before
anything is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from infra.config import StackConfig
from infra.topology import APPS, CONTAINERS, HUBS, OPTIONAL_SECRETS, SECRETS, SETTINGS

ROOT: Final = Path(__file__).resolve().parents[1]
EXAMPLE: Final = ROOT / "local.settings.example.json"

BY_PLATFORM: Final = frozenset({"FUNCTIONS_WORKER_RUNTIME"})
"""What Flex Consumption sets itself, from the app's runtime, and refuses as an app setting."""

TELEMETRY: Final = ("APPLICATIONINSIGHTS_AUTHENTICATION_STRING", "APPLICATIONINSIGHTS_CONNECTION_STRING")
"""What the host reads beside the app's own settings."""

CONNECTION_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "AzureWebJobsStorage": ("accountName", "credential", "clientId"),
    "DATA_STORAGE": ("accountName", "credential", "clientId"),
    "EVENT_HUBS": ("fullyQualifiedNamespace", "credential", "clientId"),
    "DATABASE": ("host", "port", "database", "user", "sslMode", "credential", "clientId"),
}
"""The identity-based form of each connection; `shared.adapters` reads it."""

_SECRET_LOOKING: Final = re.compile(r"(^|_)(KEY|KEYS|SECRET|SECRETS|PASSWORD|TOKEN|TOKENS)$")


class SettingError(ValueError):
    """A setting of an app whose value, access or resource the stack does not know; the text says what to add where."""


@cache
def example_values() -> Mapping[str, str]:
    """Return the documented settings; values with addresses or keys of one machine are in it too."""
    values: dict[str, str] = json.loads(EXAMPLE.read_text(encoding="utf-8"))["Values"]
    return values


def plain_settings(app: str, config: StackConfig, secret_uri: Callable[[str], str]) -> dict[str, str]:
    """Return an app's settings that are no connections.

    Args:
        app: One of `APPS`.
        config: The stack's configuration.
        secret_uri: Name in the Key Vault -> address of the secret without a version.

    Raises:
        SettingError: A setting has no value, looks like a secret and is none, or names an unknown hub or container.
    """
    values = {}
    for field in SETTINGS[app].model_fields.values():
        name = str(field.alias)
        if name in BY_PLATFORM:
            continue
        value = _value(app, name, field, config, secret_uri)
        if value is not None:
            values[name] = value
    _check_names(app, values)
    return values


def containers_read(app: str) -> tuple[str, ...]:
    """Return the containers that an app's settings name, sorted.

    Raises:
        SettingError: A container that `infra.topology.CONTAINERS` does not have.
    """
    names = set()
    for field in SETTINGS[app].model_fields.values():
        setting = str(field.alias)
        if setting.endswith("_CONTAINER"):
            name = str(example_values().get(setting, field.default))
            if name not in CONTAINERS:
                raise SettingError(
                    f"{setting} of {app} names the container {name!r}: add it, and who writes, to CONTAINERS in "
                    "infra/topology.py"
                )
            names.add(name)
    return tuple(sorted(names))


def connections(app: str) -> tuple[str, ...]:
    """Return the connections of an app.

    Raises:
        SettingError: A connection of an unknown kind.
    """
    for name in SETTINGS[app].connections:
        if name not in CONNECTION_PARTS:
            raise SettingError(f"the connection {name} of {app} is not in CONNECTION_PARTS of infra/app_settings.py")
    return SETTINGS[app].connections


def needed_secrets() -> dict[str, str]:
    """Return setting -> name in the Key Vault, for the secrets that some app reads."""
    return {setting: name for setting, name in SECRETS.items() if any(setting in SETTINGS[a].names() for a in APPS)}


def _value(app: str, name: str, field: FieldInfo, config: StackConfig, secret_uri: Callable[[str], str]) -> str | None:
    if name in SECRETS:
        return f"@Microsoft.KeyVault(SecretUri={secret_uri(SECRETS[name])})"
    if name in OPTIONAL_SECRETS:
        return f"@Microsoft.KeyVault(SecretUri={secret_uri(OPTIONAL_SECRETS[name])})"
    if field.annotation is SecretStr or SecretStr in get_args(field.annotation) or _SECRET_LOOKING.search(name):
        raise SettingError(f"{name} of {app} looks like a secret: add it to SECRETS in infra/topology.py")
    if name == "LOG_LEVEL":
        return config.log_level
    if name in _notify(config):
        return _notify(config)[name]
    if name == "FUNCTIONS_WORKER_PROCESS_COUNT":
        return str(config.score_workers if app in {"score", "ingest"} else 1)
    if name in example_values():
        return example_values()[name]
    if field.is_required():
        raise SettingError(f"{name} of {app} has no value: state one in local.settings.example.json")
    return None if field.default is None else str(field.default)


def _notify(config: StackConfig) -> dict[str, str]:
    """Where notices go, as far as it is no secret."""
    return {
        "NOTIFY_SMTP_HOST": config.notify_smtp_host,
        "NOTIFY_SMTP_PORT": str(config.notify_smtp_port),
        "NOTIFY_SMTP_USER": config.notify_smtp_user,
        "NOTIFY_MAIL_FROM": config.notify_mail_from,
        "NOTIFY_MAIL_TO": config.alert_email if config.notify_smtp_host else "",
        "NOTIFY_LINK_BASE": config.notify_link_base,
    }


def _check_names(app: str, values: Mapping[str, str]) -> None:
    containers_read(app)
    for name, value in values.items():
        if name.endswith("_HUB") and value not in HUBS:
            raise SettingError(f"{name} of {app} names the hub {value!r}: add it to HUBS in infra/topology.py")
        if name.endswith("_GROUP"):
            hub = values.get(name.removesuffix("_GROUP") + "_HUB", "")
            if value != "$Default" and value not in HUBS.get(hub, ()):
                raise SettingError(
                    f"{name} of {app} names the consumer group {value!r}, which hub {hub!r} does not have"
                )
