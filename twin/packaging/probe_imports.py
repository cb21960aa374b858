"""Import an app with nothing but its package on the path, and describe it; run as a script by a bare interpreter.

Prints one JSON object: `functions` and `leaked`, or `error`.
"""

from __future__ import annotations

import json
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any


def probe(app_dir: Path, site_packages: Path) -> dict[str, Any]:
    """Import `function_app` and list its functions and every module that came from outside the package."""
    standard = [entry for entry in sys.path if entry]
    sys.path[:] = [str(app_dir), str(site_packages), *standard]
    application = import_module("function_app")
    registry = import_module("azure.functions")
    apps = [value for value in vars(application).values() if isinstance(value, registry.FunctionApp)]
    if len(apps) != 1:
        return {
            "error": {"type": "AppCount", "message": f"function_app.py has {len(apps)} FunctionApp objects, not one"}
        }
    allowed = (str(app_dir), *standard)
    files = {name: getattr(module, "__file__", None) for name, module in sorted(sys.modules.items())}
    return {
        "functions": [describe(function) for function in apps[0].get_functions()],
        "leaked": [
            name for name, file in files.items() if file and name != "__main__" and not file.startswith(allowed)
        ],
    }


def describe(function: Any) -> dict[str, Any]:
    """One function's name, trigger and other bindings, from the library's registry."""
    bindings = [binding.type for binding in function.get_bindings()]
    trigger = function.get_trigger().type
    return {"name": function.get_function_name(), "trigger": trigger, "bindings": [b for b in bindings if b != trigger]}


def deepest_own_frame(error: BaseException, app_dir: Path) -> str | None:
    """File and line of the app or of `shared` that the error came through last, relative to the package."""
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    below = [(file.relative_to(app_dir), line) for file, line in frames if file.is_relative_to(app_dir)]
    own = [(file, line) for file, line in below if file.parts[0] != ".python_packages" or "shared" in file.parts[3:4]]
    return f"{own[-1][0]}, line {own[-1][1]}" if own else None


def main() -> None:
    """Probe the folders of the command line; every failure becomes part of the answer."""
    try:
        answer = probe(Path(sys.argv[1]), Path(sys.argv[2]))
    except BaseException as error:  # noqa: BLE001 - whatever the app raises is the finding
        answer = {
            "error": {
                "type": type(error).__name__,
                "message": str(error),
                "module": getattr(error, "name", None),
                "where": deepest_own_frame(error, Path(sys.argv[1])),
            }
        }
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
