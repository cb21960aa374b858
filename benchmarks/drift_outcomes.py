"""Outcomes of the drift benchmark's worlds, kept under `build/`, so that a run that was cut off goes on where it was.

An outcome is a function of its seed and of the code that makes it. It is kept under a digest of that code: of a module
and of every module of the project that it imports, directly or not, and of the versions of the libraries in which
figures are computed. So what is kept is what another run would find, and a change of the code leaves it behind.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, as_completed
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
KEPT: Final = ROOT / "build" / "bench" / "drift"
PROJECT: Final = ("benchmarks", "shared", "simulator")
LIBRARIES: Final = ("numpy", "xgboost-cpu")

type Outcome = dict[str, float | int | None]
"""What one world came to."""


def sources(module: str) -> set[Path]:
    """The files of a module and of all modules of the project that it imports."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = _file(waiting.pop())
        if path is None or path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                waiting += [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    return found


def digest(module: str) -> str:
    """Of the code that a module's figures come from."""
    whole = hashlib.sha256(platform.python_version().encode())
    for name in LIBRARIES:
        whole.update(f"{name} {version(name)}\n".encode())
    for path in sorted(sources(module)):
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def outcomes(
    name: str, make: Callable[[int], Outcome], seeds: Sequence[int], pool: Executor, until_s: float
) -> dict[int, Outcome]:
    """What the worlds of some seeds came to, by seed, as far as there was time.

    Args:
        name: Of the figures; what was kept under it is taken.
        make: A function of a module of the benchmarks, or a partial of one.
        seeds: Which worlds.
        pool: Where to make those that were not kept.
        until_s: On the monotonic clock; no world is begun later.
    """
    inner = make.func if isinstance(make, partial) else make
    folder = KEPT / f"{name}-{digest(inner.__module__)}"
    folder.mkdir(parents=True, exist_ok=True)
    found = {seed: json.loads(path.read_bytes()) for seed in seeds if (path := folder / f"{seed}.json").exists()}
    print(f"{name}: {len(found)} of {len(seeds)} worlds kept in {folder.relative_to(ROOT)}", flush=True)
    missing = [seed for seed in seeds if seed not in found] if time.monotonic() < until_s else []
    waiting: dict[Future[Outcome], int] = {pool.submit(make, seed): seed for seed in missing}
    for done in as_completed(waiting):
        if done.cancelled():
            continue
        seed = waiting[done]
        found[seed] = done.result()
        part = folder / f"{seed}.part"
        part.write_text(json.dumps(found[seed]), encoding="utf-8")
        part.replace(folder / f"{seed}.json")
        print(f"{name}: seed {seed}, {len(found)} of {len(seeds)}: {found[seed]}", flush=True)
        if time.monotonic() > until_s:
            for other in waiting:
                other.cancel()
    return dict(sorted(found.items()))


def _file(module: str) -> Path | None:
    """The file of a module of the project; None of any other."""
    if module.split(".", maxsplit=1)[0] not in PROJECT:
        return None
    place = ROOT.joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
