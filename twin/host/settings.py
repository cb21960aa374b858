"""App settings: the environment of an app's processes, and `%NAME%` in bindings."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

# With one of these the worker library believes it runs in Azure.
SCRUBBED = frozenset({"CONTAINER_NAME", "WEBSITE_INSTANCE_ID", "WEBSITE_POD_NAME"})

# All that an app sees of the machine it runs on; everything else has to be an app setting, as in the cloud.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT")

_TOKEN = re.compile(r"%([^%]+)%")

DEFAULT_BODY_LIMIT = 104_857_600
MAX_WORKERS = 10


class MissingSetting(ValueError):
    """A binding names an app setting that does not exist."""


def environment(settings: Mapping[str, str], app_dir: str) -> dict[str, str]:
    """The exact environment of an app: a scrubbed base, what the cloud always sets, then the app's settings."""
    base = {name: os.environ[name] for name in INHERITED if name in os.environ}
    given = {
        "FUNCTIONS_WORKER_RUNTIME": "python",
        "FUNCTIONS_WORKER_RUNTIME_VERSION": "3.13",
        "FUNCTIONS_EXTENSION_VERSION": "~4",
        "AZURE_FUNCTIONS_ENVIRONMENT": "Development",
        "AzureWebJobsScriptRoot": app_dir,
        "TZ": "UTC",
    }
    # A colon cannot be in the name of an environment variable on Linux; the cloud writes two underscores.
    chosen = {name.replace(":", "__"): value for name, value in settings.items()}
    return {name: value for name, value in {**base, **given, **chosen}.items() if name not in SCRUBBED}


def resolve(text: str, settings: Mapping[str, str]) -> str:
    """`%NAME%` replaced by the setting of that name. Raises MissingSetting for one that is not there."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        found = settings.get(name, settings.get(name.replace(":", "__")))
        if found is None:
            raise MissingSetting(f"the app setting {name!r} (as %{name}%) does not exist")
        return found

    return _TOKEN.sub(value, text)


def worker_count(settings: Mapping[str, str]) -> int:
    """FUNCTIONS_WORKER_PROCESS_COUNT, 1 to 10, default 1. Raises ValueError otherwise."""
    text = settings.get("FUNCTIONS_WORKER_PROCESS_COUNT", "1")
    if not text.isdecimal() or not 1 <= int(text) <= MAX_WORKERS:
        raise ValueError(f"FUNCTIONS_WORKER_PROCESS_COUNT: must be a whole number from 1 to 10, not {text!r}")
    return int(text)


def body_limit(settings: Mapping[str, str]) -> int:
    """FUNCTIONS_REQUEST_BODY_SIZE_LIMIT in bytes, default 104857600. Raises ValueError otherwise."""
    text = settings.get("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT", str(DEFAULT_BODY_LIMIT))
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"FUNCTIONS_REQUEST_BODY_SIZE_LIMIT: must be a positive number of bytes, not {text!r}")
    return int(text)


def is_true(settings: Mapping[str, str], name: str) -> bool:
    """Whether a setting is switched on, as the cloud reads switches."""
    return settings.get(name, "").strip().lower() in {"1", "true"}
