"""requirements.txt of an app: the locked pins, hashed, and nothing that only works on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from twin.packaging.checks.problem import Problem
from twin.packaging.policy import normalised

# Python 3.13 apps bring the worker's runtime library, so that the cloud runs the one the twin drives
# (https://learn.microsoft.com/azure/azure-functions/python-313-changes).
_PINNED: Final = ("azure-functions", "azure-functions-runtime")
_WORKER: Final = "azure-functions-worker"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PIN: Final = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?\s*===?\s*[A-Za-z0-9]")
_LOCAL: Final = re.compile(r"^(-e\b|--editable\b|\.{1,2}/|/|file:|git\+|[a-z]+://)|\s@\s")
_INDEX: Final = re.compile(r"^(-i\b|--index-url|--extra-index-url|-f\b|--find-links|--trusted-host)")


def check_requirements(path: Path, locked: Path) -> list[Problem]:
    """Compare an app's requirements with the locked ones, and judge each line."""
    try:
        content, expected = path.read_text(encoding="utf-8"), locked.read_text(encoding="utf-8")
    except OSError as error:
        return [Problem(path, "requirements", f"cannot be read: {error}")]
    problems = list(_check_lines(path, content))
    if content != expected:
        problems.append(Problem(path, "requirements-locked", f"differs from requirements/{locked.name}; run make lock"))
    pins = {normalised(found["name"]) for _, line in _entries(content) if (found := _PIN.match(line))}
    missing = (name for name in _PINNED if name not in pins)
    return problems + [Problem(path, "runtime-pinned", f"{name} must be pinned with ==") for name in missing]


def _check_lines(path: Path, content: str) -> Iterator[Problem]:
    for number, line in _entries(content):
        if _INDEX.match(line):
            yield Problem(path, "index", "index addresses belong to the machine, not into the file", number)
        elif _LOCAL.search(line):
            yield Problem(
                path, "local-requirement", "the cloud gets the app's folder only: nothing by path or URL", number
            )
        elif not _PIN.match(line):
            yield Problem(path, "pinned", f"{line.split()[0]} is not pinned with ==", number)
        elif "--hash=" not in line:
            yield Problem(path, "hashed", f"{line.split()[0]} has no hash", number)
        name = _NAME.match(line)
        if name is not None and normalised(name.group()) == _WORKER:
            yield Problem(path, "no-worker", f"{_WORKER} belongs to the platform; a copy breaks it", number)


def _entries(content: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their first line; comments and blank lines left out."""
    start, parts = 0, list[str]()
    for number, raw in enumerate(content.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        start = start if parts else number
        parts.append(line.removesuffix("\\").strip())
        if not line.endswith("\\"):
            yield start, " ".join(parts)
            parts = []
    if parts:
        yield start, " ".join(parts)
