"""local.settings.example.json: exactly the settings that the apps read, in the form Core Tools takes.

The form: https://learn.microsoft.com/azure/azure-functions/functions-develop-local#local-settings-file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

from twin.packaging.checks.problem import Problem
from twin.packaging.checks.shapes import Shape, anything, boolean, integer, mapping, text, walk
from twin.packaging.contents import secret_in

_FORM: Final[Shape] = {
    "IsEncrypted": boolean,
    "Values": mapping(text),
    "Host": {"LocalHttpPort": integer(1, 65535), "CORS": text, "CORSCredentials": boolean},
    "ConnectionStrings": anything,
}


def check_settings_example(path: Path, settings: AbstractSet[str]) -> list[Problem]:
    """Compare the keys of `Values` with the names of settings, and the file with its form.

    Args:
        path: The file.
        settings: Names of all settings of the apps it is for. A connection has its plain name: it is there as `NAME` or
            as properties `NAME__<property>`
            (https://learn.microsoft.com/azure/azure-functions/functions-reference#connections).
    """
    try:
        content = path.read_bytes()
        document = json.loads(content)
    except (OSError, ValueError) as error:
        return [Problem(path, "settings", f"cannot be read: {error}")]
    problems = [
        Problem(path, "settings", f"{where or 'the file'} {message}") for where, message in walk(document, _FORM, "")
    ]
    if isinstance(document, dict):
        problems += _check_values(path, document, settings)
    secret = secret_in(content)
    if secret is not None:
        problems.append(Problem(path, "secret", f"looks like {secret[1]}", secret[0]))
    return problems


def _check_values(path: Path, document: dict[str, Any], settings: AbstractSet[str]) -> Iterator[Problem]:
    if document.get("IsEncrypted") is not False:
        yield Problem(path, "settings", "IsEncrypted must be false: an example is read by people")
    values = document.get("Values")
    keys = values.keys() if isinstance(values, dict) else set[str]()
    present = {key.split("__", 1)[0] for key in keys}
    for name in sorted(settings - present):
        yield Problem(path, "settings-missing", f"{name} is read by the apps and not in Values")
    for key in sorted(key for key in keys if key not in settings and key.split("__", 1)[0] not in settings):
        yield Problem(path, "settings-unknown", f"{key} is in Values and read by no app")
    if isinstance(values, dict) and values.get("FUNCTIONS_WORKER_RUNTIME") != "python":
        yield Problem(path, "settings", "FUNCTIONS_WORKER_RUNTIME must be python")
