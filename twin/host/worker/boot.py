"""First code of a worker process; standard library only, run as a script by path.

It builds `sys.path` the way the cloud does (app folder, its packages, standard library) and lends the process the few
modules of the host's own environment that a worker needs. With an app package the interpreter was started with `-I -S`,
so apart from those names nothing of the host's environment can be imported: a module missing from the package is
missing here as it would be in the cloud.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType

# The HTTP server and what it imports. h11 and click are uvicorn's own dependencies.
LENT = frozenset({"uvicorn", "h11", "click", "httptools", "uvloop"})


class LentModules:
    """A meta path finder for exactly the host modules in `LENT` and `twin.host`.

    `twin` itself becomes an empty package, so that `twin.broker` and the other parts stay out of reach.
    """

    def __init__(self, site_dirs: Sequence[str], twin_dir: str) -> None:
        self._site_dirs = list(site_dirs)
        self._twin_dir = twin_dir

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The import system's question; None passes it on to the ordinary finders."""
        if name in LENT:
            return importlib.machinery.PathFinder.find_spec(name, self._site_dirs)
        if name == "twin":
            spec = importlib.machinery.ModuleSpec("twin", None, is_package=True)
            spec.submodule_search_locations = []
            return spec
        if name == "twin.host":
            return importlib.machinery.PathFinder.find_spec(name, [self._twin_dir])
        return None


def end_with_parent() -> None:
    """Ask Linux to kill this process when the host process dies, even if a function blocks the event loop."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


def leave_signals_to_parent() -> None:
    """Ignore Ctrl-C and SIGTERM, which reach the whole process group: the host tells its workers when to drain.

    An empty handler and not SIG_IGN, because a process that the app starts would inherit the latter.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: None)


def prepare_path(app_dir: str, site_packages: str | None, site_dirs: Sequence[str], twin_dir: str) -> None:
    """Put the app's own code first, and lend the host's modules where the app brings its own packages."""
    if site_packages is not None:
        sys.meta_path.insert(0, LentModules(site_dirs, twin_dir))
        sys.path.insert(0, site_packages)
    elif importlib.util.find_spec("twin") is None:  # the host runs from a checkout that is not installed
        sys.path.append(os.path.dirname(twin_dir))  # noqa: PTH120  (pathlib is slow to import)
    sys.path.insert(0, app_dir)
    os.chdir(app_dir)


def main() -> None:
    """Read the start order (argv[1], JSON; it holds no secrets) and hand over to the worker."""
    order = json.loads(sys.argv[1])
    end_with_parent()
    leave_signals_to_parent()
    if os.getppid() != order["parent"]:  # it died before the signal was armed
        sys.exit(1)
    prepare_path(order["app_dir"], order["site_packages"], order["site_dirs"], order["twin_dir"])
    from twin.host.worker.main import run  # noqa: PLC0415  (importable only now)

    run(order)


if __name__ == "__main__":
    sys.argv[0] = "tollgate-worker"
    main()
