"""Source trees to package, one shared build of a real app, and pins small enough to install in a moment."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from twin.packaging import Package, build
from twin.packaging.source import ROOT, bare_requirements

MINIMAL_APP = '''"""An app for the tests."""

import azure.functions as func

from shared.entrypoints import http_hello

app = func.FunctionApp()


@app.route(route="hello", auth_level=func.AuthLevel.ANONYMOUS)
def hello(req: func.HttpRequest) -> func.HttpResponse:
    """Greet."""
    return http_hello.hello(req)
'''
MINIMAL_ENTRYPOINT = '''"""One entry point."""

import azure.functions as func


def hello(req: func.HttpRequest) -> func.HttpResponse:
    """Greet."""
    return func.HttpResponse("hello " + req.params.get("name", "you"))
'''


@dataclass(frozen=True, slots=True)
class Tree:
    """A small source tree with one app called score."""

    root: Path

    def write(self, path: str, content: str | bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def pin(self, requirements: str) -> None:
        self.write("requirements/score.txt", requirements)
        self.write("functions/score/requirements.txt", requirements)

    def append(self, path: str, content: str) -> None:
        target = self.root / path
        target.write_text(target.read_text(encoding="utf-8") + content, encoding="utf-8")


def real_pins(*names: str) -> str:
    """The pins of some distributions, with their hashes, from the repository's lock."""
    text = bare_requirements((ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8"))
    entries = re.findall(r"^[A-Za-z0-9][^\n]*(?:\n    [^\n]*)*\n", text, re.MULTILINE)
    found = {entry.split("==")[0]: entry for entry in entries}
    return "".join(found[name] for name in names)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A tree of an app with the smallest pins that it can be imported with."""
    made = Tree(tmp_path / "tree")
    made.write("pyproject.toml", '[project]\nname = "tollgate"\nversion = "1.2.3"\n')
    made.write("shared/__init__.py", "")
    made.write("shared/py.typed", "")
    made.write("shared/entrypoints/__init__.py", "")
    made.write("shared/entrypoints/http_hello.py", MINIMAL_ENTRYPOINT)
    made.write("functions/score/function_app.py", MINIMAL_APP)
    for name in ("host.json", ".funcignore"):
        made.write(f"functions/score/{name}", (ROOT / "functions" / "score" / name).read_bytes())
    made.pin(real_pins("azure-functions", "werkzeug", "markupsafe"))
    return made


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers of this session: every set of pins is installed once."""
    return tmp_path_factory.mktemp("layers")


@pytest.fixture
def build_tree(tree: Tree, cache_dir: Path, tmp_path: Path) -> Callable[..., Package]:
    """Build the small tree's app into `tmp_path / "out"`."""

    def run(**options: object) -> Package:
        return build("score", tmp_path / "out", root=tree.root, **{"cache_dir": cache_dir, **options})  # type: ignore[arg-type]  # options are those of build

    return run


def copy_sources(app: str, target: Path) -> Path:
    """A copy of what the package of a real app is made of, with other modification times."""
    # Hosts of other tests write bytecode meanwhile, by way of files that are gone a moment later.
    without_bytecode = shutil.ignore_patterns("__pycache__")
    for folder in (Path("functions") / app, Path("shared")):
        shutil.copytree(ROOT / folder, target / folder, ignore=without_bytecode)
    (target / "requirements").mkdir()
    shutil.copyfile(ROOT / "requirements" / f"{app}.txt", target / "requirements" / f"{app}.txt")
    shutil.copyfile(ROOT / "pyproject.toml", target / "pyproject.toml")
    moment = time.time() - 1_000_000
    for path in target.rglob("*"):
        os.utime(path, (moment, moment))
    return target


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state of the real sources of the ingest app, whatever is edited meanwhile."""
    return copy_sources("ingest", tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def package(sources: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The package of the real ingest app: it has HTTP, an event hub and native modules."""
    return build("ingest", tmp_path_factory.mktemp("packages"), root=sources, cache_dir=cache_dir)
