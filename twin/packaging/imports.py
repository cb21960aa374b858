"""Does an app import from its own package, and which functions does it then have."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twin.packaging.errors import ImportRefused, MissingImport
from twin.packaging.policy import SITE_PACKAGES

# The cloud allows two minutes (https://learn.microsoft.com/azure/azure-functions/python-build-options), its instances
# are slower than a build machine, and a cold start is waited for.
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the app: its name, the type of its trigger and the types of its other bindings."""

    name: str
    trigger: str
    bindings: tuple[str, ...]


def functions_of(app: str, folder: Path) -> tuple[Function, ...]:
    """Import the unpacked package in a bare interpreter and list the functions that azure.functions registered.

    The interpreter has the standard library, the package and an empty environment: an app that reads settings or opens
    connections while it is imported fails here.

    Args:
        app: Name for messages.
        folder: Where the package was unpacked.

    Raises:
        MissingImport: If a module is in no package.
        ImportRefused: If the import fails or takes too long, a module came from elsewhere, or there is no function.
    """
    answer = _probe(app, folder)
    error = answer.get("error")
    if error is not None:
        where = error.get("where") or "function_app.py"
        if error["type"] == "ModuleNotFoundError":
            raise MissingImport(f"{app}: {where} needs {error['module']}, which is not in the package")
        raise ImportRefused(f"{app}: {where} raises {error['type']}: {error['message']}")
    if answer["leaked"]:
        raise ImportRefused(f"{app}: modules from outside the package: {', '.join(answer['leaked'][:5])}")
    if not answer["functions"]:
        raise ImportRefused(f"{app}: function_app.py registers no function")
    return tuple(Function(item["name"], item["trigger"], tuple(item["bindings"])) for item in answer["functions"])


def _probe(app: str, folder: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("probe_imports.py")
    # -I and -S: no environment variables, no user site, no site-packages of this environment.
    command = [sys.executable, "-I", "-S", "-B", str(script), str(folder), str(folder / SITE_PACKAGES)]
    try:
        done = subprocess.run(
            command, env={}, cwd=folder, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise ImportRefused(f"{app}: the import took more than {_TIMEOUT_S} s") from error
    lines = done.stdout.splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise ImportRefused(f"{app}: the interpreter ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer
