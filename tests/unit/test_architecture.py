"""The import contracts hold, and each of them fails on a planted violation."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# (contract, file that gets a line, the line)
PLANTED = [
    ("shared is layered", "shared/domain/probe.py", "import shared.services.probing"),
    ("shared is layered", "shared/entrypoints/http_probes.py", "import shared.adapters.blob_probes"),
    ("shared is layered", "shared/unplaced.py", "VALUE = 1"),
    ("the domain is pure", "shared/domain/event.py", "import time"),
    ("the domain is pure", "shared/domain/event.py", "import pydantic"),
    ("only adapters and entrypoints know a vendor", "shared/services/probing.py", "import azure.storage.blob"),
    ("function apps are thin", "functions/score/function_app.py", "import shared.services.probing"),
    (
        "function apps do not know one another",
        "functions/score/function_app.py",
        "import functions.ingest.function_app",
    ),
    ("the product does not know the twin", "shared/adapters/system_clock.py", "import twin.cli"),
    ("the product does not know the simulator", "shared/services/probing.py", "import simulator.chance"),
    ("of the product the simulator knows the domain", "simulator/chance.py", "import shared.services.probing"),
    ("the broker stands alone", "twin/broker/__init__.py", "import shared.domain.event"),
    ("the host stands alone", "twin/host/__init__.py", "import twin.broker"),
    ("the twin's parts are layered", "twin/identity/__init__.py", "import twin.services.settings"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    # -S, because the editable install would put the checkout's own `functions` beside the copy's
    libraries = sysconfig.get_path("purelib")
    code = (
        f"import sys; sys.path.append({libraries!r}); import importlinter.cli; importlinter.cli.lint_imports_command()"
    )
    return subprocess.run(
        [sys.executable, "-S", "-c", code, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product's Python files, to plant violations in."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("shared", "functions", "twin", "simulator", "infra"):
        only_python = shutil.ignore_patterns("node", "__pycache__", "node_modules", ".python_packages")
        shutil.copytree(ROOT / name, folder / name, ignore=only_python)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_all_contracts_hold(tree: Path) -> None:
    result = lint(tree)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(("contract", "file", "line"), PLANTED)
def test_a_planted_violation_is_caught(tree: Path, contract: str, file: str, line: str) -> None:
    path = tree / file
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n", encoding="utf-8")
    try:
        result = lint(tree)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before, encoding="utf-8")
    assert result.returncode != 0
    output = result.stdout + result.stderr
    assert f"{contract} BROKEN" in output or "unplaced" in output, output
